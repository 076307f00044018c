"""What an audit finds wrong, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from client.errors import DONE, INCONSISTENT

FINDINGS_MAX = 256  # of one code; more of the same tell nothing more
_ALARM = "Rely on nothing that is newer than the last checkpoint you kept, ask the operators, show them the evidence."
_UNCHECKED = "Rely on nothing from it on, for no rule was checked behind it, and ask the operators."
_REMEDIES = {
    "rewritten_past": f"The nodes changed what was recorded. {_ALARM}",
    "rolled_back": f"The nodes lost entries that a quorum had attested. {_ALARM}",
    "fork": "Two pasts were signed: rely on neither until it is known which; the evidence tells who signed what.",
    "entries": "This copy is damaged: remove it and audit again; if it stays, nodes give what they did not sign.",
    "mirror": "Remove the file and audit again without --offline; only this copy is known to be bad.",
    "origin": "Use the trust policy file of this ledger; or the log was replaced by another one.",
    "not_cosigned": "Rely on none of these entries; if the nodes are cut off from each other it ends with that.",
    "backdated": "Do not believe the entry's own time; for priority count from its attested time only.",
    "postdated": "Do not believe the entry's own time; for priority count from its attested time only.",
    "contradictory_vote": f"A quorum of nodes let in a vote that its own numbers contradict. {_UNCHECKED}",
    "vote_differs": "Do not rely on this vote; let others compute it again (--recompute with the same --seed), and ask"
    " the node's operator.",
}
_REFUSED = f"No honest node takes such an entry, and a quorum signed it. {_UNCHECKED}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: stable; the rule's own for an entry that the rules refuse.
        where: an entry, a node's URL, a file.
        what: one sentence, for people.
        evidence: a file that proves it to others, where there is one.
    """

    code: str
    where: str
    what: str
    evidence: Path | None = None

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES.get(self.code, _REFUSED)

    def document(self) -> dict[str, object]:
        """The finding for programs."""
        evidence = None if self.evidence is None else str(self.evidence)
        return {
            "code": self.code,
            "where": self.where,
            "what": self.what,
            "remedy": self.remedy,
            "evidence": evidence,
        }

    def lines(self) -> list[str]:
        """The finding for people."""
        evidence = [] if self.evidence is None else [f"  evidence: {self.evidence} (check it with wmreg verify)"]
        return [f"{self.where}: {self.what} ({self.code})", *evidence, f"  {self.remedy}"]


class Findings:
    """Findings in the order in which they were made, each place once for one code, a limited number of each code."""

    def __init__(self) -> None:
        self.all: list[Finding] = []
        self.left_out = 0

    def add(self, finding: Finding | None) -> None:
        """Take a finding, if there is one."""
        if finding is None or any((f.code, f.where) == (finding.code, finding.where) for f in self.all):
            return
        if self.has(finding.code, count=FINDINGS_MAX):
            self.left_out += 1
            return
        self.all.append(finding)

    def has(self, *codes: str, count: int = 1) -> bool:
        """Whether there are that many findings of one of these codes."""
        return sum(finding.code in codes for finding in self.all) >= count


def exit_code(findings: Iterable[Finding]) -> int:
    """0 without findings; 5, an alarm, with any."""
    return INCONSISTENT if any(True for _ in findings) else DONE
