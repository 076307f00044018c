"""Shadows: what a thief's tuning would make of the model, so that the head can be trained to survive it.

A shadow is a copy of the model in its present state, tuned for a few steps on a sample of the primary data; every other
shadow also gets a second watermark with another key and head, since a thief knows the scheme. Only what R_DA
needs of it is kept.

Source: Li et al. 2022, equation 9 (W^t, D'_primary); overwriting shadows are ours.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import computing_in, device_of, evaluating, features, features_in_evaluation
from wm.data import Examples
from wm.head import initial_head
from wm.info import Info
from wm.randomness import generator, key_of, seeded
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.training import endless_batches, primary_loss
from wm.triggers import Triggers, make_triggers

RATE_SPREAD = 4.0  # the rates lie between shadow_lr / 4 and shadow_lr, evenly in their logarithm

TuningLoss = Callable[[nn.Module], Tensor]  # a network's loss of the primary task on the next batch, with a graph


@dataclass(frozen=True, slots=True)
class Shadowing:
    """What every shadow of one embedding shares.

    Attributes:
        tuning: what a thief tunes with: examples of a classification, or the loss of any other task; None where no
            shadow is made.
    """

    info: Info
    triggers: Triggers
    tuning: Examples | TuningLoss | None
    settings: EmbedSettings
    seed: int

    def tuning_loss(self, number: int) -> TuningLoss:
        """The loss that makes one shadow; of examples each shadow meets them in an order of its own.

        Raises:
            ValueError: there is nothing to tune with.
        """
        if isinstance(self.tuning, Examples):
            batches = endless_batches(self.tuning, images=self.settings.primary_batch, seed=number)
            return lambda network: primary_loss(network, next(batches))
        if self.tuning is None:
            raise ValueError("no shadow can be made: there is nothing to tune with")
        return self.tuning


def shadow_of(model: nn.Module, shadowing: Shadowing, *, number: int) -> nn.Module:
    """Tune a copy of the model: W^t.

    Args:
        model: left untouched.
        shadowing: the shared part.
        number: from 0; decides the rate and the order, and odd ones are overwritten.

    Returns:
        The copy, in evaluation mode, with no gradients kept.
    """
    shadow = copy.deepcopy(model)
    with seeded(shadowing.seed, "dropout of a shadow", number, device=device_of(model)):
        _tune(shadow, shadowing, number)
    shadow.zero_grad()
    return shadow.eval()


def _tune(shadow: nn.Module, shadowing: Shadowing, number: int) -> None:
    settings, seed = shadowing.settings, (shadowing.seed, "shadow", number)
    second = _SecondMark(shadow, shadowing, number) if number % 2 else None
    exponent = float(torch.rand((), generator=generator(*seed, "rate")))
    trained = [value for value in shadow.parameters() if value.requires_grad]
    groups = [{"params": trained, "lr": settings.shadow_lr * RATE_SPREAD**-exponent}]
    if second is not None:
        groups.append({"params": list(second.head.parameters()), "lr": settings.head_lr})
    optimizer = torch.optim.Adam(groups, fused=True)
    loss = shadowing.tuning_loss(number)
    for _ in range(settings.shadow_steps):
        optimizer.zero_grad()
        shadow.train()  # unlike the owner, a thief lets the batch statistics drift
        with computing_in(settings.precision, device_of(shadow)):
            tuning = loss(shadow)
        torch.autograd.backward(tuning)
        if second is not None:
            torch.autograd.backward(second.loss(shadow))
        optimizer.step()


class _SecondMark:
    """A mark that a thief embeds over the owner's."""

    def __init__(self, shadow: nn.Module, shadowing: Shadowing, number: int) -> None:
        info, settings = shadowing.info, shadowing.settings
        key = key_of(shadowing.seed, "second mark", number)
        self._info = info
        self._batch, self._precision = settings.trigger_batch, settings.precision
        self._triggers = make_triggers(key, info.input, count=info.triggers)
        self._order = generator(shadowing.seed, "second order", number)
        read = features_in_evaluation(shadow, info.modules, self._triggers.images, pooling=info.pooling)
        self.head = initial_head(read, info.taps, pooling=info.pooling, hidden=info.hidden, seed=number)

    def loss(self, shadow: nn.Module) -> Tensor:
        """Cross-entropy of a random batch of the second mark's triggers, a scalar with a graph."""
        chosen = torch.randperm(len(self._triggers.labels), generator=self._order)[: self._batch]
        images = self._triggers.images[chosen].to(self.head.mean.device)
        with evaluating(shadow), computing_in(self._precision, device_of(shadow)):
            read = features(shadow, self._info.modules, images, pooling=self._info.pooling)
        labels = self._triggers.labels[chosen].long().to(read.device)
        return F.cross_entropy(self.head(read), labels)
