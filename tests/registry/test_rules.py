"""The rulebook: what is accepted, what is refused and why, and what the votes add up to. `apply` never raises."""

from dataclasses import replace

import pytest
from fakes import ORIGIN, START_S, LedgerMaker, binding, good_measurement, policy, private_key, public_key, refused
from hypothesis import given
from hypothesis import strategies as st

from registry import commitments
from registry.encoding import ENTRY_BYTES_MAX
from registry.entry import Entry
from registry.envelope import message_hash, seal, unseal
from registry.messages import Genesis, Publication
from registry.rules import Accepted, Duplicate, Ledger, Refused
from registry.verdict import Outcome


def publication(owner="alice", **change):
    key = binding(owner).watermark_key
    return replace(
        Publication(
            time_s=START_S + 10,
            scheme="mtlsign",
            key_commitment=commitments.key_commitment(key),
            head_commitment=bytes(32),
            info_commitment=bytes(32),
        ),
        **change,
    )


def test_a_publication_a_claim_and_a_quorum_of_votes_make_a_verdict(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    assert maker.ledger.verdict(claim).outcome is None
    maker.vote(1, claim)
    assert maker.ledger.verdict(claim).outcome is None
    maker.vote(2, claim)
    verdict = maker.ledger.verdict(claim)
    assert (verdict.outcome, verdict.reason, verdict.members) == (Outcome.VERIFIED, "matched", ("node-1", "node-2"))


def test_the_first_message_is_a_genesis_signed_by_all_its_members():
    members = policy()
    genesis = Genesis(time_s=START_S, origin=ORIGIN, policy=members)
    names = [f"node-{number}/signing" for number in (1, 2, 3)]
    for signers, expected in ((names, None), (names[:2], "not_a_member"), ([*names, "mallory"], "not_a_member")):
        envelope = seal(genesis, origin=ORIGIN, private_keys=[private_key(name) for name in signers])
        applied = Ledger().apply(Entry(envelope, START_S).encode())
        assert isinstance(applied, Accepted) if expected is None else refused(applied) == expected


def test_a_ledger_does_not_begin_with_anything_else():
    envelope = seal(publication(), origin=ORIGIN, private_keys=[private_key("alice")])
    assert refused(Ledger().apply(Entry(envelope, START_S).encode())) == "no_genesis"
    with pytest.raises(ValueError, match="empty"):
        Ledger().policy  # noqa: B018  # the property is what is tested


def test_a_second_genesis_is_refused(maker):
    genesis = Genesis(time_s=maker.now_s, origin=ORIGIN, policy=maker.policy)
    signers = [private_key(f"node-{number}/signing") for number in (1, 2, 3)]
    envelope = seal(genesis, origin=ORIGIN, private_keys=signers)
    assert refused(maker.submit(envelope)) == "second_genesis"


def test_the_same_message_again_names_its_first_index_even_long_after(maker):
    envelope = maker.seal(publication(), "alice")
    first = maker.submit(envelope)
    again = maker.submit(envelope, recorded_s=START_S + 10**6)
    assert (first.index, again) == (1, Duplicate(1, first.message_hash))
    assert maker.ledger.size == 2


@pytest.mark.parametrize("offset_s", [-301, 301])
def test_a_publication_dated_outside_the_skew_is_refused(maker, offset_s):
    envelope = maker.seal(publication(time_s=maker.now_s + offset_s), "alice")
    assert refused(maker.submit(envelope)) == "time_skew"


@pytest.mark.parametrize("offset_s", [-300, 300])
def test_a_publication_dated_within_the_skew_is_accepted(maker, offset_s):
    assert isinstance(maker.submit(maker.seal(publication(time_s=maker.now_s + offset_s), "alice")), Accepted)


def test_an_owner_commits_to_a_key_once(maker):
    maker.submit(maker.seal(publication(), "alice"))
    again = maker.seal(publication(head_commitment=b"\1" * 32), "alice")
    assert refused(maker.submit(again)) == "key_commitment_used"


def test_a_front_runner_who_copies_a_commitment_does_not_block_its_owner(maker):
    maker.submit(maker.seal(publication("alice"), "mallory"))
    assert isinstance(maker.submit(maker.seal(publication("alice"), "alice")), Accepted)


def test_a_message_for_another_ledger_is_refused(maker):
    envelope = seal(publication(), origin="elsewhere.org/wmreg", private_keys=[private_key("alice")])
    assert refused(maker.submit(envelope)) == "bad_signature"


def test_a_claim_without_a_publication_is_refused(maker):
    message = maker.claim_message("alice", bytes(32))
    assert refused(maker.submit(maker.seal(message, "alice"))) == "unknown_publication"


def test_a_claim_on_something_that_is_not_a_publication_is_refused(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    message = maker.claim_message("alice", claim, model=b"other")
    assert refused(maker.submit(maker.seal(message, "alice"))) == "unknown_publication"


def test_a_pirate_cannot_claim_on_somebody_elses_publication(maker):
    message = maker.claim_message("alice", maker.publish("alice"))
    assert refused(maker.submit(maker.seal(message, "mallory"))) == "not_the_publisher"


def test_a_pirate_who_replays_a_revealed_key_under_his_own_signing_key_is_refused(maker):
    revealed = maker.claim_message("alice", maker.publish("alice"))
    copied = maker.seal(publication("alice", time_s=maker.now_s), "mallory")
    stolen = replace(revealed, publication=maker.submit(copied).message_hash)
    assert refused(maker.submit(maker.seal(stolen, "mallory"))) == "key_not_bound"


def test_a_key_that_was_not_committed_to_is_refused(maker):
    message = maker.claim_message("alice", maker.publish("alice"), number=7)
    assert refused(maker.submit(maker.seal(message, "alice"))) == "key_mismatch"


def test_only_members_vote(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    assert refused(maker.submit(maker.seal(maker.vote_message(claim), "mallory"))) == "not_a_member"


def test_a_member_votes_once(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    assert isinstance(maker.vote(1, claim), Accepted)
    assert refused(maker.vote(1, claim, measurement=good_measurement(599))) == "voted_before"


def test_a_vote_on_nothing_is_refused(maker):
    assert refused(maker.vote(1, bytes(32))) == "unknown_claim"


@pytest.mark.parametrize(
    ("outcome", "reason", "matched"),
    [
        (Outcome.VERIFIED, "matched", 300),
        (Outcome.REFUTED, "below_threshold", 600),
        (Outcome.VERIFIED, "because I say so", 600),
        (Outcome.INCONCLUSIVE, "between_bounds", 600),
    ],
)
def test_a_vote_that_its_own_numbers_contradict_is_refused(maker, outcome, reason, matched):
    claim = maker.claim("alice", maker.publish("alice"))
    applied = maker.vote(1, claim, outcome=outcome, reason=reason, measurement=good_measurement(matched))
    assert refused(applied) == "contradictory_vote"


def test_votes_without_numbers_are_for_what_could_not_be_measured(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    assert isinstance(maker.vote(1, claim, outcome=Outcome.UNVERIFIABLE, reason="unreachable"), Accepted)
    assert isinstance(maker.vote(2, claim, outcome=Outcome.REFUTED, reason="head_mismatch"), Accepted)
    without = maker.vote_message(claim, outcome=Outcome.REFUTED, reason="below_threshold")
    assert refused(maker.submit(maker.seal(without, "node-3/signing"))) == "malformed"


def test_votes_that_disagree_end_without_a_quorum(maker):
    claim = maker.claim("alice", maker.publish("alice"))
    maker.vote(1, claim)
    maker.vote(2, claim, outcome=Outcome.UNVERIFIABLE, reason="unreachable")
    refuted = good_measurement(300)
    maker.vote(3, claim, outcome=Outcome.REFUTED, reason="below_threshold", measurement=refuted)
    verdict = maker.ledger.verdict(claim)
    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "no_quorum")


def test_the_earlier_publication_prevails_whoever_claims_first(maker):
    owner, thief = maker.publish("alice"), maker.publish("mallory")
    thiefs = maker.claim("mallory", thief)
    maker.vote(1, thiefs), maker.vote(2, thiefs)
    assert maker.ledger.verdict(thiefs).superseded_by is None
    owners = maker.claim("alice", owner)
    maker.vote(1, owners), maker.vote(2, owners)
    assert maker.ledger.verdict(owners).superseded_by is None
    assert maker.ledger.verdict(thiefs).superseded_by == owners


def test_a_rival_is_a_rival_wherever_his_pointer_leads(maker: LedgerMaker):
    owned, stolen = maker.publish("alice"), maker.publish("mallory")
    owners = maker.claim("alice", owned)
    elsewhere = replace(
        maker.claim_message("mallory", stolen), model_pointer="https://elsewhere.example/copy.safetensors"
    )
    sealed = maker.seal(elsewhere, "mallory")
    thiefs = message_hash(sealed)
    maker.submit(sealed)
    for claim in (owners, thiefs):
        for node in (1, 2):
            maker.vote(node, claim)
    assert maker.ledger.verdict(thiefs).superseded_by == owners
    assert maker.ledger.verdict(owners).rivals == (thiefs,)


def test_an_earlier_publication_that_does_not_verify_supersedes_nobody(maker):
    first, second = maker.publish("mallory"), maker.publish("alice")
    loses, wins = maker.claim("mallory", first), maker.claim("alice", second)
    for node in (1, 2):
        refuted = good_measurement(300)
        maker.vote(node, loses, outcome=Outcome.REFUTED, reason="below_threshold", measurement=refuted)
        maker.vote(node, wins)
    assert maker.ledger.verdict(wins).superseded_by is None


def test_claims_on_different_models_do_not_compete(maker):
    first, second = maker.verified_claim("alice"), maker.verified_claim("bob", model=b"another")
    assert [maker.ledger.verdict(claim).superseded_by for claim in (first, second)] == [None, None]


def test_a_verdict_on_nothing_is_the_callers_mistake(maker):
    with pytest.raises(ValueError, match="no claim"):
        maker.ledger.verdict(bytes(32))


@given(st.binary(max_size=200))
def test_no_bytes_make_apply_raise(raw):
    maker = LedgerMaker()
    assert isinstance(maker.ledger.apply(raw), Refused)
    assert maker.ledger.size == 1


@given(st.data())
def test_no_changed_byte_of_an_entry_is_accepted(data):
    maker = LedgerMaker()
    entry = Entry(maker.seal(publication(), "alice"), maker.now_s).encode()
    position = data.draw(st.integers(0, len(entry) - 1))
    changed = bytearray(entry)
    changed[position] ^= data.draw(st.integers(1, 255))
    applied = maker.ledger.apply(bytes(changed))
    try:
        only_the_recorded_time = Entry.decode(bytes(changed)).envelope == Entry.decode(entry).envelope
    except Exception:  # noqa: BLE001  # whatever does not decode changed more than the time
        only_the_recorded_time = False
    assert isinstance(applied, Refused) or only_the_recorded_time


def test_an_oversized_entry_is_refused(maker):
    assert refused(maker.ledger.apply(bytes(ENTRY_BYTES_MAX + 1))) == "too_large"


def test_the_same_entries_make_the_same_state():
    maker = LedgerMaker()
    claim = maker.verified_claim()
    twin = Ledger()
    for entry in maker.entries:
        twin.apply(entry)
    assert twin.verdict(claim) == maker.ledger.verdict(claim)
    assert twin.find(claim).signed.signer == public_key("alice")
    assert twin.claims() == [claim]


def test_a_check_says_what_apply_would_say_and_changes_nothing(maker):
    accepted = seal(publication(), origin=ORIGIN, private_keys=[private_key("alice")])
    for change, code in (({}, None), ({"time_s": START_S - 10_000}, "time_skew")):
        envelope = seal(publication(**change), origin=ORIGIN, private_keys=[private_key("alice")])
        size, checked = maker.ledger.size, maker.ledger.check(unseal(envelope, origin=ORIGIN), START_S + 10)
        assert (checked and checked.code, maker.ledger.size) == (code, size)
        applied = maker.ledger.apply(Entry(envelope, START_S + 10).encode())
        assert isinstance(applied, Accepted) if code is None else applied == checked
    assert maker.ledger.check(unseal(accepted, origin=ORIGIN), START_S + 10**9) is None, "it is there already"
