"""What is settled before a margin watermark is trained in: triggers, and the task's pictures without them.

Triggers are pictures of the validation split, which no training has seen; the validation accuracies are those of what
is left of it. Where it does not hold more pictures than are wanted, the training set gives them, and is trained on
without them: the loss would otherwise ask two classes of one picture.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.backbone import device_of, evaluating
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.pixels import to_pixels
from wm.schemes.margin.draws import chosen_indices
from wm.schemes.margin.payload import MarginPayload, check_size
from wm.triggers import InputSpec


@dataclass(frozen=True, slots=True)
class Prepared:
    """What goes into the training.

    Attributes:
        payload: the triggers.
        train: pictures to train on, without triggers.
        validation: pictures to measure the task on, without triggers.
    """

    payload: MarginPayload
    train: Examples
    validation: Examples


def prepared(model: nn.Module, data: Dataset, watermark_key: bytes, *, triggers: int) -> Prepared:
    """Choose the triggers and take them out of the task's data.

    Raises:
        WatermarkError: `mismatch` for data that are not pictures with one class each, too few of them, or a network
            with another number of classes; `too_large` for triggers that no evidence file may hold.
        ValueError: the key's length.
    """
    spec = data.input
    if not isinstance(spec, InputSpec) or not isinstance(data.train, Examples):
        raise WatermarkError("mismatch", f"data set {data.name!r}: margin marks classifiers of pictures, and no others")
    check_size(triggers, spec)
    _check_classes(model, data)
    train, validation = data.train, data.validation
    pool = validation if len(validation) > triggers else train
    if len(pool) <= triggers:
        raise WatermarkError(
            "mismatch",
            f"data set {data.name!r}: {triggers} triggers need a validation or training set of more than as many "
            f"pictures, these have {len(validation)} and {len(train)}; use fewer triggers",
        )
    chosen = chosen_indices(watermark_key, count=triggers, pool=len(pool))
    payload = MarginPayload(to_pixels(pool.images[chosen], spec).contiguous(), spec, data.classes)
    rest = pool.take(_others(chosen, len(pool)))
    return Prepared(payload, train, rest) if pool is validation else Prepared(payload, rest, validation)


def _others(chosen: Tensor, total: int) -> Tensor:
    is_left = torch.ones(total, dtype=torch.bool)
    is_left[chosen] = False
    return is_left.nonzero().squeeze(1)


@torch.no_grad()
def _check_classes(model: nn.Module, data: Dataset) -> None:
    """Check that the network has the data's classes: a verifier draws labels of as many as the network has."""
    with evaluating(model):
        logits = model(data.train.images[:1].to(device_of(model)))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != data.classes:
        raise WatermarkError(
            "mismatch",
            f"the network does not answer with the {data.classes} classes of data set {data.name!r}; build it with "
            f"num_classes={data.classes}",
        )
