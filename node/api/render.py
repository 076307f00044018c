"""Ledger values as JSON: bytes as lower-case hex, everything else as it is."""

from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, cast

from node.ledger import LedgerService
from registry.claims import ClaimState
from registry.endpoint import endpoint_named
from registry.entry import Placed
from registry.messages import Challenge, Vote
from registry.verdict import ControlCounts, Measurement

Json = dict[str, Any]
_MEASURED = (
    "matched",
    "total",
    "statistic",
    "chance_ppm",
    "p_value",
    "permutations",
    "permutations_as_good",
    "aligned",
    "matched_unaligned",
)
SHOWN_MAX = 32  # rivals and challenges of one claim; strangers can make any number of them


def plain(value: object) -> Any:  # noqa: ANN401 -- JSON is any of its types
    """A message's value as JSON types."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, ControlCounts):
        return {name: plain(part) for name, part in value._asdict().items()}
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value  # an outcome is a str of its own class


def entry(placed: Placed) -> Json:
    """One entry: its place and its message."""
    return {
        "index": placed.index,
        "message_hash": placed.signed.hash.hex(),
        "kind": placed.signed.message.KIND,
        "recorded_s": placed.recorded_s,
        "signers": [signer.hex() for signer in placed.signed.signers],
        "body": plain(placed.signed.message),
    }


def claim(ledger: LedgerService, digest: bytes, state: ClaimState) -> Json:
    """A claim, every vote on it, and what they add up to."""
    verdict, message = ledger.verdict(digest), state.message
    rivals = [rival for claimed in verdict.rivals if (rival := ledger.store.claim_state(claimed))]
    return {
        "claim": digest.hex(),
        "publication": message.publication.hex(),
        "owner": state.claim.signed.signer.hex(),
        "model_sha256": message.model_sha256.hex(),
        "endpoint": endpoint_named(message.model_pointer),
        "outcome": str(verdict.outcome) if verdict.outcome else None,
        "reason": verdict.reason,
        "members": list(verdict.members),
        "superseded_by": verdict.superseded_by.hex() if verdict.superseded_by else None,
        "superseding": _rival(rivals[0]) if verdict.superseded_by else None,
        "rivals": [_rival(rival) for rival in rivals[:SHOWN_MAX]],
        "rivals_total": verdict.rivals_total,
        "challenges": [_challenge(placed) for placed in islice(state.challenges.values(), SHOWN_MAX)],
        "challenges_total": len(state.challenges),
        "withdrawn_by": state.withdrawal.signed.hash.hex() if state.withdrawal else None,
        "deadline_s": state.deadline_s,
        "quorum": state.policy.quorum,
        "nodes": len(state.policy.members),
        "publication_index": state.publication.index,
        "claim_index": state.claim.index,
        "votes": [_vote(member, placed) for member, placed in sorted(state.votes.items())],
    }


def _rival(state: ClaimState) -> Json:
    return {
        "claim": state.claim.signed.hash.hex(),
        "publication": state.publication.signed.hash.hex(),
        "owner": state.claim.signed.signer.hex(),
        "publication_index": state.publication.index,
    }


def _challenge(placed: Placed) -> Json:
    message = cast("Challenge", placed.signed.message)
    return {
        "challenge": placed.signed.hash.hex(),
        "challenger": placed.signed.signer.hex(),
        "publication": message.publication.hex(),
        "reason": message.reason,
        "recorded_s": placed.recorded_s,
    }


def _vote(member: str, placed: Placed) -> Json:
    vote = cast("Vote", placed.signed.message)
    return {
        "member": member,
        "outcome": str(vote.outcome),
        "reason": vote.reason,
        "device": vote.device,
        "software": vote.software,
        "recorded_s": placed.recorded_s,
        **_numbers(vote.measurement),
    }


def _numbers(measurement: Measurement | None) -> Json:
    if measurement is None:
        return {**dict.fromkeys(_MEASURED), "controls": []}
    return {
        "matched": measurement.matched,
        "total": measurement.total,
        "statistic": str(measurement.statistic),
        "chance_ppm": measurement.chance_ppm,
        "p_value": measurement.p_value,
        "permutations": measurement.permutations,
        "permutations_as_good": measurement.permutations_as_good,
        "controls": [plain(control) for control in measurement.controls],
        "aligned": measurement.aligned,
        "matched_unaligned": measurement.matched_unaligned,
    }
