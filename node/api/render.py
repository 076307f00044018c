"""Ledger values as JSON: bytes as lower-case hex, everything else as it is."""

from dataclasses import fields, is_dataclass
from typing import Any, cast

from node.store import Store
from registry.messages import Claim, Vote, kind_of
from registry.rules import ClaimState, Placed
from registry.verdict import Measurement, p_value

Json = dict[str, Any]


def plain(value: object) -> Any:  # noqa: ANN401 -- JSON is any of its types
    """A message's value as JSON types."""
    if isinstance(value, bytes):
        return value.hex()
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
        "kind": kind_of(placed.signed.message),
        "recorded_s": placed.recorded_s,
        "signers": [signer.hex() for signer in placed.signed.signers],
        "body": plain(placed.signed.message),
    }


def claim(store: Store, digest: bytes, state: ClaimState) -> Json:
    """A claim, every vote on it, and what they add up to."""
    verdict = store.verdict(digest)
    message = cast("Claim", state.claim.signed.message)
    superseding = store.claim_state(verdict.superseded_by) if verdict.superseded_by else None
    return {
        "claim": digest.hex(),
        "publication": message.publication.hex(),
        "owner": state.claim.signed.signer.hex(),
        "model_sha256": message.model_sha256.hex(),
        "outcome": str(verdict.outcome) if verdict.outcome else None,
        "reason": verdict.reason,
        "members": list(verdict.members),
        "superseded_by": verdict.superseded_by.hex() if verdict.superseded_by else None,
        "superseding": _superseding(superseding),
        "publication_index": state.publication.index,
        "claim_index": state.claim.index,
        "votes": [_vote(member, placed) for member, placed in sorted(state.votes.items())],
    }


def _superseding(state: ClaimState | None) -> Json | None:
    if state is None:
        return None
    return {
        "publication": state.publication.signed.hash.hex(),
        "owner": state.claim.signed.signer.hex(),
        "publication_index": state.publication.index,
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
        names = ("matched", "total", "p_value", "permutations", "permutations_as_good")
        return {**dict.fromkeys(names), "controls": []}
    return {
        "matched": measurement.matched,
        "total": measurement.total,
        "p_value": p_value(measurement.matched, measurement.total),
        "permutations": measurement.permutations,
        "permutations_as_good": measurement.permutations_as_good,
        "controls": [plain(control) for control in measurement.controls],
    }
