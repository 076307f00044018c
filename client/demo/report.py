"""The demo's report: transcript, everything as JSON, and one plot of the matched triggers of each model."""

import io
import json
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from client.demo.shell import PREFIXES, STYLES, Shell
from client.errors import InputError
from client.files import check_writable
from registry.policy import Thresholds

GAMMA = Thresholds().gamma_permille / 1000
NULL_BAND = (0.425, 0.575)  # Li et al. 2022, section 4.1: where 5,000 random keys fell; Binomial(600, 1/2) ± 3.7 sd
_BARS = (
    ("marked", "Alice's marked model"),
    ("clean", "the same before embedding"),
    ("stolen", "Mallory's fine-tuned,\noverwritten copy"),
    ("independent", "Carol's independent model"),
    ("random key", "Mallory's copy,\nEve's random key"),
)
_WIDTH = 108
_FILES = {"transcript.txt", "transcript.svg", "report.json", "matched.png"}


def check_report(directory: Path) -> None:
    """Check before the demo begins that its report can be written, and writes over nothing but an earlier report.

    Raises:
        InputError: the directory holds something else.
        OSError: it cannot be written.
    """
    if directory.exists():
        others = [path.name for path in directory.iterdir() if not _is_of_report(path)]
        if others:
            message = f"{directory}: holds {others[0]}, which is of no demo's report; choose another --report directory"
            raise InputError(message, code="exists")
    check_writable(directory)


def _is_of_report(path: Path) -> bool:
    return path.is_file() and (path.name in _FILES or bool(re.fullmatch(r"node-\d+\.log", path.name)))


def write_report(directory: Path, shell: Shell, facts: Mapping[str, Any]) -> None:
    """Write transcript.txt, transcript.svg, report.json, matched.png and the nodes' logs; remove an earlier report."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in filter(_is_of_report, list(directory.iterdir())):
        path.unlink()
    (directory / "transcript.txt").write_text(shell.text())
    (directory / "transcript.svg").write_text(_picture(shell))
    machine = {"python": platform.python_version(), "machine": platform.platform()}
    (directory / "report.json").write_text(json.dumps({**facts, **machine}, indent=1) + "\n")
    for log in sorted(shell.directory.glob("node-*.log")):
        shutil.copyfile(log, directory / log.name)
    matched = matched_triggers(facts)
    if matched:
        _plot(directory / "matched.png", matched)


def matched_triggers(facts: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Matched and all triggers of each model under Alice's key, and of the stolen one under Eve's, as far as known."""
    matched = {name: (found["matched"], found["total"]) for name, found in facts.get("measured", {}).items()}
    votes = facts.get("claims", {}).get("eve with a random key", {}).get("votes", [])
    measured = [(vote["matched"], vote["total"]) for vote in votes if vote.get("total")]
    return matched | ({"random key": measured[0]} if measured else {})


def _plot(path: Path, matched: Mapping[str, tuple[int, int]]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 3.6), layout="constrained")
    total = max(total for _, total in matched.values())
    bars = [(name, label) for name, label in _BARS if name in matched]
    axes.axvspan(NULL_BAND[0] * total, NULL_BAND[1] * total, color="#d9d9d9", label="where chance falls")
    axes.axvline(GAMMA * total, color="#b2182b", linestyle="--", label=f"γ = {GAMMA}: {round(GAMMA * total)} triggers")
    for row, (name, label) in enumerate(reversed(bars)):
        count = matched[name][0]
        axes.barh(row, count, height=0.55, color="#2166ac" if count >= GAMMA * total else "#8c8c8c")
        axes.annotate(str(count), (count, row), xytext=(4, 0), textcoords="offset points", va="center")
        axes.annotate(label, (0, row), xytext=(-6, 0), textcoords="offset points", va="center", ha="right")
    axes.set(xlim=(0, total * 1.08), yticks=[], xlabel=f"triggers answered as the key demands, of {total}")
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _picture(shell: Shell) -> str:
    """The transcript as an SVG that needs no font from elsewhere."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    for line in shell.transcript:
        console.print(Text(PREFIXES[line.kind] + line.text, style=STYLES[line.kind]))
    return console.export_svg(title="wmreg demo", code_format=_SVG)


_SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
