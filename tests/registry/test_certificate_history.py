"""A certificate carries what its claim rests on: changes of policy, moves to other keys, objections."""

from dataclasses import replace
from itertools import pairwise

import pytest
from fakes import LedgerMaker, good_measurement, policy, public_key

from registry.certificate import CHALLENGES_SHOWN_MAX, ENTRIES_MAX, Certificate, verify_certificate
from registry.errors import RefusedError, RegistryError, UntrustedError
from registry.rules import Accepted
from registry.trust import TrustPolicy
from registry.verdict import Outcome


def eventful():
    """A ledger in which a node joined, another left and an owner moved twice before the claim that is certified."""
    maker = LedgerMaker()
    publication = maker.publish("alice")
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    maker.rotate("alice", "alice-2")
    others = maker.publish("carol")
    maker.change_policy(policy(2, 3, 4), "node-2", "node-3", "node-4")
    maker.rotate("carol", "carol-2")
    maker.rotate("alice-2", "alice-3")
    claim = maker.submit(maker.seal(maker.claim_message("alice", publication), "alice-3")).message_hash
    maker.vote(2, claim), maker.vote(4, claim)
    maker.challenge("carol-2", claim, others)
    maker.change_policy(policy(2, 3, 4, 5), "node-2", "node-3", "node-5")
    return maker, claim


MAKER, CLAIM = eventful()
CERTIFICATE = MAKER.certificate(CLAIM)


def without(number):
    return replace(CERTIFICATE, entries=(*CERTIFICATE.entries[:number], *CERTIFICATE.entries[number + 1 :])).encode()


def test_a_certificate_tells_of_moves_policies_and_objections():
    story = verify_certificate(CERTIFICATE.encode(), MAKER.trust)
    assert (story.published_by, story.owner) == (public_key("alice"), public_key("alice-3"))
    assert (story.policy_index, story.members, story.quorum) == (5, 3, 2)
    assert [vote.member for vote in story.votes] == ["node-2", "node-4"]
    (challenge,) = story.challenges
    assert (challenge.challenger, challenge.reason) == (public_key("carol-2"), "the model is mine")


def test_a_certificate_holds_what_it_needs_and_no_more():
    indexes = [proven.index for proven in CERTIFICATE.entries]
    kinds = [MAKER.ledger.find(MAKER.ledger.apply(MAKER.entries[i]).message_hash).signed.message.KIND for i in indexes]
    assert " ".join(kinds) == ("genesis publish policy rotate publish policy rotate rotate claim vote vote challenge")


@pytest.mark.parametrize("number", range(11))
def test_no_entry_but_the_objection_can_be_left_out(number):
    with pytest.raises(RegistryError):
        verify_certificate(without(number), MAKER.trust)


def test_an_objection_can_be_left_out_and_the_verdict_stays():
    assert verify_certificate(without(11), MAKER.trust).challenges == ()


def test_the_reader_must_trust_the_members_of_the_last_policy():
    verify_certificate(CERTIFICATE.encode(), LedgerMaker().trust)  # two founders are still there, and are a quorum
    with pytest.raises(UntrustedError):
        verify_certificate(CERTIFICATE.encode(), TrustPolicy.of(policy(1, 2, 6), MAKER.origin))


def test_a_withdrawn_claim_has_no_certificate_if_the_withdrawal_is_shown():
    maker = LedgerMaker()
    claim = maker.verified_claim("alice")
    certificate = maker.certificate(claim)
    withdrawal = maker.withdraw("alice", claim)
    shown = maker.proven(withdrawal.index)
    certificate = replace(maker.certificate(claim), entries=(*maker.certificate(claim).entries, shown))
    with pytest.raises(RefusedError) as refused:
        verify_certificate(certificate.encode(), maker.trust)
    assert refused.value.code == "not_verified"


def test_many_objections_do_not_make_a_certificate_too_large():
    maker = LedgerMaker()
    claim = maker.verified_claim("alice")
    for number in range(CHALLENGES_SHOWN_MAX + 3):
        maker.challenge(f"bob-{number}", claim, maker.publish(f"bob-{number}"))
    raw = maker.certificate(claim).encode()
    assert len(verify_certificate(raw, maker.trust).challenges) == CHALLENGES_SHOWN_MAX
    assert Certificate.decode(raw).encode() == raw


def grown(*, founders, members, votes):
    """A ledger that grew before the claim, and a forged certificate that leaves the growth out."""
    maker = LedgerMaker(nodes=founders)
    for count in range(founders + 1, members + 1):
        signers = [f"node-{number}" for number in range(1, count + 1)]
        assert isinstance(maker.change_policy(policy(*range(1, count + 1)), *signers), Accepted)
    claim = maker.claim("mallory", maker.publish("mallory"))
    for node in range(1, members + 1):
        bad = {"outcome": Outcome.REFUTED, "reason": "below_threshold", "measurement": good_measurement(300)}
        maker.vote(node, claim, **({} if node <= votes else bad))
    forged = maker.certificate(claim)
    state = maker.ledger.claim_state(claim)
    kept = {0, *state.order, *(state.votes[f"node-{node}"].index for node in range(1, votes + 1))}
    return maker, claim, replace(forged, entries=tuple(maker.proven(index) for index in sorted(kept)))


@pytest.mark.parametrize(("founders", "members", "votes"), [(3, 5, 2), (1, 3, 1)])
def test_a_claim_is_not_read_under_an_older_policy_by_leaving_the_newer_one_out(founders, members, votes):
    maker, claim, forged = grown(founders=founders, members=members, votes=votes)
    assert maker.ledger.verdict(claim).outcome is Outcome.REFUTED
    with pytest.raises(RefusedError, match="other_policy"):
        verify_certificate(forged.encode(), maker.trust)


def test_no_choice_of_policies_but_all_of_them_makes_a_certificate():
    chosen = [number for number, proven in enumerate(CERTIFICATE.entries) if proven.index in (0, 2, 5)]
    assert len(chosen) == 3
    for left_out in (chosen[1:], chosen[1:2], chosen[2:]):
        kept = tuple(proven for number, proven in enumerate(CERTIFICATE.entries) if number not in left_out)
        with pytest.raises(RegistryError):
            verify_certificate(replace(CERTIFICATE, entries=kept).encode(), MAKER.trust)


def test_a_policy_that_came_after_the_claim_is_shown_with_what_it_allowed():
    maker = LedgerMaker()
    others, claim = maker.publish("bob"), maker.verified_claim("alice")
    patient = replace(maker.policy, time_skew_s=3600)
    maker.change_policy(patient, "node-1", "node-2")
    objection = replace(maker.challenge_message(claim, others), time_s=maker.now_s - 2000)
    assert isinstance(maker.submit(maker.seal(objection, "bob")), Accepted)
    assert len(verify_certificate(maker.certificate(claim).encode(), maker.trust).challenges) == 1


@pytest.mark.long
def test_a_challenger_with_a_long_past_does_not_cost_the_certificate():
    maker = LedgerMaker()
    others, claim = maker.publish("bob"), maker.verified_claim("alice")
    keys = ["bob", *(f"bob-{number}" for number in range(ENTRIES_MAX))]
    for old, new in pairwise(keys):
        maker.rotate(old, new)
    assert isinstance(maker.challenge(keys[-1], claim, others), Accepted)
    assert verify_certificate(maker.certificate(claim).encode(), maker.trust).challenges == ()
