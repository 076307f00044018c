"""What an owner does besides publishing and claiming: move to another key, take back, object, keep keys in reserve."""

from dataclasses import replace

import pytest
from fakes import LedgerMaker, public_key, refused

from registry.claims import RIVALS_SHOWN_MAX
from registry.commitments import FURTHER_MAX, commit_further, open_further
from registry.rules import Accepted
from registry.verdict import Outcome


def test_after_a_rotation_the_new_key_claims_what_the_old_one_published(maker):
    publication = maker.publish("alice")
    assert isinstance(maker.rotate("alice", "alice-2"), Accepted)
    message = maker.claim_message("alice", publication)
    assert refused(maker.submit(maker.seal(message, "alice"))) == "rotated_key"
    assert isinstance(maker.submit(maker.seal(message, "alice-2")), Accepted)


def test_an_old_key_says_nothing_more(maker):
    publication = maker.publish("alice")
    maker.rotate("alice", "alice-2")
    assert refused(maker.withdraw("alice", publication)) == "rotated_key"
    assert refused(maker.rotate("alice", "alice-3")) == "rotated_key"
    maker.publish("alice", number=5)
    assert maker.ledger.size == 3
    assert isinstance(maker.rotate("alice-2", "alice-3"), Accepted)
    assert isinstance(maker.withdraw("alice-3", publication), Accepted)


@pytest.mark.parametrize("signers", [["alice"], ["alice-2"], ["alice", "mallory"], ["alice", "alice-2", "mallory"]])
def test_a_rotation_needs_both_keys_and_nobody_else(maker, signers):
    maker.publish("alice")
    assert refused(maker.rotate("alice", "alice-2", signers=signers)) == "not_signed_by_both"


def test_of_many_rivals_the_first_are_named_in_the_order_of_their_publications():
    maker, owners = LedgerMaker(1), [f"owner-{number}" for number in range(RIVALS_SHOWN_MAX + 2)]
    publications = [maker.publish(owner) for owner in owners]
    claims = {}
    for owner, publication in reversed([*zip(owners, publications, strict=True)]):
        claims[owner] = maker.claim(owner, publication)
        maker.vote(1, claims[owner])
    of = [claims[owner] for owner in owners]
    assert maker.ledger.verdict(of[-1]).rivals == tuple(of[:RIVALS_SHOWN_MAX])
    assert maker.ledger.verdict(of[0]).rivals == tuple(of[1 : RIVALS_SHOWN_MAX + 1])
    assert maker.ledger.verdict(of[0]).superseded_by is None
    assert maker.ledger.verdict(of[0]).rivals_total == RIVALS_SHOWN_MAX + 1
    maker.withdraw(owners[1], of[1])
    assert maker.ledger.verdict(of[0]).rivals == tuple(of[2:])
    assert maker.ledger.verdict(of[0]).rivals_total == RIVALS_SHOWN_MAX
    of.remove(of[1])
    assert maker.ledger.verdict(of[1]).superseded_by == of[0]


def test_nobody_moves_to_a_key_that_has_a_past(maker):
    maker.publish("alice"), maker.publish("mallory")
    assert refused(maker.rotate("mallory", "alice")) == "key_in_use"
    assert refused(maker.rotate("mallory", "node-1/signing")) == "key_in_use"
    assert refused(maker.rotate("mallory", "mallory", signers=["mallory"])) == "key_in_use"
    maker.rotate("alice", "alice-2")
    assert refused(maker.rotate("alice-2", "alice")) == "key_in_use"


def test_a_key_commitment_stays_used_after_a_rotation(maker):
    maker.publish("alice")
    maker.rotate("alice", "alice-2")
    again = maker.publication_message("alice")
    assert refused(maker.submit(maker.seal(again, "alice-2"))) == "key_commitment_used"


def test_two_marks_of_one_owner_do_not_compete_even_after_a_rotation(maker):
    first = maker.verified_claim("alice")
    maker.rotate("alice", "alice-2")
    publication = maker.publish("alice-2", number=1)
    second = maker.submit(maker.seal(maker.claim_message("alice-2", publication, number=1), "alice-2")).message_hash
    maker.vote(1, second), maker.vote(2, second)
    assert [maker.ledger.verdict(claim).rivals for claim in (first, second)] == [(), ()]
    assert maker.ledger.verdict(second).outcome is Outcome.VERIFIED


def test_a_withdrawn_publication_carries_no_claim(maker):
    publication = maker.publish("alice")
    assert isinstance(maker.withdraw("alice", publication), Accepted)
    message = maker.claim_message("alice", publication)
    assert refused(maker.submit(maker.seal(message, "alice"))) == "withdrawn"
    assert refused(maker.withdraw("alice", publication)) == "withdrawn"


def test_a_withdrawn_claim_takes_no_votes_and_supersedes_nobody(maker):
    owners, thiefs = maker.publish("alice"), maker.publish("mallory")
    claim, rival = maker.claim("alice", owners), maker.claim("mallory", thiefs)
    for digest in (claim, rival):
        maker.vote(1, digest), maker.vote(2, digest)
    assert maker.ledger.verdict(rival).superseded_by == claim
    maker.withdraw("alice", claim)
    assert refused(maker.vote(3, claim)) == "withdrawn"
    withdrawn = maker.ledger.verdict(claim)
    assert (withdrawn.outcome, withdrawn.reason, withdrawn.members) == (Outcome.INCONCLUSIVE, "withdrawn", ())
    assert maker.ledger.verdict(rival).superseded_by is None


def test_withdrawing_a_publication_takes_its_claims_back_too(maker):
    claim = maker.verified_claim("alice")
    maker.withdraw("alice", maker.ledger.claim_state(claim).publication.signed.hash)
    assert maker.ledger.verdict(claim).reason == "withdrawn"


def test_only_its_author_withdraws_a_message_and_only_some_kinds_can_be(maker):
    claim = maker.verified_claim("alice")
    assert refused(maker.withdraw("mallory", claim)) == "not_the_publisher"
    vote = maker.ledger.claim_state(claim).votes["node-1"].signed.hash
    assert refused(maker.withdraw("node-1/signing", vote)) == "unknown_target"
    assert refused(maker.withdraw("alice", bytes(32))) == "unknown_target"


def test_a_challenge_decides_nothing_and_is_shown_with_the_verdict(maker):
    bobs = maker.publish("bob")
    claim = maker.verified_claim("alice")
    challenge = maker.challenge("bob", claim, bobs)
    verdict = maker.ledger.verdict(claim)
    assert (verdict.outcome, verdict.challenges) == (Outcome.VERIFIED, (challenge.message_hash,))


def test_a_challenge_comes_from_the_owner_of_another_publication_once(maker):
    bobs, claim = maker.publish("bob"), maker.verified_claim("alice")
    own = maker.ledger.claim_state(claim).publication.signed.hash
    assert refused(maker.challenge("mallory", claim, bobs)) == "not_the_publisher"
    assert refused(maker.challenge("bob", claim, own)) == "not_the_publisher"
    assert refused(maker.challenge("alice", claim, own)) == "own_claim"
    assert refused(maker.challenge("bob", claim, claim)) == "unknown_publication"
    assert refused(maker.challenge("bob", bobs, bobs)) == "unknown_claim"
    maker.challenge("bob", claim, bobs)
    maker.now_s += 1
    assert refused(maker.challenge("bob", claim, bobs)) == "challenged_before"


def test_one_owner_challenges_a_claim_once_whatever_he_has_published(maker):
    first, second, claim = maker.publish("bob"), maker.publish("bob", number=1), maker.verified_claim("alice")
    assert isinstance(maker.challenge("bob", claim, first), Accepted)
    maker.rotate("bob", "bob-2")
    assert refused(maker.challenge("bob-2", claim, second)) == "challenged_before"


def test_a_withdrawn_publication_challenges_nothing(maker):
    bobs, claim = maker.publish("bob"), maker.verified_claim("alice")
    maker.withdraw("bob", bobs)
    assert refused(maker.challenge("bob", claim, bobs)) == "withdrawn"


def test_a_members_key_is_changed_by_a_policy_and_not_by_a_rotation(maker):
    assert refused(maker.rotate("node-1/signing", "new")) == "key_in_use"


def reserve(maker, count):
    """An owner's further watermarks: number 1, 2, … beside the first, 0."""
    return [maker.committed("alice", number=number) for number in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_every_further_watermark_can_be_claimed_with_its_own_key(maker, count):
    watermarks = reserve(maker, count)
    publication = maker.publish("alice", further=commit_further(watermarks))
    for index in {0, count // 2, count - 1}:
        message = maker.claim_message("alice", publication, model=bytes([index]), number=index + 1)
        opened = replace(message, opening=open_further(watermarks, index))
        applied = maker.submit(maker.seal(opened, "alice"))
        assert isinstance(applied, Accepted), applied
        assert maker.ledger.claim_state(applied.message_hash).committed == watermarks[index]


FORGED_OPENINGS = {
    "of another key": lambda _, ws: open_further(ws, 1),
    "another index": lambda o, _: replace(o, index=1),
    "an index beyond the tree": lambda o, _: replace(o, index=3),
    "no proof": lambda o, _: replace(o, proof=()),
    "a longer proof": lambda o, _: replace(o, proof=(*o.proof, bytes(32))),
    "another head": lambda o, _: replace(o, committed=o.committed._replace(head=bytes(32))),
    "another info": lambda o, _: replace(o, committed=o.committed._replace(info=bytes(32))),
}


@pytest.mark.parametrize("forgery", FORGED_OPENINGS)
def test_an_opening_that_was_not_committed_to_is_refused(maker, forgery):
    watermarks = reserve(maker, 3)
    publication = maker.publish("alice", further=commit_further(watermarks))
    forged = FORGED_OPENINGS[forgery](open_further(watermarks, 0), watermarks)
    message = replace(maker.claim_message("alice", publication, number=1), opening=forged)
    expected = "key_mismatch" if forgery == "of another key" else "bad_opening"
    assert refused(maker.submit(maker.seal(message, "alice"))) == expected


def test_a_publication_of_one_watermark_opens_no_other(maker):
    watermarks = reserve(maker, 2)
    message = maker.claim_message("alice", maker.publish("alice"), number=1)
    opened = replace(message, opening=open_further(watermarks, 0))
    assert refused(maker.submit(maker.seal(opened, "alice"))) == "bad_opening"


def test_how_many_further_watermarks_there_may_be(maker):
    with pytest.raises(ValueError, match="0 further"):
        commit_further([])
    with pytest.raises(ValueError, match=str(FURTHER_MAX + 1)):
        commit_further(reserve(maker, 1) * (FURTHER_MAX + 1))


def test_the_ledger_knows_owners_by_their_first_key(maker):
    maker.publish("alice")
    maker.rotate("alice", "alice-2"), maker.rotate("alice-2", "alice-3")
    moves = [move.signed.message.new_key for move in maker.ledger.moves_to(public_key("alice-3"))]
    assert moves == [public_key("alice-3"), public_key("alice-2")]
    assert maker.ledger.moves_to(public_key("alice")) == []
