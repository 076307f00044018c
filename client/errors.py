"""What can go wrong on the owner's side, and the exit code of every error (DESIGN 8).

::

    ClientError            .code as in registry.errors, .exit_code
    ├── InvalidError   1   a file or an answer that says no
    ├── InputError     2   a path or an option that cannot be used
    │   └── NotInstalledError  what it takes comes with an extra of the package (client.extras)
    ├── HookError      4   a webhook or a mailbox has not taken an event yet (client.watch.delivery)
    ├── PendingError   4   nothing is wrong; there is no verdict yet. Its .state says how the claim stands
    └── UnfinishedError 70 it is done in the ledger, but could not be finished on this machine

Errors of the rules keep their classes; `exit_code_of` maps them. What was found out while an error travelled up, such
as the hash under which a message may be recorded all the same, is added to it as a note and told with it.
"""

import errno
from typing import TYPE_CHECKING

from client.output import printable
from registry.errors import ConsistencyError, QuorumError, RegistryError, UntrustedError

if TYPE_CHECKING:
    from client.claim_state import ClaimState

DONE, INVALID, USAGE, UNTRUSTED, UNAVAILABLE, INCONSISTENT = 0, 1, 2, 3, 4, 5
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO}  # no other path or option would help
INTERNAL = 70  # EX_SOFTWARE of sysexits.h: neither the user's mistake nor anybody's refusal


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
    """There is no verdict yet, or none that a quorum of the nodes tells alike; it can be waited for again.

    Attributes:
        state: how the claim stands.
    """

    code = "open"
    exit_code = UNAVAILABLE

    def __init__(self, message: str, *, state: "ClaimState", code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.state = state


class UnfinishedError(ClientError):
    """The ledger has it, but what remained to be done on this machine failed."""

    code = "unfinished"
    exit_code = INTERNAL


def exit_code_of(error: ClientError | RegistryError | OSError) -> int:
    """The exit code that an error ends the command with."""
    if isinstance(error, ClientError):
        return error.exit_code
    if isinstance(error, OSError):
        return INTERNAL if error.errno in _DISK_ERRORS else USAGE
    if isinstance(error, ConsistencyError):
        return INCONSISTENT
    if isinstance(error, UntrustedError):
        return UNTRUSTED
    return UNAVAILABLE if isinstance(error, QuorumError) else INVALID


def describe(error: ClientError | RegistryError | OSError) -> tuple[str, str]:
    """The stable code and the one-line message of an error, notes included; for files the path comes first."""
    code, message = error.code if not isinstance(error, OSError) else "file", str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror or error}"
    notes = getattr(error, "__notes__", [])
    return printable(code), printable("; ".join(" ".join(text.split()) for text in (message, *notes)))
