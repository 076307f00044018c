"""SQLite files of a node, read without changing a byte of the directory.

A file that was closed cleanly is opened as immutable. One whose node was killed has a write-ahead log that belongs to
it; SQLite then needs an index of that log in shared memory, which is removed again if it was not there before.

Source: https://www.sqlite.org/wal.html, "Read-Only Databases"; https://www.sqlite.org/uri.html.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

MESSAGES_MAX = 20


@contextmanager
def reading(path: Path, *, is_live: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a file for reading.

    Args:
        path: the file.
        is_live: a process has it open; then its shared memory is used and left alone.

    Raises:
        FileNotFoundError: there is none.
        sqlite3.Error: it cannot be opened.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    log, index = path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
    has_log, had_index = log.exists() and log.stat().st_size > 0, index.exists()
    uri = f"file:{quote(str(path.absolute()))}?{'mode=ro' if has_log or is_live else 'immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            yield connection
    finally:
        if not had_index and not is_live:
            index.unlink(missing_ok=True)


def faults(connection: sqlite3.Connection, *, schema: str, version: int) -> list[str]:
    """What is wrong with a file as a database: pages, indexes, constraints, tables, version.

    Args:
        connection: of the file.
        schema: the statements that make its tables.
        version: of the tables.
    """
    found = [row[0] for row in connection.execute(f"PRAGMA integrity_check({MESSAGES_MAX})") if row[0] != "ok"]
    (found_version,) = connection.execute("PRAGMA user_version").fetchone()
    if found_version != version:
        return [*found, f"tables of version {found_version}; this program reads version {version}"]
    with closing(sqlite3.connect(":memory:")) as model:
        model.executescript(schema)
        if _tables(connection) != _tables(model):
            found.append("other tables than this program makes")
    return found


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    return {(name, " ".join(sql.split())) for name, sql in connection.execute(query)}
