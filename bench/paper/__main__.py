"""Measure what is still to be measured, and write the result and the report: `python -m bench.paper --help`."""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from bench.paper import merging, report
from bench.paper.plan import Piece, pieces
from bench.paper.settings import SETTINGS
from bench.results import RESULTS, beside_earlier, measured_in, write

_REPOSITORY = RESULTS.parent.parent


def main() -> int:
    """Do the pieces that are left, one after the other; return 0 when none is left, 3 when there was no time for some.

    What was measured before is taken from its fragment, or stays in the result as it was. After each run the result and
    the report tell of what there is.
    """
    arguments = _arguments()
    begun_s, setting = time.monotonic(), SETTINGS[arguments.setting]
    planned = list(pieces(setting, arguments.data, arguments.work))
    if not planned:
        print(f"skipped: no data in {arguments.data}; see python -m bench.paper --help")
        return 0
    chosen = [piece for piece in planned if arguments.only in str(piece)]
    for piece in chosen:
        if piece.result() is None and time.monotonic() - begun_s < 60 * arguments.minutes:
            print(f"{piece} ...", flush=True)
            print(f"{piece}: {piece.run()}", flush=True)
    _tell(f"paper-{setting.name}", planned)
    left = [piece for piece in chosen if piece.result() is None]
    print(f"{len(left)} of {len(chosen)} pieces left")
    return 3 if left else 0


def _tell(name: str, planned: list[Piece]) -> None:
    done = [(piece, content) for piece in planned if (content := piece.result()) is not None]
    if done:
        rows, contents = merging.rows(done), [content for _, content in done]
        path = RESULTS / f"{name}.json"
        if path.exists() and len(done) < len(planned):
            earlier = json.loads(path.read_text())
            rows, contents = beside_earlier(rows, earlier), [earlier, *contents]
        write(name, rows, measured=measured_in(contents))
        report.write_report(_REPOSITORY)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.paper",
        description="The paper's tables measured: bench/results/paper-SETTING.json, docs/results.md and its plots.",
        epilog="DATA has what there is of MNIST, FashionMNIST, cifar10 or small (npz files), sst, imdb and glove; "
        "bench/paper/settings.py names the files. Nothing is downloaded.",
    )
    usual = Path(os.environ.get("WMREG_BENCH_DATA", _REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="small", help="small: two cores; full: a GPU")
    parser.add_argument("--data", type=Path, default=usual, help="directory; or WMREG_BENCH_DATA; %(default)s")
    parser.add_argument(
        "--work", type=Path, default=RESULTS / "work", help="directory of fragments and models; %(default)s"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no piece after so many; exit code 3 then")
    parser.add_argument("--only", default="", help="pieces whose description holds this, such as 'MNIST, seed 1'")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
