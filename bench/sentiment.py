"""Does MTLSign hold on texts? `make bench NAME=sentiment`, on SST and IMDb with a Bi-LSTM, three seeds.

For each seed: an owner trains on the data and marks, a bystander trains a model of his own, thieves fine-tune the
marked model on a tenth of the data at three rates, word vectors included. Test data is used for figures only.

The data are nobody's to ship, so a directory must be given, as an argument or in WMREG_BENCH_DATA, with what there is
of

    sst/    as `--data sst:DIR` takes it; the whole training set is used
    imdb/   as `--data imdb:DIR` takes it; 2,000 reviews of the training set are used

and a file of word vectors may be, as --vectors or in WMREG_BENCH_VECTORS: they stay frozen, as in the authors' code.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.owners import Figures, counted, embedded, judged, with_random_key
from bench.results import Goal, Row, silent, summary, write
from client.marking.models import architecture_of, load_data, task_score, trained_model
from client.marking.task import Task
from wm.data import Dataset, fraction_of
from wm.training import fit
from wm.weights import load_weights, save_weights

SEEDS = (1, 2, 3)
EPOCHS = 3
THIEFS_FRACTION, THIEFS_EPOCHS = 0.1, 10
THIEFS_RATES = (1e-4, 3e-4, 1e-3)
IMDB_TEXTS = 2_000
GAMMA, TRIGGERS = 0.7, 600


def main() -> None:
    """Measure every data set that is there, and write bench/results/sentiment.json."""
    parser = argparse.ArgumentParser(prog="bench.sentiment", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("directory", nargs="?", default=os.environ.get("WMREG_BENCH_DATA"), type=Path)
    parser.add_argument("--vectors", default=os.environ.get("WMREG_BENCH_VECTORS"), type=Path)
    arguments = parser.parse_args()
    found = [name for name in ("sst", "imdb") if arguments.directory and (arguments.directory / name).is_dir()]
    if not found:
        print("skipped: no data; give a directory with sst/ or imdb/ as an argument or in WMREG_BENCH_DATA")
        return
    rows: list[Row] = []
    for name in found:
        figures: list[Figures] = []
        task = _task(f"{name}:{arguments.directory / name}", arguments.vectors)
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as directory:
                figures.append(measure_seed(replace(task, seed=seed), Path(directory)))
            print(f"{name}, seed {seed}: {figures[-1]}", flush=True)
        rows += [Row(metric=f"{name}: seeds", value=len(SEEDS), unit="")]
        rows += [_row(f"{name}: {metric}", [each[metric] for each in figures]) for metric in figures[0]]
        write("sentiment", rows)  # after each data set: the next may take an hour


def measure_seed(task: Task, directory: Path) -> Figures:
    """Play the story with one seed; return each figure by its name."""
    data, figures = load_data(task), Figures()
    owner = embedded(directory / "owner", task, figures)
    independent, bystander = directory / "independent.safetensors", replace(task, seed=task.seed + 1000)
    save_weights(trained_model(bystander, architecture_of(bystander, data), data, silent), independent)
    judged("marked model", owner.model, owner, figures)
    counted("independent model", independent, owner, figures)
    counted("clean model (before embedding)", owner.clean, owner, figures)
    counted("marked model, a random key", owner.model, with_random_key(owner, directory / "random"), figures)
    for rate in THIEFS_RATES:
        name, stolen = f"stolen, fine-tuned on a tenth at {rate:g}", directory / f"stolen-{rate:g}.safetensors"
        model = load_weights(owner.model, architecture_of(task, data))
        fit(model, _tenth(data, task.seed), epochs=THIEFS_EPOCHS, lr=rate, seed=task.seed + 2000)
        save_weights(model, stolen)
        figures[f"{name}: task accuracy"] = task_score(model, data)
        counted(name, stolen, owner, figures)
    return figures


def _tenth(data: Dataset, seed: int) -> Dataset:
    return replace(data, train=fraction_of(data.train, THIEFS_FRACTION, seed=seed + 2000))


def _task(data: str, vectors: Path | None) -> Task:
    whole = Task(
        data=data,
        fraction=1.0,
        arch="bilstm",
        weights=None,
        seed=0,
        epochs=EPOCHS,
        device="auto",
        vectors=vectors,
        freeze_embedding=vectors is not None,
    )
    if not data.startswith("imdb:"):
        return whole
    return replace(whole, fraction=min(1.0, IMDB_TEXTS / len(load_data(whole).train)))


# By the end of a metric's name. Table 3 of the paper gives overwriting only; what a thief gains by tuning has gamma.
_GOALS = {
    "marked model: matched of 600": Goal(says="≥ 0.99 N", least=0.99 * TRIGGERS),
    "marked model: verdict VERIFIED (1) or not (0)": Goal(says="1", least=1),
    **{f"at {rate:g}: matched of 600": Goal(says="≥ 0.7 N", least=GAMMA * TRIGGERS) for rate in THIEFS_RATES},
}


def _row(metric: str, values: list[float]) -> Row:
    goal = next((goal for name, goal in _GOALS.items() if metric.endswith(name)), None)
    return summary(metric, values, unit="s" if metric.endswith("seconds") else "", goal=goal)


if __name__ == "__main__":
    main()
