"""The picture of an embedding: what it did to the mark and to the task.

matplotlib's Agg canvas only: no window, no display, no global state.
"""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from client.task import MEASURES, measured_by
from registry.policy import Thresholds

_MARK, _TASK, _GREY = "#2166ac", "#b35806", "#8c8c8c"


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draw matched triggers and the task's measure, before and after; and the embedding's curves, if it reports any.

    Raises:
        OSError: the file cannot be written.
    """
    curves = report["embedding"].get("curves") or {}
    figure = Figure(figsize=(9 if curves else 4.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    _draw_counts(axes[0], report)
    if curves:
        _draw_curves(axes[1], curves)
    figure.savefig(path, dpi=150, format="png")


def _draw_counts(axes: Axes, report: dict[str, Any]) -> None:
    names, total = ["clean", "marked"], report["triggers"]
    shares = [report["matched"][name] / total for name in names]
    measure, scores = measured_by(report)
    places = range(len(names))
    axes.bar([p - 0.2 for p in places], shares, width=0.36, color=_MARK, label=f"matched triggers, of {total}")
    axes.bar([p + 0.2 for p in places], [scores[it] for it in names], width=0.36, color=_TASK, label=MEASURES[measure])
    axes.axhline(Thresholds().gamma_permille / 1000, color=_GREY, linestyle="--", linewidth=1)
    axes.axhline(0.5, color=_GREY, linestyle=":", linewidth=1)
    axes.set(xticks=list(places), xticklabels=names, ylim=(0, 1.05), title="before and after")
    axes.legend(fontsize="small", loc="lower left")


def _draw_curves(axes: Axes, curves: dict[str, list[list[float]]]) -> None:
    for name, points in curves.items():
        axes.plot([step for step, _ in points], [share for _, share in points], label=name.replace("_", " "))
    axes.set(xlabel="step", ylabel="share of matched triggers", ylim=(0, 1.05), title="embedding")
    axes.legend(fontsize="small", loc="lower right")
