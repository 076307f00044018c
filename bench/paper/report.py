"""docs/results.md and its plots: made from bench/results/paper-*.json alone, by `python -m bench.paper.report`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.paper import plots
from bench.paper.sections import SECTIONS
from bench.paper.settings import SETTINGS
from bench.paper.table import Table, load
from bench.results import RESULTS

_TITLE = """# Results: the paper's tables, measured

Made by `python -m bench.paper.report` from `bench/results/paper-*.json`, which `make bench-paper` measures; nothing in
this file is typed by hand. A cell is the median over the seeds [least, greatest]; counts are matched triggers, per cent
of 600; what an attack leaves is counted as it is and aligned, and the greater count is told (nodes align only where the
plain count does not convict). **Not met** means that at least one seed misses the goal in the column's head.
"""


def write_report(repository: Path) -> None:
    """Write docs/results.md and docs/images/results-*.png from the result files that are there.

    Args:
        repository: its root.

    Raises:
        OSError: a file cannot be read or written.
    """
    paths = {setting.name: RESULTS / f"paper-{setting.name}.json" for setting in SETTINGS.values()}
    tables = [load(path, SETTINGS[name]) for name, path in paths.items() if path.exists()]
    (repository / "docs" / "results.md").write_text(text_of(tables))
    for table in tables:
        for plot in (plots.tuning, plots.overwriting):
            plot(table, repository / "docs" / "images" / f"results-{table.setting.name}-{plot.__name__}.png")


def text_of(tables: Sequence[Table]) -> str:
    """Write the report of some result files, in Markdown."""
    parts = [_TITLE]
    for name in SETTINGS:
        table = next((table for table in tables if table.setting.name == name), None)
        parts += _not_run(name) if table is None else _section(table)
    return "\n".join(parts)


def _not_run(name: str) -> Iterator[str]:
    yield f"## The {name} setting\n"
    yield (
        f"Not run here. `make bench-paper SETTING={name}` measures it with the same code; its numbers are in\n"
        "[bench/paper/settings.py](../bench/paper/settings.py).\n"
    )


def _section(table: Table) -> Iterator[str]:
    content = table.content
    yield f"## The {table.setting.name} setting\n"
    yield f"{content['machine']}; commit {content['commit']}; {content['when']}."
    yield "What was changed after that is not in these figures; the [changelog](../CHANGELOG.md) has it.\n"
    for tell in SECTIONS:
        yield from tell(table)


if __name__ == "__main__":
    write_report(RESULTS.parent.parent)
