"""Checkpoints that a quorum cosigned, by size: gathered once, kept so that receipts outlive the nodes that signed.

The file holds nothing that cannot be gathered again from the nodes, so it is made when it is missing.
"""

import sqlite3
import threading
from functools import lru_cache
from pathlib import Path

from node.database import connect, open_database
from node.reach import unusable
from registry.note import Note

VERSION = 1
NOTES_PARSED = 64  # of those that many receipts are asked for
SCHEMA = "CREATE TABLE notes (size INTEGER PRIMARY KEY, note TEXT NOT NULL);"


class NoteCache:
    """Notes by size.

    Raises:
        ConfigError: the file system does not give the file.
        InconsistentStateError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._writing, self._reading = threading.Lock(), threading.Lock()  # reading waits for no fsync
        self._parse = lru_cache(maxsize=NOTES_PARSED)(Note.parse)
        self._latest_size_of: dict[str, int] = {}  # by cosigner; to find the first takes a look at every note
        try:
            self._connection = open_database(path, schema=SCHEMA, version=VERSION, create=not path.exists())
            self._connection.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is gathered again
            self._reader = connect(path)
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, error, remedy="it may be deleted, it is gathered again") from error

    def close(self) -> None:
        """Close the file."""
        with self._writing, self._reading:
            self._connection.close()
            self._reader.close()

    def get(self, size: int) -> Note | None:
        """The note for this size, if it was gathered."""
        return self._read("SELECT note FROM notes WHERE size = ?", (size,))

    def covering(self, size: int) -> Note | None:
        """The note for the smallest size that was gathered and is not below this one."""
        return self._read("SELECT note FROM notes WHERE size >= ? ORDER BY size LIMIT 1", (size,))

    def latest(self) -> Note | None:
        """The note for the largest size that was gathered."""
        return self._read("SELECT note FROM notes ORDER BY size DESC LIMIT 1", ())

    def latest_signed_by(self, cosigner: str) -> Note | None:
        """The note for the largest size that bears a line of this cosigner, who is, or was, a member."""
        with self._writing:
            if cosigner not in self._latest_size_of:
                query = "SELECT max(size) FROM notes WHERE instr(note, ?) > 0"
                (size,) = self._connection.execute(query, (f"\n— {cosigner} ",)).fetchone()
                self._latest_size_of[cosigner] = size or 0
            latest_size = self._latest_size_of[cosigner]
        return self.get(latest_size)

    def put(self, size: int, note: Note) -> None:
        """Keep a note, instead of the one for this size."""
        with self._writing:
            self._connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (size, str(note)))
            self._note_signers(size, {line.name for line in note.signatures})

    def _note_signers(self, size: int, names: set[str]) -> None:
        for name, latest_size in list(self._latest_size_of.items()):
            if name in names:
                self._latest_size_of[name] = max(size, latest_size)
            elif latest_size == size:  # the note that bore its line was replaced
                del self._latest_size_of[name]

    def _read(self, query: str, parameters: tuple[int | str, ...]) -> Note | None:
        with self._reading:
            row = self._reader.execute(query, parameters).fetchone()
        return self._parse(row[0]) if row else None
