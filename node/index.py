"""An index of the log by every hash and signer, for searches (DESIGN 5).

It is a file of its own beside the ledger's and holds nothing that does not follow from the entries, so it needs neither
an fsync for each entry nor a migration: one of another version, of another log or a damaged one is removed and made
anew. It follows the ledger a little behind; a search has it catch up.

A row is a number of 64 bits and a place in the log. The number is a hash of the value under a salt of this file, so
that the rows are short, and nobody can choose values that share one. What has a number is looked at in the ledger
before it is found: numbers may coincide.
"""

import asyncio
import hashlib
import logging
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from node.database import connect, open_database
from node.logs import fields
from node.reach import unusable
from node.rising import RisingCount
from node.store import Store
from registry.terms import SIGNER, terms_of

VERSION = 2
BATCH_ENTRIES = 1024
IDLE_S = 3600.0
# How long entries may come together while nobody searches: each commit writes pages all over the file, and entries that
# share them cost half as much.
GATHERING_S = 1.0
TROUBLE_AGAIN_S = 10.0
_SCHEMA = """
    CREATE TABLE terms (number INTEGER, position INTEGER, PRIMARY KEY (number, position)) WITHOUT ROWID;
    CREATE TABLE covered (size INTEGER NOT NULL, root BLOB NOT NULL, salt BLOB NOT NULL);
    INSERT INTO covered VALUES (0, x'', randomblob(32));
"""
_FIND = "SELECT position FROM terms WHERE number = ? AND position >= ? ORDER BY position LIMIT ?"
_NUMBER_BYTES, _SALT_BYTES = 8, 32  # a number is an integer of SQLite's

logger = logging.getLogger(__name__)


class Index:
    """Where each hash and signer stands in the log.

    Args:
        path: the SQLite file; made when it is missing, and again when it does not fit.
        store: the ledger.

    Raises:
        ConfigError: the file system does not let it be made.
        InconsistentStateError: it cannot be made for another reason.

    Attributes:
        indexed: entries that can be found; of the event loop.
        trouble: why indexing fails for the moment; None while it does not.
    """

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._wanted = asyncio.Event()
        try:
            self._open()
        except sqlite3.Error as error:
            logger.info("the search index is made anew", extra=fields(why=str(error)))
            self._make_anew()
        self.trouble: str | None = None

    def close(self) -> None:
        """Close the file, after a batch that is being written."""
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    async def run(self, applied: RisingCount) -> None:
        """Follow the ledger until cancelled.

        Args:
            applied: entries that are durable in it.
        """
        while True:
            try:
                while self.indexed.value < self._store.size:
                    self.indexed.raise_to(await asyncio.to_thread(self.add_batch))
                self.trouble = None
                self._wanted.clear()
                if await applied.wait_for(self.indexed.value + 1, IDLE_S):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(GATHERING_S):
                            await self._wanted.wait()
            except sqlite3.Error as error:
                self.trouble = repr(error)
                logger.exception("the search index cannot be written, and is tried again")
                await asyncio.sleep(TROUBLE_AGAIN_S)

    async def reach(self, size: int, timeout_s: float) -> bool:
        """Have so many of the ledger's entries indexed at once; False if that is not done in time."""
        if self.indexed.value < size:
            self._wanted.set()
        return await self.indexed.wait_for(size, timeout_s)

    def add_batch(self) -> int:
        """Index the next entries, a limited number of them; return how many are indexed in all. Blocks."""
        with self._writing:
            start = int(self._writer.execute("SELECT size FROM covered").fetchone()[0])
            entries = self._store.entries(start, start + BATCH_ENTRIES)
            messages = self._store.placed_between(start, start + len(entries))
            rows = {
                (self._number(term.value, is_signer=term.role == SIGNER), placed.index)
                for entry, placed in zip(entries, messages, strict=True)
                for term in terms_of(entry, placed.signed)
            }
            stop = start + len(entries)
            self._writer.execute("BEGIN")
            try:
                self._writer.executemany("INSERT INTO terms VALUES (?, ?)", sorted(rows))
                self._writer.execute("UPDATE covered SET size = ?, root = ?", (stop, self._store.root(stop)))
                self._writer.execute("COMMIT")
            finally:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            return stop

    def find(self, value: bytes, *, is_signer: bool, start: int, limit: int) -> list[tuple[int, list[str]]]:
        """Entries that bear a value, and as what.

        Args:
            value: 32 bytes.
            is_signer: whether to find what this key signed, or everything else that bears the value.
            start: the first index to look at.
            limit: how many to return at most, in the order of the log.
        """
        number = self._number(value, is_signer=is_signer)
        found: list[tuple[int, list[str]]] = []
        while len(found) < limit:
            with self._reading:
                rows = self._reader.execute(_FIND, (number, start, limit)).fetchall()
            found += [(index, roles) for (index,) in rows if (roles := self._roles(index, value, is_signer=is_signer))]
            if len(rows) < limit:
                break
            start = rows[-1][0] + 1
        return found[:limit]

    def _number(self, value: bytes, *, is_signer: bool) -> int:
        """What a value has in this file; as a signer's key another one than as anything else."""
        salted = (self._signers if is_signer else self._others).copy()
        salted.update(value)
        return int.from_bytes(salted.digest(), signed=True)

    def _roles(self, index: int, value: bytes, *, is_signer: bool) -> list[str]:
        """As what an entry bears a value; nothing if it only shares its number."""
        entry = self._store.entry(index)
        terms = terms_of(entry, self._store.placed(entry).signed)
        return sorted(term.role for term in terms if term.value == value and (term.role == SIGNER) == is_signer)

    def _open(self) -> None:
        """Open both connections; raises sqlite3.Error if the file is of no use."""
        self._writer = open_database(self._path, schema=_SCHEMA, version=VERSION, create=not self._path.exists())
        try:
            self._writer.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is indexed again
            size, root, salt = self._writer.execute("SELECT size, root, salt FROM covered").fetchone()
            if len(salt) != _SALT_BYTES or size > self._store.size or (size and self._store.root(size) != root):
                raise sqlite3.DatabaseError("an index of another log")
            self._signers = hashlib.blake2b(digest_size=_NUMBER_BYTES, key=salt, person=b"signer")
            self._others = hashlib.blake2b(digest_size=_NUMBER_BYTES, key=salt, person=b"hash")
            self._writer.execute("SELECT number, position FROM terms LIMIT 1").fetchone()
            self._reader = connect(self._path)
        except (sqlite3.Error, TypeError) as error:
            self._writer.close()
            raise sqlite3.DatabaseError(str(error)) from error
        self.indexed = RisingCount(size)

    def _make_anew(self) -> None:
        try:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise unusable(self._path, error, remedy="it may be deleted, it is made anew") from error
