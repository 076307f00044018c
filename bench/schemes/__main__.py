"""Measure schemes: `python -m bench.schemes margin fragile …`, all by default; `--help` tells the rest.

Each scheme's module has one function, `measure`; `comparison` has all five on one network. A seed that was measured is
kept in bench/results/work and not measured again. The result is bench/results/schemes-NAME.json.
"""

import argparse
import importlib
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.results import RESULTS, Goal, provenance, summary, write
from wm import datasets
from wm.data import Dataset

MODULES = ("frontier_stitching", "margin", "locked_parameters", "fragile", "comparison")
SEEDS = (1, 2, 3)
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
    data = datasets.load(arguments.data)
    for name in arguments.names or MODULES:
        fragments = [_fragment(name, seed, data, arguments) for seed in arguments.seeds]
        _tell(name, fragments, arguments.data)
    return 0


def _fragment(name: str, seed: int, data: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    path: Path = arguments.work / "schemes" / Path(arguments.data).stem / name / f"{seed}.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept
    begun_s, cpu_s = time.monotonic(), time.process_time()
    figures = importlib.import_module(f"bench.schemes.{name}").measure(seed, data)
    content = {
        "figures": figures,
        "seconds": round(time.monotonic() - begun_s, 1),
        "processor_seconds": round(time.process_time() - cpu_s, 1),
        **provenance(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    partial.replace(path)
    print(f"{name}, seed {seed}: {content['processor_seconds']} s", flush=True)
    return content


def _tell(name: str, fragments: list[dict[str, Any]], data: str) -> None:
    values: dict[str, list[float]] = defaultdict(list)
    for fragment in fragments:
        for figure, value in fragment["figures"].items():
            values[figure].append(float(value))
    goals = GOALS.get(name, {})
    rows = [summary(figure, each, goal=goals.get(figure)) for figure, each in values.items()]
    measured = {
        "commit": ", ".join(dict.fromkeys(it["commit"] for it in fragments)),
        "machine": "; ".join(dict.fromkeys(it["machine"] for it in fragments)),
        "when": max(it["when"] for it in fragments),
        "data": Path(data).name,
    }
    write(f"schemes-{name}", rows, measured=measured)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.schemes", description="Measure watermark schemes.")
    parser.add_argument("names", nargs="*", choices=(*MODULES, []), help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--data", default="digits", help="a data set of pictures, as wmreg embed takes it; %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="%(default)s")
    parser.add_argument("--work", type=Path, default=RESULTS / "work", help="directory of fragments; %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
