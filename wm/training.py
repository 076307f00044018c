"""Supervised training and fine-tuning of the primary task.

Stage 1 of an embedding, an honest competitor and a thief's fine-tuning all use this loop: Adam with a learning rate
that falls to zero along a cosine. On one machine with one thread count, one seed gives bit-identical weights.

A task is told by its examples: of labelled pictures or texts the loss is the cross-entropy and the measure is the
accuracy, of pictures with objects (`wm.scenes`) they are a detector's losses and the mask mAP.

Source: Li et al. 2022, equation 6 (stage 1); the optimiser is the authors' code's, the cosine is ours.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import Precision, computing_in, device_of, evaluating, on_device
from wm.batch_statistics import freeze_statistics, prompt_statistics
from wm.data import Dataset, Examples, fraction_of
from wm.progress import Progress, ProgressCallback, silent
from wm.randomness import EndlessOrder, generator, global_generators, seeded, set_global_generators
from wm.savepoint import Savepoint, State, fill, fill_optimizer, fingerprint, optimizer_state, prefixed, under
from wm.scenes import BATCH_PICTURES, Scenes, detection_loss, mask_precision
from wm.single_pixels import SinglePixels

BATCH_IMAGES = 64
EVALUATION_BATCH_IMAGES = 256
Measure = Literal["accuracy", "mask_map"]  # as reports call it


@dataclass(frozen=True, slots=True)
class FitReport:
    """What a training did: its last epoch's mean loss, its size and its time; and the mean loss of every epoch."""

    epochs: int
    steps: int
    images: int
    loss: float
    seconds: float
    losses: tuple[float, ...] = ()


def fit(  # noqa: PLR0913 (the public face: every setting of a plain training in one call)
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    lr: float = 1e-3,
    seed: int,
    fraction: float = 1.0,
    precision: Precision = "float32",
    savepoint: Savepoint | None = None,
    keeps_statistics: bool = False,
    progress: ProgressCallback = silent,
) -> FitReport:
    """Train a model in place on the primary task.

    Args:
        model: on any device; left in evaluation mode and in channels-last memory format.
        data: its training set is used.
        epochs: passes over the data, at least 1.
        lr: Adam's first learning rate.
        seed: decides the order of the examples, what dropout drops and, below 1, the fraction.
        fraction: how much of the training set, in (0, 1].
        keeps_statistics: whether batch normalisation stays as it is, as is usual for detectors that begin with trained
            weights: their batches are small.
        precision: of forward and backward.
        savepoint: where the state is kept; one of this very training goes on from there. It is left with the last state
            for the caller to remove.
        progress: called after every epoch.

    Returns:
        The report; its time is of this run alone.

    Raises:
        WatermarkError: the savepoint is damaged or of another training.
        OSError: the savepoint cannot be read or written.
    """
    started = time.monotonic()
    examples = fraction_of(data.train, fraction, seed=seed)
    batch_images = usual_batch(examples)
    batches = endless_batches(examples, images=batch_images, seed=seed)
    steps_an_epoch = max(1, round(len(examples) / batch_images))
    steps = epochs * steps_an_epoch
    model.to(memory_format=torch.channels_last).train()
    if keeps_statistics:
        freeze_statistics(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    run = _Run(model, optimizer, batches)
    # What is drawn in it: dropout and its like, wherever they draw from.
    with seeded("training", seed, device=device_of(model)), prompt_statistics(model):
        if savepoint is not None:
            settings = {"epochs": epochs, "learning rate": lr, "seed": seed, "precision": precision}
            run.restore(savepoint.begin(_conditions(model, examples, settings)))
        for step in range(len(run.losses), steps):
            set_rate(optimizer, lr * cosine(step, steps))
            run.losses.append(primary_step(model, optimizer, next(batches), precision=precision))
            if not (step + 1) % steps_an_epoch:
                loss = sum(run.losses[-steps_an_epoch:]) / steps_an_epoch
                progress(Progress("training", (step + 1) // steps_an_epoch, epochs, f"loss {loss:.3f}"))
            if savepoint is not None and (savepoint.is_due() or step + 1 == steps):
                savepoint.write(run.state())
    model.eval()
    losses = tuple(sum(part) / steps_an_epoch for part in _parts(run.losses, steps_an_epoch))
    return FitReport(epochs, steps, len(examples), (losses or (math.nan,))[-1], time.monotonic() - started, losses)


def usual_batch(examples: Examples) -> int:
    """Return how many examples a step of a plain training takes."""
    return BATCH_PICTURES if isinstance(examples, Scenes) else BATCH_IMAGES


def measure_of(examples: Examples) -> Measure:
    """Return by what it is measured how well these examples are answered."""
    return "mask_map" if isinstance(examples, Scenes) else "accuracy"


def score(model: nn.Module, examples: Examples) -> float:
    """Measure how well a model does its task, in evaluation mode; its mode is restored.

    Returns:
        The accuracy, or of pictures with objects the mask mAP; in [0, 1].

    Raises:
        ValueError: no picture has an object.
    """
    if isinstance(examples, Scenes):
        return mask_precision(model, examples)
    return accuracy(model, examples.images, examples.labels)


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Measure how often the model's largest logit is the label, in evaluation mode.

    Args:
        model: on any device; its mode is restored.
        images: normalised, shape (n, channels, height, width), or token ids, shape (n, length).
        labels: int64, shape (n,).

    Returns:
        A fraction in [0, 1].
    """
    device = device_of(model)
    correct = 0
    with torch.no_grad(), evaluating(model):
        for part, answers in zip(
            torch.split(images, EVALUATION_BATCH_IMAGES), torch.split(labels, EVALUATION_BATCH_IMAGES), strict=True
        ):
            correct += int((model(part.to(device)).argmax(1).cpu() == answers).sum())
    return correct / len(labels)


def primary_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Examples, *, precision: Precision = "float32"
) -> float:
    """Take one step on a batch in the model's present mode and return the loss."""
    optimizer.zero_grad()
    with computing_in(precision, device_of(model)):
        loss = primary_loss(model, batch)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.item()


def primary_loss(model: nn.Module, batch: Examples) -> Tensor:
    """Return the mean cross-entropy of a batch, or a detector's losses; a scalar with a graph."""
    if isinstance(batch, Scenes):
        return detection_loss(model, batch)
    device = device_of(model)
    with SinglePixels():
        answers = model(on_device(batch.images, device))
    return F.cross_entropy(answers.float(), batch.labels.to(device))


class Batches:
    """Batches of examples for ever, epoch by epoch in a fresh order."""

    def __init__(self, examples: Examples, order: EndlessOrder) -> None:
        self._examples, self.order = examples, order

    def __iter__(self) -> Iterator[Examples]:
        """Return itself: there is one order."""
        return self

    def __next__(self) -> Examples:
        """Return the next batch."""
        return self._examples.take(next(self.order))


def endless_batches(examples: Examples, *, images: int, seed: int) -> Batches:
    """Make batches for ever, epoch by epoch in a fresh order.

    Args:
        examples: at least one.
        images: batch size; a shorter last batch is left out, for batch normalisation's sake, unless the
            examples are fewer than one batch.
        seed: decides the orders.

    Returns:
        Batches of `images` examples.
    """
    return Batches(examples, EndlessOrder(len(examples), images, generator("batches", seed), only_full=True))


def cosine(step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step: 1 at the first, towards 0 at the last."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set one learning rate for every group of the optimiser."""
    for group in optimizer.param_groups:
        group["lr"] = lr


class _Run:
    """What changes in the course of a training."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, batches: Batches) -> None:
        self._model, self._optimizer, self._batches = model, optimizer, batches
        self.losses: list[float] = []  # of every step

    def state(self) -> State:
        """Return all of it, with torch's global generators."""
        return {
            **prefixed("model", self._model.state_dict()),
            **prefixed("optimizer", optimizer_state(self._optimizer)),
            **prefixed("order", self._batches.order.state()),
            **prefixed("generators", global_generators(device_of(self._model))),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }

    def restore(self, state: State | None) -> None:
        """Go on from a state; None is the beginning."""
        if state is None:
            return
        fill(self._model.state_dict(), under("model", state))
        fill_optimizer(self._optimizer, under("optimizer", state))
        self._batches.order.restore(under("order", state))
        set_global_generators(device_of(self._model), under("generators", state))
        self.losses = state["losses"].tolist()


def _conditions(model: nn.Module, examples: Examples, settings: Mapping[str, object]) -> dict[str, str]:
    trained = [value.requires_grad for value in model.parameters()]
    modes = [module.training for module in model.modules()]
    return {
        "kind": "training",
        "data set": fingerprint(examples),
        "model to begin with": fingerprint(model.state_dict(), trained, modes),
        **{name: str(value) for name, value in settings.items()},
    }


def _parts(losses: list[float], size: int) -> list[list[float]]:
    return [losses[begin : begin + size] for begin in range(0, len(losses), size)]
