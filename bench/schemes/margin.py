"""Does a margin around the triggers survive that a student learns what the network does, unlike a plain backdoor?

An owner marks a fresh network, and for comparison another one from the same first weights, with the same triggers and
by the same recipe without the ascent. A thief trains students to answer as either does, on the pictures that the owner
trained on and never on triggers: of the probabilities, of the classes, or by the paper's distillation,
(1 - α) CE + α KL, α = 0.7, T = 1. Others fine-tune on a tenth of these pictures, or prune. A network that learned the
task alone is the control.

Counts are of n triggers, p-values exact: log10 P(Bin(n, 1/C) >= matched). The test set is used for figures only.

Source: Kim et al. 2023, whose networks, data and epochs are larger by two orders of magnitude.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

from torch import nn

from wm.architectures import OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.distillation import distillation_loss
from wm.attacks.tuning import Tuning, tune
from wm.data import Dataset, fraction_of
from wm.progress import silent
from wm.randomness import key_of, seed_of
from wm.schemes import margin
from wm.schemes.scheme import ClassTriggers, matches
from wm.statistics import binomial_tail
from wm.training import accuracy, fit
from wm.triggers import InputSpec

TEMPERATURE, TEACHERS_SHARE = 1.0, 0.7  # T, α
STUDENT_EPOCHS = 20  # as many as of the embedding
LR = 1e-3  # Adam's first, of students and of the network that learns the task alone
RATES = (1e-4, 3e-4, 1e-3)  # of fine-tuning
TUNING_FRACTION = 0.1
PRUNED_SHARE = 0.5
HIDDEN = 256  # width
POOLING = 4  # pixels a side


def measure(seed: int, data: Dataset) -> dict[str, float]:
    """Mark, steal and count for one seed.

    Returns:
        By name: accuracies in per cent, counts of triggers, log10 of p-values.
    """
    architecture = OwnArchitecture(builder=partial(_network, data))
    fresh, trained, independent = (build(architecture, seed=seed_of(seed, who)) for who in ("owner", "owner", "other"))
    for model in (trained, independent):
        fit(model, data, epochs=STUDENT_EPOCHS, lr=LR, seed=seed)
    margins = margin.Settings.quick()
    schemes = {
        "margin": (fresh, margins),
        "backdoor": (fresh, replace(margins, ascent_steps=0)),
        "margin on a trained network": (trained, margins),
    }
    figures: dict[str, float] = {}
    for scheme, (given, settings) in schemes.items():
        marked, triggers = _marked(given, data, settings, seed)
        stolen = Stolen(model=marked, architecture=architecture, data=data)
        suspects = {"given": given, "independent": independent, "marked": marked}
        for name, model in (*suspects.items(), *_thefts(stolen, seed)):
            figures |= _figures(f"{scheme}, {name}", model, triggers, data)
    return figures


def _marked(given: nn.Module, data: Dataset, settings: margin.Settings, seed: int) -> tuple[nn.Module, ClassTriggers]:
    """Embed, and read the triggers as an evidence file has them."""
    watermark_key = key_of(seed, "owner")
    marked = margin.embed(given, data, watermark_key, settings=settings, seed=seed)
    fields, tensors = marked.payload.fields(), marked.payload.tensors()
    payload = margin.payload_from(fields, tensors, spec=_pictures(data), classes=data.classes)
    return marked.model, margin.class_triggers(payload, watermark_key)


def _thefts(stolen: Stolen, seed: int) -> Iterator[tuple[str, nn.Module]]:
    for name in ("extraction_soft", "extraction_hard"):
        yield name, attacked(ATTACKS[name], stolen, strength=STUDENT_EPOCHS, seed=seed)
    yield "distilled", _distilled(stolen, seed)
    few = replace(stolen, data=replace(stolen.data, train=fraction_of(stolen.data.train, TUNING_FRACTION, seed=seed)))
    for rate in RATES:
        yield f"fine-tuned at {rate:g}", attacked(ATTACKS["ftal"], few, strength=rate, seed=seed)
    yield "half pruned", attacked(ATTACKS["magnitude_pruning"], stolen, strength=PRUNED_SHARE, seed=seed)


def _distilled(stolen: Stolen, seed: int) -> nn.Module:
    """Train a student by the paper's loss; the attack of that name weighs and softens otherwise."""
    loss = partial(distillation_loss, stolen.model, temperature=TEMPERATURE, teachers_share=TEACHERS_SHARE)
    student = build(stolen.architecture, seed=seed_of(seed, "student"))
    return tune(student, stolen.data.train, Tuning(epochs=STUDENT_EPOCHS, lr=LR, seed=seed, loss=loss), silent)


def _figures(name: str, model: nn.Module, triggers: ClassTriggers, data: Dataset) -> dict[str, float]:
    matched = int(matches(model, triggers, _pictures(data)).sum())
    tail = binomial_tail(matched, len(triggers), chance=1 / data.classes)
    return {
        f"{name}: matched": matched,
        f"{name}: log10 p": math.log10(tail),
        f"{name}: task accuracy": 100 * accuracy(model, data.test.images, data.test.labels),
    }


def _pictures(data: Dataset) -> InputSpec:
    if not isinstance(data.input, InputSpec):
        raise TypeError(f"{data.name} is not of pictures")
    return data.input


def _network(data: Dataset) -> nn.Module:
    """A perceptron on pictures of an eighth of their width, which learns all digits in two seconds."""
    spec = _pictures(data)
    inputs = spec.channels * (spec.height // POOLING) * (spec.width // POOLING)
    widths = (inputs, HIDDEN, HIDDEN)
    hidden = [
        layer
        for before, after in pairwise(widths)
        for layer in (nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU())
    ]
    return nn.Sequential(nn.AvgPool2d(POOLING), nn.Flatten(), *hidden, nn.Linear(HIDDEN, data.classes))
