"""An auditor's replay finds what honest nodes would not have written; tiles carry the entries to him."""

from dataclasses import replace

import pytest
from damage import with_flipped_bit
from fakes import LedgerMaker, replayed
from hypothesis import given
from hypothesis import strategies as st

from registry import merkle
from registry.audit import Replay, Tree
from registry.checkpoint import Checkpoint
from registry.errors import ConsistencyError, MalformedError
from registry.tiles import entry_bundle, parse_entry_bundle, parse_tile_path, tile_path

MAKER = LedgerMaker()
CLAIM = MAKER.verified_claim()


def test_an_honest_ledger_replays_to_every_checkpoint_it_signed():
    state = replayed(MAKER.entries)
    for size in range(1, MAKER.ledger.size + 1):
        state.tree.check(Checkpoint.parse(MAKER.notes[size].text))
    assert state.ledger.verdict(CLAIM) == MAKER.ledger.verdict(CLAIM)


def refusal_of(entries):
    """The first refused entry of a log: where, and by which rule."""
    state = Replay()
    for raw in entries:
        state.take(raw)
    return state.refusal and (state.refusal.index, state.refusal.code)


@pytest.mark.parametrize("index", range(6))
def test_a_flipped_byte_in_any_entry_is_found_and_named(index):
    entries = list(MAKER.entries)
    entries[index] = with_flipped_bit(entries[index], -30)
    assert refusal_of(entries)[0] == index
    assert refusal_of(MAKER.entries) is None


def test_a_dropped_or_reordered_entry_is_found():
    assert refusal_of([MAKER.entries[0], *MAKER.entries[2:]]) == (1, "unknown_publication")
    swapped = [MAKER.entries[0], MAKER.entries[2], MAKER.entries[1], *MAKER.entries[3:]]
    assert refusal_of(swapped) == (1, "unknown_publication")


def test_a_changed_recorded_time_is_valid_by_the_rules_but_not_by_the_checkpoint():
    entry = MAKER.entries[-1]
    state = replayed([*MAKER.entries[:-1], with_flipped_bit(entry)])
    with pytest.raises(ConsistencyError, match="another root"):
        state.tree.check(MAKER.checkpoint())


def test_a_checkpoint_of_more_entries_than_there_are_is_inconsistent():
    state = replayed(MAKER.entries[:-1])
    with pytest.raises(ConsistencyError, match="has 5 entries"):
        state.tree.check(MAKER.checkpoint())
    with pytest.raises(ValueError, match="5 entries were replayed"):
        state.root_at(6)


@pytest.mark.parametrize(
    ("number", "width", "path"),
    [(1234067, 256, "x001/x234/067"), (0, 256, "000"), (999, 1, "999.p/1"), (1000, 256, "x001/000")],
)
def test_tile_paths_are_those_of_the_specification(number, width, path):
    assert tile_path(number, width) == path
    assert parse_tile_path(path) == (number, width)


@given(st.integers(0, 10**15), st.integers(1, 256))
def test_a_tile_path_is_read_as_it_was_written(number, width):
    assert parse_tile_path(tile_path(number, width)) == (number, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "00",
        "0000",
        "x000/001",
        "001/002",
        "000.p/0",
        "000.p/256",
        "000.p/257",
        "000.p/01",
        "-01",
        "٠٠٠",
        "x001/x001/" * 9 + "000",
        "../etc",
    ],
)
def test_other_spellings_of_a_tile_path_are_refused(path):
    with pytest.raises(MalformedError):
        parse_tile_path(path)


@pytest.mark.parametrize(("number", "width"), [(-1, 1), (0, 0), (0, 257)])
def test_a_tile_that_cannot_be_is_the_callers_mistake(number, width):
    with pytest.raises(ValueError, match="no tile"):
        tile_path(number, width)


@given(st.lists(st.binary(max_size=100), max_size=256))
def test_a_bundle_is_split_as_it_was_joined(entries):
    assert parse_entry_bundle(entry_bundle(entries)) == entries


@pytest.mark.parametrize("raw", [b"\0", b"\0\2a", b"\0\0" * 257])
def test_a_broken_bundle_is_malformed(raw):
    with pytest.raises(MalformedError):
        parse_entry_bundle(raw)


@pytest.mark.parametrize("entries", [[b""] * 257, [bytes(65536)]])
def test_a_bundle_that_is_too_large_is_the_callers_mistake(entries):
    with pytest.raises(ValueError, match="at most"):
        entry_bundle(entries)


def test_behind_a_refused_entry_only_the_tree_grows():
    forged = with_flipped_bit(MAKER.entries[3], -30)
    state = Replay()
    for raw in [*MAKER.entries[:3], forged, *MAKER.entries[4:]]:
        state.take(raw)
    assert (state.refusal.index, state.refusal.code) == (3, "bad_signature")
    assert (state.ledger.size, state.size, len(state.recorded_s)) == (3, 6, 3)
    assert state.kinds == {"genesis": 1, "publish": 1, "claim": 1}
    state.tree.check(Checkpoint.parse(MAKER.notes[3].text))
    with pytest.raises(ConsistencyError, match="another root"):
        state.tree.check(MAKER.checkpoint())


def test_a_repeated_entry_is_refused_as_a_duplicate():
    state = replayed(MAKER.entries)
    state.take(MAKER.entries[2])
    assert (state.refusal.index, state.refusal.code) == (6, "duplicate")


def test_every_signature_is_put_to_the_auditors_own_check():
    asked = []

    def is_signed(signed: bytes, *, signer: bytes, signature: bytes) -> bool:
        asked.append(signature)
        return len(asked) != 6

    state = Replay(is_signed)
    for raw in MAKER.entries:
        state.take(raw)
    assert (state.refusal.index, state.refusal.code) == (2, "key_not_bound")
    assert len(asked) == 3 + 1 + 2


@given(st.integers(1, 600))
def test_the_compact_tree_has_the_nodes_of_the_plain_one(size):
    tree, frontier, nodes = Tree(), merkle.Frontier(), {}
    for number in range(size):
        digest = merkle.leaf_hash(number.to_bytes(2, "big"))
        tree.append(digest)
        nodes |= {(node.level, node.position): node.digest for node in frontier.append(digest)}
    assert {place: tree.read_node(*place) for place in nodes} == nodes
    assert tree.root_at(size) == frontier.root()
    for place in ((0, size), (0, -1), (-1, 0), (len(tree._levels), 0)):
        with pytest.raises(KeyError):
            tree.read_node(*place)


def test_the_skew_in_force_is_kept_for_each_entry():
    maker = LedgerMaker()
    maker.publish("alice")
    maker.change_policy(replace(maker.policy, time_skew_s=60), "node-1", "node-2")
    maker.publish("alice", number=1)

    assert replayed(maker.entries).skew_s.tolist() == [300, 300, 300, 60]
