"""Replay of a whole ledger by somebody who trusts none of its nodes.

Every entry goes through the rulebook again: encoding, signatures, order, keys, votes against their own numbers.
A log that holds an entry which the rules refuse was not kept by honest nodes. Behind such an entry the rules mean
nothing any more, but the Merkle tree over the entries still does: it tells which checkpoints are of this log.
"""

from array import array
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import cast

from registry import merkle, signing
from registry.checkpoint import Checkpoint
from registry.entry import Placed
from registry.errors import ConsistencyError
from registry.rules import Accepted, Duplicate, Ledger


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first entry that the rules refuse; code is the rule's, "duplicate" for a message that was there before."""

    index: int
    code: str
    detail: str


class Tree:
    """The Merkle tree of a growing log with all its complete nodes, about 64 bytes for each entry."""

    def __init__(self) -> None:
        self._levels: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        """Entries in the tree."""
        return len(self._levels[0]) // merkle.HASH_BYTES

    def append(self, digest: bytes) -> None:
        """Append one leaf hash, and the complete nodes that this makes."""
        position = self.size
        self._levels[0] += digest
        level = 0
        while position & 1:
            pair = self._levels[level][-2 * merkle.HASH_BYTES :]
            level, position = level + 1, position >> 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += merkle.pair_hash(pair)

    def read_node(self, level: int, position: int) -> bytes:
        """Hash of a complete subtree.

        Raises:
            KeyError: the tree has no such node.
        """
        begin = merkle.HASH_BYTES * position
        if not 0 <= level < len(self._levels) or not 0 <= begin < len(self._levels[level]):
            raise KeyError((level, position))
        return bytes(self._levels[level][begin : begin + merkle.HASH_BYTES])

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` entries.

        Raises:
            ValueError: the tree has fewer.
        """
        if not 0 <= size <= self.size:
            raise ValueError(f"{self.size} entries were replayed, not {size}")
        return merkle.root_at(size, self.read_node)

    def check(self, checkpoint: Checkpoint) -> None:
        """Check that a checkpoint states the root of this log at its size.

        Raises:
            ConsistencyError: another root, or a size that this log does not have.
        """
        if checkpoint.size > self.size:
            raise ConsistencyError(f"a checkpoint of size {checkpoint.size}, but the log has {self.size} entries")
        if self.root_at(checkpoint.size) != checkpoint.root:
            raise ConsistencyError(f"the checkpoint of size {checkpoint.size} states another root than the entries")


class Replay:
    """A replayed ledger and the Merkle tree over its entries.

    Args:
        is_signed: checks one signature; see `registry.rules.Ledger`.

    Attributes:
        ledger: the state after the last entry before the first refused one.
        refusal: the first refused entry; None while there is none.
        kinds: accepted messages of each kind.
        recorded_s: when each accepted entry was recorded, by the node that took it.
        skew_s: of the policy that was in force for each accepted entry; a genesis is judged by its own.
    """

    def __init__(self, is_signed: signing.IsSigned = signing.is_signed) -> None:
        self.ledger = Ledger(is_signed)
        self.tree = Tree()
        self.refusal: Refusal | None = None
        self.kinds: Counter[str] = Counter()
        self.recorded_s = array("q")
        self.skew_s = array("I")

    @property
    def size(self) -> int:
        """Entries taken so far, the refused one and those behind it included."""
        return self.tree.size

    @cached_property
    def verdicts(self) -> Counter[str]:
        """Claims by outcome; "open" for those without one, "superseded" for verified ones that do not prevail.

        Counted when first asked for, which is after the last entry.
        """
        found = map(self.ledger.verdict, self.ledger.claims())
        return Counter("superseded" if one.superseded_by else str(one.outcome or "open") for one in found)

    def take(self, raw: bytes) -> None:
        """Replay the next entry; behind a refused one, only hash it."""
        if self.refusal is None:
            self.refusal = self._apply(raw)
        self.tree.append(merkle.leaf_hash(raw))

    def read_node(self, level: int, position: int) -> bytes:
        """Hash of a complete subtree."""
        return self.tree.read_node(level, position)

    def root_at(self, size: int) -> bytes:
        """Root of the first `size` entries.

        Raises:
            ValueError: more than were replayed.
        """
        return self.tree.root_at(size)

    def _apply(self, raw: bytes) -> Refusal | None:
        before = self.ledger.policy if self.ledger.size else None
        applied = self.ledger.apply(raw)
        if isinstance(applied, Accepted):
            placed = cast("Placed", self.ledger.find(applied.message_hash))
            self.kinds[placed.signed.message.KIND] += 1
            self.recorded_s.append(placed.recorded_s)
            self.skew_s.append((before or self.ledger.policy).time_skew_s)
            return None
        if isinstance(applied, Duplicate):
            return Refusal(self.ledger.size, "duplicate", str(applied))
        return Refusal(self.ledger.size, applied.code, applied.detail)
