"""A receipt proves offline that one entry is in the log; a forged one is refused with the first thing wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import LedgerMaker, public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from registry import merkle
from registry.errors import InclusionError, MalformedError, RefusedError, RegistryError, UntrustedError
from registry.messages import Publication
from registry.receipt import Receipt, verify_receipt
from registry.spelling import decode_base64

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "note_vectors.json").read_text())
MAKER = LedgerMaker()
PUBLICATION = MAKER.publish("alice")
RECEIPT = MAKER.receipt(PUBLICATION)
TEXT = str(RECEIPT)


def test_a_receipt_proves_who_published_what():
    verified = verify_receipt(Receipt.parse(TEXT), MAKER.trust)
    assert (verified.index, verified.signed.hash, verified.signed.signer) == (1, PUBLICATION, public_key("alice"))
    assert isinstance(verified.signed.message, Publication)
    assert set(verified.trusted.times_s) == {"node-1", "node-2", "node-3"}


def test_the_genesis_has_a_receipt_too():
    maker = LedgerMaker()
    genesis = maker.receipt(next(iter(maker.ledger._placed)))
    assert verify_receipt(genesis, maker.trust).index == 0


def test_the_published_proof_is_read_and_holds():
    header, index, *hashes = VECTORS["tlog_proof_index2_size15"].split("\n\n")[0].split("\n")
    entries = [merkle.leaf_hash(entry.encode()) for entry in VECTORS["entries"]]
    proof = [decode_base64(line) for line in hashes]
    assert (header, index) == ("c2sp.org/tlog-proof@v1", "index 2")
    merkle.verify_inclusion(entries[2], index=2, size=15, proof=proof, root=merkle.root(entries))


def test_a_receipt_prints_as_it_was_read():
    assert str(Receipt.parse(TEXT)) == TEXT


@settings(max_examples=300)
@given(st.integers(0, len(TEXT) - 1), st.integers(1, 127))
def test_a_changed_character_is_refused_or_drops_one_witness(position, change):
    changed = TEXT[:position] + chr(ord(TEXT[position]) ^ change) + TEXT[position + 1 :]
    try:
        verified = verify_receipt(Receipt.parse(changed), MAKER.trust)
    except RegistryError:
        return
    assert verified.signed.hash == PUBLICATION
    assert len(verified.trusted.times_s) >= 2


@pytest.mark.parametrize(
    ("forgery", "error"),
    [
        (lambda r: replace(r, index=0), InclusionError),
        (lambda r: replace(r, index=2**64 - 1), InclusionError),
        (lambda r: replace(r, entry=r.entry + b"\0"), InclusionError),
        (lambda r: replace(r, proof=()), InclusionError),
        (lambda r: replace(r, proof=(*r.proof, bytes(32))), InclusionError),
        (lambda r: replace(r, checkpoint_note=str(MAKER.note(1))), InclusionError),
        (lambda r: replace(r, checkpoint_note=str(MAKER.note(2, nodes=[1]))), UntrustedError),
        (lambda r: replace(r, checkpoint_note=r.checkpoint_note.replace("\n2\n", "\n3\n")), RefusedError),
    ],
)
def test_a_forged_receipt_is_refused(forgery, error):
    with pytest.raises(error):
        verify_receipt(forgery(RECEIPT), MAKER.trust)


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT.replace("@v1", "@v2"),
        TEXT.replace("extra ", "", 1),
        TEXT.replace("index 1", "index 01"),
        TEXT.replace("index 1", "index +1"),
        TEXT.replace("index 1\n", ""),
        TEXT.replace("\n\n", "\n", 1),
        TEXT.replace("index 1\n", "index 1\n" + "A" * 43 + "=\n" * 1 + ("A" * 43 + "=\n") * 64),
        "x" * 10**6,
    ],
)
def test_what_is_not_a_receipt_is_malformed(text):
    with pytest.raises(RegistryError) as refused:
        verify_receipt(Receipt.parse(text), MAKER.trust)
    assert isinstance(refused.value, MalformedError)
