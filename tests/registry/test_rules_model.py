"""The rulebook against an independent model: names instead of keys, lists instead of indexes, no signatures.

Hypothesis plays owners, pirates and nodes in any order. After each move the model says what the ledger must have
answered, down to the code; at any time it says what every verdict is. Time passes too: clocks differ by up to a little
more than they may, and claims come to their deadline.
"""

from dataclasses import dataclass, field, replace

import pytest
from fakes import LedgerMaker, good_measurement, policy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from registry.commitments import commit_further, open_further
from registry.rules import Accepted, Ledger
from registry.verdict import Outcome

pytestmark = pytest.mark.long

OWNERS = ["alice", "mallory"]
MODELS = [b"model", b"model", b"another"]
OWNER, RARELY = st.sampled_from(OWNERS), st.sampled_from([False, False, False, True])
SKEW_S, DEADLINE_S = 300, 30 * 86400
APART = st.sampled_from([0] * 8 + [SKEW_S, -SKEW_S, SKEW_S + 1, -SKEW_S - 1])
RESERVE = 3  # further watermarks of those who have them
GOOD, BAD = (Outcome.VERIFIED, "matched", 600), (Outcome.REFUTED, "below_threshold", 300)


@dataclass
class Published:
    digest: bytes
    owner: str
    key: str
    number: int
    index: int
    further: bool
    withdrawn: bool = False


@dataclass
class Claimed:
    digest: bytes
    of: Published
    model: bytes
    members: frozenset
    recorded_s: int
    withdrawn: bool = False
    votes: dict = field(default_factory=dict)
    challenged_by: list = field(default_factory=list)


class Rulebook(RuleBasedStateMachine):
    """Owners are people here; which key of theirs signs is part of each move."""

    def __init__(self):
        super().__init__()
        self.maker = LedgerMaker()
        self.keys = {owner: [owner] for owner in OWNERS}
        self.published, self.claimed, self.members = [], [], frozenset({1, 2, 3})

    def submit(self, message, key, apart=0):
        """Let a node record a message when its clock is so many seconds ahead of the author's."""
        return self.maker.submit(self.maker.seal(message, key), recorded_s=self.maker.now_s + apart)

    def reserve(self, key):
        return [self.maker.committed(key, number=100 + number) for number in range(RESERVE)]

    @initialize(further=st.booleans())
    def begin(self, further):
        for owner in OWNERS:
            self.publish(owner=owner, old=False, number=0, further=further, apart=0)

    @rule(passed_s=st.sampled_from([1, 10, DEADLINE_S // 2]))
    def wait(self, passed_s):
        self.maker.now_s += passed_s

    @rule(late_s=st.sampled_from([0, 0, 1]))
    def vote_at_the_last_moment(self, late_s):
        missing = [(claim, node) for claim in self.claimed for node in sorted(claim.members - claim.votes.keys())]
        if not missing:
            return
        claim, node = missing[-1]
        self.maker.now_s = max(self.maker.now_s, claim.recorded_s + DEADLINE_S + late_s)
        self.cast(claim, node, good=True, honest=True)

    def check(self, applied, expected):
        found = "accepted" if isinstance(applied, Accepted) else applied.code
        assert found == expected, (applied, expected)

    @rule(owner=OWNER, old=RARELY, number=st.integers(0, 1), further=st.booleans(), apart=APART)
    def publish(self, owner, old, number, further, apart):
        key = self.keys[owner][0] if old else self.keys[owner][-1]
        index = self.maker.ledger.size
        more = commit_further(self.reserve(key)) if further else None
        applied = self.submit(self.maker.publication_message(key, number=number, further=more), key, apart)
        if abs(apart) > SKEW_S:
            expected = "time_skew"
        elif key != self.keys[owner][-1]:
            expected = "rotated_key"
        else:
            known = any((p.key, p.number) == (key, number) for p in self.published)
            expected = "key_commitment_used" if known else "accepted"
        self.check(applied, expected)
        if expected == "accepted":
            self.published.append(Published(applied.message_hash, owner, key, number, index, further))

    @precondition(lambda self: self.published)
    @rule(
        data=st.data(),
        by=OWNER,
        old=RARELY,
        model=st.sampled_from(MODELS),
        verified=st.booleans(),
        opened=st.none() | st.tuples(st.integers(0, RESERVE - 1), st.integers(0, RESERVE - 1)),
        apart=APART,
    )
    def claim(self, *, data, by, old, model, verified, opened, apart):
        of = data.draw(st.sampled_from(self.published))
        key = self.keys[by][0] if old else self.keys[by][-1]
        revealed, shown = opened or (None, None)
        number = of.number if opened is None else 100 + revealed
        message = self.maker.claim_message(of.key, of.digest, model=model, number=number)
        if opened is not None:
            message = replace(message, opening=open_further(self.reserve(of.key), shown))
        recorded_s = self.maker.now_s + apart
        applied = self.submit(message, key, apart)
        if abs(apart) > SKEW_S:
            expected = "time_skew"
        elif key != self.keys[by][-1]:
            expected = "rotated_key"
        elif by != of.owner:
            expected = "not_the_publisher"
        elif of.withdrawn:
            expected = "withdrawn"
        elif opened is not None and not of.further:
            expected = "bad_opening"
        else:
            expected = "accepted" if revealed == shown else "key_mismatch"
        self.check(applied, expected)
        if expected == "accepted":
            self.claimed.append(Claimed(applied.message_hash, of, model, self.members, recorded_s))
            for node in sorted(self.members) if verified else []:
                self.cast(self.claimed[-1], node, good=True, honest=True)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), node=st.integers(1, 5), good=st.booleans(), honest=st.booleans(), apart=APART)
    def vote(self, data, node, good, honest, apart):
        self.cast(data.draw(st.sampled_from(self.claimed)), node, good=good, honest=honest, apart=apart)

    def cast(self, claim, node, *, good, honest, apart=0):
        outcome, reason, matched = GOOD if good else BAD
        measured = good_measurement(matched if honest else 900 - matched)
        recorded_s = self.maker.now_s + apart
        vote = self.maker.vote_message(claim.digest, outcome=outcome, reason=reason, measurement=measured)
        applied = self.submit(vote, f"node-{node}/signing", apart)
        if abs(apart) > SKEW_S:
            expected = "time_skew"
        elif node not in self.members or node not in claim.members:
            expected = "not_a_member"
        elif node in claim.votes:
            expected = "voted_before"
        elif claim.withdrawn:
            expected = "withdrawn"
        elif recorded_s > claim.recorded_s + DEADLINE_S:
            expected = "deadline"
        else:
            expected = "accepted" if honest else "contradictory_vote"
        self.check(applied, expected)
        if expected == "accepted":
            claim.votes[node] = outcome

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), by=OWNER, which=st.booleans())
    def withdraw(self, data, by, which):
        targets = self.published if which else self.claimed
        target = data.draw(st.sampled_from(targets))
        owner = target.owner if which else target.of.owner
        applied = self.maker.withdraw(self.keys[by][-1], target.digest)
        directly = target.withdrawn if which else target.withdrawn == "itself"
        expected = "not_the_publisher" if by != owner else "withdrawn" if directly else "accepted"
        self.check(applied, expected)
        if expected == "accepted":
            target.withdrawn = True if which else "itself"
            for claim in self.claimed if which else []:
                claim.withdrawn = claim.withdrawn or claim.of is target

    @rule(
        owner=OWNER,
        old=RARELY,
        consents=st.booleans(),
        to=st.sampled_from(["a new key", "the first key", "a node's key"]),
    )
    def rotate(self, owner, old, consents, to):
        key = self.keys[owner][0] if old else self.keys[owner][-1]
        new = {
            "a new key": f"{owner}-{len(self.keys[owner])}",
            "the first key": self.keys[owner][0],
            "a node's key": "node-1/signing",
        }[to]
        applied = self.maker.rotate(key, new, signers=sorted({key, new}) if consents else [key])
        if key != self.keys[owner][-1]:
            expected = "rotated_key"
        elif to != "a new key":
            expected = "key_in_use"
        else:
            expected = "accepted" if consents else "not_signed_by_both"
        self.check(applied, expected)
        if expected == "accepted":
            self.keys[owner].append(new)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), by=OWNER)
    def challenge(self, data, by):
        claim, own = data.draw(st.sampled_from(self.claimed)), data.draw(st.sampled_from(self.published))
        applied = self.maker.challenge(self.keys[by][-1], claim.digest, own.digest)
        if own.owner != by:
            expected = "not_the_publisher"
        elif own.withdrawn:
            expected = "withdrawn"
        elif claim.of.owner == by:
            expected = "own_claim"
        else:
            expected = "challenged_before" if by in claim.challenged_by else "accepted"
        self.check(applied, expected)
        if expected == "accepted":
            claim.challenged_by.append(by)

    @rule(node=st.integers(1, 5), absent=st.sets(st.integers(1, 5), max_size=2))
    def change_members(self, node, absent):
        signers = {1, 2, 3, 4, 5} - absent if len(absent) == 2 else (self.members | {node}) - absent
        new = self.members ^ {node}
        if not new:
            return
        applied = self.maker.change_policy(policy(*sorted(new)), *(f"node-{number}" for number in sorted(signers)))
        if not signers <= self.members | new:
            expected = "not_a_member"
        elif len(signers & self.members) < len(self.members) // 2 + 1:
            expected = "no_quorum"
        else:
            expected = "accepted" if new - self.members <= signers else "not_signed_by_both"
        self.check(applied, expected)
        if expected == "accepted":
            self.members = new

    def outcome(self, claim):
        if claim.withdrawn:
            return Outcome.INCONCLUSIVE
        votes = list(claim.votes.values())
        for outcome in (Outcome.VERIFIED, Outcome.REFUTED):
            if votes.count(outcome) > len(claim.members) // 2:
                return outcome
        return Outcome.INCONCLUSIVE if len(votes) == len(claim.members) else None

    @invariant()
    def verdicts_are_what_the_model_says(self):
        for claim in self.claimed:
            verdict = self.maker.ledger.verdict(claim.digest)
            assert verdict.outcome is self.outcome(claim)
            for as_of_s in (claim.recorded_s + DEADLINE_S, claim.recorded_s + DEADLINE_S + 1, self.maker.now_s):
                late = as_of_s > claim.recorded_s + DEADLINE_S
                expected = self.outcome(claim) or (Outcome.INCONCLUSIVE if late else None)
                assert self.maker.ledger.verdict(claim.digest, as_of_s=as_of_s).outcome is expected
            assert len(verdict.challenges) == len(claim.challenged_by)
            older = [
                rival
                for rival in self.claimed
                if rival.model == claim.model
                and rival.of.owner != claim.of.owner
                and self.outcome(rival) is Outcome.VERIFIED
                and rival.of.index < claim.of.index
            ]
            superseded = bool(older) and verdict.outcome is Outcome.VERIFIED
            assert (verdict.superseded_by is not None) == superseded

    def teardown(self):
        twin = Ledger()
        for raw in self.maker.entries:
            assert isinstance(twin.apply(raw), Accepted)
        claims = self.maker.ledger.claims()
        assert [twin.verdict(claim) for claim in claims] == [self.maker.ledger.verdict(claim) for claim in claims]


TestRulebook = Rulebook.TestCase
TestRulebook.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
