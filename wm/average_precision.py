"""Mean average precision of masks, as COCO counts it: the measure of instance segmentation.

For one class and one least overlap (IoU): what was found is taken by falling score; each is right if it overlaps an
object of its picture that far which no better one has taken, the one that it overlaps most. Precision at a recall is
the best at that recall or beyond; the average precision is its mean at 101 recalls from 0 to 1, 0 where the recall is
never reached. The mean is over the classes that have objects, and over the overlaps.

Source: pycocotools' COCOeval for masks of any size without crowds, which the tests compare it with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))
FOUND_MAX = 100  # of one class in one picture; the best
_RECALLS = torch.from_numpy(np.linspace(0, 1, 101))  # COCO's to the last bit: recalls such as 3/5 fall on them
Truth = tuple[Tensor, Tensor]  # of one picture: labels int64 (k,), and masks bool (k, height, width)


@dataclass(frozen=True, slots=True)
class Found:
    """What a network found in one picture.

    Attributes:
        scores: float, shape (k,).
        labels: int64 from 1, shape (k,).
        masks: bool, shape (k, height, width).
    """

    scores: Tensor
    labels: Tensor
    masks: Tensor


def mean_average_precision(
    found: Sequence[Found], truth: Sequence[Truth], overlaps: Sequence[float] | None = None
) -> float:
    """Compare what was found with what there is.

    Args:
        found: one for each picture.
        truth: likewise, the objects' labels and masks.
        overlaps: least IoUs, each in (0, 1]; None takes COCO's 0.5, 0.55, …, 0.95.

    Returns:
        A number in [0, 1].

    Raises:
        ValueError: the numbers of pictures differ, there is no object at all, or an overlap is out of range.
    """
    least = torch.tensor(OVERLAPS if overlaps is None else overlaps, dtype=torch.float64)
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} answers for {len(truth)} pictures")
    if not len(least) or bool((least <= 0).any()) or bool((least > 1).any()):
        raise ValueError(f"overlaps lie in (0, 1], not {least.tolist()}")
    classes = sorted({label for labels, _ in truth for label in labels.tolist()})
    if not classes:
        raise ValueError("no picture has an object: nothing to find")
    return float(torch.stack([_average_precision(found, truth, label, least) for label in classes]).mean())


def mask_overlaps(found: Tensor, objects: Tensor) -> Tensor:
    """Compute the IoU of each pair of masks.

    Args:
        found: bool, shape (k, height, width).
        objects: bool, shape (m, height, width).

    Returns:
        float64, shape (k, m); 0 for two empty masks.
    """
    first, second = (masks.flatten(1).to(torch.float32) for masks in (found, objects))
    common = (first @ second.T).double()  # whole numbers below 2^24: exact
    union = first.sum(1)[:, None] + second.sum(1)[None] - common
    return common / union.clamp_min(1)


def _average_precision(found: Sequence[Found], truth: Sequence[Truth], label: int, least: Tensor) -> Tensor:
    """Of one class, averaged over the overlaps; a scalar."""
    scores, right, objects = [], [], 0
    for answer, (labels, masks) in zip(found, truth, strict=True):
        chosen = (answer.labels == label).nonzero()[:, 0]
        chosen = chosen[answer.scores[chosen].argsort(descending=True, stable=True)][:FOUND_MAX]
        here = labels == label
        objects += int(here.sum())
        scores.append(answer.scores[chosen])
        right.append(_taken(mask_overlaps(answer.masks[chosen], masks[here]), least))
    order = torch.cat(scores).argsort(descending=True, stable=True)
    return _area(torch.cat(right)[order], objects).mean()


def _taken(overlap: Tensor, least: Tensor) -> Tensor:
    """Which of what was found, best first, is right; overlap (k, m), least (t,), result bool (k, t)."""
    right = torch.zeros(len(overlap), len(least), dtype=torch.bool)
    free = torch.ones(len(least), overlap.shape[1], dtype=torch.bool)
    for number, each in enumerate(overlap if overlap.shape[1] else ()):
        reachable = torch.where(free & (each >= least[:, None]), each, -1.0)
        best, nearest = reachable.max(1)
        right[number] = best >= 0
        free[right[number], nearest[right[number]]] = False
    return right


def _area(right: Tensor, objects: int) -> Tensor:
    """Mean precision at the recalls; `right` is bool, shape (n, t), by falling score; result float64, shape (t,)."""
    if not len(right):
        return torch.zeros(right.shape[1], dtype=torch.float64)
    hits = right.double().cumsum(0)
    precision = hits / torch.arange(1, len(right) + 1)[:, None]
    best = precision.flip(0).cummax(0).values.flip(0)  # at this recall or beyond
    reached = torch.searchsorted((hits / objects).T.contiguous(), _RECALLS.expand(right.shape[1], -1).contiguous())
    beyond = torch.cat([best, torch.zeros(1, right.shape[1], dtype=torch.float64)])
    return beyond.gather(0, reached.T).mean(0)
