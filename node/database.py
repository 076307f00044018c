"""How the node opens its SQLite files: write-ahead log, and an fsync before a commit returns.

Source: https://www.sqlite.org/pragma.html#pragma_synchronous. In WAL mode synchronous=NORMAL may lose committed
transactions on power loss; a lost row of the signer would let a node sign two trees.
"""

import sqlite3
from pathlib import Path

from node.durable import sync_directory

BUSY_TIMEOUT_S = 10.0


def open_database(path: Path, *, schema: str, version: int, create: bool) -> sqlite3.Connection:
    """Open a file, with explicit transactions and shared between threads by the caller's own lock.

    Args:
        path: the file.
        schema: statements that make the tables of a new file.
        version: of the tables, kept in user_version.
        create: make a new file; otherwise it must exist.

    Raises:
        FileNotFoundError, FileExistsError: the file is missing, or is there already.
        sqlite3.DatabaseError: not SQLite, damaged, or of another version.
    """
    if path.exists() == create:
        raise FileExistsError(path) if create else FileNotFoundError(path)
    if create:
        _create(path, f"BEGIN; {schema} PRAGMA user_version = {version}; COMMIT;")
    connection = connect(path)
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found != version:
            raise sqlite3.DatabaseError(f"tables of version {found}; this program reads version {version}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create(path: Path, script: str) -> None:
    """Make the tables under a temporary name first: a file without them never exists."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    connection = connect(temporary)
    try:
        connection.executescript(script)
    finally:
        connection.close()  # the last connection, so the write-ahead log goes into the file
    temporary.rename(path)
    sync_directory(path.parent)


def connect(path: Path) -> sqlite3.Connection:
    """One more connection to a file."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
