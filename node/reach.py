"""Whether a node can get at its state at all, before anything is said of what is in it.

A wrong path, a volume that is not mounted and one that is read-only are the operator's to mend, exit 2; only what was
read and does not hold is damage, exit 5. Nothing is made anew in its place.
"""

import sqlite3
from pathlib import Path

from node.errors import ConfigError, InconsistentStateError, NodeError

REMEDY = (
    "`state_directory` in node.toml may be wrong, or its volume not mounted, read-only or broken; nothing was changed"
)
_PRIMARY_CODE = 0xFF  # https://www.sqlite.org/rescode.html: the rest says more of it
_OUT_OF_REACH = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_DAMAGED_CODES = frozenset({sqlite3.SQLITE_IOERR_CORRUPTFS, sqlite3.SQLITE_IOERR_DATA})


def out_of_reach(path: Path, error: OSError | sqlite3.Error) -> ConfigError:
    """What to tell of a file or directory that the file system does not give."""
    return ConfigError(f"{path}: {_why(error)}; {REMEDY}")


def is_out_of_reach(error: BaseException) -> bool:
    """Whether the file system is why a file cannot be used, and nothing is known of what is in it."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code not in _DAMAGED_CODES and code & _PRIMARY_CODE in _OUT_OF_REACH
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def unusable(path: Path, error: OSError | sqlite3.Error | TypeError, *, remedy: str) -> NodeError:
    """What to raise for a file of the state that cannot be opened.

    Args:
        path: the file.
        error: why; a TypeError of a row that is not there or holds something else.
        remedy: of damage.
    """
    if not isinstance(error, TypeError) and is_out_of_reach(error):
        return out_of_reach(path, error)
    return InconsistentStateError(f"{path}: {_why(error)}; {remedy}")


def _why(error: OSError | sqlite3.Error | TypeError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "a row is missing, or holds something else" if isinstance(error, TypeError) else str(error)
