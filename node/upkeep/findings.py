"""What a check of a node's files found: problems, each with the way out, and remarks that need nobody."""

from collections.abc import Callable
from dataclasses import dataclass, field

Show = Callable[[str], None]  # tells what is being done, on the way

# The ways out, from the cheapest to the dearest.
REBUILD = (
    "the journal holds all of it: `wmreg node rebuild DIR` sets the damaged file aside, and the node makes it anew "
    "when it starts"
)
NEW_IDENTITY = (
    "keep the files for inquiry; what this node has signed and acknowledged is no longer known, so it must not take "
    "part under its name again: let it come back as a new member (`wmreg node restore` from a backup, or empty)"
)
INQUIRY = (
    "keep the files for inquiry and start nothing: two histories of one ledger exist; run `wmreg audit` to learn which "
    "one the other nodes have"
)
PROBLEMS_MAX = 100  # of one part; behind them the rest would only be longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        part: the file, below the node's directory.
        what: is wrong.
        remedy: what the operator can do about it.
    """

    part: str
    what: str
    remedy: str


@dataclass(slots=True)
class Findings:
    """Everything that was found.

    Attributes:
        problems: each of them makes the state inconsistent.
        remarks: what is worth knowing, and mends itself.
        figures: how much was checked.
    """

    problems: list[Problem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def add(self, part: str, what: str, remedy: str) -> None:
        """Note a problem; beyond PROBLEMS_MAX of one part they are only counted."""
        known = sum(problem.part == part for problem in self.problems)
        if known < PROBLEMS_MAX:
            self.problems.append(Problem(part=part, what=what, remedy=remedy))
        elif known == PROBLEMS_MAX:
            self.problems.append(Problem(part=part, what="more of the same", remedy=remedy))

    def has(self, part: str) -> bool:
        """Whether something is wrong with a part."""
        return any(problem.part == part for problem in self.problems)
