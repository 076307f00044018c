"""From fragments to one result: each figure over its seeds, beside its goal.

A goal is met only if every seed meets it. Where the paper's table 3 has a figure, it is the goal.
"""

from collections.abc import Sequence
from typing import Any

from bench.paper.cost import TRIGGERS, WHOLE
from bench.paper.plan import ABLATION, COSTS, FALSE, Piece
from bench.paper.settings import PAPER_OVERWRITING_EPOCHS
from bench.results import Goal, Row, summary

# Loss of watermark accuracy in points after 50, 150, 250 and 350 epochs: Li et al. 2022, table 3.
TABLE_3 = {
    "MNIST": (1.0, 1.5, 1.5, 2.0),
    "Fashion-MNIST": (2.0, 2.5, 2.5, 2.5),
    "CIFAR-10": (4.5, 4.5, 4.5, 4.5),
    "IMDb": (3.0, 3.0, 3.0, 3.0),
    "SST": (2.5, 3.0, 3.0, 2.5),
}
_YES, _NONE = Goal(says="yes", least=1), Goal(says="none", most=0)
# By the beginning of a figure's name, of the tasks' groups.
_OF_TASKS = {
    "task accuracy lost to the mark": Goal(says="≤ 0.5 points", most=0.5),
    "matched, marked": Goal(says="≥ 99 %", least=99),
    "marked model VERIFIED": _YES,
    "matched after fine-tuning": Goal(says="≥ 90 %", least=90),
    "matched after fine-pruning": Goal(says="≥ 85 %", least=85),
    "matched after permutation, aligned": Goal(says="≥ 99 %", least=99),
    "matched after scaling, aligned": Goal(says="≥ 99 %", least=99),
    "matched after sign flip, aligned": Goal(says="≥ 99 %", least=99),
    "VERIFIED after": _YES,
    "embedding, of the training's time": Goal(says="≤ 30 %", most=30),
}
_TRIGGERS_MS = Goal(says="≤ 20 ms", most=20)
_OTHERS_KEY = "matched, marked, another key"


def rows(done: Sequence[tuple[Piece, dict[str, Any]]]) -> list[Row]:
    """Sum up fragments, in the order of the pieces."""
    values: dict[tuple[str, str], list[float]] = {}
    for piece, content in done:
        prefix = f"{piece.name}: " if piece.group == ABLATION else ""
        for figure, value in content["figures"].items():
            values.setdefault((piece.group, f"{prefix}{figure}"), []).append(float(value))
    return [
        summary(f"{group}: {figure}", each, goal=goal_of(group, figure))
        for (group, figure), each in sorted(values.items(), key=lambda item: _order(done).index(item[0][0]))
    ]


def goal_of(group: str, figure: str) -> Goal | None:
    """Find the goal of a figure; None where the issue and the paper ask for none."""
    if group == FALSE:
        return _of_false_positives(figure)
    if figure.startswith(f"{TRIGGERS} triggers of 32"):
        return _TRIGGERS_MS
    if group == COSTS:
        group, figure = "MNIST", figure.removeprefix(f"{WHOLE}: ")
    if group not in TABLE_3 or figure == _OTHERS_KEY:
        return None
    for epochs, most in zip(PAPER_OVERWRITING_EPOCHS, TABLE_3[group], strict=True):
        if figure == f"overwriting, {epochs} epochs: lost":
            return Goal(says=f"≤ {most:g} points", most=most)
    return next((goal for name, goal in _OF_TASKS.items() if figure.startswith(name)), None)


def _of_false_positives(figure: str) -> Goal | None:
    if figure.endswith("VERIFIED by the engine"):
        return _NONE
    return _YES if figure.endswith("the owner's own VERIFIED") else None


def _order(done: Sequence[tuple[Piece, dict[str, Any]]]) -> list[str]:
    return list(dict.fromkeys(piece.group for piece, _ in done))
