"""What the SDK answers where nothing below it has a type of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from client.api import Recorded
from client.claim_state import ClaimState
from registry.certificate import Story
from registry.equivocation import EquivocationStory
from registry.receipt import VerifiedReceipt
from registry.verdict import Outcome

Proven: TypeAlias = VerifiedReceipt | Story | EquivocationStory


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCertificate:
    """A certificate that was checked against the policy.

    Attributes:
        content: the file's bytes, which anybody checks offline.
        story: what it proves: who, what, when, by whose word and with which numbers.
        path: the file in which it was kept; None where it was not.
    """

    content: bytes
    story: Story
    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimStatus:
    """How a claim stands.

    Attributes:
        state: the votes, their numbers, rivals and objections, by the nodes' word; `state.explain()` says it in words.
            `state.confirmed` is False for a verdict that only some nodes tell.
        certificate: what proves the verdict; None while there is none, and of REFUTED and the other verdicts that no
            certificate proves. Those count when a quorum of nodes tells the same.
        older_publication: the receipt of the publication before which this claim gives way; None if there is none.
    """

    state: ClaimState
    certificate: VerifiedCertificate | None
    older_publication: Recorded | None

    @property
    def outcome(self) -> Outcome | None:
        """The verdict; None while there is none, or none that counts."""
        return self.state.outcome if self.state.confirmed else None

    @property
    def prevails(self) -> bool:
        """Whether the model is verified or intact, by a certificate, and no older publication stands against it."""
        return self.state.prevails and self.certificate is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFile:
    """A receipt, a certificate or evidence that was checked offline.

    Attributes:
        content: the file's bytes.
        proven: what it proves, by kind: `VerifiedReceipt`, `Story` (of a certificate), or `EquivocationStory`, which is
            an alarm: the log was shown with two pasts.
        remarks: what could not be checked or compared, for people.
    """

    content: bytes
    proven: Proven
    remarks: tuple[str, ...] = ()
