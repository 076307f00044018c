"""What λ1 and λ2 of MTLSign do: `make bench NAME=lambdas`, ResNet-18 on the digits, three seeds.

λ1 weighs R_func, which holds the weights where they were; λ2 weighs R_DA, which shows the head tuned copies. Each is
swept with the other at its default. What should come of a setting: all triggers matched, most of them left after a
thief's tuning of all layers on a tenth of the data, and no loss of task accuracy. The test set is not touched: accuracy
is on the validation set, and the thief tunes on data of the training set.

A setting is kept in bench/results/work and not measured again.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

from torch import nn

import wm
from bench.results import summary, write
from bench.seeds import arguments_of, gathered
from wm import data
from wm.architectures import Architecture, build
from wm.attacks.tuning import Tuning, tune
from wm.progress import silent
from wm.training import accuracy, fit

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
KEY = bytes(range(32))
EPOCHS, SEEDS = 6, (1, 2, 3)
THIEF_RATES, THIEF_SHARE = (3e-4, 1e-3), 0.1
DIGITS = data.digits()
USUAL = wm.EmbedSettings()
LAMBDA1, LAMBDA2 = (0.01, 0.1, 1.0, 10.0), (0.0, 0.5, 1.0, 2.0)
SWEPT = [
    *(replace(USUAL, lambda1=value) for value in LAMBDA1),
    *(replace(USUAL, lambda2=value) for value in LAMBDA2 if value != USUAL.lambda2),
]
_UNITS = {"matched of 600": "", "task accuracy": "%", "less the clean one's": "points", "tapped layers": "%"}


def main() -> None:
    """Measure the settings and seeds that are left, and write bench/results/lambdas.json."""
    arguments = arguments_of("lambdas", "Sweep the weights of MTLSign's loss.", seeds=SEEDS)
    values, measured = gathered(
        (
            arguments.work / "lambdas" / str(seed) / f"{settings.lambda1:g}-{settings.lambda2:g}.json",
            partial(_measured, settings, seed),
            f"λ1 = {settings.lambda1:g}, λ2 = {settings.lambda2:g}: ",
        )
        for seed in arguments.seeds
        for settings in SWEPT
    )
    write("lambdas", [summary(metric, each, unit=_unit(metric)) for metric, each in values.items()], measured=measured)


def _unit(metric: str) -> str:
    return next(unit for end, unit in _UNITS.items() if metric.endswith(end))


@cache
def _clean(seed: int) -> nn.Module:
    model = build(ARCHITECTURE, seed=seed)
    fit(model, DIGITS, epochs=EPOCHS, lr=1e-3, seed=seed)
    return model


def _measured(settings: wm.EmbedSettings, seed: int) -> Iterator[tuple[str, float]]:
    """What there is to tell of one mark."""
    clean = _clean(seed)
    made = wm.embed(clean, DIGITS, KEY, architecture=ARCHITECTURE, settings=settings, seed=seed)
    evidence = wm.with_reference(wm.EvidenceFile(made.head, made.info, bytes(32)), made.model)
    yield "marked model: matched of 600", wm.count_matched(made.model, evidence.head, evidence.info, KEY)
    validation = DIGITS.validation
    before, after = (accuracy(it, validation.images, validation.labels) for it in (clean, made.model))
    yield "marked model: task accuracy less the clean one's", round(100 * (after - before), 2)
    yield "‖ΔW‖ of the tapped layers", round(100 * made.report["weight_change"], 3)
    sample = data.fraction_of(DIGITS.train, THIEF_SHARE, seed=50 + seed)
    for rate in THIEF_RATES:
        stolen = tune(copy.deepcopy(made.model), sample, Tuning(lr=rate, seed=30 + seed), silent)
        counts = [
            wm.count_matched(stolen, evidence.head, evidence.info, KEY, reference=reference)
            for reference in (None, evidence.reference)
        ]
        yield f"stolen, tuned at {rate:g}: matched of 600", max(counts)
        left = accuracy(stolen, validation.images, validation.labels)
        yield f"stolen, tuned at {rate:g}: task accuracy", round(100 * left, 1)


if __name__ == "__main__":
    main()
