"""Stage 2 of MTLSign: tune a trained network so that its taps carry the key's labels.

The loss is `mark`'s and the primary task's (cross-entropy, or a detector's losses), weighted. Batch normalisation stays
frozen throughout, also for the primary task. The whole network is trained, the backbone of a detector as well: a head
fitted to a backbone that stays as it was would find its mark in everybody's copy of it.

Source: Li et al. 2022, equations 7 to 10.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from wm.architectures import Architecture
from wm.backbone import computing_in, device_of, differentiable
from wm.data import Dataset, fraction_of
from wm.head import Head
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.randomness import seed_of
from wm.savepoint import Savepoint, State, fill, fill_optimizer, fingerprint, optimizer_state, prefixed, under
from wm.schemes.mtlsign.mark import Mark
from wm.schemes.mtlsign.preparation import NAME
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.training import cosine, endless_batches, measure_of, primary_loss, score


@dataclass(frozen=True, slots=True)
class Marked:
    """What stage 2 gives: a marked copy of the model, the head, how they connect, and a JSON-able report."""

    model: nn.Module
    head: Head
    info: Info
    report: dict[str, Any]


def embed(  # noqa: PLR0913 (what an embedding takes; all but the model and the data by name)
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    architecture: Architecture,
    settings: EmbedSettings,
    negatives: Sequence[nn.Module] = (),
    seed: int,
    savepoint: Savepoint | None = None,
    progress: ProgressCallback,
) -> Marked:
    """Embed a watermark into a copy of a trained model.

    Args:
        model: W0, trained on the data; left untouched.
        data: the primary task.
        watermark_key: 32 bytes.
        architecture: what the model was built from.
        settings: the recipe.
        negatives: networks that must answer by chance, such as the public base, of the architecture in front of the
            last tap and on the model's device; left untouched.
        seed: decides the head's first weights and every order.
        savepoint: where the state is kept; one of this very embedding goes on from there.
        progress: called after every step.

    Returns:
        The marked model in evaluation mode on the given one's device, and what belongs to it.

    Raises:
        WatermarkError: `unknown_architecture` for a tap that does not exist; `mismatch` for a model of another
            architecture, or not in float32; `malformed` or `mismatch` for a savepoint that is damaged or of another
            training.
        ValueError: the key's length.
        OSError: the savepoint cannot be read or written.
    """
    started = time.monotonic()
    begun = None
    if savepoint is not None:
        conditions = _conditions(model, data, architecture, settings, negatives)
        secret = fingerprint(watermark_key)
        begun = savepoint.begin({**conditions, "seed": str(seed), "watermark key": secret})
    marked = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
    mark = Mark(
        marked,
        watermark_key,
        input_spec=data.input,
        architecture=architecture,
        settings=settings,
        tuning=fraction_of(data.train, settings.tuning_fraction, seed=seed_of(seed, "shadow sample")),
        negatives=negatives,
        seed=seed,
    )
    run = _Run(marked, mark, data, seed=seed)
    if begun is not None:
        run.restore(begun)
    run.train(savepoint, progress)
    mark.finish(marked, progress=progress)
    before, after = (score(it, data.validation) for it in (model, marked))
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "steps": settings.steps,
        f"validation_{measure_of(data.validation)}": {"clean": before, "marked": after},
        "weight_change": mark.weight_change(marked),
        "negatives": mark.negatives_matched(),
        "fresh_aligned": list(mark.fresh_aligned),
        "curves": mark.curves,
        "history": mark.history(),
    }
    return Marked(marked.eval(), mark.head.eval(), mark.info, report)


class _Run:
    """The joint steps of backbone and head, which can go on from a state."""

    def __init__(self, model: nn.Module, mark: Mark, data: Dataset, *, seed: int) -> None:
        self._model, self._mark, self._settings = model, mark, mark.settings
        self._batches = endless_batches(data.train, images=mark.settings.primary_batch, seed=seed)
        self._rates = (mark.backbone_lr, mark.settings.head_lr)
        parameters = (model.parameters(), mark.parameters())
        groups = [{"params": list(it), "lr": lr} for it, lr in zip(parameters, self._rates, strict=True)]
        self._optimizer = torch.optim.Adam(groups, fused=True)

    def train(self, savepoint: Savepoint | None, progress: ProgressCallback) -> None:
        """Do all steps that are not done yet."""
        steps = self._settings.steps
        for step in range(self._mark.steps_done, steps):
            for group, lr in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = lr * cosine(step, steps)
            self._step()
            progress(Progress("embedding", step + 1, steps, f"{self._mark.shadows_met} shadows"))
            if savepoint is not None and (savepoint.is_due() or step + 1 == steps):
                savepoint.write(self._state())

    def restore(self, state: State) -> None:
        """Go on from a state."""
        fill(self._model.state_dict(), under("model", state))
        fill_optimizer(self._optimizer, under("optimizer", state))
        self._batches.order.restore(under("order", state))
        self._mark.load_state_dict(under("mark", state))

    def _state(self) -> State:
        return {
            **prefixed("model", self._model.state_dict()),
            **prefixed("optimizer", optimizer_state(self._optimizer)),
            **prefixed("order", self._batches.order.state()),
            **prefixed("mark", self._mark.state_dict()),
        }

    def _step(self) -> None:
        settings = self._settings
        self._optimizer.zero_grad()
        torch.autograd.backward(self._mark.loss(self._model))
        if settings.primary_weight:
            with differentiable(self._model), computing_in(settings.precision, device_of(self._model)):
                loss = primary_loss(self._model, next(self._batches))
            torch.autograd.backward(settings.primary_weight * loss)
            self._mark.record(task_loss=loss)
        self._optimizer.step()


def _conditions(
    model: nn.Module,
    data: Dataset,
    architecture: Architecture,
    settings: EmbedSettings,
    negatives: Sequence[nn.Module],
) -> dict[str, str]:
    """What must be the same for an embedding to go on, but for its seed and key."""
    return {
        "kind": f"embedding, {NAME}",
        "architecture": f"{architecture.name} {dict(sorted(architecture.arguments.items()))}",
        "data set": fingerprint(data.input, data.train, data.validation),
        "model to begin with": fingerprint(model.state_dict(), [it.requires_grad for it in model.parameters()]),
        "set of negative controls": fingerprint([it.state_dict() for it in negatives]),
        **{f"setting {field.name}": str(getattr(settings, field.name)) for field in fields(settings)},
    }
