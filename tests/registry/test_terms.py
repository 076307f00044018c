"""An entry is found by every hash that it bears and by who signed it, and by nothing else."""

import hashlib

import pytest
from fakes import LedgerMaker, binding, private_key, public_key

from registry import commitments, merkle
from registry.commitments import commit_further, open_further
from registry.entry import Entry
from registry.envelope import message_hash, seal, unseal
from registry.messages import Rotation
from registry.terms import Term, terms_of


@pytest.fixture
def maker() -> LedgerMaker:
    return LedgerMaker()


def last(maker: LedgerMaker) -> dict[str, bytes]:
    """The terms of the last entry that have one value in their role; its signers apart."""
    entry = maker.entries[-1]
    signed = unseal(Entry.decode(entry).envelope, origin=maker.origin)
    terms = terms_of(entry, signed)
    assert {term.value for term in terms if term.role == "signer"} == set(signed.signers)
    named = {term.role: term.value for term in terms if term.role != "signer"}
    assert named.pop("leaf") == merkle.leaf_hash(entry)
    assert named.pop("message") == signed.hash
    assert all(len(term.value) == 32 for term in terms)
    return named


def test_a_publication_is_found_by_its_commitments(maker: LedgerMaker):
    further = commit_further([maker.committed("alice", number=1)])
    maker.publish("alice", further=further)
    committed = maker.committed("alice")
    assert last(maker) == {
        "key_commitment": committed.key,
        "head_commitment": committed.head,
        "info_commitment": committed.info,
        "further": further.root,
    }


def test_a_claim_is_found_by_its_files_and_by_the_key_that_it_reveals(maker: LedgerMaker):
    published = maker.publish("alice")
    maker.claim("alice", published)
    key = binding("alice").watermark_key
    assert last(maker) == {
        "publication": published,
        "model_sha256": hashlib.sha256(b"model").digest(),
        "evidence_sha256": hashlib.sha256(b"evidence").digest(),
        "watermark_key": key,
        "key_commitment": commitments.key_commitment(key),
    }


def test_a_claim_on_a_further_watermark_is_found_by_what_it_opens(maker: LedgerMaker):
    from dataclasses import replace

    watermarks = [maker.committed("alice", number=number) for number in (1, 2)]
    published = maker.publish("alice", further=commit_further(watermarks))
    message = maker.claim_message("alice", published, number=2)
    maker.submit(maker.seal(replace(message, opening=open_further(watermarks, 1)), "alice"))
    found = last(maker)
    assert found["key_commitment"] == watermarks[1].key
    assert (found["head_commitment"], found["info_commitment"]) == (watermarks[1].head, watermarks[1].info)


def test_votes_objections_withdrawals_and_changes_are_found_by_what_they_are_about(maker: LedgerMaker):
    genesis, published = maker.ledger.policy_hashes[0], maker.publish("alice")
    claimed = maker.claim("alice", published)
    maker.vote(1, claimed)
    assert last(maker) == {"claim": claimed, "policy": genesis}
    other = maker.publish("bob")
    maker.challenge("bob", claimed, other)
    assert last(maker) == {"claim": claimed, "publication": other}
    maker.withdraw("alice", claimed)
    assert last(maker) == {"target": claimed}
    maker.change_policy(maker.policy, "node-1", "node-2")
    assert last(maker) == {"previous": genesis}


def test_a_rotation_is_found_by_both_keys(maker: LedgerMaker):
    rotation = Rotation(time_s=maker.now_s, old_key=public_key("alice"), new_key=public_key("alice 2"))
    envelope = seal(rotation, origin=maker.origin, private_keys=[private_key("alice"), private_key("alice 2")])
    entry = Entry(envelope, maker.now_s).encode()
    terms = terms_of(entry, unseal(envelope, origin=maker.origin))
    for name in ("alice", "alice 2"):
        assert Term("signer", public_key(name)) in terms
    assert Term("message", message_hash(envelope)) in terms


def test_a_genesis_is_found_by_those_who_signed_it(maker: LedgerMaker):
    assert last(maker) == {}
