"""What can go wrong on the owner's side, and the exit code of every error (DESIGN 8).

::

    ClientError            .code as in registry.errors, .exit_code
    ├── InvalidError   1   a file or an answer that says no
    ├── InputError     2   a path or an option that cannot be used
    └── PendingError   4   nothing is wrong; there is no verdict yet

Errors of the rules keep their classes; `exit_code_of` maps them.
"""

from registry.errors import ConsistencyError, QuorumError, RegistryError, UntrustedError

DONE, INVALID, USAGE, UNTRUSTED, UNAVAILABLE, INCONSISTENT = 0, 1, 2, 3, 4, 5


class ClientError(Exception):
    """Base of the client's own errors."""

    code = "invalid"
    exit_code = INVALID

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class InvalidError(ClientError):
    """A file or an answer that does not hold."""


class InputError(ClientError):
    """A path or an option that cannot be used."""

    code = "usage"
    exit_code = USAGE


class PendingError(ClientError):
    """There is no verdict yet."""

    code = "open"
    exit_code = UNAVAILABLE


def exit_code_of(error: ClientError | RegistryError | OSError) -> int:
    """The exit code that an error ends the command with."""
    if isinstance(error, ClientError):
        return error.exit_code
    if isinstance(error, OSError):
        return USAGE
    if isinstance(error, ConsistencyError):
        return INCONSISTENT
    if isinstance(error, UntrustedError):
        return UNTRUSTED
    return UNAVAILABLE if isinstance(error, QuorumError) else INVALID


def describe(error: ClientError | RegistryError | OSError) -> tuple[str, str]:
    """The stable code and the one-line message of an error; for files the path comes first."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return "file", f"{where}{error.strerror or error}"
    return error.code, " ".join(str(error).split())
