"""The ledger on disk: entries, Merkle nodes and the applied Raft index, in one SQLite transaction (DESIGN 5).

Writing is what node.raft asks of a state machine and happens in the raft thread only. What to accept is decided by
registry.rules, kept in memory and built again from the entries at each start, which is also the self-check: a file
whose entries the rules refuse, or whose hashes are not those of its entries, is not served.

Reading is for every other thread, and shows what is durable: the rulebook runs ahead of the disk by the batch that is
being written, so what it says of claims is cut back to `size`. Only `check` looks at all of it: what Raft has committed
is irrevocable.
"""

import json
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from node.database import connect, open_database
from node.errors import InconsistentStateError
from node.reach import unusable
from node.space import is_disk_full, wait_for_space
from node.unsealed import UnsealedMessages
from registry import merkle
from registry.certificate import entries_of
from registry.claims import ClaimState, Verdict, count_votes
from registry.entry import Entry, Placed
from registry.envelope import SignedMessage, message_hash
from registry.messages import Genesis, PolicyChange
from registry.note import VerifierKey
from registry.policy import Policy
from registry.policy_change import SetPolicy
from registry.rules import Accepted, Applied, Ledger, Refused

T = TypeVar("T")
VERSION = 1
NODES_KEPT = 16384  # about 200 bytes each
SCHEMA = """
    CREATE TABLE entries (position INTEGER PRIMARY KEY, entry BLOB NOT NULL);
    CREATE TABLE nodes (level INTEGER, position INTEGER, digest BLOB NOT NULL, PRIMARY KEY (level, position))
        WITHOUT ROWID;
    CREATE TABLE raft (applied_index INTEGER NOT NULL);
"""
_INSERT_ENTRY = "INSERT INTO entries VALUES (?, ?)"
_INSERT_NODE = "INSERT INTO nodes (level, position, digest) VALUES (?, ?, ?)"
_REMEDY = (
    "keep the files for inquiry; `wmreg node fsck` says whether `wmreg node rebuild` can make the ledger anew from the "
    "journal"
)


class Store:
    """The entries of one ledger and all that follows from them.

    Args:
        path: the SQLite file, made by `create`.

    Attributes:
        messages: of entries, and of what may become one, each verified once.

    Raises:
        ConfigError: the file system does not give the file.
        InconsistentStateError: it is missing, damaged, or contradicts itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self.messages = UnsealedMessages()
        self._ledger, self._frontier = Ledger(unseal=self.messages.unseal), merkle.Frontier()
        self._outcomes: list[Applied] = []
        self._entries: list[tuple[int, bytes]] = []  # of the batch
        self._nodes: list[merkle.Node] = []
        try:
            self._writer = open_database(path, schema=SCHEMA, version=VERSION, create=False)
        except (OSError, sqlite3.Error) as error:
            raise unusable(path, error, remedy=f"a node without it cannot run, {_REMEDY}") from error
        with ExitStack() as opened:
            opened.callback(self._writer.close)
            try:
                self._reader = connect(path)
                opened.callback(self._reader.close)
                self._check()
                self._applied_index = int(self._reader.execute("SELECT applied_index FROM raft").fetchone()[0])
            except (sqlite3.Error, TypeError) as error:
                raise unusable(path, error, remedy=_REMEDY) from error
            opened.pop_all()  # whoever has a store closes it
        self._size = self._ledger.size
        # Complete subtrees never change. The signer and the index read those of the latest entries, and each is read
        # again for the receipts of its neighbours.
        self._recent_nodes: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    @classmethod
    def create(cls, path: Path, *, genesis_entry: bytes) -> None:
        """Make the file of a new ledger, which holds the genesis.

        Raises:
            FileExistsError: the file is there already.
            ValueError: the rules refuse the genesis.
        """
        applied = Ledger().apply(genesis_entry)
        if not isinstance(applied, Accepted):
            raise ValueError(f"not a genesis: {applied}")  # noqa: TRY004 -- the bytes are wrong, not their type
        connection = open_database(path, schema=SCHEMA, version=VERSION, create=True)
        connection.execute("BEGIN")
        connection.execute(_INSERT_ENTRY, (0, genesis_entry))
        connection.executemany(_INSERT_NODE, merkle.Frontier().append(merkle.leaf_hash(genesis_entry)))
        connection.execute("INSERT INTO raft VALUES (0)")
        connection.execute("COMMIT")
        connection.close()

    def close(self) -> None:
        """Close the file; nothing is lost, since every batch is committed."""
        self._reader.close()
        self._writer.close()

    # node.raft.StateMachine, raft thread only

    @property
    def applied_index(self) -> int:
        """Raft index of the last applied command, durable."""
        return self._applied_index

    def begin(self) -> None:
        """Begin a batch."""
        self._entries, self._nodes = [], []

    def apply(self, raft_index: int, command: bytes | None) -> None:
        """Apply one command; what the rules refuse leaves no trace but the index."""
        if raft_index <= self._applied_index:
            return
        if command is not None:
            with self._lock:
                applied = self._ledger.apply(command)
            if isinstance(applied, Accepted):
                self._entries.append((applied.index, command))
                self._nodes += self._frontier.append(merkle.leaf_hash(command))
            self._outcomes.append(applied)
        self._applied_index = raft_index

    def commit(self) -> None:
        """Make the batch durable, then visible; on a full disk, when there is room."""
        attempt = 0
        while True:
            try:
                self._write()
                break
            except sqlite3.Error as error:
                if not is_disk_full(error):
                    raise
                wait_for_space(self._path, error, attempt=attempt)
                attempt += 1
        for node in self._nodes:
            self._keep_node(node.level, node.position, node.digest)
        self._size = self._ledger.size

    def _write(self) -> None:
        """Write the batch in one transaction, or nothing of it."""
        self._writer.execute("BEGIN")
        try:
            self._writer.executemany(_INSERT_ENTRY, self._entries)
            self._writer.executemany(_INSERT_NODE, self._nodes)
            self._writer.execute("UPDATE raft SET applied_index = ?", (self._applied_index,))
            self._writer.execute("COMMIT")
        finally:
            if self._writer.in_transaction:  # SQLite may have rolled it back itself
                self._writer.execute("ROLLBACK")

    def take_outcomes(self) -> list[Applied]:
        """What became of the commands since the last call; raft thread only, after a commit."""
        taken, self._outcomes = self._outcomes, []
        return taken

    # Reading, any thread

    @property
    def size(self) -> int:
        """Entries that are durable."""
        return self._size

    @property
    def origin(self) -> str:
        """The ledger's name."""
        return self._ledger.origin

    @property
    def policy(self) -> Policy:
        """The ledger's policy."""
        return self._ledger.policy

    @property
    def policy_hashes(self) -> list[bytes]:
        """Hashes of the messages that set a policy, from the genesis to the one in force."""
        return self._locked(lambda ledger: ledger.policy_hashes)

    @property
    def set_policy(self) -> SetPolicy:
        """The policy in force, and the message that set it."""
        return self._locked(
            lambda ledger: SetPolicy(origin=ledger.origin, policy=ledger.policy, hash=ledger.policy_hashes[-1])
        )

    def policy_set_by(self, digest: bytes) -> Policy:
        """The policy that a message set.

        Raises:
            ValueError: there is no such message.
        """
        placed = self._locked(lambda ledger: ledger.find(digest))
        if placed is None or not isinstance(placed.signed.message, Genesis | PolicyChange):
            raise ValueError(f"no message {digest.hex()} that set a policy")
        return placed.signed.message.policy

    def envelope(self, index: int) -> bytes:
        """The message of one entry as it was signed.

        Raises:
            ValueError: there is none at this index.
        """
        return Entry.decode(self.entry(index)).envelope

    def entry(self, index: int) -> bytes:
        """One entry.

        Raises:
            ValueError: there is none at this index.
        """
        found = self.entries(index, index + 1)
        if not found:
            raise ValueError(f"no entry {index} in a ledger of {self.size}")
        return found[0]

    def entries(self, start: int, stop: int) -> list[bytes]:
        """The entries of [start, stop) that exist."""
        query = "SELECT entry FROM entries WHERE position >= ? AND position < ? ORDER BY position"
        with self._lock:
            rows = self._reader.execute(query, (start, min(stop, self._size))).fetchall()
        return [entry for (entry,) in rows]

    def entries_at(self, indexes: Set[int]) -> dict[int, bytes]:
        """Some entries, by their indexes.

        Raises:
            ValueError: one of them does not exist.
        """
        if len(indexes) == 1:
            (index,) = indexes
            return {index: self.entry(index)}
        query = "SELECT position, entry FROM entries WHERE position IN (SELECT value FROM json_each(?))"
        with self._lock:
            found = dict(self._reader.execute(query, (json.dumps(list(indexes)),)).fetchall()) if indexes else {}
        if len(found) < len(indexes) or max(indexes, default=0) >= self._size:
            raise ValueError(f"no entries {sorted(indexes - found.keys())} in a ledger of {self._size}")
        return found

    def read_node(self, level: int, position: int) -> bytes:
        """Hash of a complete subtree.

        Raises:
            InconsistentStateError: it is not stored; the caller asked within `size`.
        """
        digest = self._recent_nodes.get((level, position))
        if digest is None:
            digest = self._stored_node(level, position)
            self._keep_node(level, position, digest)
        return digest

    def _keep_node(self, level: int, position: int, digest: bytes) -> None:
        """Remember a node instead of the one that came first; any thread."""
        self._recent_nodes[level, position] = digest
        if len(self._recent_nodes) > NODES_KEPT:
            with suppress(KeyError):  # another thread was faster
                self._recent_nodes.popitem(last=False)

    def _stored_node(self, level: int, position: int) -> bytes:
        query = "SELECT digest FROM nodes WHERE level = ? AND position = ?"
        with self._lock:
            row = self._reader.execute(query, (level, position)).fetchone()
        if row is None:
            raise InconsistentStateError(f"{self._path}: the hash of node ({level}, {position}) is missing")
        return bytes(row[0])

    def root(self, size: int) -> bytes:
        """Root hash of the first `size` entries."""
        return merkle.root_at(size, self.read_node)

    def find(self, digest: bytes) -> Placed | None:
        """The durable message with this hash, or None."""
        placed = self._locked(lambda ledger: ledger.find(digest))
        return placed if placed is not None and placed.index < self._size else None

    def placed(self, entry: bytes) -> Placed:
        """The message of an entry that this store has handed out.

        Raises:
            ValueError: it is none of the entries.
        """
        placed = self.find(message_hash(Entry.decode(entry).envelope))
        if placed is None:
            raise ValueError("not an entry of this ledger")
        return placed

    def unseal(self, envelope: bytes, *, origin: str | None) -> SignedMessage:
        """The message of an envelope, as `registry.envelope.unseal`; one that is in the ledger was verified before."""
        placed = self.find(message_hash(envelope)) if origin == self.origin else None
        return self.messages.unseal(envelope, origin=origin) if placed is None else placed.signed

    def placed_between(self, start: int, stop: int) -> list[Placed]:
        """The durable messages of [start, stop) that exist, in the order of the log."""
        return self._locked(lambda ledger: ledger.placed(start, min(stop, self._size)))

    def check(self, signed: SignedMessage, recorded_s: int) -> Refused | None:
        """Why the rules would refuse a message at this moment; None if they would not."""
        return self._locked(lambda ledger: ledger.check(signed, recorded_s))

    def claims(self) -> list[bytes]:
        """Hashes of all claims, oldest first."""

        def durable(ledger: Ledger) -> list[bytes]:
            claims = ledger.claims()
            while claims and self._is_ahead(ledger.claim_state(claims[-1])):
                claims.pop()
            return claims

        return self._locked(durable)

    def claim_state(self, digest: bytes) -> ClaimState | None:
        """A claim with the votes on it at this moment, or None."""
        return self._locked(lambda ledger: self._durable(ledger.claim_state(digest)))

    def verdict(self, digest: bytes, *, as_of_s: int | None = None) -> Verdict:
        """What the votes on a claim add up to so far, and whether its deadline is over at a time.

        Raises:
            ValueError: there is no such claim.
        """

        def read(ledger: Ledger) -> Verdict:
            verdict = ledger.verdict(digest, as_of_s=as_of_s)
            state = self._durable(ledger.claim_state(digest))
            if state is None:
                raise ValueError(f"the claim {digest.hex()} is not durable yet")
            counted = count_votes(state, as_of_s=as_of_s)
            if (counted.outcome, counted.members) == (verdict.outcome, verdict.members):
                return verdict
            return replace(counted, challenges=tuple(placed.signed.hash for placed in state.challenges.values()))

        return self._locked(read)

    def _is_ahead(self, state: ClaimState | None) -> bool:
        return state is not None and state.claim.index >= self._size

    def _durable(self, state: ClaimState | None) -> ClaimState | None:
        """A copy of a claim with what is on the disk."""
        if state is None or self._is_ahead(state):
            return None
        withdrawal = state.withdrawal
        return replace(
            state,
            votes={name: placed for name, placed in state.votes.items() if placed.index < self._size},
            challenges={key: placed for key, placed in state.challenges.items() if placed.index < self._size},
            withdrawal=withdrawal if withdrawal and withdrawal.index < self._size else None,
        )

    def certificate_entries(self, digest: bytes) -> list[int]:
        """Places of the entries that the certificate of a claim is made of.

        Raises:
            ValueError: there is no such claim.
        """
        return self._locked(lambda ledger: entries_of(ledger, digest))

    def keys_of(self, name: str) -> frozenset[VerifierKey]:
        """What checks the checkpoints of a member, by every policy so far; members may change their keys."""
        placed = self._locked(lambda ledger: [ledger.find(digest) for digest in ledger.policy_hashes])
        messages = [found.signed.message for found in placed if found is not None]
        members = [
            member
            for message in messages
            if isinstance(message, Genesis | PolicyChange)
            for member in message.policy.members
            if member.name == name
        ]
        return frozenset(
            key for member in members for key in (member.log_key(self.origin), member.cosigner(self.origin))
        )

    def _locked(self, read: Callable[[Ledger], T]) -> T:
        with self._lock:
            return read(self._ledger)

    # Self-check

    def _check(self) -> None:
        """Replay every entry and compare every stored hash."""
        count = 0
        for index, entry in self._stored():
            applied = self._ledger.apply(entry)
            if not isinstance(applied, Accepted) or applied.index != index:
                raise InconsistentStateError(f"{self._path}: entry {index} breaks the rules: {applied}; {_REMEDY}")
            for node in self._frontier.append(merkle.leaf_hash(entry)):
                count += 1
                if self._stored_node(node.level, node.position) != node.digest:
                    raise InconsistentStateError(
                        f"{self._path}: entry {index} is not the one whose hash was stored "
                        f"(node {node.level}, {node.position}); {_REMEDY}"
                    )
        (stored,) = self._reader.execute("SELECT count(*) FROM nodes").fetchone()
        if not self._ledger.size or stored != count:
            raise InconsistentStateError(
                f"{self._path}: {self._ledger.size} entries with {stored} hashes instead of {count}; {_REMEDY}"
            )

    def _stored(self) -> Iterator[tuple[int, bytes]]:
        rows = self._writer.execute("SELECT position, entry FROM entries ORDER BY position")
        for expected, (index, entry) in enumerate(rows):
            if (index, type(entry)) != (expected, bytes):
                raise InconsistentStateError(f"{self._path}: entry {expected} is missing; {_REMEDY}")
            yield index, entry
