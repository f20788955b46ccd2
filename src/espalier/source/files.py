"""What a spec names of the commit: code and data, by git id. Never reads the content of a file that is no link."""

from espalier.core.errors import InputError
from espalier.source.git import Entry, Objects
from espalier.source.pathspec import Selector


class Files:
    """Answers for one commit, each question once. Close it, or use it in a ``with``."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._selector = Selector(objects)
        self._code: dict[tuple[str, ...], tuple[dict[str, str], list[tuple[int | None, InputError]]]] = {}
        self._ids: dict[str, str] = {}

    def close(self) -> None:
        """Remove what was temporary."""
        self._selector.close()

    def code(self, pathspecs: tuple[str, ...]) -> tuple[dict[str, str], list[tuple[int | None, InputError]]]:
        """Return path → id of what is selected, and what is wrong with the pathspec at an index, or with all."""
        if pathspecs not in self._code:
            self._code[pathspecs] = self._selected(pathspecs)
        return self._code[pathspecs]

    def data_path(self, path: str) -> str:
        """Return ``path`` as git writes it; InputError when it leads out of the repository."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or ".." in parts:
            raise InputError(
                f"the data path {path!r} leads out of the repository", hint="use `uri: file:…` for untracked files"
            )
        return "/".join(parts)

    def data_id(self, path: str) -> str:
        """Return the id of the blob or tree at ``path``; InputError when there is none that a trial can have."""
        name = self.data_path(path)
        if name not in self._ids:
            entry = self._objects.entries.get(name)
            if entry is None:
                raise InputError(
                    f"the commit has no {path!r}",
                    hint="commit it, or use `uri: file:…` for what stays untracked",
                )
            if entry.mode == "120000":
                raise InputError(f"{path!r} is a link", hint="name what it leads to")
            for inner, below in self._objects.below(name):
                self._check(inner, below)
            self._ids[name] = entry.id
        return self._ids[name]

    def _selected(self, pathspecs: tuple[str, ...]) -> tuple[dict[str, str], list[tuple[int | None, InputError]]]:
        faults: list[tuple[int | None, InputError]] = []
        good = []
        for index, pathspec in enumerate(pathspecs):
            try:
                _, idle = self._selector.select([pathspec])
            except InputError as error:
                faults.append((index, error))
                continue
            good.append(pathspec)
            if idle:
                hint = "name what is committed (git ls-files lists it); commit new files first"
                faults.append((index, InputError(f"code: {pathspec!r} selects no file of the commit", hint=hint)))
        chosen, _ = self._selector.select(good)
        if good and not chosen and not faults:
            faults.append((None, InputError("code selects no file", hint="exclude less, or write `code: []`")))
        found = {}
        for path in sorted(chosen):
            entry = self._objects.entries[path]
            try:
                self._check(path, entry)
            except InputError as error:
                faults.append((None, error))
            found[path] = entry.id if entry.mode == "100644" else f"{entry.id} {entry.mode}"
        return found, faults

    def _check(self, path: str, entry: Entry) -> None:
        if entry.mode == "160000":
            raise InputError(f"{path!r} is a submodule, which a trial does not get", hint="exclude it, or copy it in")
        if entry.mode == "120000" and self._objects.real(path) is None:
            raise InputError(f"{path!r} is a link that leads out of the repository", hint="exclude or replace it")
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"{path!r} is not UTF-8", hint="rename it") from None
