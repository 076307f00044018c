"""Replay of a whole ledger by somebody who trusts none of its nodes.

Every entry goes through the rulebook again: encoding, signatures, order, keys, votes against their own numbers.
A log that holds an entry which the rules refuse was not kept by honest nodes.
"""

from collections.abc import Iterable

from registry import merkle
from registry.checkpoint import Checkpoint
from registry.errors import ConsistencyError
from registry.rules import Accepted, Ledger


class AuditError(ConsistencyError):
    """The log breaks its own rules.

    Attributes:
        index: of the first entry that does.
    """

    code = "audit"

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


class Replay:
    """A replayed ledger and the Merkle tree over its entries."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._frontier = merkle.Frontier()
        self._nodes: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        """Entries replayed so far."""
        return self.ledger.size

    def add(self, raw: bytes) -> None:
        """Replay the next entry.

        Raises:
            AuditError: the rules refuse it, or it is in the log already.
        """
        index = self.ledger.size
        applied = self.ledger.apply(raw)
        if not isinstance(applied, Accepted):
            raise AuditError(f"entry {index} breaks the ledger's rules: {applied}", index=index)
        for node in self._frontier.append(merkle.leaf_hash(raw)):
            self._nodes[node.level, node.position] = node.digest

    def read_node(self, level: int, position: int) -> bytes:
        """Hash of a complete subtree."""
        return self._nodes[level, position]

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` entries.

        Raises:
            ValueError: more than were replayed.
        """
        if not 0 <= size <= self.size:
            raise ValueError(f"{self.size} entries were replayed, not {size}")
        return merkle.root_at(size, self.read_node)

    def check(self, checkpoint: Checkpoint) -> None:
        """Check that a checkpoint states the root of the replayed entries.

        Raises:
            ConsistencyError: another root at this size, or a size that was not replayed.
        """
        if checkpoint.size > self.size:
            raise ConsistencyError(f"a checkpoint of size {checkpoint.size}, but the log has {self.size} entries")
        if self.root_at(checkpoint.size) != checkpoint.root:
            raise ConsistencyError(f"the checkpoint of size {checkpoint.size} states another root than the entries")


def replay(entries: Iterable[bytes]) -> Replay:
    """Replay entries from the genesis on; raises AuditError at the first bad one."""
    state = Replay()
    for raw in entries:
        state.add(raw)
    return state
