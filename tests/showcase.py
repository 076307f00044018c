"""A ledger in which there is one of everything, and whose strangers write what breaks pages that do not escape.

What the tests of the explorer look at: verified, superseded, refuted, open and unverifiable claims, marks without a
head and of integrity, claims on endpoints, objections, withdrawals, rotations.
"""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fakes import binding, counted, private_key, public_key, with_control
from nodeset import ORIGIN, NodeSet, claim, publication, sealed, vote_message

from registry import commitments
from registry.endpoint import endpoint_sha256
from registry.messages import Challenge, Publication, Rotation, Withdrawal
from registry.policy import Thresholds
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, Statistic, judge

# Ends an element, a comment, an attribute and a script; runs without one; is a template; turns the writing around.
HOSTILE = "\"'></p><script>alert(1)</script><img src=x onerror=alert(1)>--><!--{{7*7}}\u202e&lt;"
MODEL_SHA256 = b"\x11" * 32
Submit = Callable[[bytes], Awaitable[bytes]]
Ballot = Callable[[bytes, Sequence[int], Callable[[int], Measurement] | None], Awaitable[bytes]]
ENDPOINT = "https://models.example/v2/models/digits"


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
    intact: bytes
    tampered: bytes
    undecided: bytes
    stitched: bytes
    locked: bytes
    endpoint: bytes
    endpoint_vote: bytes
    mistaken: bytes
    misspelt: bytes
    integrity_published: bytes
    integrity_vote: bytes

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
    schemes = await _fill_schemes(submit, vote)
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
        **schemes,
    )


async def _fill_schemes(submit: Submit, vote: Ballot) -> dict[str, bytes]:
    """Marks without a head and of integrity, on files and on endpoints."""
    fragile, stitching, locking, margin = [
        _publication(owner, scheme)
        for owner, scheme in (
            ("gina", "fragile"),
            ("hugo", "frontier_stitching"),
            ("iris", "locked_parameters"),
            ("jane", "margin"),
        )
    ]
    kept = await submit(fragile)
    for published in (stitching, locking, margin):
        await submit(published)
    made = {
        "integrity_published": kept,
        "intact": await submit(claim(fragile, "gina", model_sha256=b"\x51" * 32)),
        "tampered": await submit(claim(fragile, "gina", **at_endpoint(f"{ENDPOINT}/versions/2"))),
        "undecided": await submit(claim(fragile, "gina", model_sha256=b"\x52" * 32)),
        "stitched": await submit(claim(stitching, "hugo", model_sha256=b"\x53" * 32)),
        "locked": await submit(claim(locking, "iris", model_sha256=b"\x54" * 32)),
        "endpoint": await submit(claim(margin, "jane", **at_endpoint(ENDPOINT))),
        "mistaken": await submit(
            claim(margin, "jane", model_pointer=f"endpoint+{ENDPOINT}", model_sha256=b"\x55" * 32)
        ),
        "misspelt": await submit(claim(margin, "jane", **at_endpoint(f"https://{HOSTILE}"))),
    }
    made["integrity_vote"] = await vote(made["intact"], (0, 1, 2), lambda _: counted(Statistic.INTEGRITY))
    await vote(made["tampered"], (0, 1), lambda number: counted(Statistic.INTEGRITY, 90 + number))
    await vote(made["stitched"], (0, 1, 2), lambda _: counted(Statistic.CALIBRATED))
    await vote(made["locked"], (0, 1), lambda _: counted(Statistic.SIGNS))
    made["endpoint_vote"] = await vote(
        made["endpoint"], (0, 1, 2), lambda number: counted(Statistic.CLASSES, 88 + number)
    )
    return made


def at_endpoint(url: str) -> dict[str, object]:
    """What a claim on an endpoint has in the place of a file."""
    return {"model_pointer": f"endpoint+{url}", "model_sha256": endpoint_sha256(url)}


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
