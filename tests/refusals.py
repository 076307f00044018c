"""A log of random messages, good and bad, with what the rulebook said of each: for checking another rulebook by.

The same seed gives the same log. Owners publish, claim, object, withdraw and move to other keys; members vote and
change the policy; and each does it now and then late, twice, in another's name, with wrong numbers or with somebody
else's key.
"""

import random
from dataclasses import replace
from typing import Any

from fakes import LedgerMaker, good_measurement, member, private_key, public_key, with_control

from registry.commitments import commit_further, open_further
from registry.entry import Entry
from registry.envelope import message_hash, seal
from registry.messages import Genesis, Rotation, Vote, Withdrawal
from registry.policy import Policy
from registry.rules import Accepted, Applied, Duplicate
from registry.verdict import ControlKind, Measurement, Outcome, judge

OWNERS = ("alice", "bob", "carol", "dave")
FURTHER = 3
# What the log of any seed has to have, or it would not be worth much.
CODES = frozenset(
    {
        *("accepted", "duplicate", "malformed", "bad_signature", "time_skew", "second_genesis", "not_a_member"),
        *("stale_policy", "no_quorum", "not_signed_by_both", "key_commitment_used", "unknown_publication"),
        *("unknown_claim", "unknown_target", "not_the_publisher", "key_not_bound", "key_mismatch", "bad_opening"),
        *("rotated_key", "key_in_use", "withdrawn", "voted_before", "own_claim", "challenged_before"),
        *("contradictory_vote", "other_policy", "too_many_changes", "name_in_use", "deadline"),
    }
)


class Recorder(LedgerMaker):
    """A ledger that remembers what it was offered, and what became of it."""

    def __init__(self, seed: int) -> None:
        self.offered: list[tuple[bytes, str]] = []
        self.draw = random.Random(seed)
        self.publications: list[tuple[str, bytes, int]] = []
        self.claimed: list[bytes] = []
        self.speaks = {owner: owner for owner in OWNERS}
        super().__init__()

    def submit(self, envelope: bytes, *, recorded_s: int | None = None) -> Applied:
        raw = Entry(envelope, self.now_s if recorded_s is None else recorded_s).encode()
        applied = super().submit(envelope, recorded_s=recorded_s)
        if isinstance(applied, Accepted):
            said = "accepted"
        else:
            said = "duplicate" if isinstance(applied, Duplicate) else applied.code
        self.offered.append((raw, said))
        return applied

    def play(self, steps: int) -> list[tuple[bytes, str]]:
        """Offer so many messages more; everything that was offered."""
        doings = (
            (self.some_publication, 5), (self.some_claim, 6), (self.some_vote, 8), (self.some_withdrawal, 1),
            (self.some_challenge, 3), (self.some_rotation, 1), (self.some_policy, 3), (self.some_nonsense, 3),
        )  # fmt: skip
        does, weights = zip(*doings, strict=True)
        for _ in range(steps):
            self.draw.choices(does, weights)[0]()
        return self.offered

    def chance(self, share: float) -> bool:
        return self.draw.random() < share

    def some_owner(self) -> str:
        """A key that an owner has now, or one of his that he gave up."""
        owner = self.draw.choice(OWNERS)
        return owner if self.chance(0.1) else self.speaks[owner]

    def offer(self, message: Any, *signers: str) -> bytes:
        """Seal and submit, now and then at a wrong time, for another ledger or by somebody else; the message's hash."""
        keys = [private_key(signer) for signer in signers]
        if self.chance(0.03):
            keys = [private_key("mallory")]
        origin = "example.org/other" if self.chance(0.03) else self.origin
        envelope = seal(message, origin=origin, private_keys=keys)
        self.submit(
            envelope, recorded_s=self.now_s + (self.draw.choice((-301, 301, 10**9)) if self.chance(0.04) else 0)
        )
        return message_hash(envelope)

    def some_publication(self) -> None:
        owner, number = self.draw.choice(OWNERS), self.draw.randrange(12)
        further = commit_further(self.further(owner)) if self.chance(0.5) else None
        message = self.publication_message(owner, number=number, further=further)
        self.publications.append((owner, self.offer(message, self.speaks[owner]), number))

    def further(self, owner: str) -> list[Any]:
        return [self.committed(owner, number=100 + place) for place in range(FURTHER)]

    def some_claim(self) -> None:
        if not self.publications:
            return
        owner, publication, number = self.draw.choice(self.publications)
        message = self.claim_message(owner, publication, model=self.draw.randbytes(1), number=number)
        if self.chance(0.2):
            place = self.draw.randrange(FURTHER)
            opening = open_further(self.further(owner), place)
            opening = replace(opening, index=(place + 1) % FURTHER) if self.chance(0.3) else opening
            fresh = self.claim_message(owner, publication, number=100 + place)
            message = replace(fresh, opening=opening)
        elif self.chance(0.15):
            message = replace(message, binding=self.claim_message("bob", publication, number=5).binding)
        elif self.chance(0.1):
            message = replace(message, binding=self.claim_message(owner, publication, number=77).binding)
        elif self.chance(0.1):
            message = replace(message, publication=self.draw.choice([bytes(32), *self.claimed[-1:]]))
        signer = self.some_owner() if self.chance(0.1) else self.speaks[owner]
        self.claimed.append(self.offer(message, signer))

    def some_measurement(self) -> Measurement:
        matched = self.draw.choice((600, 597, 480, 430, 421, 420, 419, 400, 361, 360, 359, 300))
        measured = good_measurement(matched)
        if self.chance(0.2):
            measured = with_control(measured, ControlKind.BASE, self.draw.choice((300, 360, matched)))
        if self.chance(0.2):
            measured = replace(measured, permutations_as_good=self.draw.choice((0, 1, 5)))
        if self.chance(0.1):
            measured = replace(measured, controls=measured.controls[: self.draw.randrange(9)])
        if self.chance(0.15):
            measured = replace(measured, aligned=True, matched_unaligned=self.draw.choice((None, 200)))
        return measured

    def some_vote(self) -> None:
        if not self.claimed:
            return
        claim = bytes(32) if self.chance(0.05) else self.draw.choice(self.claimed[-4:])
        measured = self.some_measurement()
        outcome, reason = judge(measured, self.policy.thresholds)
        if self.chance(0.1):
            outcome, reason = self.draw.choice(list(Outcome)[:3]), "matched"
        message: Vote = self.vote_message(claim, outcome=outcome, reason=reason, measurement=measured)
        if self.chance(0.1):
            message = replace(message, outcome=Outcome.UNVERIFIABLE, reason="unreachable", measurement=None)
        if self.chance(0.05):
            message = replace(message, policy=self.ledger.policy_hashes[0])
        if self.chance(0.03):
            self.now_s += 31 * 86400
            message = replace(message, time_s=self.now_s)
        name = self.draw.choice(self.policy.members).name
        self.offer(message, "alice" if self.chance(0.05) else f"{name}/signing")

    def some_withdrawal(self) -> None:
        targets = [digest for _, digest, _ in self.publications[:6]] + self.claimed[:6]
        target = self.draw.choice([*targets, bytes(32)])
        self.offer(Withdrawal(time_s=self.now_s, target=target, reason="a mistake"), self.some_owner())

    def some_challenge(self) -> None:
        if not self.claimed:
            return
        claim = bytes(32) if self.chance(0.1) else self.draw.choice(self.claimed)
        owner, publication, _ = self.draw.choice(self.publications)
        self.offer(self.challenge_message(claim, publication), self.speaks[owner])

    def some_rotation(self) -> None:
        owner = self.draw.choice(OWNERS)
        old, new = self.some_owner() if self.chance(0.2) else self.speaks[owner], f"{owner} {self.draw.randrange(4)}"
        if self.chance(0.1):
            old = "node-1/signing"
        message = Rotation(time_s=self.now_s, old_key=public_key(old), new_key=public_key(new))
        signers = (old,) if self.chance(0.2) else (old, new)
        self.offer(message, *signers)
        if self.ledger.find(self.last_hash()) and old == self.speaks[owner]:
            self.speaks[owner] = new

    def last_hash(self) -> bytes:
        return message_hash(Entry.decode(self.offered[-1][0]).envelope)

    def some_policy(self) -> None:
        before = list(self.policy.members)
        names = [one.name for one in before]
        new = f"node-{self.draw.randrange(1, 8)}"
        after, joining = before, []
        if self.chance(0.4) and new not in names:
            after, joining = [*before, member(new, port=4000 + 2 * int(new[5:]))], [new]
        elif self.chance(0.5) and len(before) > 2:
            after = [one for one in before if one.name != self.draw.choice(names)]
        elif self.chance(0.5):
            after = [*before[1:], replace(before[0], name=f"other-{before[0].name}")]
        after = sorted(after, key=lambda one: one.name)
        if not after:
            return
        policy = Policy(members=tuple(after), quorum=len(after) // 2 + 1, claim_deadline_s=30 * 86400)
        signers = self.draw.sample(names, self.draw.randrange(1, len(names) + 1)) + joining * (not self.chance(0.2))
        previous = bytes(32) if self.chance(0.1) else None
        self.change_policy(policy, *signers, previous=previous)

    def some_nonsense(self) -> None:
        raw, _ = self.draw.choice(self.offered)
        envelope = bytearray(Entry.decode(raw).envelope)
        match self.draw.randrange(4):
            case 0:
                self.submit(bytes(envelope))
            case 1:
                envelope[self.draw.randrange(len(envelope))] ^= 1 << self.draw.randrange(8)
                self.submit(bytes(envelope))
            case 2:
                self.submit(bytes(envelope[: self.draw.randrange(1, len(envelope))]))
            case 3:
                genesis = Genesis(time_s=self.now_s, origin=self.origin, policy=self.policy)
                self.submit(self.seal(genesis, *(f"{one.name}/signing" for one in genesis.policy.members)))
