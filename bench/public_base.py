"""Can a public base be kept out of a mark, at what cost? `make bench NAME=public_base`: digits, ResNet-18, one seed.

The base is trained from scratch; the owner and a neighbour each fine-tune it on the same digits. The owner marks his
model with several recipes. Of each is told what the marked model, the base, the owner's own model before the mark and
the neighbour match, how far the weights moved, the task accuracy, and what is left after a thief's fine-tuning of all
layers on a tenth of the data. Task accuracy is on the validation set: recipes are chosen here.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

import wm
from bench.results import Row, write
from wm import data
from wm.architectures import Architecture, build
from wm.attacks.tuning import Tuning, tune
from wm.progress import silent
from wm.training import accuracy, fit

ARCHITECTURE = Architecture("resnet18", {"num_classes": 10})
KEY = bytes(range(32))
EPOCHS, TUNED_EPOCHS = 6, 5
THIEF_LR, THIEF_SHARE = 3e-4, 0.1
DIGITS = data.digits()
BESIDE = wm.EmbedSettings.beside_a_base()
RECIPES = {
    "the usual recipe, no negative controls": (wm.EmbedSettings(), False),
    "beside a base, fewer steps of the head": (replace(BESIDE, head_steps=300), True),
    "beside a base, at twice the rate": (replace(BESIDE, backbone_lr=2e-4, head_steps=600), True),
    "beside a base": (BESIDE, True),
}


def main() -> None:
    """Measure every recipe and write bench/results/public_base.json."""
    base = build(ARCHITECTURE, seed=100)
    fit(base, DIGITS, epochs=EPOCHS, lr=1e-3, seed=100)
    clean, neighbour = (_tuned(base, seed) for seed in (1, 7))
    others = {"base": base, "clean model": clean, "neighbour": neighbour}
    rows = [row for name in RECIPES for row in _rows(name, others)]
    write("public_base", rows)


def _tuned(base: nn.Module, seed: int) -> nn.Module:
    model = copy.deepcopy(base)
    fit(model, DIGITS, epochs=TUNED_EPOCHS, lr=1e-4, seed=seed)
    return model


def _rows(name: str, others: dict[str, nn.Module]) -> Iterator[Row]:
    settings, with_negatives = RECIPES[name]
    negatives = [others["base"], others["clean model"]] if with_negatives else []
    embedding = wm.embed(
        others["clean model"], DIGITS, KEY, architecture=ARCHITECTURE, settings=settings, negatives=negatives, seed=1
    )
    sample = data.fraction_of(DIGITS.train, THIEF_SHARE, seed=5)
    stolen = tune(copy.deepcopy(embedding.model), sample, Tuning(lr=THIEF_LR, seed=3), silent)
    for who, model in {"marked model": embedding.model, **others, "stolen and fine-tuned": stolen}.items():
        matched = wm.count_matched(model, embedding.head, embedding.info, KEY)
        yield Row(metric=f"{name}: {who}: matched of {embedding.info.triggers}", value=matched, unit="")
    change = 100 * embedding.report["weight_change"]
    yield Row(metric=f"{name}: ‖ΔW‖ of the tapped layers", value=round(change, 2), unit="%")
    for who, model in {**others, "marked model": embedding.model, "stolen and fine-tuned": stolen}.items():
        correct = accuracy(model, DIGITS.validation.images, DIGITS.validation.labels)
        yield Row(metric=f"{name}: {who}: task accuracy", value=round(100 * correct, 1), unit="%")


if __name__ == "__main__":
    main()
