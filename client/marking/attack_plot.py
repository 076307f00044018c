"""The picture of attacks: for each one, what is left of the mark and of the task as it grows stronger.

matplotlib's Agg canvas only: no window, no display, no global state.
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from client.marking.task import MEASURES
from registry.policy import Thresholds

_MARK, _TASK, _GREY = "#2166ac", "#b35806", "#8c8c8c"
_COLUMNS_MAX = 3


def plot_attacks(report: dict[str, Any], path: Path) -> None:
    """Draw one curve for each attack and forgery of a report.

    Args:
        report: from `client.marking.attacking.run`, with at least one of them. What was refused has no curve.
        path: the PNG to write.

    Raises:
        OSError: the file cannot be written.
    """
    methods = [*report["attacks"], *report["forgeries"]]
    columns = min(_COLUMNS_MAX, len(methods))
    rows = -(-len(methods) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, method in zip(grid, methods, strict=False):
        is_attack = "preserves_function" in method
        before = [{"strength": None, **report["marked"]}] if is_attack else []
        _draw(axes, method, before, MEASURES[report["measure"]])
    for axes in grid[len(methods) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=150, format="png")


def _draw(axes: Axes, method: dict[str, Any], before: list[dict[str, Any]], measure: str) -> None:
    points = [*before, *method["points"]]
    places = range(len(points))
    shares = [point["matched"] / point["total"] if point["total"] else float("nan") for point in points]
    axes.plot(places, shares, color=_MARK, marker="o", label="matched triggers")
    axes.plot(places, [point["task_accuracy"] for point in points], color=_TASK, marker="s", label=measure)
    axes.axhline(Thresholds().gamma_permille / 1000, color=_GREY, linestyle="--", linewidth=1)
    axes.axhline(0.5, color=_GREY, linestyle=":", linewidth=1)
    names = ["none" if point["strength"] is None else f"{point['strength']:g}" for point in points]
    axes.set(xticks=list(places), xticklabels=names, ylim=(0, 1.05), title=method["name"].replace("_", " "))
    axes.set_xlabel(method["strength"], fontsize="x-small")
    axes.legend(fontsize="x-small", loc="lower left")
