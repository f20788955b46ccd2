"""What is found out about one job beside its values: errors with their place, and where each leaf comes from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from espalier.core.errors import InputError
from espalier.core.model import JobError
from espalier.source.compose import Composed
from espalier.source.resolve import Fault
from espalier.source.schema import Path


@dataclass
class Notes:
    """Notes on one job, whose own file is ``file``; reading goes on after an error."""

    job: str
    composed: Composed
    file: str = ""
    errors: list[JobError] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)

    def report(self, message: str, hint: str, path: Path) -> None:
        """Note what is wrong with the node at ``path``."""
        file, line = self.composed.place(path)
        error = JobError(self.job, message, hint, file or self.file, line if file else 1)
        if error not in self.errors:
            self.errors.append(error)

    @contextmanager
    def noting(self, path: Path) -> Iterator[None]:
        """Note an InputError as being of ``path``, or of the node that it names."""
        try:
            yield
        except Fault as fault:
            self.report(fault.message, fault.hint, fault.path)
        except InputError as error:
            self.report(error.message, error.hint, path)

    def trace(self, name: str, path: Path) -> None:
        """Note that the spec's leaf ``name`` comes from the node at ``path``."""
        file, line = self.composed.place(path)
        if file and line:
            self.origins[name] = f"{file}:{line}"
