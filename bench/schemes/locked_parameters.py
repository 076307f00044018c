"""Locked parameters: what is read back of a mark after attacks, with replicas in the training and without.

The plain lock is trained at the rate that the watermark-aware step leaves of the other's, so that both learn the task
alike and what differs is the curvature. Counts are per cent of the locked weights; chance is 50.
"""

from dataclasses import replace

from torch import nn

from wm.architectures import OwnArchitecture
from wm.attacks import ATTACKS, attacked
from wm.attacks.attack import Stolen
from wm.data import Dataset, fraction_of
from wm.randomness import key_of, seeded
from wm.schemes.locked_parameters import (
    LockedPayload,
    Settings,
    agreements,
    aligned_agreements,
    correlation,
    embed,
    sharpness,
)
from wm.schemes.scheme import Marked
from wm.training import fit, score
from wm.triggers import InputSpec

EPOCHS, LR = 8, 3e-3
INDEPENDENT_EPOCHS = 4
MOVES = 0.3  # of the locked weights, in units of their size, over which the curvature is measured
ATTACKED = (
    *(("ftal", rate) for rate in (1e-4, 3e-4, 1e-3, 1e-2)),
    *(("magnitude_pruning", share) for share in (0.5, 0.8, 0.9)),
    *(("quantisation", bits) for bits in (8, 4)),
)


def measure(seed: int, data: Dataset) -> dict[str, float]:
    """Measure one seed.

    Args:
        seed: decides everything.
        data: pictures of 3 channels and 32 x 32 pixels.
    """
    key, other_key = key_of("bench", seed), key_of("bench", seed, "other")
    clean, independent = (_network(data, seed=it) for it in (seed, seed + 1000))
    fit(clean, data, epochs=EPOCHS, lr=LR, seed=seed)
    fit(independent, data, epochs=INDEPENDENT_EPOCHS, lr=LR, seed=seed + 1000)
    aware = Settings.quick()
    plain = replace(aware, replicas=0, lr=aware.lr - aware.sharpening)
    figures = {"task accuracy, clean": 100 * score(clean, data.test)}
    for name, settings in (("plain lock", plain), ("watermark-aware", aware)):  # the second is used below
        marked = embed(clean, data, key, settings=settings, seed=seed)
        found = _of_marked(marked, key, data) | _after_attacks(marked, key, data, seed)
        figures |= {f"{name}: {figure}": value for figure, value in found.items()}
    payload = _payload(marked)
    strangers = (("clean", clean, key), ("independent", independent, key), ("another key", marked.model, other_key))
    figures |= {f"matched, {name}": _per_cent(model, payload, it) for name, model, it in strangers}
    aligned = aligned_agreements(independent, payload, key, _input(data))
    figures["matched, independent, aligned"] = 100 * float(aligned.float().mean())
    return figures | _after_permutation(marked, key, data, seed)


def _of_marked(marked: Marked, key: bytes, data: Dataset) -> dict[str, float]:
    payload = _payload(marked)
    around = sharpness(marked.model, payload, key, data.train, noise=MOVES, seed=0)
    return {
        "task accuracy": 100 * score(marked.model, data.test),
        "matched": _per_cent(marked.model, payload, key),
        "seconds": marked.report["seconds"],
        "largest locked, in units of its tensor's RMS": marked.report["largest_locked"],
        "training loss": around.loss,
        "rise of the loss where locked weights move": around.rise,
        "curvature along locked weights": around.curvature,
    }


def _after_attacks(marked: Marked, key: bytes, data: Dataset, seed: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    stolen = _stolen(marked.model, data, seed)
    for name, strength in ATTACKED:
        model = attacked(ATTACKS[name], stolen, strength=strength, seed=seed)
        after = f"after {name} {strength:g}"
        figures[f"matched {after}"] = _per_cent(model, _payload(marked), key)
        figures[f"Pearson r {after}"] = correlation(model, _payload(marked), key)
        figures[f"task accuracy {after}"] = 100 * score(model, data.test)
    return figures


def _after_permutation(marked: Marked, key: bytes, data: Dataset, seed: int) -> dict[str, float]:
    """Fine-tune and renumber; read as it is and aligned."""
    tuned = attacked(ATTACKS["ftal"], _stolen(marked.model, data, seed), strength=1e-3, seed=seed)
    moved = attacked(ATTACKS["permutation"], _stolen(tuned, data, seed), strength=1.0, seed=seed)
    aligned = aligned_agreements(moved, _payload(marked), key, _input(data))
    return {
        "matched after ftal 0.001 and permutation, as it is": _per_cent(moved, _payload(marked), key),
        "matched after ftal 0.001 and permutation, aligned": 100 * float(aligned.float().mean()),
    }


def _network(data: Dataset, *, seed: int) -> nn.Module:
    """Two normalised convolutions and two linear layers, of which 86,000 weights can be locked."""
    with seeded("locked parameters", seed):
        return nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=3, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(1024, 64),
            nn.ReLU(),
            nn.Linear(64, data.classes),
        )


def _stolen(model: nn.Module, data: Dataset, seed: int) -> Stolen:
    thiefs = replace(data, train=fraction_of(data.train, 0.1, seed=seed))
    return Stolen(model=model, architecture=OwnArchitecture(), data=thiefs)


def _input(data: Dataset) -> InputSpec:
    if not isinstance(data.input, InputSpec):
        raise TypeError("pictures are needed")
    return data.input


def _payload(marked: Marked) -> LockedPayload:
    if not isinstance(marked.payload, LockedPayload):
        raise TypeError("not a locked mark")
    return marked.payload


def _per_cent(model: nn.Module, payload: LockedPayload, key: bytes) -> float:
    return 100 * float(agreements(model, payload, key).float().mean())
