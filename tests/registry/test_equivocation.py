"""Two signed pasts convict whoever signed both; nothing less does, and no changed byte passes."""

import hashlib
import json

import pytest
from damage import with_flipped_bit
from fakes import ORIGIN, LedgerMaker, private_key

from registry import merkle
from registry.checkpoint import Checkpoint
from registry.equivocation import EQUIVOCATION_BYTES_MAX, Equivocation, verify_equivocation
from registry.errors import MalformedError, RefusedError, RegistryError, UntrustedError
from registry.note import Note
from registry.spelling import encode_base64

HONEST, OTHER = LedgerMaker(), LedgerMaker()
for _maker, _owner in ((HONEST, "alice"), (OTHER, "mallory")):
    for _number in range(4):
        _maker.publish(_owner, number=_number)
TRUST = HONEST.trust


def proven(old_size: int, new_size: int, maker: LedgerMaker = HONEST) -> dict[str, object]:
    """The root of a smaller size and its proof, as the maker's log has them."""
    proof = merkle.consistency_proof(old_size, new_size, maker.read_node)
    return {"root": merkle.root_at(old_size, maker.read_node), "proof": tuple(proof)}


def spell(content: dict[str, object]) -> bytes:
    """A file with this content and the hash that belongs to it."""
    content = {name: value for name, value in content.items() if name != "sha256"}
    plain = (json.dumps(content, sort_keys=True, indent=1) + "\n").encode()
    digest = hashlib.sha256(b"wmreg/v1/equivocation\0" + plain).hexdigest()
    return (json.dumps(content | {"sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


SAME_SIZE = Equivocation.of(str(HONEST.note(3)), str(OTHER.note(3)))
GROWN = Equivocation.of(str(OTHER.note(3)), str(HONEST.note(5)), **proven(3, 5))


def test_nodes_that_signed_two_trees_of_one_size_are_convicted():
    story = verify_equivocation(SAME_SIZE.encode(), TRUST)

    assert (story.smaller.size, story.larger.size, story.continued_root) == (3, 3, None)
    assert {signer.name for signer in story.convicted} == {ORIGIN, "node-1", "node-2", "node-3"}
    assert len(story.convicted) == 6


@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 5), (4, 5), (2, 4), (1, 5)])
def test_nodes_whose_larger_tree_continues_another_smaller_one_are_convicted(old, new):
    forged = OTHER if old > 1 else LedgerMaker(nodes=4)
    note = forged.note(old, nodes=[1, 2, 3])
    story = verify_equivocation(Equivocation.of(str(note), str(HONEST.note(new)), **proven(old, new)).encode(), TRUST)

    assert story.continued_root == merkle.root_at(old, HONEST.read_node) != story.smaller.root
    assert {signer.name for signer in story.convicted} == {ORIGIN, "node-1", "node-2", "node-3"}


def test_a_fork_between_nodes_convicts_nobody_and_tells_who_signed_which_side():
    one, other = HONEST.note(3, nodes=[1]), OTHER.note(5, nodes=[2, 3])
    story = verify_equivocation(Equivocation.of(str(one), str(other), **proven(3, 5, OTHER)).encode(), TRUST)

    assert story.convicted == ()
    assert {signer.name for signer in story.smaller.signers} == {ORIGIN, "node-1"}
    assert {signer.name for signer in story.larger.signers} == {ORIGIN, "node-2", "node-3"}


def test_the_order_of_the_two_notes_does_not_change_the_file():
    assert Equivocation.of(str(OTHER.note(3)), str(HONEST.note(3))) == SAME_SIZE
    assert Equivocation.decode(SAME_SIZE.encode()) == SAME_SIZE


def test_every_flipped_byte_is_malformed():
    raw = GROWN.encode()
    for position in range(0, len(raw), 7):
        with pytest.raises(MalformedError):
            verify_equivocation(with_flipped_bit(raw, position), TRUST)


def resigned(checkpoint: Checkpoint, signer: str) -> Note:
    """A checkpoint signed by somebody as if he were node-1's log key."""
    from registry.note import sign

    return Note(str(checkpoint), (sign(str(checkpoint), name=ORIGIN, private_key=private_key(signer)),))


def with_signatures_of(text: str, note: Note) -> Note:
    return Note(text, note.signatures)


FORGERIES = {
    "one tree twice": (Equivocation.of(str(HONEST.note(3)), str(HONEST.note(3))), RefusedError, "no_conflict"),
    "one tree by different nodes": (
        Equivocation.of(str(HONEST.note(3, nodes=[1])), str(HONEST.note(3, nodes=[2]))),
        RefusedError,
        "no_conflict",
    ),
    "a log that only grew": (
        Equivocation.of(str(HONEST.note(3)), str(HONEST.note(5)), **proven(3, 5)),
        RefusedError,
        "no_conflict",
    ),
    "a log that only grew, without a proof": (
        Equivocation.of(str(HONEST.note(3)), str(HONEST.note(5))),
        RefusedError,
        "no_conflict",
    ),
    "an invented root": (
        Equivocation.of(str(HONEST.note(3)), str(HONEST.note(5)), root=bytes(32), proof=proven(3, 5)["proof"]),
        RefusedError,
        "not_proven",
    ),
    "an invented root of a size that is a power of two": (
        Equivocation.of(str(HONEST.note(4)), str(HONEST.note(5)), root=bytes(32), proof=proven(4, 5)["proof"]),
        RefusedError,
        "not_proven",
    ),
    "the proof of another size": (
        Equivocation.of(str(OTHER.note(3)), str(HONEST.note(5)), root=GROWN.root, proof=proven(2, 5)["proof"]),
        RefusedError,
        "not_proven",
    ),
    "a proof that is cut off": (
        Equivocation.of(str(OTHER.note(3)), str(HONEST.note(5)), root=GROWN.root, proof=GROWN.proof[:-1]),
        RefusedError,
        "not_proven",
    ),
    "a proof beside two trees of one size": (
        Equivocation.of(str(OTHER.note(3)), str(HONEST.note(3)), **proven(3, 5)),
        RefusedError,
        "no_conflict",
    ),
    "a side that strangers signed": (
        Equivocation.of(str(HONEST.note(3)), str(resigned(OTHER.checkpoint(3), "stranger"))),
        UntrustedError,
        "untrusted",
    ),
    "the signatures of one side on the other": (
        Equivocation.of(str(HONEST.note(3)), str(with_signatures_of(str(OTHER.checkpoint(3)), HONEST.note(3)))),
        RefusedError,
        "bad_signature",
    ),
    "a key that signed a side twice": (
        Equivocation.of(str(HONEST.note(3)), str(Note(OTHER.note(3).text, OTHER.note(3).signatures[:1] * 2))),
        RefusedError,
        "duplicate_signature",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_is_refused(forgery):
    evidence, error, code = FORGERIES[forgery]
    with pytest.raises(error) as refused:
        verify_equivocation(evidence.encode(), TRUST)
    assert refused.value.code == code


def test_two_pasts_of_different_logs_are_no_equivocation():
    foreign = LedgerMaker(origin="other.example/log")
    foreign.publish("alice")
    with pytest.raises(UntrustedError, match=r"other\.example/log"):
        verify_equivocation(Equivocation.of(str(HONEST.note(2)), str(foreign.note(2))).encode(), TRUST)


def content() -> dict[str, object]:
    return json.loads(GROWN.encode())


MALFORMED = {
    "another format": lambda c: c | {"format": "wmreg-equivocation/2"},
    "sides in the wrong order": lambda c: c | {"smaller": c["larger"], "larger": c["smaller"]},
    "a side that is no text": lambda c: c | {"smaller": 7},
    "a side that is no note": lambda c: c | {"smaller": "garbage"},
    "a missing side": lambda c: {name: c[name] for name in c if name != "larger"},
    "an unknown field": lambda c: c | {"more": 1},
    "a root in another spelling": lambda c: c | {"root": c["root"].rstrip("=")},
    "too long a proof": lambda c: c | {"proof": [encode_base64(bytes(32))] * 129},
    "a proof that is no list": lambda c: c | {"proof": 7},
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_file_of_another_shape_is_malformed(what):
    assert spell(content()) == GROWN.encode()
    with pytest.raises(MalformedError):
        verify_equivocation(spell(MALFORMED[what](content())), TRUST)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"[" * 100_000, bytes(EQUIVOCATION_BYTES_MAX + 1), b"\xff"])
def test_what_is_no_evidence_is_malformed(raw):
    with pytest.raises(RegistryError) as refused:
        verify_equivocation(raw, TRUST)
    assert isinstance(refused.value, MalformedError)


def test_what_is_no_checkpoint_cannot_be_put_in_order():
    with pytest.raises(MalformedError):
        Equivocation.of(str(HONEST.note(3)), "garbage")
