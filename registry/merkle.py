"""The Merkle tree of RFC 6962 section 2 / RFC 9162 section 2: roots, inclusion and consistency proofs.

A log keeps the hashes of all complete subtrees. Such a node is named by (level, position): it covers the leaves
[position·2^level, (position+1)·2^level). Appending a leaf makes at most log2 n new complete nodes, and every root and
proof is put together from O(log n) of them, so nothing here ever needs the whole tree.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from registry.errors import ConsistencyError, InclusionError

HASH_BYTES = 32
SIZE_MAX = 2**64 - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()

ReadNode = Callable[[int, int], bytes]


class Node(NamedTuple):
    """A complete subtree of 2**level leaves, at a 0-based position in its level."""

    level: int
    position: int
    digest: bytes


def leaf_hash(entry: bytes) -> bytes:
    """Hash of a leaf: SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return pair_hash(left + right)


def pair_hash(pair: bytes | bytearray) -> bytes:
    """Hash of the inner node above two nodes whose hashes are joined, 64 bytes."""
    return hashlib.sha256(b"\x01" + pair).digest()


class Frontier:
    """The complete subtrees of a growing tree, largest first: all that appending needs.

    Args:
        size: entries in the tree so far.
        read_node: reads a stored complete node; called only for the nodes on the right edge.
    """

    def __init__(self, size: int = 0, read_node: ReadNode | None = None) -> None:
        self._size = size
        self._edge: list[bytes] = []
        if size:
            if read_node is None:
                raise ValueError("a frontier of a tree that is not empty needs its nodes")
            self._edge = [read_node(level, index) for level, index in _cover(0, size)]

    @classmethod
    def of(cls, size: int, edge: Sequence[bytes]) -> "Frontier":
        """The frontier that `edge` was kept of.

        Raises:
            ValueError: a tree of this size has another number of complete subtrees, or a hash is not 32 bytes long.
        """
        if size < 0 or len(edge) != size.bit_count() or any(len(digest) != HASH_BYTES for digest in edge):
            raise ValueError(f"{len(edge)} hashes are not the edge of a tree of size {size}")
        kept = iter(edge)
        return cls(size, lambda _level, _position: next(kept))

    @property
    def size(self) -> int:
        """Entries in the tree."""
        return self._size

    @property
    def edge(self) -> tuple[bytes, ...]:
        """Hashes of the complete subtrees, the largest first: with the size, all that has to be kept."""
        return tuple(self._edge)

    def append(self, digest: bytes) -> list[Node]:
        """Append one leaf hash; return the complete nodes that this made, the leaf first."""
        made = [Node(0, self._size, digest)]
        level, index = 0, self._size
        while index & 1:
            digest = node_hash(self._edge.pop(), digest)
            level, index = level + 1, index >> 1
            made.append(Node(level, index, digest))
        self._edge.append(digest)
        self._size += 1
        return made

    def root(self) -> bytes:
        """Root hash of the tree, 32 bytes."""
        return _fold(self._edge)


def root(digests: Iterable[bytes]) -> bytes:
    """Root of the tree over the given leaf hashes."""
    frontier = Frontier()
    for digest in digests:
        frontier.append(digest)
    return frontier.root()


def root_at(size: int, read_node: ReadNode) -> bytes:
    """Root of the first `size` entries, from stored nodes."""
    return _range_root(0, size, read_node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read_node: ReadNode) -> list[bytes]:
    """Inclusion proof of one leaf, the leaf's sibling first (RFC 9162 section 2.1.3.1).

    Raises:
        ValueError: index is not in [0, size).
    """
    if not 0 <= index < size:
        raise ValueError(f"index {index} is not in a tree of size {size}")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range_root(middle, end, read_node))
            end = middle
        else:
            path.append(_range_root(begin, middle, read_node))
            begin = middle
    return path[::-1]


def consistency_proof(old_size: int, new_size: int, read_node: ReadNode) -> list[bytes]:
    """Proof that the tree of new_size entries continues that of old_size (RFC 9162 section 2.1.4.1).

    Raises:
        ValueError: not 0 < old_size ≤ new_size.
    """
    if not 0 < old_size <= new_size:
        raise ValueError(f"no consistency proof from size {old_size} to {new_size}")
    begin, end, path = 0, new_size, []
    while old_size < end:
        middle = begin + _split(end - begin)
        if old_size <= middle:
            path.append(_range_root(middle, end, read_node))
            end = middle
        else:
            path.append(_range_root(begin, middle, read_node))
            begin = middle
    if begin:
        path.append(_range_root(begin, end, read_node))
    return path[::-1]


def verify_inclusion(digest: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf hash is the index-th of the tree with this size and root.

    Raises:
        InclusionError: it is not, or the proof has the wrong length for this position.

    Source: RFC 9162 section 2.1.3.2. `index < size` is checked before anything else: a verifier that leaves it
        out accepts the path of a real leaf under a smaller, wrong size.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise InclusionError(f"index {index} is not in a tree of size {size}")
    _check_hashes([digest, root, *proof], InclusionError)
    position, last, computed = index, size - 1, digest
    for sibling in proof:
        if last == 0:
            raise InclusionError("the inclusion proof is too long")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise InclusionError("the inclusion proof is too short")
    if computed != root:
        raise InclusionError(f"entry {index} is not in the tree of size {size} with this root")


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of new_size continues the tree of old_size.

    Raises:
        ConsistencyError: it does not; or old_size is 0, which proves nothing; or the proof has a wrong length.

    Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 < old_size <= new_size <= SIZE_MAX:
        raise ConsistencyError(f"no consistency proof leads from size {old_size} to {new_size}")
    _check_hashes([old_root, new_root, *proof], ConsistencyError)
    if old_size == new_size:
        if proof or old_root != new_root:
            raise ConsistencyError(f"two different trees of size {old_size}")
        return
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not path:
        raise ConsistencyError("the consistency proof is too short")
    _fold_consistency(path, old_size=old_size, old_root=old_root, new_size=new_size, new_root=new_root)


def _fold_consistency(path: Sequence[bytes], *, old_size: int, old_root: bytes, new_size: int, new_root: bytes) -> None:
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ConsistencyError("the consistency proof is too long")
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ConsistencyError("the consistency proof is too short")
    if (old, new) != (old_root, new_root):
        raise ConsistencyError(f"the tree of size {new_size} does not continue the tree of size {old_size}")


def _check_hashes(digests: Sequence[bytes], error: type[InclusionError | ConsistencyError]) -> None:
    if any(len(digest) != HASH_BYTES for digest in digests):
        raise error(f"a hash is not {HASH_BYTES} bytes long")


def _split(count: int) -> int:
    """Largest power of two below count, for count ≥ 2."""
    return 1 << (count - 1).bit_length() - 1


def _cover(begin: int, end: int) -> list[tuple[int, int]]:
    """The complete nodes that together cover [begin, end), left to right; begin is a multiple of their sizes."""
    nodes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        nodes.append((level, begin >> level))
        begin += 1 << level
    return nodes


def _fold(edge: Sequence[bytes]) -> bytes:
    if not edge:
        return EMPTY_ROOT
    digest = edge[-1]
    for left in reversed(edge[:-1]):
        digest = node_hash(left, digest)
    return digest


def _range_root(begin: int, end: int, read_node: ReadNode) -> bytes:
    """Root of the subtree over [begin, end), a range that occurs as a subtree of some RFC 9162 tree."""
    count = end - begin
    if not count & (count - 1):  # nearly always: all but the tree's right edge
        level = count.bit_length() - 1
        return read_node(level, begin >> level)
    return _fold([read_node(level, index) for level, index in _cover(begin, end)])
