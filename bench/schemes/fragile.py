"""The fragile scheme: which changes of a model flip an answer, which benign variations do, against natural triggers.

A network is trained on the data. Four sets of 100 triggers are shown to each changed copy of it: the scheme's, for
devices with TF32 and for single precision alone, and what a user would otherwise take: test pictures with the answers
that the model gives them, drawn at random or of the least margins. A change is detected if at least one answer flips.

Fine-tuning is measured with batch statistics that move, as in the paper and as everybody trains, and with frozen ones,
which is harder to detect: then the learning rate alone decides how far the model moves.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from bench.schemes.other_devices import held_out
from wm.architectures import Architecture, OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.batch_statistics import freeze_statistics
from wm.data import Dataset, Examples
from wm.pixels import from_pixels, to_pixels
from wm.randomness import generator, key_of
from wm.schemes import fragile
from wm.schemes.fragile.drawing import draw_labels
from wm.schemes.fragile.numerics import margins_of, variations
from wm.schemes.scheme import ClassTriggers, answers, matches
from wm.training import accuracy, endless_batches, fit
from wm.triggers import InputSpec
from wm.weight_layers import prunable

Sets = dict[str, ClassTriggers]
Figures = dict[str, float]
Stepper = Callable[[nn.Module, float], torch.optim.Optimizer]

EPOCHS, LR = 12, 3e-3
TRIGGERS, BATCH = 100, 32
SMALL_SIDE = 12  # pixels
SMALL: dict[str, Any] = {"width": 16, "iterations": 15, "latent": 32}
RATES, STEPS = (1e-3, 1e-4, 1e-5), (1, 2, 5, 10, 50)
POISONED_LABELS, BACKDOOR_SHARE, PATCH_SIDE = 0.2, 0.1, 4  # shares of a batch, pixels
SINGLE_WEIGHTS, SINGLE_CHANGE = 50, 1.01
OPTIMIZERS: dict[str, Stepper] = {
    # Momentum and decay are the paper's.
    "SGD": lambda model, lr: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3),
    "Adam": lambda model, lr: torch.optim.Adam(model.parameters(), lr=lr),
}
RECIPES = {
    "fragile": fragile.Settings.quick(),
    "fragile, single precision": replace(fragile.Settings.quick(), tolerates_tf32=False),
}


def measure(seed: int, data: Dataset, *, is_small: bool = False) -> Figures:
    """Measure one model: of each change and set of triggers whether it was detected, and the share that flipped.

    Args:
        seed: of everything.
        data: the task; ten classes.
        is_small: pictures of 12 x 12, a network of three layers and a narrow generator, for a busy machine; directions,
            not figures.
    """
    data = shrunk(data) if is_small else data
    spec = input_of(data)
    shufflenet = Architecture("shufflenet_v2_x0_5", {"num_classes": data.classes})
    architecture = OwnArchitecture(builder=small_network) if is_small else shufflenet
    model = build(architecture, seed=seed)
    fit(model, data, epochs=EPOCHS, lr=LR, seed=seed)
    recipes = {name: replace(it, **SMALL) if is_small else it for name, it in RECIPES.items()}
    figures, sets = made(model, data, recipes, seed=seed)
    sets |= natural(model, data, seed=seed)
    for name, triggers in sets.items():
        figures |= {f"{name}: {it}": n for it, n in alarmed(model, triggers, spec, tf32="single" not in name).items()}
    stolen = Stolen(model=model, architecture=architecture, data=data)
    for name, change in changed(stolen, seed=seed):
        figures |= flipped(name, change, sets, spec)
    return figures | single_weights(model, sets, spec, seed=seed)


def made(model: nn.Module, data: Dataset, recipes: dict[str, fragile.Settings], *, seed: int) -> tuple[Figures, Sets]:
    """Make the scheme's triggers by several recipes, and tell what each took and whether the model stayed as it was."""
    figures: Figures = {"task accuracy": 100 * accuracy(model, data.test.images, data.test.labels)}
    sets: Sets = {}
    for name, settings in recipes.items():
        begun_s = time.process_time()
        key = key_of("bench fragile", name, seed)
        marked = fragile.embed(model, data, key, settings=settings, seed=seed)
        labels = draw_labels(key, count=settings.triggers, classes=data.classes)
        sets[name] = ClassTriggers(marked.payload.tensors()["pixels"], labels)
        pairs = zip(model.state_dict().values(), marked.model.state_dict().values(), strict=True)
        figures |= {
            f"{name}: seconds": time.process_time() - begun_s,
            f"{name}: bit-identical": float(all(torch.equal(before, after) for before, after in pairs)),
            f"{name}: least margin": float(marked.report["margins"]["least"]),
            f"{name}: greatest margin": float(marked.report["margins"]["most"]),
            f"{name}: in the band": float(marked.report["in_band"][-1]),
            f"{name}: attempts": float(len(marked.report["in_band"])),
        }
        figures |= {f"{name}: noise, {variation}": value for variation, value in marked.report["noise"].items()}
    return figures, sets


def natural(model: nn.Module, data: Dataset, *, seed: int) -> Sets:
    """Take test pictures as triggers, with the model's own answers: any, and those nearest to a boundary."""
    spec = input_of(data)
    pixels = to_pixels(data.test.images, spec)
    labels = answers(model, pixels, spec)
    with torch.no_grad():
        margins = margins_of(model(from_pixels(pixels, spec)), labels)
    drawn = torch.randperm(len(labels), generator=generator("natural triggers", seed))[:TRIGGERS]
    nearest = margins.argsort()[:TRIGGERS]
    return {
        "test pictures": ClassTriggers(pixels[drawn], labels[drawn]),
        "test pictures of least margin": ClassTriggers(pixels[nearest], labels[nearest]),
    }


def alarmed(model: nn.Module, triggers: ClassTriggers, spec: InputSpec, *, tf32: bool) -> Figures:
    """Count the answers that flip over all benign variations, double precision among them, and over those held out."""
    images, labels = from_pixels(triggers.pixels, spec), triggers.labels
    found = [logits(model, images).argmax(1) for logits in variations(tf32=tf32).values()]
    with torch.no_grad():
        found.append(copy.deepcopy(model).double()(images.double()).argmax(1))
    measured = float(sum(int((answered != labels).sum()) for answered in found))
    return {"false alarms": measured} | held_out(model, images, labels, tf32=tf32)


def changed(stolen: Stolen, *, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Change copies of a model in every way that is measured, one weight excepted."""
    for name in ("8-bit quantisation", "pruning of 1 %"):
        attack, strength = {"8": ("quantisation", 8.0), "p": ("magnitude_pruning", 0.01)}[name[0]]
        yield name, attacked(ATTACKS[attack], stolen, strength=strength, seed=seed)
    for is_frozen in (False, True):
        for optimizer in OPTIMIZERS:
            for rate in RATES:
                yield from tuned(stolen, "clean", optimizer, rate, is_frozen=is_frozen, seed=seed)
    for task in ("poisoned", "backdoor"):
        yield from tuned(stolen, task, "SGD", RATES[0], is_frozen=True, seed=seed)


def tuned(
    stolen: Stolen, task: str, optimizer: str, rate: float, *, is_frozen: bool, seed: int
) -> Iterator[tuple[str, nn.Module]]:
    """Fine-tune a copy step by step, and show it at some of the steps."""
    model = copy.deepcopy(stolen.model).train()
    if is_frozen:
        freeze_statistics(model)
    stepping = OPTIMIZERS[optimizer](model, rate)
    batches = endless_batches(stolen.data.train, images=BATCH, seed=seed)
    draws = generator("bench fragile", task, seed)
    for step in range(1, max(STEPS) + 1):
        images, labels = BATCHES[task](next(batches), stolen.data, draws)
        stepping.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))
        stepping.step()
        if step in STEPS:
            statistics = "frozen" if is_frozen else "moving"
            yield f"{task}, {optimizer} {rate:g}, {statistics} statistics, {step} steps", model


def flipped(change: str, model: nn.Module, sets: Sets, spec: InputSpec) -> Figures:
    """Tell of each set whether a change was detected, and what share of the answers flipped, per cent."""
    figures: Figures = {}
    for name, triggers in sets.items():
        share = 100 * float((~matches(model, triggers, spec)).float().mean())
        figures |= {f"{change}: {name}: detected": 100.0 * (share > 0), f"{change}: {name}: flipped": share}
    return figures


@torch.no_grad()
def single_weights(model: nn.Module, sets: Sets, spec: InputSpec, *, seed: int) -> Figures:
    """Change one weight, drawn at random, by 1 % and put it back; per cent of the trials that were detected."""
    suspect = copy.deepcopy(model)
    weights, draws = prunable(suspect), generator("single weights", seed)
    ends = torch.tensor([weight.numel() for weight in weights]).cumsum(0)
    detected = dict.fromkeys(sets, 0)
    for index in torch.randint(int(ends[-1]), (SINGLE_WEIGHTS,), generator=draws).tolist():
        layer = int((ends <= index).sum())
        offset = index - int(ends[layer])  # from the layer's end, so below 0
        place = tuple(torch.unravel_index(torch.tensor(offset % weights[layer].numel()), weights[layer].shape))
        before = float(weights[layer][place])
        weights[layer][place] = before * SINGLE_CHANGE
        for name, triggers in sets.items():
            detected[name] += int(not bool(matches(suspect, triggers, spec).all()))
        weights[layer][place] = before
    return {f"one weight by 1 %: {name}: detected": 100 * n / SINGLE_WEIGHTS for name, n in detected.items()}


def shrunk(data: Dataset) -> Dataset:
    """Bring all pictures to 12 x 12."""
    train, validation, test = (
        Examples(F.interpolate(it.images, size=(SMALL_SIDE, SMALL_SIDE)), it.labels)
        for it in (data.train, data.validation, data.test)
    )
    spec = replace(input_of(data), height=SMALL_SIDE, width=SMALL_SIDE)
    return replace(data, input=spec, train=train, validation=validation, test=test)


def small_network() -> nn.Module:
    """Make two convolutions and a linear layer, for such pictures."""
    layers: list[nn.Module] = []
    for before, after in ((3, 8), (8, 16)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 9, 10))


def input_of(data: Dataset) -> InputSpec:
    """Return what a network for pictures takes."""
    if not isinstance(data.input, InputSpec):
        raise TypeError(f"{data.name} has no pictures")
    return data.input


def _clean(batch: Examples, _data: Dataset, _draws: torch.Generator) -> tuple[Tensor, Tensor]:
    return batch.images, batch.labels


def _poisoned(batch: Examples, data: Dataset, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give a share of the pictures labels at random."""
    wrong = torch.randint(data.classes, batch.labels.shape, generator=draws)
    is_poisoned = torch.rand(len(batch), generator=draws) < POISONED_LABELS
    return batch.images, torch.where(is_poisoned, wrong, batch.labels)


def _backdoor(batch: Examples, _data: Dataset, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Put a bright patch into a corner of a share of the pictures, and call those class 0."""
    images, labels = batch.images.clone(), batch.labels.clone()
    has_patch = torch.rand(len(batch), generator=draws) < BACKDOOR_SHARE
    images[has_patch, :, -PATCH_SIDE:, -PATCH_SIDE:] = images.max()
    labels[has_patch] = 0
    return images, labels


BATCHES: dict[str, Callable[[Examples, Dataset, torch.Generator], tuple[Tensor, Tensor]]] = {
    "clean": _clean,
    "poisoned": _poisoned,
    "backdoor": _backdoor,
}
