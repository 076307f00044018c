"""Stage 2 of MTLSign: tune a trained network so that its taps carry the key's labels.

The loss is `mark`'s and the primary task's (cross-entropy, or a detector's losses), weighted. Batch normalisation stays
frozen throughout, also for the primary task. The whole network is trained, the backbone of a detector as well: a head
fitted to a backbone that stays as it was would find its mark in everybody's copy of it.

Source: Li et al. 2022, equations 7 to 10.
"""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wm.architectures import Architecture
from wm.backbone import differentiable
from wm.data import Dataset, fraction_of
from wm.head import Head
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.randomness import seed_of
from wm.schemes.mtlsign.mark import Mark
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
        progress: called after every step.

    Returns:
        The marked model in evaluation mode on the given one's device, and what belongs to it.

    Raises:
        WatermarkError: `unknown_architecture` for a tap that does not exist; `mismatch` for a model of another
            architecture, or not in float32.
        ValueError: the key's length.
    """
    started = time.monotonic()
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
    _train(marked, mark, data, seed=seed, progress=progress)
    mark.finish(marked, progress=progress)
    before, after = (score(it, data.validation) for it in (model, marked))
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "steps": settings.steps,
        f"validation_{measure_of(data.validation)}": {"clean": before, "marked": after},
        "weight_change": mark.weight_change(marked),
        "negatives": mark.negatives_matched(),
        "curves": mark.curves,
    }
    return Marked(marked.eval(), mark.head.eval(), mark.info, report)


def _train(model: nn.Module, mark: Mark, data: Dataset, *, seed: int, progress: ProgressCallback) -> None:
    """Do all joint steps of backbone and head."""
    settings = mark.settings
    optimizer = torch.optim.Adam(
        [
            {"params": list(model.parameters()), "lr": settings.backbone_lr},
            {"params": list(mark.parameters()), "lr": settings.head_lr},
        ],
        fused=True,
    )
    primary = endless_batches(data.train, images=settings.primary_batch, seed=seed)
    for step in range(settings.steps):
        for group, lr in zip(optimizer.param_groups, (settings.backbone_lr, settings.head_lr), strict=True):
            group["lr"] = lr * cosine(step, settings.steps)
        optimizer.zero_grad()
        torch.autograd.backward(mark.loss(model))
        if settings.primary_weight:
            with differentiable(model):
                torch.autograd.backward(settings.primary_weight * primary_loss(model, next(primary)))
        optimizer.step()
        progress(Progress("embedding", step + 1, settings.steps, f"{mark.shadows_met} shadows"))
