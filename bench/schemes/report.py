"""Write the figures of docs/schemes.md: `python -m bench.schemes.report`, from bench/results/schemes-*.json.

Between two marks in the page everything is made here, and nothing outside of them is touched.
"""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.pages import BEGIN, cell, put, seeds_of
from bench.results import RESULTS
from bench.schemes.comparison import ARCHITECTURE, ATTACKED, INDEPENDENT
from wm.schemes.catalogue import NAMES, SCHEMES

PAGE = RESULTS.parents[1] / "docs" / "schemes.md"
PLOT = PAGE.parent / "images" / "schemes.png"
_WHOS = ("marked", *(f"{name} {strength:g}" for name, strength in ATTACKED))
_SAID = {
    "marked": "no attack",
    "ftal 0.0001": "fine-tuned at 1e-4",
    "ftal 0.001": "fine-tuned at 1e-3",
    "magnitude_pruning 0.5": "half pruned",
    "quantisation 8": "8-bit weights",
    "quantisation 4": "4-bit weights",
    "permutation 1": "channels renumbered",
    "extraction_soft 20": "student of its answers",
}
_COLOURS = dict(zip(NAMES, ("#2166ac", "#b35806", "#1b7837", "#c51b7d", "#6a51a3"), strict=True))
Rows = dict[str, dict[str, Any]]


def main() -> int:
    """Write the tables of what was measured, and the plot; return 0."""
    text = PAGE.read_text()
    for path in sorted(RESULTS.glob("schemes-*.json")):
        name = path.stem.removeprefix("schemes-")
        content = json.loads(path.read_text())
        rows: Rows = {row["metric"]: row for row in content["rows"]}
        table = "\n".join(_comparison(rows) if name == "comparison" else _selected(rows, _chosen(text, name)))
        where = f"`bench/results/{path.name}`: {content['data']}, {seeds_of(rows)} seeds, commit {content['commit']}"
        text = put(text, name, f"{table}\n\n{where}, {content['machine']}.")
        if name == "comparison":
            _plot(rows)
    PAGE.write_text(text)
    return 0


def _chosen(text: str, name: str) -> list[str]:
    """The figures that the page asks for, in a comment behind the mark, with semicolons between them."""
    found = re.search(re.escape(BEGIN.format(name=name)) + r"\n<!-- ([^\n]*) -->", text)
    return [it.strip() for it in found[1].split(";")] if found else []


def _selected(rows: Rows, names: list[str]) -> Iterator[str]:
    yield "| figure | median [least, greatest] |\n|---|---|"
    for name in names:
        if name not in rows:
            raise KeyError(f"no figure {name!r}; there are {', '.join(rows)}")
        yield f"| {name} | {cell(rows[name])} |"


def _comparison(rows: Rows) -> Iterator[str]:
    yield "| | " + " | ".join(NAMES) + " |\n|---|" + "---|" * len(NAMES)
    yield _line(rows, "task accuracy, % (clean: {clean})", "task accuracy", clean=cell(rows["task accuracy, clean"]))
    yield _line(rows, "embedding, s", "embedding, seconds")
    yield _line(rows, "verification with controls, s", "verification, seconds")
    yield _line(rows, "evidence file, kB", "evidence file, kB")
    yield _line(rows, "chance of a match, %", "chance of a match, %", none="integrity")
    yield _line(rows, "marked: evidence, bits", "marked: evidence, bits", none="integrity")
    for who in _WHOS:
        yield _line(rows, f"{_said(who)}: matched, %", f"{who}: matched", won=f"{who}: won")
    yield _line(rows, f"{INDEPENDENT} independent models: greatest matched, %", "independent models: greatest matched")
    yield _line(rows, "of them VERIFIED or INTACT", "independent models: won")
    for who in _WHOS[1:]:
        yield _line(rows, f"{_said(who)}: task accuracy left, %", f"{who}: task accuracy")


def _line(rows: Rows, label: str, figure: str, *, won: str | None = None, none: str | None = None, **words: str) -> str:
    cells = []
    for scheme in NAMES:
        if none is not None and scheme in SCHEMES and SCHEMES[scheme].statistic == none:
            cells.append("–")
            continue
        said = cell(rows[f"{scheme}: {figure}"])
        if won is not None:
            row = rows[f"{scheme}: {won}"]
            seeds = row["repeats"]
            share = "all" if row["spread"][0] == 1 else "none" if row["spread"][1] == 0 else "some"
            said += f", {share} of {seeds} won"
        cells.append(said)
    return f"| {label.format(**words)} | " + " | ".join(cells) + " |"


def _said(who: str) -> str:
    return _SAID.get(who, who)


def _plot(rows: Rows) -> None:
    """Draw what each mark matches after each attack, with the spread of the seeds, and whether it still wins."""
    whos = (*_WHOS, "independent models")
    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(NAMES)
    for number, scheme in enumerate(NAMES):
        places = [place + (number - (len(NAMES) - 1) / 2) * width for place in range(len(whos))]
        matched = [rows[f"{scheme}: {who}: {_figure_of(who)}"] for who in whos]
        values = [row["value"] for row in matched]
        spreads = [(row["value"] - row["spread"][0], row["spread"][1] - row["value"]) for row in matched]
        axes.bar(places, values, width=0.92 * width, color=_COLOURS[scheme], label=scheme)
        axes.errorbar(
            places, values, yerr=list(zip(*spreads, strict=True)), fmt="none", ecolor="black", elinewidth=1, capsize=2
        )
        won = [x for x, who in zip(places, whos, strict=True) if _always_won(rows, scheme, who)]
        axes.plot(won, [106] * len(won), color=_COLOURS[scheme], marker="v", linestyle="", markersize=6)
    axes.set(
        xticks=range(len(whos)),
        xlim=(-0.6, len(whos) - 0.4),
        ylim=(0, 111),
        ylabel="matched triggers or signs, %",
        title=f"Five schemes on one {ARCHITECTURE}: median and spread of {seeds_of(rows)} seeds",
    )
    labels = [_said(who).replace(" ", "\n", 1) for who in whos]
    axes.set_xticklabels(labels, fontsize="small")
    axes.grid(visible=True, axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    axes.plot([], [], color="#555555", marker="v", linestyle="", label="VERIFIED (fragile: INTACT) with every seed")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=6, frameon=False)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=150, format="png")


def _figure_of(who: str) -> str:
    return "greatest matched" if who == "independent models" else "matched"


def _always_won(rows: Rows, scheme: str, who: str) -> bool:
    return bool(rows[f"{scheme}: {who}: won"]["spread"][0] == 1)


if __name__ == "__main__":
    sys.exit(main())
