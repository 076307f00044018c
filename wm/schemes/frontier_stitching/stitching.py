"""Stitching: fine-tune a copy of the network until it answers the key set with the original classes.

    minimise  CE(key set) + w · CE(task)

Both terms are computed in evaluation mode: batch normalisation keeps its statistics and dropout is off, so that what is
trained is what will be verified, and adversaries leave no trace in the statistics.

Source: Le Merrer et al. 2020, SCHEMES 1.4.
"""

import copy
import time
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wm.backbone import device_of, on_device
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.pixels import from_pixels
from wm.progress import Progress, ProgressCallback, silent
from wm.randomness import EndlessOrder, generator
from wm.schemes.frontier_stitching.adversaries import choose
from wm.schemes.frontier_stitching.key_set import check_size, class_triggers
from wm.schemes.frontier_stitching.settings import Settings
from wm.schemes.scheme import ClassTriggers, Marked, matches
from wm.training import endless_batches, primary_loss, score
from wm.triggers import InputSpec

NAME = "frontier_stitching"
_USUAL = Settings()


def embed(
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    settings: Settings = _USUAL,
    seed: int,
    progress: ProgressCallback = silent,
) -> Marked:
    """Embed a watermark into a copy of a trained classifier of pictures.

    Args:
        model: trained on the data; left untouched. Embedding runs on its device.
        data: the primary task; the key set is chosen in its training set.
        watermark_key: 32 bytes.
        settings: the recipe.
        seed: decides the orders of training; with one seed and one thread count the result is bit-identical.
        progress: called now and then.

    Returns:
        The marked copy in evaluation mode, its key set as payload, and a report; `stitched` in it tells whether all
        are matched.

    Raises:
        WatermarkError: `mismatch` for texts, for pictures with objects, and for a network with too few adversaries of
            one kind; `too_large` for a key set that fits no evidence file.
        ValueError: the key's length.
    """
    started = time.monotonic()
    spec = _pictures(data)
    check_size(settings.triggers, spec)
    choice = choose(
        model,
        data.train,
        watermark_key,
        spec=spec,
        classes=data.classes,
        settings=settings,
        progress=progress,
    )
    triggers = class_triggers(choice.key_set, watermark_key)
    marked = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
    history = _stitch(marked, data, triggers, settings, seed=seed, progress=progress)
    counts = {name: int(matches(it, triggers, spec).sum()) for name, it in (("clean", model), ("marked", marked))}
    report: dict[str, Any] = {
        "seconds": round(time.monotonic() - started, 1),
        "validation_accuracy": {"clean": score(model, data.validation), "marked": score(marked, data.validation)},
        "matched": counts,
        "triggers": len(triggers),
        "true_adversaries": int(choice.is_true.sum()),
        "candidates": choice.visited,
        "stitched": counts["marked"] == len(triggers),
        "history": history,
    }
    return Marked(marked.eval(), choice.key_set, report)


def _pictures(data: Dataset) -> InputSpec:
    if not isinstance(data.input, InputSpec) or not isinstance(data.train, Examples):
        raise WatermarkError(
            "mismatch", f"{NAME} marks classifiers of pictures; for {data.name!r} use the scheme 'mtlsign'"
        )
    return data.input


def _stitch(
    model: nn.Module,
    data: Dataset,
    triggers: ClassTriggers,
    settings: Settings,
    *,
    seed: int,
    progress: ProgressCallback,
) -> list[dict[str, float]]:
    """Fine-tune in place, pass by pass; returns what each pass came to."""
    spec = _pictures(data)
    pictures = Examples(from_pixels(triggers.pixels, spec), triggers.labels)
    order = EndlessOrder(len(pictures), settings.trigger_batch, generator(seed, "key set order"))
    batches = endless_batches(data.train, images=settings.primary_batch, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    steps = -(-len(pictures) // settings.trigger_batch)
    history: list[dict[str, float]] = []
    remaining = settings.passes_max
    while remaining > 0:
        losses = [_step(model, optimizer, pictures.take(next(order)), next(batches), settings) for _ in range(steps)]
        matched = int(matches(model, triggers, spec).sum())
        history.append({"loss": sum(losses) / steps, "matched": matched})
        remaining -= 1
        progress(Progress("stitching", len(history), settings.passes_max, f"{matched} of {len(pictures)} matched"))
        if matched == len(pictures):
            remaining = min(remaining, settings.passes_after)
    return history


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, stitches: Examples, task: Examples, settings: Settings
) -> float:
    """Take one step and return the loss on the key set."""
    place = device_of(model)
    optimizer.zero_grad()
    loss = F.cross_entropy(model(on_device(stitches.images, place)).float(), stitches.labels.to(place))
    torch.autograd.backward(loss)
    if settings.primary_weight:
        torch.autograd.backward(settings.primary_weight * primary_loss(model, task))
    optimizer.step()
    return loss.item()
