"""The figures of a torture run, in the one shape of a bench result."""

import os
from dataclasses import dataclass, field

from torture.history import Verdict

from bench.results import Row, write

SEED = int(os.environ.get("WMREG_TORTURE_SEED", "1"))
PERCENT = int(os.environ.get("WMREG_TORTURE_PERCENT", "100"))


def count_of(full: int) -> int:
    """How often to do what a full run does so often."""
    return max(1, full * PERCENT // 100)


@dataclass
class Measured:
    """Rows of all faults so far."""

    rows: list[Row] = field(default_factory=list)

    def add(self, fault: str, *, events: int, verdict: Verdict, pause_max_s: float) -> None:
        """Note what a fault did."""
        self._count(f"{fault}: events", events)
        self._count(f"{fault}: acknowledged", verdict.acknowledged)
        for what in ("lost", "duplicates", "foreign", "disordered"):
            self._count(f"{fault}: {what}", len(getattr(verdict, what)), goal=0)
        pause_s = round(verdict.longest_pause_s, 2)
        met = verdict.longest_pause_s <= pause_max_s
        goal = f"≤ {pause_max_s:g} s"
        self.rows.append(Row(metric=f"{fault}: longest pause", value=pause_s, unit="s", goal=goal, met=met))

    def add_outcomes(self, fault: str, outcomes: dict[str, int], *, forbidden: str) -> None:
        """Note how often each outcome came; the forbidden one never may."""
        for outcome, count in outcomes.items():
            self._count(f"{fault}: {outcome}", count, goal=0 if outcome == forbidden else None)

    def write(self, *, keep: bool) -> None:
        """Print the table, and keep it if asked to."""
        if self.rows:
            print()
            run = [
                Row(metric="share of a full run", value=PERCENT, unit="%"),
                Row(metric="seed", value=SEED, unit=""),
            ]
            write("torture", [*run, *self.rows], keep=keep)

    def _count(self, metric: str, value: int, *, goal: int | None = None) -> None:
        met = None if goal is None else value == goal
        self.rows.append(Row(metric=metric, value=value, unit="", goal=None if goal is None else str(goal), met=met))
