"""Roots and proofs of every tree up to 300 entries are those of RFC 9162's recursive definitions, word for word."""

from functools import cache

import pytest
from damage import with_flipped_bit

from registry import merkle
from registry.errors import ConsistencyError, InclusionError

SIZE = 300
LEAVES = [merkle.leaf_hash(b"entry %d" % number) for number in range(SIZE)]


def stored_nodes():
    frontier, nodes = merkle.Frontier(), {}
    for leaf in LEAVES:
        nodes.update({(node.level, node.position): node.digest for node in frontier.append(leaf)})
    return nodes


NODES = stored_nodes()


def read_node(level, position):
    return NODES[level, position]


def split(count):
    """The largest power of two smaller than count."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power


@cache
def mth(begin, end):
    """Section 2.1.1: MTH(D[begin:end])."""
    if begin == end:
        return merkle.EMPTY_ROOT
    if end - begin == 1:
        return LEAVES[begin]
    middle = begin + split(end - begin)
    return merkle.node_hash(mth(begin, middle), mth(middle, end))


def path(index, begin, end):
    """Section 2.1.3.1: PATH(index, D[begin:end])."""
    if end - begin == 1:
        return []
    middle = begin + split(end - begin)
    if index < middle:
        return [*path(index, begin, middle), mth(middle, end)]
    return [*path(index, middle, end), mth(begin, middle)]


def subproof(size, begin, end, *, is_whole):
    """Section 2.1.4.1: SUBPROOF(size, D[begin:end], is_whole)."""
    if size == end - begin:
        return [] if is_whole else [mth(begin, end)]
    middle = begin + split(end - begin)
    if size <= middle - begin:
        return [*subproof(size, begin, middle, is_whole=is_whole), mth(middle, end)]
    return [*subproof(size - (middle - begin), middle, end, is_whole=False), mth(begin, middle)]


def test_every_root_is_the_references():
    frontier = merkle.Frontier()
    for size in range(SIZE + 1):
        assert merkle.root_at(size, read_node) == mth(0, size) == frontier.root(), size
        assert merkle.Frontier(size, read_node).root() == mth(0, size), size
        if size < SIZE:
            frontier.append(LEAVES[size])


@pytest.mark.long
def test_every_inclusion_proof_is_the_references_and_holds():
    for size in range(1, SIZE + 1):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, read_node)
            assert proof == path(index, 0, size), (index, size)
            merkle.verify_inclusion(LEAVES[index], index=index, size=size, proof=proof, root=mth(0, size))


@pytest.mark.long
def test_every_consistency_proof_is_the_references_and_holds():
    for new in range(1, SIZE + 1):
        for old in range(1, new + 1):
            proof = merkle.consistency_proof(old, new, read_node)
            assert proof == subproof(old, 0, new, is_whole=True), (old, new)
            merkle.verify_consistency(
                old_size=old, old_root=mth(0, old), new_size=new, new_root=mth(0, new), proof=proof
            )


def sides(index, size):
    """On which side each hash of an inclusion proof stands: all that the proof itself says about its place."""
    begin, end, seen = 0, size, []
    while end - begin > 1:
        middle = begin + split(end - begin)
        seen.append(index < middle)
        begin, end = (begin, middle) if index < middle else (middle, end)
    return seen[::-1]


def flipped(digest):
    return with_flipped_bit(digest, 0)


PROOF_FORGERIES = {
    "flipped first": lambda p: [flipped(p[0]), *p[1:]],
    "flipped last": lambda p: [*p[:-1], flipped(p[-1])],
    "truncated": lambda p: p[:-1],
    "first missing": lambda p: p[1:],
    "emptied": lambda _: [],
    "trailing garbage": lambda p: [*p, bytes(32)],
    "leading garbage": lambda p: [bytes(32), *p],
    "last repeated": lambda p: [*p, p[-1]],
    "reversed": lambda p: p[::-1],
    "swapped": lambda p: [*p[1:2], p[0], *p[2:]],
    "short hash": lambda p: [*p[:-1], p[-1][:31]],
    "long hash": lambda p: [*p[:-1], p[-1] + b"\0"],
}


@pytest.mark.parametrize("forgery", PROOF_FORGERIES)
def test_no_forged_inclusion_proof_holds(forgery):
    for size in range(2, 34):
        for index in range(size):
            proof = path(index, 0, size)
            forged = PROOF_FORGERIES[forgery](proof)
            if forged == proof:
                continue
            with pytest.raises(InclusionError):
                merkle.verify_inclusion(LEAVES[index], index=index, size=size, proof=forged, root=mth(0, size))


@pytest.mark.parametrize("forgery", PROOF_FORGERIES)
def test_no_forged_consistency_proof_holds(forgery):
    for new in range(2, 34):
        for old in range(1, new):
            proof = subproof(old, 0, new, is_whole=True)
            forged = PROOF_FORGERIES[forgery](proof)
            if forged == proof:
                continue
            with pytest.raises(ConsistencyError):
                merkle.verify_consistency(
                    old_size=old, old_root=mth(0, old), new_size=new, new_root=mth(0, new), proof=forged
                )


PLACE_FORGERIES = {
    "index + 1": lambda i, n: (i + 1, n),
    "index - 1": lambda i, n: (i - 1, n),
    "index + size": lambda i, n: (i + n, n),
    "index = size": lambda _, n: (n, n),
    "index near 2^64": lambda _, n: (2**64 - 1, n),
    "index and size near 2^64": lambda _, __: (2**64 - 2, 2**64 - 1),
    "size / 2": lambda i, n: (i, n // 2),
    "size - 1": lambda i, n: (i, n - 1),
    "size + 1": lambda i, n: (i, n + 1),
    "size * 2": lambda i, n: (i, n * 2),
    "size zero": lambda i, _: (i, 0),
    "size near 2^64": lambda i, _: (i, 2**64 - 1),
    "size 2^64": lambda i, _: (i, 2**64),
    "negative size": lambda i, n: (i, -n),
}


@pytest.mark.parametrize("forgery", PLACE_FORGERIES)
def test_no_proof_holds_at_a_place_of_another_shape(forgery):
    refused = 0
    for size in range(1, 34):
        for index in range(size):
            other, other_size = PLACE_FORGERIES[forgery](index, size)
            is_place = 0 <= other < other_size < 2**64
            if is_place and sides(other, other_size) == sides(index, size):
                continue  # the proof would be the same; the checkpoint is what states the size
            refused += 1
            with pytest.raises(InclusionError):
                merkle.verify_inclusion(
                    LEAVES[index], index=other, size=other_size, proof=path(index, 0, size), root=mth(0, size)
                )
    assert refused > 30


@pytest.mark.parametrize(("size", "is_possible"), [(2**63 + 1, True), (2**64 - 1, True), (2**64, False)])
def test_the_largest_tree_has_one_entry_less_than_2_to_the_64(size, is_possible):
    siblings = [merkle.leaf_hash(b"sibling %d" % level) for level in range(64)]
    root = LEAVES[0]
    for sibling in siblings:
        root = merkle.node_hash(root, sibling)
    half = {"old_size": 2**63, "old_root": LEAVES[1], "new_size": size, "proof": siblings[:1]}
    whole = merkle.node_hash(LEAVES[1], siblings[0])
    if is_possible:
        merkle.verify_inclusion(LEAVES[0], index=0, size=size, proof=siblings, root=root)
        merkle.verify_consistency(new_root=whole, **half)
        return
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(LEAVES[0], index=0, size=size, proof=siblings, root=root)
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(new_root=whole, **half)


def test_no_other_leaf_or_root_is_proven():
    for size in range(1, 34):
        for index in range(size):
            at = {"index": index, "size": size, "proof": path(index, 0, size)}
            for forged in (flipped(LEAVES[index]), merkle.EMPTY_ROOT, merkle.leaf_hash(LEAVES[index]), b""):
                with pytest.raises(InclusionError):
                    merkle.verify_inclusion(forged, root=mth(0, size), **at)
            for forged in (flipped(mth(0, size)), merkle.EMPTY_ROOT, mth(0, size + 1), mth(0, size)[:31]):
                with pytest.raises(InclusionError):
                    merkle.verify_inclusion(LEAVES[index], root=forged, **at)


SIZE_FORGERIES = {
    "old + 1": lambda m, n: (m + 1, n),
    "old - 1": lambda m, n: (m - 1, n),
    "old / 2": lambda m, n: (m // 2, n),
    "new + 1": lambda m, n: (m, n + 1),
    "new - 1": lambda m, n: (m, n - 1),
    "new / 2": lambda m, n: (m, n // 2),
    "swapped": lambda m, n: (n, m),
    "old zero": lambda _, n: (0, n),
    "new near 2^64": lambda m, _: (m, 2**64 - 1),
    "both near 2^64": lambda _, __: (2**64 - 2, 2**64 - 1),
    "new 2^64": lambda m, _: (m, 2**64),
}


def proof_length(old, new):
    """Hashes in the consistency proof between two sizes of any magnitude."""
    begin, end, count = 0, new, 0
    while old < end:
        middle = begin + split(end - begin)
        count += 1
        begin, end = (begin, middle) if old <= middle else (middle, end)
    return count + (begin > 0)


@pytest.mark.parametrize("forgery", SIZE_FORGERIES)
def test_no_consistency_proof_holds_between_sizes_of_another_length(forgery):
    refused = 0
    for new in range(2, 34):
        for old in range(1, new):
            proof = subproof(old, 0, new, is_whole=True)
            assert proof_length(old, new) == len(proof)
            other_old, other_new = SIZE_FORGERIES[forgery](old, new)
            is_possible = 0 < other_old < other_new < 2**64
            if is_possible and proof_length(other_old, other_new) == len(proof):
                continue
            refused += 1
            with pytest.raises(ConsistencyError):
                merkle.verify_consistency(
                    old_size=other_old, old_root=mth(0, old), new_size=other_new, new_root=mth(0, new), proof=proof
                )
    assert refused > 30


def test_no_other_roots_are_consistent():
    for new in range(2, 34):
        for old in range(1, new):
            proof, first, last = subproof(old, 0, new, is_whole=True), mth(0, old), mth(0, new)
            for old_root, new_root in (
                (flipped(first), last),
                (first, flipped(last)),
                (last, first),
                (merkle.EMPTY_ROOT, last),
                (first, first),
                (last, last),
            ):
                with pytest.raises(ConsistencyError):
                    merkle.verify_consistency(
                        old_size=old, old_root=old_root, new_size=new, new_root=new_root, proof=proof
                    )
