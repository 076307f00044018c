"""The node's own signed checkpoints: one for every size, each only if it continues the one before (DESIGN 4.4).

They are kept in a file apart from the ledger's, so that a restored or damaged ledger cannot make the node sign a second
history: what was signed is compared with what is to be signed, inside one transaction (compare and swap). The first
disagreement stops the signer for good; a person has to look.

Each row holds two signature lines on the checkpoint's text: the log's, under the origin, and the cosignature with this
node's clock. A cosignature says that at its time this was the largest tree the node knew, so the times never go back.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.database import connect, open_database
from node.errors import InconsistentStateError
from node.identity import Identity
from registry import merkle
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import Cosigner, LogSigner, Note, SignatureLine, VerifierKey, verify_signatures

VERSION = 1
SCHEMA = """
    CREATE TABLE checkpoints (
        size INTEGER PRIMARY KEY, root BLOB NOT NULL, time_s INTEGER NOT NULL,
        log_line TEXT NOT NULL, cosignature_line TEXT NOT NULL
    );
"""
_BATCH_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerName:
    """Under which names the node signs: the log's, and its own."""

    origin: str
    member: str

    @property
    def cosigner(self) -> str:
        """The name of the node's cosigner key."""
        return f"{self.origin}/{self.member}"


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
        InconsistentStateError: the file is missing or damaged.
    """

    def __init__(self, path: Path, *, name: SignerName, identity: Identity, clock: Callable[[], float]) -> None:
        self._path, self._name, self._clock = path, name, clock
        self._log, self._cosigner = LogSigner(name.origin, identity.note), Cosigner(name.cosigner, identity.cosigner)
        self._lock, self._reading = threading.Lock(), threading.Lock()  # reading waits for no fsync
        self.alarm: str | None = None
        try:
            self._connection = open_database(path, schema=SCHEMA, version=VERSION, create=False)
            self._reader = connect(path)
            self._size = self._last()[0]
        except (OSError, sqlite3.Error) as error:
            raise InconsistentStateError(
                f"{path}: {error!r}; it must not be made anew while this node's keys are in use, or the node could "
                "sign a second history: put back the file as it was at the node's last stop, or let the node come back "
                "as a new member (`wmreg node restore`)"
            ) from error

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
        """Sign every size from the last signed one up to `size`, a limited number at a time.

        A tree smaller than the last signed one is left alone: the node is catching up.

        Args:
            size: entries that the ledger has made durable.
            read_node: reads the ledger's stored hashes.

        Raises:
            SigningError: the tree does not continue the last signed one; also on every later call.
        """
        while self._size < size or self.alarm:
            self._sign_batch(min(size, self._size + _BATCH_MAX), read_node)

    def check(
        self, size: int, read_node: merkle.ReadNode, *, former_keys: frozenset[VerifierKey] = frozenset()
    ) -> None:
        """Check that the last signatures are this node's, and that the ledger has the tree that they are on.

        A ledger that does not reach that far is compared at its own size.

        Args:
            size: entries of the ledger.
            read_node: reads its stored hashes.
            former_keys: that this node had before the ones it has now.

        Raises:
            SigningError: another tree, or signatures of other keys.
        """
        with self._lock:
            last_size = self._last()[0]
        for signed_size in {last_size, min(size, last_size)} - {0}:
            note = self._sound_note(signed_size, former_keys)
            if note is None:
                raise self._alarm(
                    f"{self._path}: the checkpoint of size {signed_size} is not signed by this node's keys; put back "
                    "the file and the keys that belong together"
                )
            if signed_size <= size and Checkpoint.parse(note.text).root != merkle.root_at(signed_size, read_node):
                raise self._alarm(f"the ledger's tree of size {signed_size} is not the one this node signed")

    def note(self, size: int) -> Note | None:
        """This node's own note for a size: the log's signature and the cosignature; None if it is not signed."""
        query = "SELECT root, log_line, cosignature_line FROM checkpoints WHERE size = ?"
        with self._reading:
            row = self._reader.execute(query, (size,)).fetchone()
        if row is None:
            return None
        text = str(Checkpoint(origin=self._name.origin, size=size, root=row[0]))
        return Note(text, (SignatureLine.parse(row[1]), SignatureLine.parse(row[2])))

    def _sound_note(self, size: int, former_keys: frozenset[VerifierKey]) -> Note | None:
        """The stored note of a size with both signatures by keys of this node; None for anything else."""
        try:
            note = self.note(size)
            is_signed = note is not None and len(verify_signatures(note, self.keys | former_keys)) == 2
        except (sqlite3.Error, RegistryError, TypeError, ValueError):  # a flipped bit may change a column's type
            return None
        return note if is_signed else None

    def _sign_batch(self, size: int, read_node: merkle.ReadNode) -> None:
        with self._lock:
            if self.alarm:
                raise SigningError(self.alarm)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._sign_each(size, read_node)
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._size = size

    def _sign_each(self, size: int, read_node: merkle.ReadNode) -> None:
        last_size, last_root, last_s = self._last()
        if last_size != self._size:
            raise self._alarm(f"{self._path}: somebody else signed size {last_size} with this node's file")
        tree = merkle.Frontier(last_size, read_node)
        if tree.root() != last_root:
            raise self._alarm(
                f"refusing to sign size {last_size + 1}: the tree does not continue the one of {last_size}"
            )
        time_s = max(int(self._clock()), last_s)
        rows = []
        while tree.size < size:  # each tree continues the one before: it is that one with a leaf appended
            tree.append(read_node(0, tree.size))
            rows.append(self._row(Checkpoint(origin=self._name.origin, size=tree.size, root=tree.root()), time_s))
        if tree.root() != merkle.root_at(size, read_node):
            raise self._alarm(f"refusing to sign size {size}: the ledger's stored hashes are not those of its entries")
        self._connection.executemany("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", rows)

    def _row(self, checkpoint: Checkpoint, time_s: int) -> tuple[int, bytes, int, str, str]:
        """Sign one checkpoint."""
        text = str(checkpoint)
        log_line, cosignature = self._log.sign(text), self._cosigner.cosign(text, timestamp_s=time_s)
        return checkpoint.size, checkpoint.root, time_s, str(log_line), str(cosignature)

    def _last(self) -> tuple[int, bytes, int]:
        query = "SELECT size, root, time_s FROM checkpoints ORDER BY size DESC LIMIT 1"
        row: tuple[int, bytes, int] | None = self._connection.execute(query).fetchone()
        return row or (0, merkle.EMPTY_ROOT, 0)

    def _alarm(self, message: str) -> SigningError:
        self.alarm = message
        return SigningError(message)
