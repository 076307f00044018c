"""The node's own signed checkpoints, each only if it continues the one before (DESIGN 4.4).

They are kept in a file apart from the ledger's, so that a restored or damaged ledger cannot make the node sign a second
history: what was signed is compared with what is to be signed, inside one transaction (compare and swap). The first
disagreement stops the signer for good; a person has to look.

Each row holds two signature lines on the checkpoint's text: the log's, under the origin, and the cosignature with this
node's clock. A cosignature says that at its time this was the largest tree the node knew, so the times never go back.

Entries that became durable together get one row, for the tree that has them all. The sizes between two rows are not
skipped: the node grew through each of them, in this order, at the later row's time, and it says so when it is asked. A
size in between is signed on demand, and only if the tree of the row behind it provably continues it, with that row's
time. So what the node will say of every size is settled when the row is durable: the root, because it is the signed
tree's own past; the time, because it stands in the row; even the bytes, because Ed25519 draws no numbers. Signing late
allows no second history and moves no time, and an auditor has as many checkpoints as if each were stored.

A member's keys for checkpoints may be changed, and a reader who trusts the members of today knows the new ones alone.
So every size gets their signatures too, with the time that stands in the row: what the new keys say is what the node
has said before, by keys that may have been given up because they leaked. The time of signing would do harm: it differs
from one size to the next as they are asked for, and an honest entry would seem to have come long after its time. The
lines of the former keys stay, for readers who know these.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from node.database import connect, open_database
from node.errors import InconsistentStateError
from node.identity import Identity
from node.reach import unusable
from registry import merkle
from registry.checkpoint import Checkpoint
from registry.errors import ConsistencyError, RegistryError
from registry.note import (
    TIMESTAMP_BYTES,
    Cosigner,
    LogSigner,
    Note,
    SignatureLine,
    VerifierKey,
    verify_signatures,
)

VERSION = 2
SCHEMA = """
    CREATE TABLE checkpoints (
        size INTEGER PRIMARY KEY, root BLOB NOT NULL, time_s INTEGER NOT NULL,
        log_line TEXT NOT NULL, cosignature_line TEXT NOT NULL,
        previous INTEGER NOT NULL  -- size of the row before, 0 for the first: a row that is taken out is missed
    );
"""
GROUP_MAX = 1024  # sizes from one row to the next; the hashes of so many are read for one signature
NOTES_KEPT = 1024  # of sizes between two rows; about 1 kB each
_COLUMNS = "size, root, time_s, log_line, cosignature_line"
_COVERING = f"SELECT {_COLUMNS} FROM checkpoints WHERE size >= ? ORDER BY size LIMIT 1"  # noqa: S608 -- a constant
_REACHED = f"SELECT {_COLUMNS} FROM checkpoints WHERE size <= ? ORDER BY size DESC LIMIT 1"  # noqa: S608 -- likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerName:
    """Under which names the node signs: the log's, and its own."""

    origin: str
    member: str

    @property
    def cosigner(self) -> str:
        """The name of the node's cosigner key."""
        return f"{self.origin}/{self.member}"


class _Row(NamedTuple):
    """One signed checkpoint as it is stored; a damaged file may hold anything in it."""

    size: int
    root: bytes
    time_s: int
    log_line: str
    cosignature_line: str

    def note(self, origin: str) -> Note:
        text = str(Checkpoint(origin=origin, size=self.size, root=self.root))
        return Note(text, (SignatureLine.parse(self.log_line), SignatureLine.parse(self.cosignature_line)))

    @property
    def is_dated(self) -> bool:
        """Whether the stored time is the one that was signed."""
        return self.time_s == int.from_bytes(
            SignatureLine.parse(self.cosignature_line).payload[:TIMESTAMP_BYTES], "big"
        )


class SigningError(InconsistentStateError):
    """The tree to sign does not continue the tree that was signed."""


class Signer:
    """Signs the tree as it grows.

    Args:
        path: the SQLite file, made by `create`.
        name: the names to sign under.
        identity: the node's keys.
        clock: POSIX seconds.

    Raises:
        ConfigError: the file system does not give the file.
        InconsistentStateError: it is missing or damaged.
    """

    def __init__(self, path: Path, *, name: SignerName, identity: Identity, clock: Callable[[], float]) -> None:
        self._path, self._name, self._clock = path, name, clock
        self._log, self._cosigner = LogSigner(name.origin, identity.note), Cosigner(name.cosigner, identity.cosigner)
        self._lock, self._reading = threading.Lock(), threading.Lock()  # reading waits for no fsync
        self._signed = lru_cache(maxsize=NOTES_KEPT)(self._sign)  # what one node asks for the others ask for too
        self.alarm: str | None = None
        try:
            self._connection = open_database(path, schema=SCHEMA, version=VERSION, create=False)
            self._reader = connect(path)
            self._size = self._last()[0]
        except (OSError, sqlite3.Error) as error:
            remedy = (
                "it must not be made anew while this node's keys are in use, or the node could "
                "sign a second history: put back the file as it was at the node's last stop, or let the node come back "
                "as a new member (`wmreg node restore`)"
            )
            raise unusable(path, error, remedy=remedy) from error

    @classmethod
    def create(cls, path: Path) -> None:
        """Make the file of a node that has signed nothing.

        Raises:
            FileExistsError: the file is there already.
        """
        open_database(path, schema=SCHEMA, version=VERSION, create=True).close()

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._reading:
            self._connection.close()
            self._reader.close()

    @property
    def size(self) -> int:
        """Largest size signed; 0 before the first."""
        return self._size

    @property
    def keys(self) -> frozenset[VerifierKey]:
        """What checks the signatures that this node makes now."""
        return frozenset((self._log.key, self._cosigner.key))

    def sign_up_to(self, size: int, read_node: merkle.ReadNode) -> None:
        """Sign the tree of `size` entries, and by it those from the last signed one on; several in large steps.

        A tree smaller than the last signed one is left alone: the node is catching up.

        Args:
            size: entries that the ledger has made durable.
            read_node: reads the ledger's stored hashes.

        Raises:
            SigningError: the tree does not continue the last signed one; also on every later call.
        """
        while self._size < size or self.alarm:
            self._sign_group(min(size, self._size + GROUP_MAX), read_node)

    def check(
        self, size: int, read_node: merkle.ReadNode, *, former_keys: frozenset[VerifierKey] = frozenset()
    ) -> None:
        """Check that the last signatures are this node's, and that the ledger has the tree that they are on.

        A ledger that does not reach that far is compared at the last signed size that it has.

        Args:
            size: entries of the ledger.
            read_node: reads its stored hashes.
            former_keys: that this node had before the ones it has now.

        Raises:
            SigningError: another tree, or signatures of other keys.
        """
        with self._lock:
            last_size = self._last()[0]
        for bound in {last_size, min(size, last_size)}:
            row = self._sound_row(bound, former_keys)
            if row is not None and row.size <= size and row.root != merkle.root_at(row.size, read_node):
                raise self._alarm(f"the ledger's tree of size {row.size} is not the one this node signed")

    def note(self, size: int, *, stored_size: int, read_node: merkle.ReadNode) -> Note | None:
        """This node's own note for a size: the log's signature and the cosignature, which are its last two lines.

        Args:
            size: of the checkpoint.
            stored_size: entries that the ledger has made durable.
            read_node: reads its stored hashes.

        Returns:
            None if the size is not signed, or between signed ones beyond what is stored. Also, with an alarm, for one
            in between of a ledger whose tree is no beginning of the one that was signed.
        """
        row = self._row(_COVERING, size) if size > 0 else None
        if row is None:
            return None
        kept = row.note(self._name.origin) if row.size == size else None
        if row.size > stored_size or self.alarm or (kept is not None and self._is_of_present_keys(kept)):
            return kept
        signed = self._sign_late(size, row, read_node)
        return _joined(kept, signed) if kept and signed else kept or signed

    def _sign_late(self, size: int, row: _Row, read_node: merkle.ReadNode) -> Note | None:
        """Sign a size with the keys of now, for which a row answers: its own, or that of the next larger one."""
        root = merkle.root_at(size, read_node)
        try:
            proof = merkle.consistency_proof(size, row.size, read_node)
            merkle.verify_consistency(old_size=size, old_root=root, new_size=row.size, new_root=row.root, proof=proof)
        except ConsistencyError:
            self._alarm(
                f"the ledger's tree of size {size} does not lead to the one of {row.size} that this node signed"
            )
            return None
        if not row.is_dated:
            self._alarm(f"{self._path}: the time of size {row.size} is not the one that this node signed")
            return None
        return self._signed(Checkpoint(origin=self._name.origin, size=size, root=root), row.time_s)

    def _is_of_present_keys(self, note: Note) -> bool:
        """Whether the lines name the keys that this node has now; nothing is verified."""
        return {(key.name, key.key_id) for key in self.keys} == {(line.name, line.key_id) for line in note.signatures}

    def _row(self, query: str, size: int) -> _Row | None:
        with self._reading:
            row = self._reader.execute(query, (size,)).fetchone()
        return row and _Row(*row)

    def _sound_row(self, bound: int, former_keys: frozenset[VerifierKey]) -> _Row | None:
        """The last row up to a size, with two signatures by keys of this node; None if there is no row at all."""
        try:
            row = self._row(_REACHED, bound)
            if row is None or len(verify_signatures(row.note(self._name.origin), self.keys | former_keys)) == 2:
                return row
        except (sqlite3.Error, RegistryError, TypeError, ValueError, AttributeError):
            pass  # a flipped bit may change a column's type
        raise self._alarm(
            f"{self._path}: the checkpoint of size {bound}, or the last one before, is not signed by this node's keys; "
            "put back the file and the keys that belong together"
        )

    def _sign_group(self, size: int, read_node: merkle.ReadNode) -> None:
        with self._lock:
            if self.alarm:
                raise SigningError(self.alarm)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._sign_next(size, read_node)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._size = size

    def _sign_next(self, size: int, read_node: merkle.ReadNode) -> None:
        last_size, last_root, last_s = self._last()
        if last_size != self._size:
            raise self._alarm(f"{self._path}: somebody else signed size {last_size} with this node's file")
        tree = merkle.Frontier(last_size, read_node)
        if tree.root() != last_root:
            raise self._alarm(
                f"refusing to sign size {last_size + 1}: the tree does not continue the one of {last_size}"
            )
        while tree.size < size:  # each tree continues the one before: it is that one with a leaf appended
            tree.append(read_node(0, tree.size))
        root, time_s = tree.root(), max(int(self._clock()), last_s)
        if root != merkle.root_at(size, read_node):
            raise self._alarm(f"refusing to sign size {size}: the ledger's stored hashes are not those of its entries")
        lines = self._sign(Checkpoint(origin=self._name.origin, size=size, root=root), time_s).signatures
        row = (size, root, time_s, *map(str, lines), last_size)
        self._connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?)", row)

    def _sign(self, checkpoint: Checkpoint, time_s: int) -> Note:
        """Sign one checkpoint, both times the same bytes."""
        text = str(checkpoint)
        return Note(text, (self._log.sign(text), self._cosigner.cosign(text, timestamp_s=time_s)))

    def _last(self) -> tuple[int, bytes, int]:
        query = "SELECT size, root, time_s FROM checkpoints ORDER BY size DESC LIMIT 1"
        row: tuple[int, bytes, int] | None = self._connection.execute(query).fetchone()
        return row or (0, merkle.EMPTY_ROOT, 0)

    def _alarm(self, message: str) -> SigningError:
        self.alarm = message
        return SigningError(message)


def _joined(kept: Note, signed: Note) -> Note:
    """The lines of former keys, and behind them those of the present ones."""
    former = tuple(line for line in kept.signatures if line not in signed.signatures)
    return Note(signed.text, (*former, *signed.signatures))
