"""Embedding: the key's values are written into the weights, and the others are trained around them, locked.

    step                w_free <- w_free - η·∇CE(w)                                   its own task
    R replicas          w_r = w + ε_r at the locked weights, ε_r ~ N(0, (noise·|v|)²)
    watermark-aware     w_free <- w_free + direction·λ·mean_r ∇_free CE(w_r)          on the same batch

With direction 1 the loss rises where the locked weights move: who moves them pays with accuracy, so the gradients of a
fine-tuning keep them where they are. That is what the paper says. Its released code subtracts λ·(w + ∇CE(w_r)), which
is direction -1 and a decay.

Source: Tartaglione et al. 2020; SCHEMES 1.2.
"""

import copy
import time

import torch
from torch import Tensor, nn

from wm.backbone import device_of, differentiable
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.progress import Progress, ProgressCallback, silent
from wm.randomness import generator, seeded
from wm.scenes import Scenes
from wm.schemes.locked_parameters.lock import Lock, sizes
from wm.schemes.locked_parameters.payload import LockedPayload, agreements
from wm.schemes.locked_parameters.places import lockable, pattern, positions
from wm.schemes.locked_parameters.settings import Settings
from wm.schemes.scheme import Marked
from wm.training import endless_batches, freeze_statistics, measure_of, primary_loss, score, set_rate

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
    payload = LockedPayload(values, shapes)
    run = _Run(marked, data.train, Lock(marked, places, values), settings, seed=seed)
    with seeded("locked parameters", seed, device=device_of(marked)):
        history = run.train(progress)
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
            losses = torch.tensor([self._step(factor) for _ in range(self._steps_an_epoch)]).double().mean(0)
            if not bool(torch.isfinite(losses).all()):
                raise ValueError(f"the training diverged in epoch {epoch + 1}: lower lr or sharpening in the settings")
            rows.append({"epoch": epoch + 1, "task_loss": float(losses[0]), "replica_loss": float(losses[1])})
            progress(Progress("embedding", epoch + 1, epochs, f"loss {float(losses[0]):.3f}"))
        self._model.eval()
        return rows

    def _step(self, factor: float) -> tuple[float, float]:
        batch = next(self._batches)
        loss = self._backward(batch)
        self._lock.mask_gradients()
        self._optimizer.step()
        self._lock.write()
        if not self._settings.replicas:
            return loss, loss
        return loss, self._sharpen(batch, factor * self._settings.sharpening)

    @torch.no_grad()
    def _sharpen(self, batch: Examples, strength: float) -> float:
        """Take the watermark-aware step and return the replicas' mean loss."""
        settings, lock = self._settings, self._lock
        buffers = [(buffer, buffer.clone()) for buffer in self._model.buffers()]
        losses = [self._backward(batch, noise=self._drawn(), adds=bool(number)) for number in range(settings.replicas)]
        lock.write()
        lock.mask_gradients()
        for buffer, value in buffers:  # replicas are networks of their own, with statistics of their own
            buffer.copy_(value)
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=settings.direction * strength / settings.replicas)
        return sum(losses) / len(losses)

    def _drawn(self) -> Tensor:
        values = self._lock.values
        return values + self._settings.noise * values.abs() * torch.randn(len(values), generator=self._noise)

    def _backward(self, batch: Examples, *, noise: Tensor | None = None, adds: bool = False) -> float:
        """Compute the gradients, of the model or with other values at its locked places."""
        if noise is not None:
            self._lock.write(noise)
        if not adds:
            self._optimizer.zero_grad()
        with torch.enable_grad(), differentiable(self._model):
            loss = primary_loss(self._model, batch)
            torch.autograd.backward(loss)
        return loss.item()
