"""Measure schemes: `python -m bench.schemes margin fragile …`, all by default; `--help` tells the rest.

Each scheme's module has one function, `measure`; `comparison` has all five on one network. A seed that was measured is
kept in bench/results/work and not measured again. The result is bench/results/schemes-NAME.json.
"""

import argparse
import importlib
import json
import os
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
        data, work = datasets.load(source), arguments.work / "schemes" / Path(source).stem / name
        _tell(name, [_fragment(name, seed, data, work) for seed in arguments.seeds], Path(source).name)
    return 0


def _fragment(name: str, seed: int, data: Dataset, work: Path) -> dict[str, Any]:
    path = work / f"{seed}.json"
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
        "data": data,
    }
    write(f"schemes-{name}", rows, measured=measured)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.schemes", description="Measure watermark schemes.")
    parser.add_argument("names", nargs="*", choices=(*MODULES, []), help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--data", help="pictures, as wmreg embed takes them; digits, or small/mnist.npz in the data")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="%(default)s")
    parser.add_argument("--work", type=Path, default=RESULTS / "work", help="directory of fragments; %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
