"""The plots of docs/results.md; matplotlib's Agg canvas only: no window, no display, no global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.paper.merging import TABLE_3
from bench.paper.settings import FIRST_OVERWRITING_EPOCHS, PAPER_OVERWRITING_EPOCHS, THIEFS_RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.paper.table import Table

_MARK, _TASK, _GREY = "#2166ac", "#b35806", "#8c8c8c"


def tuning(table: "Table", path: Path) -> None:
    """Draw, for each task, what is left of the mark and of the task after each tuning."""
    share = f"fine-pruning of {100 * table.setting.pruned_share:g} %"
    changes = {"marked": ", marked", **{f"{rate:g}": f" after fine-tuning at {rate:g}" for rate in THIEFS_RATES}}
    changes["pruned"] = f" after {share}"
    figure, every = _grid(table)
    for axes, task in zip(every, table.tasks, strict=True):
        for prefix, colour, marker in (("matched", _MARK, "o"), ("task accuracy", _TASK, "s")):
            rows = [table.rows.get(f"{task.name}: {prefix}{change}") for change in changes.values()]
            _draw(axes, rows, colour=colour, marker=marker, label=prefix)
        axes.axhline(70, color=_GREY, linestyle="--", linewidth=1)
        axes.axhline(50, color=_GREY, linestyle=":", linewidth=1)
        axes.set(title=task.name, ylim=(0, 105), xlim=(-0.4, len(changes) - 0.6), ylabel="per cent")
        axes.set_xticks(range(len(changes)), list(changes), fontsize="small")
        axes.set_xlabel("fine-tuning at this rate; pruned and fine-tuned", fontsize="small")
        axes.legend(fontsize="x-small", loc="lower left")
    figure.savefig(path, dpi=150, format="png")


def overwriting(table: "Table", path: Path) -> None:
    """Draw, for each task, the watermark accuracy lost to overwriting beside the paper's."""
    figure, every = _grid(table)
    epochs = (*FIRST_OVERWRITING_EPOCHS, *PAPER_OVERWRITING_EPOCHS)
    papers = range(len(FIRST_OVERWRITING_EPOCHS), len(epochs))
    for axes, task in zip(every, table.tasks, strict=True):
        names = [f"{task.name}: overwriting, {epoch} epochs: lost" for epoch in epochs]
        _draw(axes, [table.rows.get(name) for name in names], colour=_MARK, marker="o", label="here")
        axes.plot(papers, TABLE_3[task.name], color=_TASK, marker="s", linestyle="--", label="the paper's table 3")
        axes.set(title=task.name, xlabel="epochs of overwriting", ylabel="points lost")
        axes.set_xticks(range(len(epochs)), [str(epoch) for epoch in epochs], fontsize="small")
        axes.legend(fontsize="x-small", loc="best")
    figure.savefig(path, dpi=150, format="png")


def _grid(table: "Table") -> tuple[Figure, Sequence["Axes"]]:
    count = len(table.tasks)
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[count:]:
        axes.set_axis_off()
    return figure, list(grid[:count])


def _draw(axes: "Axes", rows: Sequence[Mapping[str, Any] | None], *, colour: str, marker: str, label: str) -> None:
    """Medians with their spread; what was not measured leaves a gap."""
    there = [(place, row) for place, row in enumerate(rows) if row is not None]
    places, medians = [place for place, _ in there], [row["value"] for _, row in there]
    below = [row["value"] - row["spread"][0] for _, row in there]
    above = [row["spread"][1] - row["value"] for _, row in there]
    axes.errorbar(places, medians, yerr=[below, above], color=colour, marker=marker, capsize=3, label=label)
