"""The tree is RFC 9162's: roots and proofs agree with published vectors and with a dumb recursive reference.

Forged proofs are named by the forgery; each accepting case has its rejecting twins.
"""

import json
from pathlib import Path

import pytest
from damage import with_flipped_bit
from hypothesis import given
from hypothesis import strategies as st

from registry import merkle
from registry.errors import ConsistencyError, InclusionError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "rfc6962_vectors.json").read_text())
LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaf_inputs"]]


def tree(count: int):
    """Leaf hashes of a tree, and its stored nodes."""
    frontier, nodes, digests = merkle.Frontier(), {}, []
    for number in range(count):
        digests.append(merkle.leaf_hash(b"entry %d" % number))
        nodes.update({(n.level, n.position): n.digest for n in frontier.append(digests[-1])})
    return digests, lambda level, position: nodes[level, position]


def test_a_frontier_goes_on_from_what_was_kept_of_it():
    digests, _read_node = tree(70)
    frontier = merkle.Frontier()
    for size, digest in enumerate(digests):
        kept = merkle.Frontier.of(size, frontier.edge)
        for later in digests[size:]:
            kept.append(later)
        assert kept.root() == merkle.root(digests)
        frontier.append(digest)


@pytest.mark.parametrize(
    ("size", "edge"), [(-1, []), (0, [bytes(32)]), (3, [bytes(32)]), (1, [bytes(31)]), (2**64, [])]
)
def test_what_no_frontier_of_that_size_has_is_refused(size, edge):
    with pytest.raises(ValueError, match="not the edge"):
        merkle.Frontier.of(size, edge)


def reference_root(digests):
    """RFC 9162 section 2.1.1, word for word."""
    if not digests:
        return merkle.EMPTY_ROOT
    if len(digests) == 1:
        return digests[0]
    split = 1
    while split * 2 < len(digests):
        split *= 2
    return merkle.node_hash(reference_root(digests[:split]), reference_root(digests[split:]))


def test_leaf_hashes_and_roots_are_those_of_the_published_vectors():
    digests = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    assert [digest.hex() for digest in digests] == VECTORS["leaf_hashes"]
    assert [merkle.root(digests[:size]).hex() for size in range(9)] == VECTORS["roots"]


@pytest.mark.parametrize("case", VECTORS["inclusion"])
def test_inclusion_proofs_are_those_of_the_published_vectors(case):
    index, size = map(int, case.split(","))
    frontier, nodes = merkle.Frontier(), {}
    for leaf in LEAVES:
        nodes.update({(n.level, n.position): n.digest for n in frontier.append(merkle.leaf_hash(leaf))})
    proof = merkle.inclusion_proof(index, size, lambda level, position: nodes[level, position])
    assert [digest.hex() for digest in proof] == VECTORS["inclusion"][case]


@pytest.mark.parametrize("case", VECTORS["consistency"])
def test_consistency_proofs_are_those_of_the_published_vectors(case):
    old, new = map(int, case.split(","))
    frontier, nodes = merkle.Frontier(), {}
    for leaf in LEAVES:
        nodes.update({(n.level, n.position): n.digest for n in frontier.append(merkle.leaf_hash(leaf))})
    proof = merkle.consistency_proof(old, new, lambda level, position: nodes[level, position])
    assert [digest.hex() for digest in proof] == VECTORS["consistency"][case]


@given(st.integers(0, 300))
def test_a_frontier_knows_the_root_of_the_recursive_reference(count):
    digests, read_node = tree(count)
    assert merkle.root(digests) == reference_root(digests) == merkle.root_at(count, read_node)
    assert merkle.Frontier(count, read_node).root() == merkle.root(digests)


@given(st.data())
def test_every_inclusion_proof_verifies_and_no_other_position_does(data):
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    digests, read_node = tree(size)
    root, proof = merkle.root(digests), merkle.inclusion_proof(index, size, read_node)
    merkle.verify_inclusion(digests[index], index=index, size=size, proof=proof, root=root)
    other = data.draw(st.integers(0, size * 2).filter(lambda candidate: candidate != index))
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(digests[index], index=other, size=size, proof=proof, root=root)


@given(st.data())
def test_every_consistency_proof_verifies_and_no_rewritten_past_does(data):
    new = data.draw(st.integers(1, 300))
    old = data.draw(st.integers(1, new))
    digests, read_node = tree(new)
    roots = {"old_root": merkle.root(digests[:old]), "new_root": merkle.root(digests)}
    proof = merkle.consistency_proof(old, new, read_node)
    merkle.verify_consistency(old_size=old, new_size=new, proof=proof, **roots)
    rewritten = merkle.root([bytes(32), *digests[1:old]])
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(old_size=old, new_size=new, proof=proof, **(roots | {"old_root": rewritten}))


FORGERIES = {
    "flipped bit": lambda p: [with_flipped_bit(p[0], 0), *p[1:]],
    "truncated": lambda p: p[:-1],
    "first hash missing": lambda p: p[1:],
    "trailing hash": lambda p: [*p, bytes(32)],
    "repeated hash": lambda p: [p[0], *p],
    "swapped": lambda p: [p[1], p[0], *p[2:]],
    "short hash": lambda p: [p[0][:31], *p[1:]],
    "empty": lambda _: [],
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_inclusion_proof_is_refused(forgery):
    digests, read_node = tree(7)
    proof = FORGERIES[forgery](merkle.inclusion_proof(2, 7, read_node))
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(digests[2], index=2, size=7, proof=proof, root=merkle.root(digests))


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_consistency_proof_is_refused(forgery):
    digests, read_node = tree(7)
    proof = FORGERIES[forgery](merkle.consistency_proof(3, 7, read_node))
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(
            old_size=3, old_root=merkle.root(digests[:3]), new_size=7, new_root=merkle.root(digests), proof=proof
        )


@pytest.mark.parametrize(("index", "size"), [(5, 4), (7, 7), (-1, 7), (2, 3), (2, 2**64), (2**64 - 1, 2**64 - 1)])
def test_a_position_outside_its_tree_is_refused_with_a_real_path(index, size):
    digests, read_node = tree(7)
    proof = merkle.inclusion_proof(2, 7, read_node)
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(digests[2], index=index, size=size, proof=proof, root=merkle.root(digests))


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 7), (8, 7), (3, 2**64), (-1, 7)])
def test_a_consistency_proof_between_impossible_sizes_is_refused(old, new):
    digests, _ = tree(7)
    root = merkle.root(digests)
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(old_size=old, old_root=root, new_size=new, new_root=root, proof=[])


def test_two_trees_of_one_size_are_a_fork():
    digests, _ = tree(4)
    root, fork = merkle.root(digests), merkle.root([*digests[:3], bytes(32)])
    merkle.verify_consistency(old_size=4, old_root=root, new_size=4, new_root=root, proof=[])
    with pytest.raises(ConsistencyError, match="two different trees of size 4"):
        merkle.verify_consistency(old_size=4, old_root=root, new_size=4, new_root=fork, proof=[])


@pytest.mark.parametrize("ask", [(7, 7), (-1, 7), (0, 0)])
def test_no_proof_is_made_for_a_position_outside_the_tree(ask):
    _, read_node = tree(7)
    with pytest.raises(ValueError, match="index"):
        merkle.inclusion_proof(*ask, read_node)


@pytest.mark.parametrize("ask", [(0, 7), (8, 7), (-1, 7)])
def test_no_consistency_proof_is_made_between_impossible_sizes(ask):
    _, read_node = tree(7)
    with pytest.raises(ValueError, match="consistency"):
        merkle.consistency_proof(*ask, read_node)


def test_a_frontier_of_a_tree_without_its_nodes_is_the_callers_mistake():
    with pytest.raises(ValueError, match="needs its nodes"):
        merkle.Frontier(3)
