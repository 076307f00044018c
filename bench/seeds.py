"""Measurements with several seeds: what their commands take, and their pieces measured and brought together."""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.results import RESULTS, kept, measured_in

# Where a piece is kept, what measures it, and what stands in front of its figures' names.
Piece = tuple[Path, Callable[[], Mapping[str, float] | Iterator[tuple[str, float]]], str]


def arguments_of(name: str, about: str, *, seeds: Sequence[int]) -> argparse.Namespace:
    """Read a bench's command line: `seeds`, and `work`, where its pieces are kept."""
    parser = argparse.ArgumentParser(prog=f"bench.{name}", description=about)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds, help="%(default)s")
    parser.add_argument("--work", type=Path, default=RESULTS / "work", help="directory of fragments; %(default)s")
    return parser.parse_args()


def gathered(pieces: Iterable[Piece]) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Measure the pieces that are left.

    Returns:
        The values of each figure in the order of the pieces; and of which commits, where and until when they are.
    """
    values, fragments = defaultdict[str, list[float]](list), []
    for place, measure, prefix in pieces:
        fragments.append(kept(place, measure))
        print(f"{place}: {fragments[-1]['processor_seconds']} s of the processor", flush=True)
        for figure, value in fragments[-1]["figures"].items():
            values[f"{prefix}{figure}"].append(value)
    return dict(values), measured_in(fragments)
