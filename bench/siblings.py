"""How far does a mark's own clean neighbour pass? `make bench NAME=siblings`: digits, ResNet-18, from scratch, 3 seeds.

The model before the embedding is nobody's but the owner's, and its siblings, which are tuned from it, are what a count
cannot tell from copies of the marked model unless the mark was taught to. Two recipes: the usual one, and the one that
keeps a base out, with the owner's own model in the place of the base. Of each is told what the marked model, the clean
one and its siblings match, as they are and aligned, and what is left after a thief's fine-tuning. A sibling is tuned as
the thief tunes, on another tenth of the data. A seed decides every training, those tenths and the mark's head; the key
is one. Task accuracy is on the validation set: recipes are chosen here.

A seed is kept in bench/results/work and not measured again.
"""

import copy
from collections.abc import Iterator
from functools import partial

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
RATES, SHARE = (1e-4, 3e-4, 1e-3), 0.1
INDEPENDENT, THIEF, SIBLING = 100, 200, 300  # added to a seed for the trainings of others, and their tenths of the data
DIGITS = data.digits()
RECIPES = {
    "the usual recipe": (wm.EmbedSettings(), False),
    "beside its own clean model": (wm.EmbedSettings.beside_a_base(), True),
}


def main() -> None:
    """Measure the seeds that are left, and write bench/results/siblings.json."""
    arguments = arguments_of("siblings", "What a mark's clean neighbours match.", seeds=SEEDS)
    values, measured = gathered(
        (arguments.work / "siblings" / f"{seed}.json", partial(_measured, seed), "") for seed in arguments.seeds
    )
    rows = [summary(metric, each, unit="" if "matched" in metric else "%") for metric, each in values.items()]
    write("siblings", rows, measured=measured)


def _measured(seed: int) -> Iterator[tuple[str, float]]:
    clean, independent = (_trained(each) for each in (seed, INDEPENDENT + seed))
    others = {"clean model": clean, "independent model": independent}
    others |= {f"sibling, tuned at {rate:g}": _tuned(clean, rate, SIBLING + seed) for rate in RATES}
    for name in RECIPES:
        yield from _of_recipe(name, others, seed)


def _trained(seed: int) -> nn.Module:
    model = build(ARCHITECTURE, seed=seed)
    fit(model, DIGITS, epochs=EPOCHS, lr=1e-3, seed=seed)
    return model


def _tuned(model: nn.Module, rate: float, seed: int) -> nn.Module:
    sample = data.fraction_of(DIGITS.train, SHARE, seed=seed)
    return tune(copy.deepcopy(model), sample, Tuning(lr=rate, seed=seed), silent)


def _of_recipe(name: str, others: dict[str, nn.Module], seed: int) -> Iterator[tuple[str, float]]:
    settings, is_beside = RECIPES[name]
    clean = others["clean model"]
    embedding = wm.embed(
        clean,
        DIGITS,
        KEY,
        architecture=ARCHITECTURE,
        settings=settings,
        negatives=[clean] if is_beside else [],
        seed=seed,
    )
    evidence = wm.with_reference(wm.EvidenceFile(embedding.head, embedding.info, bytes(32)), embedding.model)
    stolen = {f"stolen, tuned at {rate:g}": _tuned(embedding.model, rate, THIEF + seed) for rate in RATES}
    for who, model in {"marked model": embedding.model, **others, **stolen}.items():
        for how, reference in (("as it is", None), ("aligned", evidence.reference)):
            matched = wm.count_matched(model, evidence.head, evidence.info, KEY, reference=reference)
            yield f"{name}: {who}, {how}: matched of {evidence.info.triggers}", matched
        correct = accuracy(model, DIGITS.validation.images, DIGITS.validation.labels)
        yield f"{name}: {who}: task accuracy", round(100 * correct, 1)
    yield f"{name}: ‖ΔW‖ of the tapped layers", round(100 * embedding.report["weight_change"], 2)


if __name__ == "__main__":
    main()
