"""Can a public base be kept out of a mark, at what cost? `make bench NAME=public_base`: digits, ResNet-18, three seeds.

The base is trained from scratch; the owner and a neighbour each fine-tune it on the same digits. The owner marks his
model with several recipes. Of each is told what the marked model, the base, the owner's own model before the mark and
the neighbour match, as they are and with their channels aligned to the marked model's, how far the weights moved, the
task accuracy, and what is left after a thief's fine-tuning of all layers on a tenth of the data. A seed decides every
training and the mark's head; the key is one. Task accuracy is on the validation set: recipes are chosen here.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

import wm
from bench.results import summary, write
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
    "beside a base, never aligned in training": (replace(BESIDE, align_every=0), True),
    "beside a base": (BESIDE, True),
}
SEEDS = (1, 2, 3)


def main() -> None:
    """Measure every recipe with every seed and write bench/results/public_base.json."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for seed in SEEDS:
        base = build(ARCHITECTURE, seed=100 + seed)
        fit(base, DIGITS, epochs=EPOCHS, lr=1e-3, seed=100 + seed)
        clean, neighbour = (_tuned(base, one) for one in (seed, 10 + seed))
        others = {"base": base, "clean model": clean, "neighbour": neighbour}
        for name in RECIPES:
            for metric, value, unit in _measured(name, others, seed):
                found[f"{name}: {metric}", unit].append(value)
    write("public_base", [summary(metric, values, unit=unit) for (metric, unit), values in found.items()])


def _tuned(base: nn.Module, seed: int) -> nn.Module:
    model = copy.deepcopy(base)
    fit(model, DIGITS, epochs=TUNED_EPOCHS, lr=1e-4, seed=seed)
    return model


def _measured(name: str, others: dict[str, nn.Module], seed: int) -> Iterator[tuple[str, float, str]]:
    """What there is to tell of one mark: metric, value, unit."""
    settings, with_negatives = RECIPES[name]
    clean = others["clean model"]
    embedding = wm.embed(
        clean,
        DIGITS,
        KEY,
        architecture=ARCHITECTURE,
        settings=settings,
        negatives=[others["base"], clean] if with_negatives else [],
        seed=seed,
    )
    evidence = wm.with_reference(wm.EvidenceFile(embedding.head, embedding.info, bytes(32)), embedding.model)
    sample = data.fraction_of(DIGITS.train, THIEF_SHARE, seed=50 + seed)
    stolen = tune(copy.deepcopy(embedding.model), sample, Tuning(lr=THIEF_LR, seed=30 + seed), silent)
    for who, model in {"marked model": embedding.model, **others, "stolen and fine-tuned": stolen}.items():
        for how, reference in (("as it is", None), ("aligned", evidence.reference)):
            matched = wm.count_matched(model, evidence.head, evidence.info, KEY, reference=reference)
            yield f"{who}, {how}: matched of {evidence.info.triggers}", matched, ""
        correct = accuracy(model, DIGITS.validation.images, DIGITS.validation.labels)
        yield f"{who}: task accuracy", round(100 * correct, 1), "%"
    yield "‖ΔW‖ of the tapped layers", round(100 * embedding.report["weight_change"], 2), "%"


if __name__ == "__main__":
    main()
