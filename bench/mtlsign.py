"""Does MTLSign hold on real data? `make bench NAME=mtlsign`, on the digits with ResNet-18, five seeds.

For each seed the demo's story without a ledger: an owner trains and marks a model, a bystander trains his own, a
thief fine-tunes the marked one on a tenth of the data and embeds his own watermark over it. Test data is used for
figures only.
"""

import tempfile
from pathlib import Path

from bench.owners import Figures, counted, embedded, judged, with_random_key
from bench.results import Goal, Row, silent, summary, write
from client.marking.models import architecture_of, load_data, task_score, trained_model
from client.marking.task import Task
from wm.weights import load_weights, save_weights

SEEDS = (1, 2, 3, 4, 5)
_ENOUGH = Goal(says="≥ 0.7 N", least=0.7 * 600)
_GOALS = {"marked model: matched": _ENOUGH, "stolen, fine-tuned, overwritten: matched": _ENOUGH}


def main() -> None:
    """Measure every seed and write bench/results/mtlsign.json."""
    figures = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as directory:
            figures.append(measure_seed(seed, Path(directory)))
        print(f"seed {seed}: {figures[-1]}", flush=True)
    write("mtlsign", [_row(metric, [f[metric] for f in figures]) for metric in figures[0]])


def measure_seed(seed: int, directory: Path) -> Figures:
    """Play the story with one seed; return each figure by its name."""
    figures: Figures = {}
    owner = embedded(directory / "owner", _task(seed), figures, who="owner")
    independent = directory / "independent.safetensors"
    task = _task(seed + 1000)
    data = load_data(task)
    model = trained_model(task, architecture_of(task, data), data, silent)
    save_weights(model, independent)
    thief = embedded(directory / "thief", _task(seed + 2000, weights=owner.model, fraction=0.1), figures, who="thief")
    tuned = load_weights(thief.clean, architecture_of(task, data))
    figures["task accuracy of the stolen model after fine-tuning"] = task_score(tuned, data)
    for name, suspect, evidence in (
        ("marked model", owner.model, owner),
        ("clean model (before embedding)", owner.clean, owner),
        ("stolen, fine-tuned, overwritten", thief.model, owner),
        ("stolen, overwritten, thief's own key", thief.model, thief),
    ):
        judged(name, suspect, evidence, figures)
    counted("stolen, fine-tuned on a tenth", thief.clean, owner, figures)
    counted("independent model", independent, owner, figures)
    random_key = with_random_key(owner, directory / "random")
    counted("stolen, overwritten, a random key", thief.model, random_key, figures)
    return figures


def _task(seed: int, *, weights: Path | None = None, fraction: float = 1.0) -> Task:
    return Task(
        data="digits", fraction=fraction, arch="resnet18", weights=weights, seed=seed, epochs=None, device="auto"
    )


def _row(metric: str, values: list[float]) -> Row:
    goal = next((goal for name, goal in _GOALS.items() if metric.startswith(name)), None)
    return summary(metric, values, unit="s" if metric.endswith("seconds") else "", goal=goal)


if __name__ == "__main__":
    main()
