"""A mark on its way through a trainer's steps.

The joint loss of a step is the task's, as the trainer computes it, plus the mark's. A gradient is a sum, so the mark's
part is added once for each optimiser step, before the task's, into the same `.grad`: however many batches the step
gathers, the model gets the gradient of the joint loss. It has to be there before the trainer clips. The head depends on
the mark's loss alone and so has an optimiser of its own, Adam as in `wm.embed`, which steps at the same weights: that
is the joint step, without a group in the trainer's optimiser that its schedules do not know of. What a trainer clips is
its own model's gradient, the mark's part included; the head's is not clipped.

Source: Li et al. 2022, equations 7 to 10.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wm.integrations.plan import MarkPlan
from wm.savepoint import State, fill_optimizer, optimizer_state, prefixed, under
from wm.schemes.mtlsign import Mark
from wm.training import cosine, set_rate

CONTROL_SHARE = Fraction(59, 100)  # what nodes let a control match at most, unless a ledger's policy says otherwise
_GIVEN = "given-"  # how the mark names the networks that the plan gives as negatives, and their tuned copies


class MarkFailedError(RuntimeError):
    """The training left no mark that nodes would verify; nothing was written. The callback still holds the mark."""


class Scaler(Protocol):
    """What scales the losses of a training in float16, as `torch.amp.GradScaler` does."""

    def scale(self, outputs: Tensor, /) -> Tensor:
        """Return the loss, scaled."""

    def get_scale(self) -> float:
        """Return the factor."""


class MarkRun:
    """One training of one plan.

    Args:
        plan: what the owner decided.

    Attributes:
        plan: the same.
        mark: the mark, from the first of its steps on.
        first: the optimiser step, from 0, before which the mark is made.
        report: what was measured at the end, JSON-able; empty before.
    """

    def __init__(self, plan: MarkPlan) -> None:
        self.plan = plan
        self.mark: Mark | None = None
        self.first = 0
        self.report: dict[str, Any] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    def begin(self, model: nn.Module, *, done: int, total: int | None) -> bool:
        """Begin a training, or go on with one.

        Args:
            model: the trainer's, on its final device, with the weights that it goes on from.
            done: optimiser steps that are behind it.
            total: how many there will be, with those; None where the trainer cannot tell.

        Returns:
            Whether the mark is under way, so that `restore` must follow.

        Raises:
            ValueError: the training has no number of steps, or too few; the network is not there.
            WatermarkError, OSError: as of `MarkPlan.check`.
        """
        steps = self.plan.recipe.steps
        if total is None:
            raise ValueError(
                "the trainer cannot tell how many steps the training has, and the mark takes the last of them: "
                "give it a number of steps"
            )
        if total < steps:
            raise ValueError(
                f"the training has {total} optimiser steps, fewer than the {steps} of the mark: train longer, or give "
                "the plan settings with fewer steps"
            )
        self.plan.check(self.plan.network_of(model))
        self.mark, self._optimizer, self.report, self.first = None, None, {}, total - steps
        return done > self.first

    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, after `begin`.

        Args:
            model: the trainer's, with the weights of the state's time.
            state: of `state`.

        Raises:
            WatermarkError: `mismatch`, it is of a mark of another shape.
        """
        mark, optimizer = self._made(model)
        mark.load_state_dict(under("mark", state))
        fill_optimizer(optimizer, under("optimizer", state))

    def state(self) -> State:
        """Return what the mark needs to go on, as secret as its head; nothing before its first step."""
        if self.mark is None or self._optimizer is None:
            return {}
        return {
            **prefixed("mark", self.mark.state_dict()),
            **prefixed("optimizer", optimizer_state(self._optimizer)),
        }

    def conditions(self) -> dict[str, str]:
        """Return what must be the same for a state to be gone on from, by name."""
        return {**self.plan.conditions(), "first step": str(self.first)}

    def step(
        self,
        model: nn.Module,
        *,
        done: int,
        computing: AbstractContextManager[object],
        scaler: Scaler | None = None,
    ) -> dict[str, Tensor]:
        """Add the mark's part to the gradients and step the head; once for each optimiser step, with gradients at zero.

        Args:
            model: the trainer's.
            done: optimiser steps that are behind it.
            computing: the trainer's precision, such as an autocast.
            scaler: of a training in float16.

        Returns:
            Scalars by name, what the step told of the mark; none before its first step.
        """
        if done < self.first:
            return {}
        mark, optimizer = (self.mark, self._optimizer) if self.mark and self._optimizer else self._made(model)
        settings = self.plan.recipe
        set_rate(optimizer, settings.head_lr * cosine(min(mark.steps_done, settings.steps - 1), settings.steps))
        with computing:
            loss = mark.loss(self.plan.network_of(model))
        torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
        if scaler is None or _unscaled(mark, scaler.get_scale()):
            optimizer.step()
        optimizer.zero_grad()
        return {**mark.latest, "loss": loss.detach()}

    def end(self, model: nn.Module, *, done: int) -> None:
        """Finish the head, measure the mark, and write it; the last of the training.

        Args:
            model: the trainer's, with its final weights.
            done: optimiser steps that are behind it.

        Raises:
            MarkFailedError: the training stopped before the mark had its steps; or too few triggers match, or too many
                on a network that must answer by chance.
            WatermarkError: weights that are not finite, as of `Mark.save`.
            OSError: the directory cannot be written.
        """
        steps, mark = self.plan.recipe.steps, self.mark
        if mark is None or done < self.first + steps:
            raise MarkFailedError(
                f"the training stopped after {done} of {self.first + steps} optimiser steps, and the last {steps} are "
                "the mark's: nothing was written. Train without stopping early, or for fewer steps"
            )
        network = self.plan.network_of(model)
        mark.finish(network)
        self.report = {
            "matched": mark.matched(network),
            "triggers": mark.info.triggers,
            "steps": mark.steps_done,
            "weight_change": mark.weight_change(network),
            "negatives": mark.negatives_matched(),
            "curves": mark.curves,
            "history": mark.history(),
        }
        self._check()
        mark.save(self.plan.directory, network, base=self.plan.base)

    def _check(self) -> None:
        matched, triggers, settings = self.report["matched"], self.report["triggers"], self.plan.recipe
        least = math.ceil(Fraction(settings.gamma) * triggers)
        if matched < least:
            raise MarkFailedError(
                f"the model matches {matched} of {triggers} triggers, and nodes ask for {least}: nothing was written. "
                "Give the mark more steps or head_steps, or the model a greater rate; docs/training.md tells how to "
                "read the report"
            )
        for name, count in self.report["negatives"].items():
            if name.startswith(_GIVEN) and count > CONTROL_SHARE * triggers:
                raise MarkFailedError(
                    f"the negative control {name} matches {count} of {triggers} triggers, more than "
                    f"{float(CONTROL_SHARE):.0%}: nodes would refute every claim on this mark, and nothing was "
                    "written. Give it more steps, another seed, or the recipe of EmbedSettings.beside_a_base()"
                )

    def _made(self, model: nn.Module) -> tuple[Mark, torch.optim.Optimizer]:
        mark = self.plan.mark(self.plan.network_of(model))
        optimizer = torch.optim.Adam(mark.parameters(), lr=self.plan.recipe.head_lr, fused=True)
        self.mark, self._optimizer = mark, optimizer
        return mark, optimizer


def _unscaled(mark: Mark, scale: float) -> bool:
    """Divide the head's gradients by the factor of the losses; whether they are finite, or the step is left out."""
    gradients = [value.grad for value in mark.parameters() if value.grad is not None]
    for gradient in gradients:
        gradient.div_(scale)
    return all(bool(gradient.isfinite().all()) for gradient in gradients)
