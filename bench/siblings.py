"""How far does a mark's own clean neighbour pass? `make bench NAME=siblings`: digits, ResNet-18 from scratch, one seed.

The model before the embedding is nobody's but the owner's, and its siblings, which are tuned from it, are what a count
cannot tell from copies of the marked model unless the mark was taught to. Two recipes: the usual one, and the one that
keeps a base out, with the owner's own model in the place of the base. Of each is told what the marked model, the clean
one and its siblings match, as they are and aligned, and what is left after a thief's fine-tuning. A sibling is tuned as
the thief tunes, on another tenth of the data. Task accuracy is on the validation set: recipes are chosen here.
"""

import copy
from collections.abc import Iterator

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
EPOCHS = 6
RATES, SHARE = (1e-4, 3e-4, 1e-3), 0.1
THIEF_SEED, SIBLING_SEED = 5, 6  # which tenth of the data
DIGITS = data.digits()
RECIPES = {
    "the usual recipe": (wm.EmbedSettings(), False),
    "beside its own clean model": (wm.EmbedSettings.beside_a_base(), True),
}


def main() -> None:
    """Measure both recipes and write bench/results/siblings.json."""
    clean, independent = build(ARCHITECTURE, seed=1), build(ARCHITECTURE, seed=2)
    for model, seed in ((clean, 1), (independent, 2)):
        fit(model, DIGITS, epochs=EPOCHS, lr=1e-3, seed=seed)
    others = {"clean model": clean, "independent model": independent}
    others |= {f"sibling, tuned at {rate:g}": _tuned(clean, rate, SIBLING_SEED) for rate in RATES}
    write("siblings", [row for name in RECIPES for row in _rows(name, others)])


def _tuned(model: nn.Module, rate: float, seed: int) -> nn.Module:
    sample = data.fraction_of(DIGITS.train, SHARE, seed=seed)
    return tune(copy.deepcopy(model), sample, Tuning(lr=rate, seed=seed), silent)


def _rows(name: str, others: dict[str, nn.Module]) -> Iterator[Row]:
    settings, is_beside = RECIPES[name]
    clean = others["clean model"]
    embedding = wm.embed(
        clean,
        DIGITS,
        KEY,
        architecture=ARCHITECTURE,
        settings=settings,
        negatives=[clean] if is_beside else [],
        seed=1,
    )
    evidence = wm.with_reference(wm.EvidenceFile(embedding.head, embedding.info, bytes(32)), embedding.model)
    stolen = {f"stolen, tuned at {rate:g}": _tuned(embedding.model, rate, THIEF_SEED) for rate in RATES}
    for who, model in {"marked model": embedding.model, **others, **stolen}.items():
        for how, reference in (("as it is", None), ("aligned", evidence.reference)):
            matched = wm.count_matched(model, evidence.head, evidence.info, KEY, reference=reference)
            yield Row(metric=f"{name}: {who}, {how}: matched of {evidence.info.triggers}", value=matched, unit="")
        correct = accuracy(model, DIGITS.validation.images, DIGITS.validation.labels)
        yield Row(metric=f"{name}: {who}: task accuracy", value=round(100 * correct, 1), unit="%")
    change = 100 * embedding.report["weight_change"]
    yield Row(metric=f"{name}: ‖ΔW‖ of the tapped layers", value=round(change, 2), unit="%")


if __name__ == "__main__":
    main()
