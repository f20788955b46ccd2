"""What can go wrong, by what the caller can do about it. Never prints and never exits."""


class EspalierError(Exception):
    """A failure that a person can act on: where, what and why (``message``), what to do (``hint``)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str, file: str = "", line: int | None = None) -> None:
        at = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(f"error: {at}{message}\n  hint: {hint}")
        self.message = message
        self.hint = hint
        self.file = file
        self.line = line


class InputError(EspalierError):
    """The files, the options or the names are wrong: change them."""


class StaleError(EspalierError):
    """Somebody else moved a record that this was decided on: plan again."""


class UnavailableError(EspalierError):
    """A place could not be reached: the same call may work later."""


class RejectedError(EspalierError):
    """A definite refusal: no repetition mends it."""
