"""What is told: one event for an entry that touches, one more for a vote that decides, and the alarm.

An event has the same document for stdout, webhooks and e-mails, and an id that is the same each time that it is told.
What strangers wrote stands in it as they wrote it; the text for people has none of the characters that command a
terminal or begin a line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from client.bodies import body_document
from client.output import counted, printable, utc
from client.watch.watched import VERDICT, Touch
from registry.checkpoint import Checkpoint
from registry.claims import ClaimState, Verdict
from registry.endpoint import endpoint_named
from registry.entry import Placed
from registry.messages import (
    Challenge,
    Claim,
    Genesis,
    Message,
    PolicyChange,
    Publication,
    Rotation,
    Vote,
    Withdrawal,
)
from registry.verdict import CERTIFIED

FORMAT = "wmreg-event/1"
ALARM, UNREADABLE = "alarm", "unreadable"
DOCUMENT_BYTES_MAX = 256 * 1024
_TEXT_CHARACTERS_MAX = 2000
_NAMES_SHOWN, _LABELS_SHOWN = 8, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something to tell.

    Attributes:
        id: 64 hexadecimal digits; the same event has the same one, however often it is told.
        kind: of its message, or verdict, unreadable, alarm.
        index: of its entry; None for an alarm.
        recorded_s: when a node recorded its entry, POSIX seconds; None for an alarm.
        text: one line for people.
        details: the rest of its document.
    """

    id: str
    kind: str
    index: int | None
    recorded_s: int | None
    text: str
    details: Mapping[str, object]

    def document(self) -> dict[str, object]:
        """The event for programs."""
        named = {"format": FORMAT, "id": self.id, "event": self.kind, "index": self.index}
        return {**named, "recorded_s": self.recorded_s, "text": self.text, **self.details}

    def encode(self) -> bytes:
        """The document as JSON in one line, of at most DOCUMENT_BYTES_MAX: a body that is too long is left out."""
        raw = json.dumps(self.document(), separators=(",", ":")).encode()
        if len(raw) <= DOCUMENT_BYTES_MAX:
            return raw
        return json.dumps({**self.document(), "body": None}, separators=(",", ":")).encode()

    def line(self) -> str:
        """The event in one line for people."""
        where = "       -" if self.index is None else f"{self.index:>8}"
        when = "-" if self.recorded_s is None else utc(self.recorded_s)
        return f"{where}  {when:<23}  {self.kind:<10}  {self.text}"


def entry_event(placed: Placed, touches: Sequence[Touch], proof: Checkpoint, *, member: str | None = None) -> Event:
    """An entry that touches.

    Args:
        placed: the entry.
        touches: why it is told; empty where everything is.
        proof: a checkpoint in which it was shown to be.
        member: the name of the node that votes.
    """
    signed = placed.signed
    text = _because(_sentence(signed.message, _short(signed.signer), member), touches)
    return Event(
        id=_identifier(proof.origin, signed.message.KIND, placed.index, signed.hash.hex()),
        kind=signed.message.KIND,
        index=placed.index,
        recorded_s=placed.recorded_s,
        text=text,
        details={
            **_common(proof, touches),
            "message_hash": signed.hash.hex(),
            "signers": [signer.hex() for signer in signed.signers],
            "body": body_document(signed.message),
        },
    )


def verdict_event(
    state: ClaimState, verdict: Verdict, decided_by: Placed, touches: Sequence[Touch], proof: Checkpoint
) -> Event:
    """A verdict that a vote has decided.

    Args:
        state: the claim with its votes, that one included.
        verdict: what they add up to.
        decided_by: the vote.
        touches: why it is told.
        proof: a checkpoint in which the vote was shown to be.
    """
    claim = state.claim.signed.hash.hex()
    agreeing = ", ".join(verdict.members) or "nobody"
    subject = f"the verdict on the claim {claim} on {_model(state.message)}"
    told = f"{verdict.outcome} ({verdict.reason}), by {agreeing}: {subject}"
    if verdict.outcome in CERTIFIED:
        told += f"; wmreg status {claim} tells whether an older publication stands against it"
    return Event(
        id=_identifier(proof.origin, VERDICT, decided_by.index, claim),
        kind=VERDICT,
        index=decided_by.index,
        recorded_s=decided_by.recorded_s,
        text=_because(told, touches),
        details={
            **_common(proof, touches),
            "claim": claim,
            "claim_index": state.claim.index,
            "claimant": state.claim.signed.signer.hex(),
            "model_sha256": state.message.model_sha256.hex(),
            "endpoint": endpoint_named(state.message.model_pointer),
            "publication": state.publication.signed.hash.hex(),
            "publication_index": state.publication.index,
            "outcome": str(verdict.outcome),
            "reason": verdict.reason,
            "members": list(verdict.members),
            "votes": sorted(placed.index for placed in state.votes.values()),
        },
    )


def unreadable_event(index: int, recorded_s: int, digest: bytes, proof: Checkpoint) -> Event:
    """An entry of a kind that this release does not know; it may touch anything."""
    text = f"the message {digest.hex()} is of a kind that this release does not know; update wmreg, and see wmreg show"
    identifier = _identifier(proof.origin, UNREADABLE, index, digest.hex())
    details = {**_common(proof, ()), "message_hash": digest.hex()}
    return Event(id=identifier, kind=UNREADABLE, index=index, recorded_s=recorded_s, text=text, details=details)


def alarm_event(origin: str, code: str, message: str) -> Event:
    """The ledger does not continue what was seen of it, or shows no entries that its checkpoints state."""
    text = _line(f"ALARM: {message}")
    details: dict[str, object] = {"origin": origin, "code": code}
    return Event(
        id=_identifier(origin, ALARM, 0, f"{code} {message}"),
        kind=ALARM,
        index=None,
        recorded_s=None,
        text=text,
        details=details,
    )


def _common(proof: Checkpoint, touches: Sequence[Touch]) -> dict[str, object]:
    return {
        "origin": proof.origin,
        "checkpoint": {"size": proof.size, "root": proof.root.hex()},
        "touches": [{"as": t.role, "value": t.value.hex(), "what": t.label} for t in touches],
    }


def _identifier(*parts: object) -> str:
    return hashlib.sha256(b"wmreg/v1/event\0" + json.dumps(parts).encode()).hexdigest()


def _sentence(message: Message, who: str, member: str | None) -> str:  # noqa: PLR0911 -- one for each kind
    match message:
        case Publication():
            return f"{who} publishes a model with a {message.scheme} mark"
        case Claim():
            return f"{who} claims {_model(message)}, by the publication {_short(message.publication)}"
        case Vote():
            return f"{member or who} votes {_vote(message)} on the claim {_short(message.claim)}"
        case Challenge():
            return f"{who} objects to the claim {_short(message.claim)}: {message.reason}"
        case Withdrawal():
            return f"{who} withdraws the message {_short(message.target)}: {message.reason}"
        case Rotation():
            return f"{_short(message.old_key)} moves to the signing key {message.new_key.hex()}"
        case Genesis():
            return f"the ledger {message.origin} begins with {_members(message)}"
        case PolicyChange():
            return f"the members change the policy; they are {_members(message)}. Run: wmreg policy update"


def _vote(vote: Vote) -> str:
    said = f"{vote.outcome} ({vote.reason})"
    if (measured := vote.measurement) is None:
        return said
    count = counted(
        measured.matched, measured.total, aligned=measured.aligned, matched_unaligned=measured.matched_unaligned
    )
    return f"{said}, {count}"


def _members(message: Genesis | PolicyChange) -> str:
    names = [member.name for member in message.policy.members]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{', '.join(names[:_NAMES_SHOWN])}{more}, a quorum of {message.policy.quorum}"


def _model(claim: Claim) -> str:
    endpoint = endpoint_named(claim.model_pointer)
    return f"the model {claim.model_sha256.hex()}" if endpoint is None else f"the endpoint {endpoint}"


def _because(sentence: str, touches: Sequence[Touch]) -> str:
    labels = sorted({touch.label for touch in touches}, key=lambda label: (len(label), label))[:_LABELS_SHOWN]
    return _line(f"{sentence} [{'; '.join(labels)}]" if labels else sentence)


def _line(text: str) -> str:
    return printable(" ".join(text.split()))[:_TEXT_CHARACTERS_MAX]


def _short(value: bytes) -> str:
    return f"{value.hex()[:16]}…"
