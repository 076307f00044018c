"""Measure schemes: `python -m bench.schemes margin fragile …`, all by default; `--help` tells the rest.

Each scheme's module has one function, `measure`; `comparison` has all five on one network, or one of them with
`--only`, beside which the result keeps the others' rows. A seed that was measured is kept in bench/results/work and not
measured again. The result is bench/results/schemes-NAME.json.
"""

import argparse
import importlib
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.results import RESULTS, Goal, beside_earlier, kept, measured_in, summary, write
from wm import datasets
from wm.data import Dataset
from wm.schemes.catalogue import NAMES

COMPARISON = "comparison"
MODULES = ("frontier_stitching", "margin", "locked_parameters", "fragile", COMPARISON)
SEEDS = (1, 2, 3)
# Whose networks are too sure of the digits to have false adversaries.
_DATA = Path(os.environ.get("WMREG_BENCH_DATA", RESULTS.parent.parent.parent / "shared" / "data"))
_USUAL = {"frontier_stitching": _DATA / "small" / "mnist.npz"}
GOALS = {
    "frontier_stitching": {
        "paper, task accuracy lost": Goal(says="≤ 3.5 points", most=3.5),
        "quick, task accuracy lost": Goal(says="≤ 3.5 points", most=3.5),
    },
    "comparison": {},
}


def main() -> int:
    """Measure what is asked for and was not measured yet; return 0."""
    arguments = _arguments()
    for name in arguments.names or MODULES:
        source = arguments.data or str(_USUAL.get(name, "digits"))
        if not (source == "digits" or Path(source.rpartition(":")[2]).exists()):
            print(f"{name}: skipped, no {source}; say with --data where pictures are")
            continue
        only = arguments.only if name == COMPARISON else None
        data, work = datasets.load(source), arguments.work / "schemes" / Path(source).stem / (only or "") / name
        fragments = [_fragment(name, seed, data, work, only=only) for seed in arguments.seeds]
        _tell(name, fragments, Path(source).name, keeps_others=only is not None)
    return 0


def _fragment(name: str, seed: int, data: Dataset, work: Path, *, only: str | None) -> dict[str, Any]:
    options = {"schemes": [only]} if only else {}
    measure = importlib.import_module(f"bench.schemes.{name}").measure
    content = kept(work / f"{seed}.json", lambda: measure(seed, data, **options))
    print(f"{name}, seed {seed}: {content['processor_seconds']} s", flush=True)
    return content


def _tell(name: str, fragments: list[dict[str, Any]], data: str, *, keeps_others: bool) -> None:
    values: dict[str, list[float]] = defaultdict(list)
    for fragment in fragments:
        for figure, value in fragment["figures"].items():
            values[figure].append(float(value))
    goals = GOALS.get(name, {})
    rows = [summary(figure, each, goal=goals.get(figure)) for figure, each in values.items()]
    path = RESULTS / f"schemes-{name}.json"
    if keeps_others and path.exists():
        earlier = json.loads(path.read_text())
        rows, fragments = beside_earlier(rows, earlier), [earlier, *fragments]
    write(f"schemes-{name}", rows, measured={**measured_in(fragments), "data": data})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.schemes", description="Measure watermark schemes.")
    parser.add_argument("names", nargs="*", choices=(*MODULES, []), help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--only", choices=NAMES, help="of the comparison, one scheme; the others' rows stay")
    parser.add_argument("--data", help="pictures, as wmreg embed takes them; digits, or small/mnist.npz in the data")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="%(default)s")
    parser.add_argument("--work", type=Path, default=RESULTS / "work", help="directory of fragments; %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
