"""Embedding: the key's values are written into the weights, and the others are trained around them, locked.

    step                w_free <- w_free - η·∇CE(w)                                   its own task
    R replicas          w_r = w + ε_r at the locked weights, ε_r ~ N(0, (noise·|v|)²)
    watermark-aware     w_free <- w_free + direction·λ·mean_r ∇_free CE(w_r)          w and batch those of the step

With direction 1 the loss rises where the locked weights move: who moves them pays with accuracy, so the gradients of a
fine-tuning keep them where they are. That is what the paper says. Its released code subtracts λ·(w + ∇CE(w_r)), which
is direction -1 and a decay. Both gradients are taken in front of the step, as in the code: taken behind it, the second
one is ∇CE - η·H·∇CE in first order, and what it adds flattens more than the replicas sharpen.

Source: Tartaglione et al. 2020; SCHEMES 1.2.
"""

import copy
import time

import torch
from torch import Tensor, nn

from wm.backbone import device_of, differentiable
from wm.batch_statistics import freeze_statistics, prompt_statistics
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.progress import Progress, ProgressCallback, silent
from wm.randomness import generator, seeded
from wm.scenes import Scenes
from wm.schemes.locked_parameters.lock import Lock, sizes
from wm.schemes.locked_parameters.payload import LockedPayload, agreements
from wm.schemes.locked_parameters.places import Shapes, lockable, pattern, positions
from wm.schemes.locked_parameters.realignment import make_reference
from wm.schemes.locked_parameters.settings import Settings
from wm.schemes.scheme import Marked
from wm.training import endless_batches, measure_of, primary_loss, score, set_rate
from wm.triggers import InputSpec

_PAPERS = Settings()


def embed(
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    settings: Settings = _PAPERS,
    seed: int,
    progress: ProgressCallback = silent,
) -> Marked:
    """Embed a watermark into a copy of a model, freshly initialised or trained.

    Args:
        model: with weights in float32; left untouched. Embedding runs on its device.
        data: the primary task, of pictures, texts, or pictures with objects.
        watermark_key: 32 bytes.
        settings: the recipe; the default trains from scratch.
        seed: decides the order of the examples, what dropout drops and the replicas' noise.
        progress: called after every epoch.

    Returns:
        The marked model, what was written where, and a report.

    Raises:
        WatermarkError: `mismatch`, the network has too few weights or others than float32.
        ValueError: the key's length, or a training that diverged.
    """
    started = time.monotonic()
    marked = copy.deepcopy(model).to(memory_format=torch.channels_last)
    shapes, held = lockable(marked), marked.state_dict()
    for name in shapes:
        if held[name].dtype != torch.float32:
            raise WatermarkError("mismatch", f"{name!r} is {held[name].dtype}: convert the model with model.float()")
    places = positions(watermark_key, shapes, settings.count)
    values = settings.amplitude * sizes(held, places) * pattern(watermark_key, settings.count)
    run = _Run(marked, data.train, Lock(marked, places, values), settings, seed=seed)
    with seeded("locked parameters", seed, device=device_of(marked)):
        history = run.train(progress)
    payload = LockedPayload(values, shapes, _reference_of(marked, shapes, data))
    before, after = (score(it, data.validation) for it in (model, marked))
    found = [int(agreements(it, payload, watermark_key).sum()) for it in (model, marked)]
    report = {
        "seconds": round(time.monotonic() - started, 1),
        f"validation_{measure_of(data.validation)}": {"clean": before, "marked": after},
        "matched": {"clean": found[0], "marked": found[1]},
        "largest_locked": float((values / sizes(marked.state_dict(), places)).abs().max()),
        "history": history,
    }
    return Marked(marked.eval(), payload, report)


def _reference_of(model: nn.Module, shapes: Shapes, data: Dataset) -> Tensor | None:
    if not isinstance(data.input, InputSpec) or isinstance(data.train, Scenes):
        return None  # probes are shown to a classifier of pictures
    return make_reference(model, shapes, data.input)


class _Run:
    """The locked training of one model."""

    def __init__(self, model: nn.Module, examples: Examples, lock: Lock, settings: Settings, *, seed: int) -> None:
        self._model, self._lock, self._settings = model, lock, settings
        self._batches = endless_batches(examples, images=settings.batch, seed=seed)
        self._steps_an_epoch = max(1, len(examples) // settings.batch)
        self._noise = generator(seed, "replica noise")
        self._optimizer = torch.optim.SGD(
            model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
        self._keeps_statistics = isinstance(examples, Scenes)  # batches of whole pictures are too small for them

    def train(self, progress: ProgressCallback) -> list[dict[str, float]]:
        """Train, and return a row of mean losses for every epoch."""
        self._model.train()
        if self._keeps_statistics:
            freeze_statistics(self._model)
        self._lock.write()
        rows, epochs = list[dict[str, float]](), self._settings.epochs
        for epoch in range(epochs):
            factor = 0.1 ** sum(epoch >= it for it in self._settings.milestones)
            set_rate(self._optimizer, factor * self._settings.lr)
            with prompt_statistics(self._model):
                losses = torch.tensor([self._step(factor) for _ in range(self._steps_an_epoch)]).double().mean(0)
            if not bool(torch.isfinite(losses).all()):
                raise ValueError(f"the training diverged in epoch {epoch + 1}: lower lr or sharpening in the settings")
            rows.append({"epoch": epoch + 1, "task_loss": float(losses[0]), "replica_loss": float(losses[1])})
            progress(Progress("embedding", epoch + 1, epochs, f"loss {float(losses[0]):.3f}"))
        self._model.eval()
        return rows

    def _step(self, factor: float) -> tuple[float, float]:
        """Take one step and return the loss of the model and the replicas' mean."""
        batch, lock = next(self._batches), self._lock
        replica_loss, ascent = self._of_replicas(batch)
        self._optimizer.zero_grad()
        loss = self._backward(batch)
        lock.mask_gradients()
        self._optimizer.step()
        with torch.no_grad():
            for parameter, gradient in ascent:
                parameter.add_(gradient, alpha=self._settings.direction * factor * self._settings.sharpening)
        lock.write()
        return loss, loss if replica_loss is None else replica_loss

    def _of_replicas(self, batch: Examples) -> tuple[float | None, list[tuple[nn.Parameter, Tensor]]]:
        """Compute the replicas' mean loss and its gradients, around the model as it is before the step."""
        moves = self._moves()
        if not moves:
            return None, []
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        self._optimizer.zero_grad()
        losses = []
        for move in moves:
            self._lock.write(self._lock.values + move)
            losses.append(self._backward(batch))
        self._lock.write()
        for buffer, value in buffers:  # replicas are networks of their own, with statistics of their own
            buffer.copy_(value)
        held = [(it, it.grad / len(moves)) for it in self._model.parameters() if it.grad is not None]
        return sum(losses) / len(moves), held

    def _moves(self) -> list[Tensor]:
        """Draw how far the locked weights of each replica are off, in pairs of opposite signs: so slopes cancel."""
        values, replicas = self._lock.values, self._settings.replicas
        drawn = [torch.randn(len(values), generator=self._noise) for _ in range(-(-replicas // 2))]
        pairs = [sign * self._settings.noise * values.abs() * it for it in drawn for sign in (1, -1)]
        return pairs[:replicas]

    def _backward(self, batch: Examples) -> float:
        """Add the gradients of the loss of the model as it is now, and return the loss."""
        with differentiable(self._model):
            loss = primary_loss(self._model, batch)
            torch.autograd.backward(loss)
        return loss.item()
