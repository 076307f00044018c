"""Train triggers into a classifier together with a margin around each of them.

    minimise  mean over a batch and a few triggers of  { CE(f(x), y),  w · CE(f(t′), l) }

where t′ is a trigger moved by `ascent` from where it is stored, anew for every batch, and l the class that the key
demands of it. Pictures and moved triggers go through the network together, so that batch normalisation sees the mixture
that the loss is of.

Training goes on from the weights that are given. SGD, whose rate falls to a tenth at half and at three quarters of the
steps.

Source: Kim et al. 2023 and their code's train.py.
"""

import copy
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import device_of, on_device
from wm.batch_statistics import prompt_statistics
from wm.data import Dataset
from wm.pixels import from_pixels
from wm.progress import Progress, ProgressCallback, silent
from wm.randomness import generator, seeded
from wm.schemes.margin.ascent import ascended
from wm.schemes.margin.augmentation import augmented
from wm.schemes.margin.payload import class_triggers
from wm.schemes.margin.preparation import Prepared, prepared
from wm.schemes.margin.settings import Settings
from wm.schemes.scheme import ClassTriggers, Marked, matches
from wm.training import accuracy, endless_batches, set_rate


def embed(
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    settings: Settings | None = None,
    seed: int,
    progress: ProgressCallback = silent,
) -> Marked:
    """Embed a margin watermark into a copy of a classifier.

    Args:
        model: trained or not; left untouched. Embedding runs on its device.
        data: pictures with one class each.
        watermark_key: 32 bytes.
        settings: the recipe, by default the paper's, which wants an untrained model.
        seed: with one seed and one thread count the result is bit-identical on one machine.
        progress: called after every epoch.

    Returns:
        The marked copy in evaluation mode, the triggers' pixels, and a report: seconds, epochs and steps, the accuracy
        on the validation pictures that are no triggers and the count of matched triggers before and after, and per
        epoch the mean losses and the share of moved triggers that still had their class.

    Raises:
        WatermarkError: `mismatch` for data that are not pictures with one class each, too few of them, or a network
            with another number of classes; `too_large` for triggers that no evidence file may hold.
        WatermarkError: `malformed`, the network answers with a value that is not finite.
        ValueError: the key's length.
    """
    started = time.monotonic()
    settings = settings or Settings()
    parts = prepared(model, data, watermark_key, triggers=settings.triggers)
    triggers = class_triggers(parts.payload, watermark_key)
    marked = copy.deepcopy(model).to(memory_format=torch.channels_last)
    run = _Run(marked, parts, triggers, settings, seed=seed)
    history = []
    with seeded("margin", seed, device=device_of(marked)):  # of dropout and its like, wherever they draw from
        for epoch in range(settings.epochs):
            history.append(run.epoch())
            progress(Progress("embedding", epoch + 1, settings.epochs, f"loss {history[-1]['task_loss']:.3f}"))
    marked.eval()
    before, after = (_measured(it, parts, triggers) for it in (model, marked))
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "epochs": settings.epochs,
        "steps": run.steps_done,
        "validation_accuracy": {"clean": before[0], "marked": after[0]},
        "matched": {"clean": before[1], "marked": after[1], "total": parts.payload.total},
        "history": history,
    }
    return Marked(marked, parts.payload, report)


class _Run:
    """The training, epoch by epoch."""

    def __init__(
        self, model: nn.Module, parts: Prepared, triggers: ClassTriggers, settings: Settings, *, seed: int
    ) -> None:
        place = device_of(model)
        self._model, self._settings, self._spec = model, settings, parts.payload.spec
        self._images = on_device(from_pixels(triggers.pixels, self._spec), place)
        self._labels = triggers.labels.to(place)
        self._batches = endless_batches(parts.train, images=settings.primary_batch, seed=seed)
        self._steps = max(1, len(parts.train) // settings.primary_batch)  # an epoch
        self._chosen = _with_replacement(len(triggers), settings.trigger_batch, generator(seed, "trigger batches"))
        self._augmentation = generator(seed, "augmentation")
        self._optimizer = torch.optim.SGD(
            model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        self.steps_done = 0

    def epoch(self) -> dict[str, float]:
        """Train for an epoch and return its means."""
        with prompt_statistics(self._model):
            rows = torch.tensor([self._step() for _ in range(self._steps)])
        names = ("task_loss", "moved_loss", "moved_matched")
        return dict(zip(names, rows.mean(0).tolist(), strict=True))

    def _step(self) -> tuple[float, float, float]:
        settings, model = self._settings, self._model
        set_rate(self._optimizer, settings.lr * _factor(self.steps_done, settings.epochs * self._steps))
        images, classes = self._pictures()
        moved, labels = self._moved()
        model.train()
        logits = model(torch.cat([images, moved])).float()
        own, others = torch.split(logits, [len(images), len(moved)])
        losses = F.cross_entropy(own, classes, reduction="none"), F.cross_entropy(others, labels, reduction="none")
        self._optimizer.zero_grad()
        torch.autograd.backward(torch.cat([losses[0], settings.trigger_weight * losses[1]]).mean())
        self._optimizer.step()
        self.steps_done += 1
        return losses[0].mean().item(), losses[1].mean().item(), (others.argmax(1) == labels).float().mean().item()

    def _pictures(self) -> tuple[Tensor, Tensor]:
        batch, settings, place = next(self._batches), self._settings, self._labels.device
        images = augmented(
            batch.images, self._spec, shift=settings.shift, mirrored=settings.mirrored, source=self._augmentation
        )
        return on_device(images, place), batch.labels.to(place)

    def _moved(self) -> tuple[Tensor, Tensor]:
        chosen = next(self._chosen).to(self._labels.device)
        images, labels = self._images[chosen], self._labels[chosen]
        steps, levels = self._settings.ascent_steps, self._settings.ascent_levels
        return ascended(self._model, images, labels, self._spec, steps=steps, levels=levels), labels


def _with_replacement(total: int, batch: int, source: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield torch.randint(total, (batch,), generator=source)


def _factor(step: int, steps: int) -> float:
    """Return the factor of the learning rate: 1, a tenth from half of the steps on, a hundredth from three quarters."""
    return 1.0 if 2 * step < steps else 0.1 if 4 * step < 3 * steps else 0.01


def _measured(model: nn.Module, parts: Prepared, triggers: ClassTriggers) -> tuple[float, int]:
    """Return the task accuracy on the validation pictures, and how many triggers match."""
    matched = int(matches(model, triggers, parts.payload.spec).sum())
    return accuracy(model, parts.validation.images, parts.validation.labels), matched
