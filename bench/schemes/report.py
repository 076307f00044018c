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

from bench.results import RESULTS
from bench.schemes.comparison import ARCHITECTURE, ATTACKED, INDEPENDENT
from wm.schemes.catalogue import NAMES

PAGE = RESULTS.parents[1] / "docs" / "schemes.md"
PLOT = PAGE.parent / "images" / "schemes.png"
_BEGIN, _END = "<!-- figures: {name} -->", "<!-- end of figures -->"
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
        where = f"`bench/results/{path.name}`: {content['data']}, {_seeds(rows)} seeds, commit {content['commit']}"
        text = _put(text, name, f"{table}\n\n{where}, {content['machine']}.")
        if name == "comparison":
            _plot(rows)
    PAGE.write_text(text)
    return 0


def _put(text: str, name: str, content: str) -> str:
    pattern = re.escape(_BEGIN.format(name=name)) + r"(\n<!-- [^\n]* -->)?.*?" + re.escape(_END)

    def filled(found: re.Match[str]) -> str:
        return f"{_BEGIN.format(name=name)}{found[1] or ''}\n{content}\n{_END}"

    return re.sub(pattern, filled, text, count=1, flags=re.DOTALL)


def _chosen(text: str, name: str) -> list[str]:
    """The figures that the page asks for, in a comment behind the mark, with semicolons between them."""
    found = re.search(re.escape(_BEGIN.format(name=name)) + r"\n<!-- ([^\n]*) -->", text)
    return [it.strip() for it in found[1].split(";")] if found else []


def _seeds(rows: Rows) -> int:
    return int(max(row["repeats"] for row in rows.values()))


def _selected(rows: Rows, names: list[str]) -> Iterator[str]:
    yield "| figure | median [least, greatest] |\n|---|---|"
    for name in names:
        if name not in rows:
            raise KeyError(f"no figure {name!r}; there are {', '.join(rows)}")
        yield f"| {name} | {_cell(rows[name])} |"


def _comparison(rows: Rows) -> Iterator[str]:
    yield "| | " + " | ".join(NAMES) + " |\n|---|" + "---|" * len(NAMES)
    yield _line(rows, "task accuracy, % (clean: {clean})", "task accuracy", clean=_cell(rows["task accuracy, clean"]))
    yield _line(rows, "embedding, s", "embedding, seconds")
    yield _line(rows, "verification with controls, s", "verification, seconds")
    for who in ("marked", *(f"{name} {strength:g}" for name, strength in ATTACKED)):
        yield _line(rows, f"{who}: matched, %", f"{who}: matched", won=f"{who}: won")
    yield _line(rows, f"{INDEPENDENT} independent models: greatest matched, %", "independent models: greatest matched")
    yield _line(rows, "of them VERIFIED or INTACT", "independent models: won")


def _line(rows: Rows, label: str, figure: str, *, won: str | None = None, **words: str) -> str:
    cells = []
    for scheme in NAMES:
        cell = _cell(rows[f"{scheme}: {figure}"])
        if won is not None:
            row = rows[f"{scheme}: {won}"]
            seeds = row["repeats"]
            cell += (
                f" ({'all' if row['spread'][0] == 1 else 'none' if row['spread'][1] == 0 else 'some'} of {seeds} won)"
            )
        cells.append(cell)
    return f"| {label.format(**words)} | " + " | ".join(cells) + " |"


def _cell(row: dict[str, Any]) -> str:
    value, spread = row["value"], row["spread"]
    if spread is None or spread[0] == spread[1]:
        return f"{value:.4g}"
    return f"{value:.4g} [{spread[0]:.4g}, {spread[1]:.4g}]"


def _plot(rows: Rows) -> None:
    """Draw what each mark matches after each attack, above the accuracy that the attack leaves."""
    whos = ["marked", *(f"{name} {strength:g}" for name, strength in ATTACKED)]
    figure = Figure(figsize=(9.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    width = 0.8 / len(NAMES)
    for number, scheme in enumerate(NAMES):
        places = [place + (number - (len(NAMES) - 1) / 2) * width for place in range(len(whos))]
        values = [rows[f"{scheme}: {who}: matched"]["value"] for who in whos]
        axes.bar(places, values, width=0.92 * width, color=_COLOURS[scheme], label=scheme)
        won = [(x, y) for x, y, who in zip(places, values, whos, strict=True) if _always_won(rows, scheme, who)]
        if won:
            axes.plot(*zip(*won, strict=True), color=_COLOURS[scheme], marker="v", linestyle="", markersize=5)
    axes.set(
        xticks=range(len(whos)), ylabel="matched, % of the triggers or signs", ylim=(0, 108), title=f"{ARCHITECTURE}"
    )
    axes.set_xticklabels([who.replace("_", "\n") for who in whos], fontsize="small")
    axes.plot([], [], color="#555555", marker="v", linestyle="", label="VERIFIED or INTACT with every seed")
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, frameon=False)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=150, format="png")


def _always_won(rows: Rows, scheme: str, who: str) -> bool:
    return bool(rows[f"{scheme}: {who}: won"]["spread"][0] == 1)


if __name__ == "__main__":
    sys.exit(main())
