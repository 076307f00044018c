"""The picture of an embedding: what it did to the mark and to the task, and how it went.

matplotlib's Agg canvas only: no window, no display, no global state.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from client.marking.task import MEASURES, measured_by
from registry.policy import Thresholds

_MARK, _TASK, _TUNED, _OTHERS, _MOVED, _GREY = "#2166ac", "#b35806", "#1b7837", "#c51b7d", "#6a51a3", "#8c8c8c"
_CURVES = {  # of counts over all triggers
    "marked": ("marked model", _MARK),
    "unseen_shadow": ("tuned copy, before R_DA sees it", _TUNED),
    "negative": ("greatest negative control", _OTHERS),
}
_MET = {"matched": _MARK, "negatives_matched": _OTHERS}  # of the history: counted as the triggers are met
_LOSSES = {
    "task_loss": ("task", _TASK),
    "mark_loss": ("mark", _MARK),
    "tuning_loss": ("R_DA: mark on tuned copies", _TUNED),
    "negative_loss": ("negative controls", _OTHERS),
    "function_loss": ("R_func: ‖W − W0‖²", _MOVED),
}
_STEPS, _FIGURES_MAX = ("epoch", "step"), 4  # what counts the rows; and how many figures are drawn at most
_PANEL_INCHES = (4.4, 4.9)


def plot_report(report: dict[str, Any], path: Path) -> None:
    """Draw matched triggers and the task's measure, before and after; and how the embedding went, if it reports it.

    Raises:
        OSError: the file cannot be written.
    """
    embedding = report["embedding"]
    curves, history = embedding.get("curves") or {}, embedding.get("history") or []
    panels = 1 + bool(curves) + bool(history)
    figure = Figure(figsize=(_PANEL_INCHES[0] * panels, _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw_counts(axes[0], report)
    if curves:
        _draw_curves(axes[1], curves, history)
    if history:
        _draw_losses(axes[-1], history)
    figure.savefig(path, dpi=150, format="png")


def plot_scheme_report(report: dict[str, Any], path: Path) -> None:
    """The same for a scheme without a branch; of its history each figure has a panel of its own.

    Raises:
        OSError: the file cannot be written.
    """
    history = report["embedding"].get("history") or []
    names = [name for name in (history[0] if history else {}) if name not in _STEPS][:_FIGURES_MAX]
    figure = Figure(figsize=(_PANEL_INCHES[0] * (1 + len(names)), _PANEL_INCHES[1]), layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = figure.subplots(1, 1 + len(names), squeeze=False)[0]
    _draw_counts(first, report, with_levels=False)
    for axes, name in zip(others, names, strict=True):
        values = [row.get(name, float("nan")) for row in history]
        axes.plot(range(1, len(values) + 1), values, color=_MARK, marker=".")
        axes.set(xlabel="epoch or step", title=name.replace("_", " "))
        axes.grid(axis="y", linewidth=0.3)
    figure.savefig(path, dpi=150, format="png")


def _draw_counts(axes: Axes, report: dict[str, Any], *, with_levels: bool = True) -> None:
    names, total = ["clean", "marked"], report["triggers"]
    shares = [report["matched"][name] / total for name in names]
    measure, scores = measured_by(report)
    places = range(len(names))
    axes.bar([p - 0.2 for p in places], shares, width=0.36, color=_MARK, label=f"matched triggers, of {total}")
    axes.bar([p + 0.2 for p in places], [scores[it] for it in names], width=0.36, color=_TASK, label=MEASURES[measure])
    if with_levels:
        _draw_levels(axes)
    axes.set(xticks=list(places), xticklabels=names, xlabel="model", ylim=(0, 1.05), title="before and after")
    _draw_legend(axes)


def _draw_curves(
    axes: Axes, curves: Mapping[str, Sequence[Sequence[float]]], history: Sequence[Mapping[str, float]]
) -> None:
    """Counts over all triggers as points, joined; beside them, thin, what was counted as the triggers were met."""
    for name, color in _MET.items():
        axes.plot(*_column(history, name), color=color, linewidth=1, alpha=0.5)
    axes.plot([], [], color=_GREY, linewidth=1, label="thin: counted as the triggers are met")
    last = max((points[-1][0] for points in curves.values() if points), default=0)
    for name, points in curves.items():
        label, color = _CURVES.get(name, (name.replace("_", " "), _GREY))
        if joint := [point for point in points if point[0] < last]:
            axes.plot(*zip(*joint, strict=True), color=color, marker="o", markersize=4, label=label)
        if finished := [point for point in points if point[0] == last]:  # not joined: only the head was trained since
            axes.plot(*zip(*finished, strict=True), color=color, marker="*", markersize=12, linestyle="")
    axes.plot(
        [], [], color=_GREY, marker="*", markersize=9, linestyle="", label="at the end, after the head's own steps"
    )
    _draw_levels(axes)
    axes.set(xlabel="step", ylim=(0, 1.05), title="share of matched triggers")
    _draw_legend(axes)


def _draw_losses(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    for name, (label, color) in _LOSSES.items():
        steps, values = _column(history, name)
        if steps:
            axes.plot(steps, values, color=color, marker=".", label=label)
    axes.set(xlabel="step", yscale="log", title="losses, without their weights")
    axes.grid(axis="y", which="both", linewidth=0.3)
    _draw_legend(axes)


def _draw_legend(axes: Axes) -> None:
    """Below, where no curve is."""
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False)


def _draw_levels(axes: Axes) -> None:
    gamma = Thresholds().gamma_permille / 1000
    axes.axhline(gamma, color=_GREY, linestyle="--", linewidth=1, label=f"γ, {gamma:g}")
    axes.axhline(0.5, color=_GREY, linestyle=":", linewidth=1, label="chance, 0.5")


def _column(history: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    rows = [row for row in history if name in row]
    return [row["step"] for row in rows], [row[name] for row in rows]
