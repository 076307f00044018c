"""The members change the policy by a quorum, one member at a time, and nothing that was decided changes with it."""

from dataclasses import replace

import pytest
from fakes import member, policy, private_key, refused

from registry.entry import Entry
from registry.envelope import seal
from registry.errors import MalformedError, RefusedError
from registry.messages import PolicyChange
from registry.policy import Policy, Thresholds
from registry.policy_change import SIGNING_S_MAX, follow, read_genesis
from registry.rules import Accepted
from registry.verdict import CONTROLS_MAX, Outcome


def test_a_quorum_lets_a_node_join_and_another_leave(maker):
    assert isinstance(maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4"), Accepted)
    assert maker.policy.quorum == 3
    assert isinstance(maker.change_policy(policy(2, 3, 4), "node-2", "node-3", "node-4"), Accepted)
    assert [member.name for member in maker.policy.members] == ["node-2", "node-3", "node-4"]
    assert len(maker.ledger.policy_hashes) == 3


@pytest.mark.parametrize(
    ("new", "signers", "code"),
    [
        (policy(1, 2, 3, 4), ["node-1", "node-4"], "no_quorum"),
        (policy(1, 2, 3, 4), ["node-1", "node-2"], "not_signed_by_both"),
        (policy(1, 2, 3, 4), ["node-1", "node-2", "node-4", "mallory"], "not_a_member"),
        (policy(1, 2, 3, 4, 5), ["node-1", "node-2", "node-4", "node-5"], "too_many_changes"),
        (policy(1, 2, 4), ["node-1", "node-2", "node-4"], "too_many_changes"),
        (policy(1, 2), ["node-1"], "no_quorum"),
        (policy(4, 5, 6), ["node-4", "node-5", "node-6"], "too_many_changes"),
    ],
)
def test_a_change_without_the_members_word_is_refused(maker, new, signers, code):
    assert refused(maker.change_policy(new, *signers)) == code
    assert maker.policy == policy(1, 2, 3)


def test_a_node_that_left_signs_nothing_more(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    maker.change_policy(policy(1, 2), "node-1", "node-2")
    assert refused(maker.vote(3, claim)) == "not_a_member"
    maker.vote(1, claim), maker.vote(2, claim)
    assert maker.ledger.verdict(claim).outcome is Outcome.VERIFIED
    assert refused(maker.change_policy(policy(1, 2, 3), "node-1", "node-3")) == "no_quorum"


def test_a_node_that_joined_later_does_not_vote_on_an_older_claim(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    assert refused(maker.vote(4, claim)) == "not_a_member"
    later = maker.claim("alice", maker.ledger.claim_state(claim).publication.signed.hash, model=b"another")
    assert isinstance(maker.vote(4, later), Accepted)


def test_a_claim_is_judged_by_the_policy_of_its_day(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    strict = replace(maker.policy, quorum=3, thresholds=Thresholds(gamma_permille=1000))
    assert isinstance(maker.change_policy(strict, "node-1", "node-3"), Accepted)
    maker.vote(1, claim), maker.vote(2, claim)
    assert maker.ledger.verdict(claim).outcome is Outcome.VERIFIED


def test_a_change_that_was_signed_for_another_policy_is_stale(maker):
    genesis = maker.ledger.policy_hashes[0]
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    slower = replace(maker.policy, time_skew_s=600)
    assert refused(maker.change_policy(slower, "node-1", "node-2", "node-3", previous=genesis)) == "stale_policy"
    assert refused(maker.change_policy(slower, "node-1", "node-2", "node-3", previous=bytes(32))) == "stale_policy"
    assert isinstance(maker.change_policy(slower, "node-1", "node-2", "node-3"), Accepted)


def test_a_vote_names_the_policy_that_judges_the_claim(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    by_the_new_one = replace(maker.vote_message(claim), policy=maker.ledger.policy_hashes[-1])
    assert refused(maker.submit(maker.seal(by_the_new_one, "node-1/signing"))) == "other_policy"
    assert isinstance(maker.vote(1, claim), Accepted)


def test_a_key_that_was_given_up_does_not_join(maker):
    maker.publish("node-4/signing")
    maker.rotate("node-4/signing", "another")
    assert refused(maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")) == "rotated_key"


def test_votes_come_before_the_deadline_and_a_reader_sees_when_it_is_over(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    maker.vote(1, claim)
    deadline_s = maker.ledger.claim_state(claim).deadline_s
    assert maker.ledger.verdict(claim, as_of_s=deadline_s).outcome is None
    late = maker.ledger.verdict(claim, as_of_s=deadline_s + 1)
    assert (late.outcome, late.reason) == (Outcome.INCONCLUSIVE, "deadline")
    maker.now_s = deadline_s + 1
    assert refused(maker.vote(2, claim)) == "deadline"
    maker.now_s = deadline_s
    assert isinstance(maker.vote(2, claim), Accepted)
    assert maker.ledger.verdict(claim, as_of_s=deadline_s + 1).outcome is Outcome.VERIFIED


def test_more_controls_than_a_vote_may_list_cannot_be_demanded():
    for controls, is_possible in ((CONTROLS_MAX - 1, True), (CONTROLS_MAX, False)):
        demanding = replace(policy(1, 2, 3), thresholds=Thresholds(controls_min=controls))
        if is_possible:
            assert Policy.from_value(demanding.to_value()) == demanding
        else:
            with pytest.raises(MalformedError):
                Policy.from_value(demanding.to_value())


def test_a_name_stays_with_its_key_for_ever(maker):
    maker.change_policy(policy(1, 2), "node-1", "node-2")
    wiped = replace(member("node-9"), name="node-3")
    again = replace(policy(1, 2, 3), members=(*policy(1, 2).members, wiped))
    assert refused(maker.change_policy(again, "node-1", "node-2", "node-9")) == "name_in_use"
    first, second = policy(1, 2).members
    swapped = replace(policy(1, 2), members=(replace(second, name="node-1"), replace(first, name="node-2")))
    assert refused(maker.change_policy(swapped, "node-1", "node-2")) == "name_in_use"
    renamed = replace(policy(1, 2), members=(first, replace(second, name="node-7")))
    assert refused(maker.change_policy(renamed, "node-1", "node-2")) == "name_in_use"
    assert isinstance(maker.change_policy(policy(1, 2, 3), "node-1", "node-2", "node-3"), Accepted)


@pytest.mark.parametrize(
    ("later_s", "code"), [(SIGNING_S_MAX, None), (SIGNING_S_MAX + 1, "time_skew"), (-301, "time_skew")]
)
def test_the_signatures_of_a_change_may_take_days_to_collect(maker, later_s, code):
    change = PolicyChange(time_s=maker.now_s, previous=maker.ledger.policy_hashes[-1], policy=policy(1, 2))
    applied = maker.submit(maker.seal(change, "node-1/signing", "node-2/signing"), recorded_s=maker.now_s + later_s)
    assert isinstance(applied, Accepted) if code is None else refused(applied) == code


def test_a_reader_follows_the_changes_by_the_signatures_of_those_he_knows(maker):
    known = read_genesis(Entry.decode(maker.entries[0]).envelope)
    maker.change_policy(policy(1, 2, 3, 4), "node-1", "node-2", "node-4")
    maker.change_policy(policy(2, 3, 4), "node-2", "node-3", "node-4")
    first, second = (Entry.decode(entry).envelope for entry in maker.entries[1:])
    followed = follow(follow(known, first), second)
    assert (followed.policy, followed.hash) == (maker.policy, maker.ledger.policy_hashes[-1])
    for wrong, code in ((second, "stale_policy"), (Entry.decode(maker.entries[0]).envelope, "no_policy")):
        with pytest.raises(RefusedError) as raised:
            follow(known, wrong)
        assert raised.value.code == code


def test_a_forged_chain_is_not_followed(maker):
    known = read_genesis(Entry.decode(maker.entries[0]).envelope)
    change = PolicyChange(time_s=maker.now_s, previous=known.hash, policy=policy(1, 2, 3, 4))
    for signers, code in (
        (["node-1", "node-4"], "no_quorum"),
        (["node-1", "node-2"], "not_signed_by_both"),
        (["mallory", "eve", "node-4"], "not_a_member"),
    ):
        with pytest.raises(RefusedError) as raised:
            follow(known, maker.seal(change, *(f"{name}/signing" for name in signers)))
        assert raised.value.code == code
    elsewhere = seal(change, origin="another.log", private_keys=[private_key(f"node-{n}/signing") for n in (1, 2, 4)])
    with pytest.raises(RefusedError) as raised:
        follow(known, elsewhere)
    assert raised.value.code == "bad_signature"
    with pytest.raises(RefusedError):
        read_genesis(maker.seal(change, "node-1/signing"))
