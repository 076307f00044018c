"""What there is to be measured: units by group and seed, and the fragments of JSON that are left of those done.

    <work>/<setting>/<group>/<seed>/<unit>.json      figures, processor seconds, commit, machine, when
    <work>/<setting>/<group>/<seed>/owner/           the owner's files, which the group's other units read

A seed is gone through from end to end before the next begins: what is interrupted has all rows with fewer repeats,
rather than few rows with all. The ablation comes last.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.paper.cost import COST
from bench.paper.false_positives import UNITS as FALSE_POSITIVES
from bench.paper.settings import Setting, Task
from bench.paper.subjects import Subject
from bench.paper.units import ABLATIONS, PICTURES, TEXTS, Figures, Unit
from bench.results import kept

ABLATION, FALSE, COSTS = "ablation", "false positives", "cost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One unit of one seed.

    Attributes:
        group: a task's name, or what the group is.
        seed: of everything in it.
        name: of the unit within its group.
        fragment: where its figures are kept.
        measure: makes them.
    """

    group: str
    seed: int
    name: str
    fragment: Path
    measure: Callable[[], Figures]

    def __str__(self) -> str:
        return f"{self.group}, seed {self.seed}, {self.name}"

    def run(self) -> dict[str, Any]:
        """Measure, and keep the figures."""
        return kept(self.fragment, self.measure)

    def result(self) -> dict[str, Any] | None:
        """Return what was kept of it; None where it is still to be done."""
        if not self.fragment.exists():
            return None
        content: dict[str, Any] = json.loads(self.fragment.read_text())
        return content


def pieces(setting: Setting, data: Path, work: Path) -> Iterator[Piece]:
    """List all pieces in the order in which they are done; of tasks whose data are not there, none."""
    for seed in setting.seeds:
        for task in setting.tasks:
            if task.source(data) is not None:
                yield from _of_task(setting, task, seed, data, work)
        yield from _of_ablated(setting, seed, data, work, {COSTS: COST, FALSE: FALSE_POSITIVES})
    for seed in setting.seeds:
        yield from _of_ablated(setting, seed, data, work, {ABLATION: ABLATIONS})


def _of_task(setting: Setting, task: Task, seed: int, data: Path, work: Path) -> Iterator[Piece]:
    subject = _subject(setting, task, seed, data, work)
    for name, unit in (PICTURES if task.vectors is None else TEXTS).items():
        yield Piece(
            group=task.name,
            seed=seed,
            name=name,
            fragment=_place(setting, task.name, seed, work) / f"{name}.json",
            measure=lambda unit=unit: unit(subject),  # type: ignore[misc]
        )


def _of_ablated(
    setting: Setting, seed: int, data: Path, work: Path, groups: Mapping[str, Mapping[str, Unit]]
) -> Iterator[Piece]:
    """The rows that one task stands for: it must be there."""
    task = setting.task(setting.ablated)
    if task.source(data) is None:
        return
    subject = _subject(setting, task, seed, data, work)
    for group, units in groups.items():
        for name, unit in units.items():
            yield Piece(
                group=group,
                seed=seed,
                name=name,
                fragment=_place(setting, group, seed, work) / f"{name.replace(' ', '-')}.json",
                measure=lambda unit=unit: unit(subject),  # type: ignore[misc]
            )


def _subject(setting: Setting, task: Task, seed: int, data: Path, work: Path) -> Subject:
    directory = _place(setting, task.name, seed, work) / "owner"
    return Subject(setting=setting, task=task, seed=seed, data_directory=data, directory=directory)


def _place(setting: Setting, group: str, seed: int, work: Path) -> Path:
    return work / setting.name / group.replace(" ", "-") / str(seed)
