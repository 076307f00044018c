"""Does MTLSign hold on real data? `make bench NAME=mtlsign`, on the digits with ResNet-18, five seeds.

For each seed the demo's story without a ledger: an owner trains and marks a model, a bystander trains his own, a
thief fine-tunes the marked one on a tenth of the data and embeds his own watermark over it. Test data is used for
figures only.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.results import Row, write
from client.bundle import Bundle
from client.embedding import embed, write_bundle
from client.keystore import create_watermark_key, save_watermark_key
from client.measuring import Trial, measure
from client.models import architecture_of, load_data, task_accuracy, trained_model
from client.task import Task
from registry.policy import Thresholds
from registry.verdict import Measurement, Outcome, judge
from wm.weights import load_weights, save_weights

SEEDS = (1, 2, 3, 4, 5)
ORIGIN = "bench.example/wmreg"
GAMMA = 0.7
Figures = dict[str, float]


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
    owner = _embed(directory / "owner", _task(seed), figures, "owner")
    independent = directory / "independent.safetensors"
    task = _task(seed + 1000)
    data = load_data(task)
    model = trained_model(task, architecture_of(task, data), data, _silent)
    save_weights(model, independent)
    thief = _embed(directory / "thief", _task(seed + 2000, weights=owner.model, fraction=0.1), figures, "thief")
    tuned = load_weights(thief.clean, architecture_of(task, data))
    figures["task accuracy of the stolen model after fine-tuning"] = task_accuracy(tuned, data)
    judged = {
        "marked model": (owner.model, owner),
        "clean model (before embedding)": (owner.clean, owner),
        "stolen, fine-tuned, overwritten": (thief.model, owner),
        "stolen, overwritten, thief's own key": (thief.model, thief),
    }
    for name, (suspect, evidence) in judged.items():
        _judge(name, suspect, evidence, figures)
    counted = {
        "stolen, fine-tuned on a tenth": (thief.clean, owner),
        "independent model": (independent, owner),
        "stolen, overwritten, a random key": (thief.model, _random_key(owner, directory / "random")),
    }
    for name, (suspect, evidence) in counted.items():
        found = measure(suspect, evidence, Trial(controls=False, device="auto"), _silent)
        figures[f"{name}: matched of {found.total}"] = found.matched
    return figures


def _embed(out: Path, task: Task, figures: Figures, who: str) -> Bundle:
    begun = time.monotonic()
    key_file = create_watermark_key(Ed25519PrivateKey.generate(), origin=ORIGIN)
    marked = embed(task, [key_file], scheme="mtlsign", show=_silent)
    figures[f"{who}: training and embedding, seconds"] = time.monotonic() - begun
    out.mkdir()
    report = write_bundle(Bundle(out), marked, [key_file], base_sha256=None, keep_clean=True)
    for when in ("clean", "marked"):
        figures[f"{who}: task accuracy, {when}"] = report["test_accuracy"][when]
    return Bundle(out)


def _judge(name: str, suspect: Path, evidence: Bundle, figures: Figures) -> None:
    begun = time.monotonic()
    found = measure(suspect, evidence, Trial(controls=True, device="auto"), _silent)
    figures[f"{name}: matched of {found.total}"] = found.matched
    figures[f"{name}: greatest fresh control"] = max(control.matched for control in found.controls)
    figures[f"{name}: permutations as good, of {found.permutations}"] = found.permutations_as_good
    figures[f"{name}: verdict VERIFIED (1) or not (0)"] = float(_is_verified(found))
    figures[f"{name}: verification with all controls, seconds"] = time.monotonic() - begun


def _is_verified(found: Measurement) -> bool:
    return judge(found, Thresholds())[0] is Outcome.VERIFIED


def _random_key(owner: Bundle, directory: Path) -> Bundle:
    """The owner's evidence with somebody else's watermark key."""
    directory.mkdir()
    forged = Bundle(directory)
    forged.evidence.write_bytes(owner.evidence.read_bytes())
    save_watermark_key(forged.watermark_key, create_watermark_key(Ed25519PrivateKey.generate(), origin=ORIGIN))
    return forged


def _task(seed: int, *, weights: Path | None = None, fraction: float = 1.0) -> Task:
    return Task(
        data="digits", fraction=fraction, arch="resnet18", weights=weights, seed=seed, epochs=None, device="auto"
    )


def _silent(_phase: str, _done: int, _total: int, _detail: str) -> None:
    """Show nothing: a bench's output is its table."""


_GOALS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "marked model: matched": ("≥ 0.7 N", lambda worst: worst >= GAMMA * 600),
    "stolen, fine-tuned, overwritten: matched": ("≥ 0.7 N", lambda worst: worst >= GAMMA * 600),
}


def _row(metric: str, values: list[float]) -> Row:
    """Median and spread over the seeds; a goal is met only if the worst seed meets it."""
    goal, holds = next((g for name, g in _GOALS.items() if metric.startswith(name)), (None, None))
    return Row(
        metric=metric,
        value=round(statistics.median(values), 4),
        unit="s" if metric.endswith("seconds") else "",
        spread=(round(min(values), 4), round(max(values), 4)),
        goal=goal,
        met=holds(min(values)) if holds else None,
    )


if __name__ == "__main__":
    main()
