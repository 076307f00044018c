"""Frontier stitching: is a stitched key set found again, what do honest networks match of it, and what is that worth?

A small convolutional network is trained on a part of the data, marked by the paper's recipe and by the quick one, and
attacked. Independent networks of other seeds and other parts of the data calibrate the chance: two of the same form and
a perceptron. One more is held out, and judged as a suspect is. It is judged again when it was hardened against
adversaries: it answers them rightly for a good reason, and is no thief. Nor is another owner, who has marked the one
that was held out with a key of his own.

Source: Le Merrer et al. 2020 for the claims; the networks, the data and the attacks are smaller than the paper's.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from wm.architectures import OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.data import Dataset, fraction_of
from wm.randomness import key_of, seed_of
from wm.schemes import frontier_stitching as scheme
from wm.schemes.frontier_stitching.adversaries import directions
from wm.schemes.frontier_stitching.key_set import moved
from wm.schemes.measuring import chance_of
from wm.schemes.scheme import ClassTriggers, Marked, matches
from wm.statistics import binomial_tail, log10_tail
from wm.training import accuracy, fit
from wm.triggers import InputSpec

Figures = dict[str, float]
SHARE, EPOCHS, LR = 0.4, 4, 2e-3  # of the data for each network, and how it is trained
RATES = (1e-4, 3e-4, 1e-3)  # at which a thief tunes
THIEFS_FRACTION, PRUNED_SHARE = 0.1, 0.5
RECIPES = {"paper": scheme.Settings(), "quick": scheme.Settings.quick()}
NULLS = ("first", "second", "perceptron")


@dataclass(frozen=True)
class _Judged:
    """A key set, the key, and the chance that the null models have left."""

    triggers: ClassTriggers
    chance: float
    spec: InputSpec

    def figures(self, model: nn.Module, who: str, *, coin: bool = False) -> Figures:
        """What a suspect matches, and the common logarithms of the p-values."""
        matched, total = self.matched(model), len(self.triggers)
        tail = 1.0 if self.chance >= 1 else binomial_tail(matched, total, chance=self.chance)
        found = {f"{who}: matched": float(matched), f"{who}: log10 p, calibrated": math.log10(min(1.0, tail))}
        return found | ({f"{who}: log10 p, coin": log10_tail(matched, total)} if coin else {})

    def matched(self, model: nn.Module) -> int:
        """How many it answers as the key demands."""
        return int(matches(model, self.triggers, self.spec).sum())


def measure(seed: int, data: Dataset) -> Figures:
    """Measure one owner with both recipes.

    Args:
        seed: decides all networks, parts of the data and keys.
        data: of pictures.

    Returns:
        By recipe and suspect: counts of triggers, common logarithms of p-values, per cent of accuracies and shares.
    """
    own = _part(data, seed, "owner")
    owner = _trained(own, seed, "owner")
    nulls = {name: _trained(_part(data, seed, name), seed, name) for name in NULLS}
    held_out = _trained(_part(data, seed, "held out"), seed, "held out")
    figures = {"task accuracy, clean": _per_cent(owner, data), "θ of 100": float(scheme.theta(100))}
    for recipe, settings in RECIPES.items():
        marked = scheme.embed(owner, own, key_of(seed, "owner's watermark key"), settings=settings, seed=seed)
        case = _Case(seed, data, own, settings, owner, marked)
        theirs = _part(data, seed, "held out")
        rival = scheme.embed(held_out, theirs, key_of(seed, "rival's watermark key"), settings=settings, seed=seed + 2)
        others = {
            **nulls,
            "held out": held_out,
            "hardened": case.attacked(held_out, "adversarial_training", settings.epsilon_levels),
            "another owner's marked": rival.model,
        }
        found = _of_a_recipe(case, others) | dict(_after_attacks(case, nulls))
        figures |= {f"{recipe}, {name}": value for name, value in found.items()}
    return figures


@dataclass(frozen=True)
class _Case:
    """An owner, and who attacks networks with a tenth of his data."""

    seed: int
    data: Dataset
    own: Dataset
    settings: scheme.Settings
    owner: nn.Module
    marked: Marked

    @property
    def key_set(self) -> scheme.KeySet:
        """The owner's payload."""
        if not isinstance(self.marked.payload, scheme.KeySet):
            raise TypeError("the payload is of another scheme")
        return self.marked.payload

    def judged(self, nulls: Iterable[nn.Module]) -> _Judged:
        """Let the null models that are honest calibrate the chance."""
        key, spec = key_of(self.seed, "owner's watermark key"), _spec(self.data)
        counts = [scheme.counted(model, self.key_set, key, spec) for model in nulls]
        honest = [count.matched for count in counts if count.is_honest]
        chance = chance_of(self.key_set, honest, classes=self.data.classes)
        return _Judged(scheme.class_triggers(self.key_set, key), float(chance), spec)

    def attacked(self, model: nn.Module, name: str, strength: float) -> nn.Module:
        """Attack a copy of a network."""
        few = fraction_of(self.own.train, THIEFS_FRACTION, seed=seed_of(self.seed, "thief"))
        stolen = Stolen(model=model, architecture=OwnArchitecture(), data=replace(self.own, train=few))
        return attacked(ATTACKS[name], stolen, strength=strength, seed=self.seed)


def _of_a_recipe(case: _Case, others: dict[str, nn.Module]) -> Figures:
    owner, marked, data = case.owner, case.marked, case.data
    judged = case.judged(others[name] for name in NULLS)
    is_true = ~matches(owner, judged.triggers, judged.spec)
    figures = {
        "task accuracy, marked": _per_cent(marked.model, data),
        "task accuracy lost": _per_cent(owner, data) - _per_cent(marked.model, data),
        "embedding, seconds": marked.report["seconds"],
        "passes": float(len(marked.report["history"])),
        "calibrated chance": 100 * judged.chance,
        **judged.figures(marked.model, "marked", coin=True),
        **judged.figures(owner, "clean", coin=True),
    }
    for name, model in others.items():
        found = matches(model, judged.triggers, judged.spec)
        figures |= judged.figures(model, name, coin=True)
        for kind, members in (("true", is_true), ("false", ~is_true)):
            if bool(members.any()):
                figures[f"{name}: share of {kind} adversaries"] = 100 * float(found[members].float().mean())
    wrong = scheme.class_triggers(case.key_set, key_of("another watermark key"))
    figures["marked, wrong key: matched"] = float(matches(marked.model, wrong, judged.spec).sum())
    twins = _twins(case.key_set, judged.triggers, others["first"], judged.spec)
    suspects = {"marked": marked.model, "held out": others["held out"], "hardened": others["hardened"]}
    return figures | {
        f"{name}: matched of a null model's adversaries": float(matches(model, twins, judged.spec).sum())
        for name, model in suspects.items()
    }


def _after_attacks(case: _Case, nulls: dict[str, nn.Module]) -> Iterator[tuple[str, float]]:
    judged, stolen = case.judged(nulls.values()), case.marked.model
    models = {f"tuned at {rate:g}": partial(case.attacked, stolen, "ftal", rate) for rate in RATES}
    models["pruned"] = partial(case.attacked, stolen, "magnitude_pruning", PRUNED_SHARE)
    models["clean, tuned"] = partial(case.attacked, case.owner, "ftal", RATES[-1])
    models["another key stitched"] = partial(_overwritten, case)
    for name, attack in models.items():
        model = attack()
        yield from judged.figures(model, name).items()
        yield f"{name}: task accuracy", _per_cent(model, case.data)


def _overwritten(case: _Case) -> nn.Module:
    """With all of the owner's data, by his own recipe: the strongest that a thief can do by the scheme's own means."""
    key = key_of(case.seed, "thief's watermark key")
    return scheme.embed(case.marked.model, case.own, key, settings=case.settings, seed=case.seed + 1).model


def _twins(payload: scheme.KeySet, triggers: ClassTriggers, null: nn.Module, spec: InputSpec) -> ClassTriggers:
    """The same originals moved against a null model, which tells who resists adversaries from who knows these."""
    up = directions(null, payload.originals, triggers.labels, spec)
    return ClassTriggers(moved(payload.originals, up, payload.epsilon_levels), triggers.labels)


def _part(data: Dataset, seed: int, who: str) -> Dataset:
    return replace(data, train=fraction_of(data.train, SHARE, seed=seed_of(seed, who, "part")))


def _trained(data: Dataset, seed: int, who: str) -> nn.Module:
    form = _perceptron if who == "perceptron" else _convolutional
    model = build(OwnArchitecture(builder=partial(form, _spec(data), data.classes)), seed=seed_of(seed, who))
    fit(model, data, epochs=EPOCHS, lr=LR, seed=seed_of(seed, who, "order"))
    return model


def _convolutional(spec: InputSpec, classes: int) -> nn.Module:
    halves = nn.Sequential(
        nn.Conv2d(spec.channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )
    features = halves(torch.zeros(1, spec.channels, spec.height, spec.width)).shape[1]
    return nn.Sequential(halves, nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, classes))


def _perceptron(spec: InputSpec, classes: int) -> nn.Module:
    pixels = spec.channels * spec.height * spec.width
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes)
    )


def _spec(data: Dataset) -> InputSpec:
    if not isinstance(data.input, InputSpec):
        raise TypeError(f"{data.name!r} has no pictures")
    return data.input


def _per_cent(model: nn.Module, data: Dataset) -> float:
    return 100 * accuracy(model, data.test.images, data.test.labels)
