"""A ledger in which there is one of everything, and whose strangers write what breaks pages that do not escape.

What the tests of the explorer look at: verified, superseded, refuted, open and unverifiable claims, objections,
withdrawals, rotations.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fakes import binding, private_key, public_key, with_control
from nodeset import ORIGIN, NodeSet, claim, publication, sealed, vote_message

from registry import commitments
from registry.messages import Challenge, Publication, Rotation, Withdrawal
from registry.policy import Thresholds
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, judge

# Ends an element, a comment, an attribute and a script; runs without one; is a template; turns the writing around.
HOSTILE = "\"'></p><script>alert(1)</script><img src=x onerror=alert(1)>--><!--{{7*7}}\u202e&lt;"
MODEL_SHA256 = b"\x11" * 32


@dataclass(frozen=True, kw_only=True)
class Showcase:
    """Hashes of messages of the ledger, by what they are."""

    published: bytes
    verified: bytes
    superseded: bytes
    refuted: bytes
    open: bytes
    unverifiable: bytes
    withdrawn: bytes
    challenge: bytes
    withdrawal: bytes
    rotation: bytes
    vote: bytes
    genesis: bytes

    @property
    def all(self) -> dict[str, bytes]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Served:
    """A node that serves such a ledger, and what is in it."""

    url: str
    shown: Showcase


def measurement(matched: int, *, seed: int, base: int | None = None) -> Measurement:
    """Numbers as a node counts them: fresh controls near chance, perhaps a base."""
    draw, controls = random.Random(seed), []
    for _ in range(8):
        count = draw.randint(285, 325)
        both = count * matched // 600
        controls.append(ControlCounts(ControlKind.FRESH, count, matched - both, count - both))
    measured = Measurement(
        matched=matched, total=600, permutations=999, permutations_as_good=0, controls=tuple(controls)
    )
    return measured if base is None else with_control(measured, ControlKind.BASE, base)


async def fill(nodes: NodeSet, *, publications: int = 0) -> Showcase:
    """Record one of everything through the first node, and more publications after that; of three nodes."""
    ledger, now_s = nodes.nodes[0].ledger, int(time.time())

    async def submit(envelope: bytes) -> bytes:
        return (await ledger.submit(envelope, timeout_s=5)).message_hash

    async def vote(digest: bytes, numbers: Sequence[int], measured: Callable[[int], Measurement] | None) -> bytes:
        for number in numbers:
            said = {"outcome": Outcome.UNVERIFIABLE, "reason": HOSTILE[:64]}
            if measured is not None:
                outcome, reason = judge(measured(number), Thresholds())
                said = {"outcome": outcome, "reason": reason, "measurement": measured(number)}
            last = await submit(sealed(vote_message(nodes, digest, **said), nodes.nodes[number].identity.signing))
        return last

    alice, pirate, eve = (publication(owner) for owner in ("alice", "pirate", "eve"))
    published = await submit(alice)
    await submit(pirate)
    await submit(eve)
    verified = await submit(claim(alice, "alice"))
    first_vote = await vote(verified, (0, 1, 2), lambda number: measurement(597 + number, seed=number, base=331))
    superseded = await submit(claim(pirate, "pirate"))
    await vote(superseded, (0, 1), lambda number: measurement(599, seed=10 + number))
    refuted = await submit(claim(eve, "eve", model_sha256=b"\x33" * 32, model_pointer=f"https://{HOSTILE}"))
    await vote(refuted, (0, 1, 2), lambda number: measurement(301 + number, seed=20 + number))
    still_open = await submit(claim(eve, "eve", model_sha256=b"\x44" * 32, evidence_pointer=HOSTILE))
    await vote(still_open, (0,), lambda _: measurement(390, seed=3))
    unverifiable = await submit(claim(eve, "eve", model_sha256=b"\x45" * 32))
    await vote(unverifiable, (0, 1), None)
    withdrawn = await submit(_publication("bob", HOSTILE[:64]))
    objection = Challenge(time_s=now_s, claim=verified, publication=withdrawn, reason=HOSTILE)
    challenge = await submit(sealed(objection, private_key("bob")))
    withdrawal = await submit(sealed(Withdrawal(time_s=now_s, target=withdrawn, reason=HOSTILE), private_key("bob")))
    moved = Rotation(time_s=now_s, old_key=public_key("bob"), new_key=public_key("bob's next key"))
    rotation = await submit(sealed(moved, private_key("bob"), private_key("bob's next key")))
    for number in range(publications):
        await submit(publication("dave", number=number))
    return Showcase(
        published=published,
        verified=verified,
        superseded=superseded,
        refuted=refuted,
        open=still_open,
        unverifiable=unverifiable,
        withdrawn=withdrawn,
        challenge=challenge,
        withdrawal=withdrawal,
        rotation=rotation,
        vote=first_vote,
        genesis=ledger.store.policy_hashes[0],
    )


def _publication(owner: str, scheme: str) -> bytes:
    key = binding(owner, origin=ORIGIN).watermark_key
    message = Publication(
        time_s=int(time.time()),
        scheme=scheme,
        key_commitment=commitments.key_commitment(key),
        head_commitment=b"h" * 32,
        info_commitment=b"i" * 32,
    )
    return sealed(message, private_key(owner))
