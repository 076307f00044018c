"""What each attack leaves of a mark and costs its thief: `make bench NAME=attacks`, on the digits with ResNet-18.

For each seed an owner trains and marks a model as `wmreg embed` does; then the runner of `wmreg attack` takes each
attack from weak to strong, until nodes with the usual thresholds would no longer vote VERIFIED, and shows them each
forgery. The thief has a tenth of the training pictures. Task accuracy is of the test set, which nothing is chosen on.

A seed is kept in bench/results/work and not measured again; the result also fills the tables of docs/attacks.md.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.owners import Figures, embedded
from bench.pages import cell, cell_of, put, seeds_of, sweep_table
from bench.results import RESULTS, silent, summary, write
from bench.seeds import arguments_of, gathered
from client.bundle import Bundle
from client.marking.attacking import Plan, run
from client.marking.task import Task
from registry.verdict import Outcome
from wm.attacks import ATTACKS, Attack
from wm.attacks.forgeries import FORGERIES, Forgery

SEEDS = (1, 2, 3)
TRIGGERS, THIEFS_FRACTION = 600, 0.1
# Overwriting usually goes on to 350 passes; docs/results.md tells of as many, of a thief who is held back.
# Spoiling usually ends after 100 steps.
STRENGTHS: Mapping[str, tuple[float, ...]] = {"overwriting": (10, 50), "spoil": (10, 100, 1000)}
PAGE = RESULTS.parents[1] / "docs" / "attacks.md"
Rows = Mapping[str, Mapping[str, Any]]


def main() -> int:
    """Measure the seeds that are left, write bench/results/attacks.json and fill the page; return 0."""
    arguments = arguments_of("attacks", "Sweep every attack and forgery.", seeds=SEEDS)
    works = [(seed, arguments.work / "attacks" / str(seed)) for seed in arguments.seeds]
    values, measured = gathered(
        (work / "swept.json", partial(_swept, seed, work / "owner"), "") for seed, work in works
    )
    write("attacks", [summary(figure, each) for figure, each in values.items()], measured=measured)
    PAGE.write_text(page(PAGE.read_text(), json.loads((RESULTS / "attacks.json").read_text())))
    return 0


def page(text: str, content: Mapping[str, Any]) -> str:
    """Fill the two tables of docs/attacks.md from a result."""
    rows: Rows = {row["metric"]: row for row in content["rows"]}
    where = f"`bench/results/attacks.json`: {seeds_of(rows)} seeds, commit {content['commit']}, {content['machine']}."
    text = put(text, "attacks", "\n".join(_attack_table(rows)) + f"\n\n{where}")
    return put(text, "forgeries", "\n".join(_forgery_table(rows)))


def figures_of(report: Mapping[str, Any]) -> Figures:
    """Turn what `wmreg attack` reports into figures by name; of what cannot be read there is no count."""
    figures: Figures = {"task accuracy, marked": 100 * report["marked"]["task_accuracy"]}
    figures["matched, marked"] = report["marked"]["matched"]
    for method in (*report["attacks"], *report["forgeries"]):
        for point in method["points"]:
            figures |= _point(f"{method['name']} {point['strength']:g}", point)
            if "with_base_as_control" in point:
                figures |= _point(f"{method['name']} {point['strength']:g}, base known", point["with_base_as_control"])
    for attack in report["attacks"]:
        figures |= _ends(attack["name"], attack["points"])
    return figures


def _swept(seed: int, owner: Path) -> Figures:
    owner.parent.mkdir(parents=True, exist_ok=True)
    bundle = Bundle(owner) if owner.exists() else embedded(owner, _task(seed, fraction=1.0), {})
    points: dict[str, list[Any]] = {"attacks": [], "forgeries": []}
    methods: tuple[Attack | Forgery, ...] = (*ATTACKS.values(), *FORGERIES.values())
    report: dict[str, Any] = {}
    for number, method in enumerate(methods, start=1):
        print(f"seed {seed}, {number} of {len(methods)}: {method.name} ...", flush=True)
        plan = Plan(
            bundle=bundle,
            methods=(method,),
            strengths=STRENGTHS.get(method.name, ()),
            task=_task(seed, fraction=THIEFS_FRACTION),
            goes_on=False,
            models=None,
        )
        report = run(plan, silent)
        for kind in points:
            points[kind] += report[kind]
    return figures_of({**report, **points})


def _task(seed: int, *, fraction: float) -> Task:
    return Task(data="digits", fraction=fraction, arch="resnet18", weights=None, seed=seed, epochs=None, device="auto")


def _point(name: str, point: Mapping[str, Any]) -> Figures:
    figures: Figures = {
        f"{name}: VERIFIED": float(point["outcome"] == Outcome.VERIFIED),
        f"{name}: task accuracy": 100 * point["task_accuracy"],
    }
    if point["matched"] is not None:
        figures[f"{name}: matched"] = point["matched"]
    return figures


def _ends(name: str, points: Sequence[Mapping[str, Any]]) -> Figures:
    """Where the mark fails, and the last strength at which it held; what it does not reach is left out."""
    figures: Figures = {}
    for when, is_verified in (("fails at", False), ("holds to", True)):
        found = [point for point in points if (point["outcome"] == Outcome.VERIFIED) is is_verified]
        if found:
            figures[f"{name}: {when}"] = found[-1]["strength"]
            figures[f"{name}: {when}, task accuracy"] = 100 * found[-1]["task_accuracy"]
            if found[-1]["matched"] is not None:
                figures[f"{name}: {when}, matched"] = found[-1]["matched"]
    return figures


def _attack_table(rows: Rows) -> Iterator[str]:
    accuracy = cell(rows["task accuracy, marked"])
    yield f"Before any attack {cell(rows['matched, marked'])} match and the task accuracy is {accuracy} %.\n"
    yield from sweep_table(rows, ATTACKS.values(), measure="task accuracy")


def _forgery_table(rows: Rows) -> Iterator[str]:
    yield "| forgery | strength | matched | VERIFIED, of the seeds |"
    yield "|---" * 4 + "|"
    for name, forgery in FORGERIES.items():
        for strength in forgery.scale.usual:
            for known in ("", ", base known"):
                row = rows.get(f"{name} {strength:g}{known}: VERIFIED")
                if row is not None:
                    count = cell_of(rows, f"{name} {strength:g}{known}: matched")
                    yield f"| `{name}`{known} | {strength:g} {forgery.scale.unit} | {count} | {_share(row)} |"


def _share(row: Mapping[str, Any]) -> str:
    least, greatest = row["spread"]
    return "all" if least else "some" if greatest else "none"


if __name__ == "__main__":
    sys.exit(main())
