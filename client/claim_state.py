"""A claim's state as a node tells it, and the same in words.

A node's word is worth a look, not a conviction: what convinces is the certificate, which the client checks itself,
and what convinces an auditor is the replay of the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from client.errors import DONE, INVALID, UNAVAILABLE
from client.output import table
from client.transport import UnreachableError

REASONS = {
    "matched": "the mark is in the model",
    "below_threshold": "the head answers too few triggers on this model: it does not carry this mark",
    "between_bounds": "more triggers are answered than by chance, but too few to convict",
    "not_specific": "the head answers just as well on models that have nothing to do with the owner",
    "shared_ancestor": "the declared base answers as well as the suspect: both may come from that base",
    "too_few_controls": "too few control runs were made",
    "head_mismatch": "the head in the evidence is not the one that was published",
    "info_mismatch": "the info in the evidence is not the one that was published",
    "withdrawn": "its owner took the claim, or the publication, back",
    "deadline": "too few nodes voted before the claim's deadline",
    "no_quorum": "all nodes have voted and no quorum of them agrees",
    "unreachable": "the nodes could not fetch the model or the evidence",
    "hash_mismatch": "the file behind the pointer does not have the claimed hash",
    "unknown_architecture": "the nodes do not know the model's architecture",
    "unknown_scheme": "the nodes do not know the watermark scheme",
    "wrong_architecture": "the file is no model of the architecture that the evidence states",
    "too_large": "a file is larger than the ledger's policy allows",
    "malformed": "a file is not what it should be",
    "unsupported_pointer": "the nodes do not fetch from such a place",
    "timeout": "the verification took longer than a node allows",
    "crashed": "the verification broke down",
}


@dataclass(frozen=True, slots=True)
class NodeVote:
    """One node's vote, for the table."""

    member: str
    outcome: str
    reason: str
    numbers: Mapping[str, object]

    def row(self) -> list[object]:
        """Cells of the table of votes."""
        total, drawn = self.numbers.get("total"), self.numbers.get("permutations")
        controls = cast("list[Mapping[str, object]]", self.numbers.get("controls") or [])
        best = max((cast("int", control.get("matched", 0)) for control in controls), default=None)
        measured = total is not None
        return [
            self.member,
            self.outcome,
            self.reason,
            f"{self.numbers.get('matched')}/{total}" if measured else None,
            self.numbers.get("p_value") if measured else None,
            f"{self.numbers.get('permutations_as_good')}/{drawn}" if drawn is not None else None,
            best,
            self.numbers.get("device"),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimState:
    """What one node says of a claim.

    Attributes:
        outcome: None while the claim is open.
        superseding: the publication that prevails by age: its hash, owner and index; None when this claim prevails.
        document: all that the node said.
    """

    claim: str
    model_sha256: str
    outcome: str | None
    reason: str
    votes: tuple[NodeVote, ...]
    superseding: Mapping[str, object] | None
    document: dict[str, object]

    @classmethod
    def read(cls, document: dict[str, object]) -> "ClaimState":
        """Read a node's answer.

        Raises:
            UnreachableError: it is not a claim's state; such a node is passed over.
        """
        try:
            return cls(
                claim=_text(document["claim"]),
                model_sha256=_text(document["model_sha256"]),
                outcome=None if document["outcome"] is None else _text(document["outcome"]),
                reason=_text(document["reason"]),
                votes=tuple(_vote(vote) for vote in cast("list[dict[str, object]]", document["votes"])),
                superseding=cast("Mapping[str, object] | None", document.get("superseding")),
                document=document,
            )
        except (KeyError, TypeError) as error:
            raise UnreachableError(f"the answer is not a claim's state: {error!r}") from error

    @property
    def prevails(self) -> bool:
        """Whether the claim is verified and no earlier publication stands against it."""
        return self.outcome == "VERIFIED" and self.superseding is None

    @property
    def exit_code(self) -> int:
        """0 for a claim that prevails, 4 for one that is open, 1 for all others."""
        if self.outcome is None:
            return UNAVAILABLE
        return DONE if self.prevails else INVALID

    def explain(self) -> str:
        """The verdict in words."""
        why = REASONS.get(self.reason, self.reason)
        if self.outcome is None:
            return f"open: {len(self.votes)} nodes have voted, no quorum agrees yet"
        if self.superseding is None:
            return f"{self.outcome}: {why}"
        return (
            f"{self.outcome}, but superseded: the model carries this mark and an older one. "
            f"{_text(self.superseding['owner'])} published entry {self.superseding['publication_index']} "
            f"({_text(self.superseding['publication'])}) before this claim's publication, entry "
            f"{self.document.get('publication_index')}, and his claim on the same model is verified too. "
            "The earlier publication prevails."
        )

    def votes_table(self) -> str:
        """All votes with their numbers."""
        headers = ["node", "vote", "reason", "matched", "p-value", "as good", "best control", "device"]
        return table(headers, [vote.row() for vote in self.votes])


def _vote(vote: dict[str, object]) -> NodeVote:
    return NodeVote(_text(vote["member"]), _text(vote["outcome"]), _text(vote["reason"]), vote)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return "".join(c if c.isprintable() else "?" for c in value)  # a node's text goes to a terminal
