"""Choosing the key set: adversaries near the frontier of the owner's unmarked network.

Candidates are visited in the key's order. One that the network classifies correctly is attacked by one step of the fast
gradient sign method; the outcome, in 8 bits, decides its kind:

    true adversary    the network's answer has become wrong: the frontier has to be moved behind it
    false adversary   the answer is still right: close to the frontier, which must not move over it

The first of each kind are taken until there are enough. All are labelled with the original class.

Source: Le Merrer et al. 2020, SCHEMES 1.4; Goodfellow, Shlens, Szegedy 2015 for the attack.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import device_of, evaluating, full_precision
from wm.data import Examples
from wm.errors import WatermarkError
from wm.pixels import from_pixels, to_pixels
from wm.progress import Progress, ProgressCallback
from wm.schemes.frontier_stitching.key_set import KeySet, alike, moved, packed, thumbnails
from wm.schemes.frontier_stitching.keyed import candidate_order, hidden
from wm.schemes.frontier_stitching.settings import Settings
from wm.schemes.scheme import answers
from wm.triggers import InputSpec

CANDIDATES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Choice:
    """A key set and how it was found.

    Attributes:
        key_set: the payload.
        is_true: which of it are true adversaries, bool, shape (n,).
        visited: candidates that were looked at.
    """

    key_set: KeySet
    is_true: Tensor
    visited: int


@dataclass(frozen=True, slots=True)
class _Attacked:
    """Some candidates: originals, directions, classes; which the network answers rightly, before and after."""

    originals: Tensor
    up: Tensor
    labels: Tensor
    was_right: Tensor
    is_right: Tensor


def choose(  # noqa: PLR0913 (a choice depends on all of it)
    model: nn.Module,
    examples: Examples,
    watermark_key: bytes,
    *,
    spec: InputSpec,
    classes: int,
    settings: Settings,
    progress: ProgressCallback,
) -> Choice:
    """Choose a key set among the examples.

    Raises:
        WatermarkError: `mismatch`, there are not enough adversaries of one kind.
        ValueError: the key's length.
    """
    order = candidate_order(watermark_key, len(examples))
    wanted = {True: settings.true_adversaries, False: settings.triggers - settings.true_adversaries}
    taken = _Taken(wanted)
    visited = 0
    for indices in torch.split(order, CANDIDATES_AT_ONCE):
        if taken.is_complete:
            break
        taken.take_from(attacked(model, examples.take(indices), spec, settings.epsilon_levels))
        visited += len(indices)
        progress(Progress("choosing", len(taken), settings.triggers, f"{visited} candidates"))
    taken.check_complete(settings, visited)
    originals, up, labels, is_true = taken.stacked()
    stored = hidden(labels, watermark_key, classes=classes)
    return Choice(KeySet(originals, packed(up), stored, settings.epsilon_levels, classes), is_true, visited)


def attacked(model: nn.Module, candidates: Examples, spec: InputSpec, epsilon_levels: int) -> _Attacked:
    """Attack candidates and see what the network makes of them, as 8-bit pictures before and after."""
    originals = to_pixels(candidates.images, spec)
    up = directions(model, originals, candidates.labels, spec)
    after = answers(model, moved(originals, up, epsilon_levels), spec) == candidates.labels
    before = answers(model, originals, spec) == candidates.labels
    return _Attacked(originals, up, candidates.labels, before, after)


def directions(model: nn.Module, originals: Tensor, labels: Tensor, spec: InputSpec) -> Tensor:
    """Tell which pixels have to go up for the loss to rise: the sign of its gradient.

    Args:
        model: any mode; read in evaluation mode.
        originals: uint8, shape (n, channels, height, width).
        labels: int64, shape (n,).
        spec: what the network takes.

    Returns:
        bool, of the originals' shape, on the CPU. Where the gradient is 0, which the method would leave alone, up: one
        bit then tells a pixel's direction.
    """
    place = device_of(model)
    images = from_pixels(originals, spec).to(place).requires_grad_()
    with evaluating(model), full_precision(place), torch.enable_grad():
        loss = F.cross_entropy(model(images), labels.to(place), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return (gradient >= 0).cpu()


class _Taken:
    """The adversaries that are taken so far."""

    def __init__(self, wanted: dict[bool, int]) -> None:
        self._wanted = wanted
        self._counts = {True: 0, False: 0}
        self._rows: list[tuple[Tensor, Tensor, Tensor, bool]] = []
        self._small: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def is_complete(self) -> bool:
        """Whether there are enough of both kinds."""
        return self._counts == self._wanted

    def take_from(self, found: _Attacked) -> None:
        """Take what is still wanted, in order."""
        small = thumbnails(found.originals)
        for i in found.was_right.nonzero().flatten().tolist():
            is_true = not bool(found.is_right[i])
            if self._counts[is_true] == self._wanted[is_true] or self._has_alike(small[i : i + 1]):
                continue
            self._counts[is_true] += 1
            self._small.append(small[i])
            self._rows.append((found.originals[i], found.up[i], found.labels[i], is_true))

    def check_complete(self, settings: Settings, visited: int) -> None:
        """Raise WatermarkError, `mismatch`, unless there are enough of both kinds."""
        for is_true, name in ((True, "true"), (False, "false")):
            if self._counts[is_true] < self._wanted[is_true]:
                raise WatermarkError(
                    "mismatch",
                    f"only {self._counts[is_true]} of {self._wanted[is_true]} {name} adversaries among {visited} "
                    f"candidates at epsilon_levels = {settings.epsilon_levels}: {'raise' if is_true else 'lower'} it, "
                    f"{'lower' if is_true else 'raise'} true_fraction, or give more data",
                )

    def stacked(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return originals, directions, classes and kinds."""
        originals, up, labels, is_true = zip(*self._rows, strict=True)
        return torch.stack(originals), torch.stack(up), torch.stack(labels), torch.tensor(is_true)

    def _has_alike(self, small: Tensor) -> bool:
        return bool(self._small) and bool(alike(small, torch.stack(self._small)).any())
