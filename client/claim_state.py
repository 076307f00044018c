"""A claim's state as a node tells it, and the same in words.

A node's word is worth a look, not a conviction: what convinces is the certificate, which the client checks itself,
and what convinces an auditor is the replay of the log. There is no certificate of a negative verdict, so that counts
when a quorum of nodes tells the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from client import answers
from client.errors import DONE, INVALID, UNAVAILABLE
from client.output import counted, printable, table
from client.transport import UnreachableError
from registry.endpoint import endpoint_sha256
from registry.verdict import CERTIFIED, WON, Outcome, Statistic

INTACT = "the model answers every trigger as the published one"
# What is said of each scheme: none of it speaks of a head, which only a branch has.
REASONS = {
    "matched": "the mark is in the model: enough of it matches, and every control stays behind",
    "below_threshold": "too little of the mark matches: the model does not carry this mark",
    "between_bounds": "more matches than by chance, but too little to convict",
    "not_specific": "what matches is not specific to this model: a control matches as well",
    "shared_ancestor": "a declared model (base or null) or a public one matches as well: the match may come from there",
    "too_few_controls": "too few control runs were made",
    "head_mismatch": "the evidence holds another mark (head or payload) than the one that was published",
    "info_mismatch": "the info in the evidence is not the one that was published",
    "changed": "the model answers some triggers otherwise than the published one: it was changed, or is another",
    "withdrawn": "its owner took the claim, or the publication, back",
    "deadline": "too few nodes voted before the claim's deadline",
    "no_quorum": "all nodes have voted and no quorum of them agrees",
    "unreachable": "the nodes could not fetch the model or the evidence, or the endpoint does not answer",
    "base_unreachable": "the nodes could not fetch the weights of a declared model (base or null)",
    "base_unusable": "a declared model (base or null) is malformed, too large or of another architecture",
    "hash_mismatch": "the file behind the pointer does not have the claimed hash",
    "refused": "the endpoint refuses the nodes' requests",
    "wrong_input": "the endpoint takes other pictures than those of the evidence, or gives no classes",
    "inconsistent": "the endpoint contradicts itself, so its answers count neither way",
    "white_box": "the watermark scheme reads the inside of a network, which an endpoint does not show",
    "unknown_architecture": "the nodes do not know the model's architecture",
    "unknown_scheme": "the nodes do not know the watermark scheme",
    "wrong_architecture": "the file is no model of the architecture that the evidence states",
    "too_large": "a file is larger than the ledger's policy allows",
    "malformed": "a file is not what it should be",
    "unsupported_pointer": "the nodes do not fetch from such a place, nor ask there",
    "timeout": "the verification took longer than a node allows",
    "crashed": "the verification broke down",
}
# Who serves a model decides what it answers, so of an endpoint a no says less.
INTACT_ENDPOINT = "the endpoint answers every trigger as the published model"
ENDPOINT_REASONS = {
    "matched": "the endpoint shows the mark: enough of it matches, and every control stays behind",
    "below_threshold": "too little of the mark matches: the endpoint did not show it, whatever model is behind it",
    "changed": "the endpoint answers some triggers otherwise than the published model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeVote:
    """One node's vote; the numbers are None where it measured nothing.

    Attributes:
        p_value: None where chance says nothing, as of integrity.
        control_best: triggers that the best control answered.
    """

    member: str
    outcome: Outcome
    reason: str
    device: str | None
    matched: int | None
    total: int | None
    p_value: str | None
    permutations: int | None
    permutations_as_good: int | None
    control_best: int | None
    aligned: bool | None
    matched_unaligned: int | None

    @classmethod
    def read(cls, vote: Mapping[str, object]) -> "NodeVote":
        """Read a vote; raises KeyError, TypeError or ValueError."""
        statistic = answers.optional(vote.get("statistic"), lambda word: Statistic(answers.text(word)))
        p_value = answers.optional(vote.get("p_value"), answers.text)
        return cls(
            member=answers.text(vote["member"]),
            outcome=Outcome(answers.text(vote["outcome"])),
            reason=answers.text(vote["reason"]),
            device=answers.optional(vote.get("device"), answers.text),
            matched=answers.optional(vote.get("matched"), answers.count),
            total=answers.optional(vote.get("total"), answers.count),
            p_value=p_value if statistic is None or statistic.has_chance else None,
            permutations=answers.optional(vote.get("permutations"), answers.count),
            permutations_as_good=answers.optional(vote.get("permutations_as_good"), answers.count),
            control_best=max(answers.items(vote.get("controls", []), _matched), default=None),
            aligned=answers.optional(vote.get("aligned"), answers.truth),
            matched_unaligned=answers.optional(vote.get("matched_unaligned"), answers.count),
        )

    def row(self) -> list[object]:
        """Cells of the table of votes."""
        return [
            self.member,
            self.outcome,
            self.reason,
            self._counted(),
            self.p_value,
            f"{self.permutations_as_good}/{self.permutations}" if self.permutations else None,
            self.control_best,
            self.device,
        ]

    def _counted(self) -> str | None:
        if self.matched is None or self.total is None:
            return None
        aligned = bool(self.aligned)
        return counted(self.matched, self.total, aligned=aligned, matched_unaligned=self.matched_unaligned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another owner's verified claim on the same model; hashes and keys in hexadecimal."""

    claim: str
    publication: str
    publication_index: int
    owner: str

    @classmethod
    def read(cls, told: Mapping[str, object]) -> "Rival":
        """Read a rival; raises KeyError, TypeError or ValueError."""
        return cls(
            claim=answers.digest(told["claim"]),
            publication=answers.digest(told["publication"]),
            publication_index=answers.count(told["publication_index"]),
            owner=answers.digest(told["owner"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """What the owner of another publication says against the claim."""

    challenger: str
    reason: str

    @classmethod
    def read(cls, told: Mapping[str, object]) -> "Objection":
        """Read an objection; raises KeyError, TypeError or ValueError."""
        return cls(challenger=answers.digest(told["challenger"]), reason=answers.text(told["reason"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimState:
    """What one node says of a claim.

    Attributes:
        model_sha256: of the model's file; of a claim on an endpoint, of its URL.
        endpoint: the URL that the claim names; None for a model's file.
        outcome: None while the claim is open.
        superseding: whose publication is older; None when this claim prevails.
        rivals: all other owners whose marks are verified in the same model.
        confirmed: False for a verdict that only some nodes tell, and that no certificate can prove.
        document: all that the node said.
    """

    claim: str
    model_sha256: str
    endpoint: str | None
    publication: str
    publication_index: int
    outcome: Outcome | None
    reason: str
    votes: tuple[NodeVote, ...]
    superseding: Rival | None
    rivals: tuple[Rival, ...]
    objections: tuple[Objection, ...]
    document: dict[str, object]
    confirmed: bool = True

    @classmethod
    def read(cls, document: dict[str, object], digest: bytes) -> "ClaimState":
        """Read a node's answer.

        Args:
            document: the answer.
            digest: names the claim that was asked for.

        Raises:
            UnreachableError: it is not that claim's state; such a node is passed over.
        """
        try:
            state = cls(
                claim=answers.digest(document["claim"]),
                model_sha256=answers.digest(document["model_sha256"]),
                endpoint=answers.optional(document.get("endpoint"), answers.text),
                publication=answers.digest(document["publication"]),
                publication_index=answers.count(document["publication_index"]),
                outcome=answers.optional(document["outcome"], lambda outcome: Outcome(answers.text(outcome))),
                reason=answers.text(document["reason"]),
                votes=answers.items(document["votes"], NodeVote.read),
                superseding=_superseding(document),
                rivals=answers.items(document.get("rivals", []), Rival.read),
                objections=answers.items(document.get("challenges", []), Objection.read),
                document=document,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UnreachableError(f"the answer is not a claim's state: {error!r}", code="malformed") from error
        if state.claim != digest.hex():
            raise UnreachableError("the answer is another claim's state", code="other_claim")
        return state

    @property
    def verdict(self) -> tuple[Outcome | None, Rival | None]:
        """What nodes must tell alike. Not the reason: it is a majority's, and moves with later votes."""
        return self.outcome, self.superseding

    @property
    def prevails(self) -> bool:
        """Whether the model was found verified or intact, and no earlier publication stands against it."""
        return self.is_certified and self.outcome in WON

    @property
    def is_certified(self) -> bool:
        """Whether a certificate proves the verdict."""
        return self.confirmed and self.outcome in CERTIFIED and self.superseding is None

    @property
    def exit_code(self) -> int:
        """0 for a claim that prevails, 4 for one that is open or whose verdict is unconfirmed, 1 for all others."""
        if self.outcome is None or not self.confirmed:
            return UNAVAILABLE
        return DONE if self.prevails else INVALID

    @property
    def suspect(self) -> str:
        """What the claim is on, by its name and in one line; the hash of an endpoint's URL is no model's."""
        if self.endpoint is None:
            return f"model  {self.model_sha256}"
        is_named = endpoint_sha256(self.endpoint).hex() == self.model_sha256
        return f"endpoint  {printable(self.endpoint)}{'' if is_named else ', of which the claim has not the hash'}"

    def explain(self) -> str:
        """The verdict in words, and what else the ledger says that bears on it."""
        return "\n".join([self._verdict_text(), *self._remarks()])

    def _remarks(self) -> list[str]:
        later = [rival for rival in self.rivals if self.superseding is None or rival.claim != self.superseding.claim]
        where = "in this model" if self.endpoint is None else "at this endpoint"
        remarks = [
            f"Conflict: the mark of {rival.owner} is verified {where} too, published later (entry "
            f"{rival.publication_index}). The ledger knows who published first, not who trained the model."
            for rival in later
            if rival.publication_index > self.publication_index
        ]
        return remarks + [f"Objection by {said.challenger}: {printable(said.reason)}" for said in self.objections]

    def _verdict_text(self) -> str:
        if self.outcome is None:
            return f"open: {len(self.votes)} nodes have voted, no quorum agrees yet"
        if not self.confirmed:
            word = self.outcome if self.superseding is None else "superseded"
            return f"unconfirmed: a node says {word}, but no quorum of nodes says the same"
        if self.superseding is None:
            is_endpoint = self.endpoint is not None
            return f"{self.outcome}: {explained(self.outcome, self.reason, is_endpoint=is_endpoint)}"
        what = "the model carries" if self.endpoint is None else "the endpoint shows"
        return (
            f"{self.outcome}, but superseded: {what} this mark and an older one. "
            f"{self.superseding.owner} published entry {self.superseding.publication_index} "
            f"({self.superseding.publication}) before this claim's publication, entry "
            f"{self.publication_index}, and his claim on the same {'model' if self.endpoint is None else 'endpoint'} "
            "is verified too. "
            "The earlier publication prevails."
        )

    def votes_table(self) -> str:
        """All votes with their numbers."""
        headers = ["node", "vote", "reason", "matched", "p-value", "as good", "best control", "device"]
        return table(headers, [vote.row() for vote in self.votes])


def explained(outcome: Outcome, reason: str, *, is_endpoint: bool = False) -> str:
    """A vote's or verdict's reason in words, of a model's file or of an endpoint."""
    if outcome is Outcome.INTACT:
        return INTACT_ENDPOINT if is_endpoint else INTACT
    return (ENDPOINT_REASONS if is_endpoint else {}).get(reason) or REASONS.get(reason, reason)


def _matched(control: Mapping[str, object]) -> int:
    return answers.count(control["matched"])


def _superseding(document: Mapping[str, object]) -> Rival | None:
    by, rival = document["superseded_by"], document["superseding"]
    if by is None and rival is None:
        return None
    return Rival.read({**answers.mapping(rival), "claim": by})
