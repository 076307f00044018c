"""A callback that puts a mark into a training by Lightning: `lightning.Trainer(callbacks=[MarkCallback(plan)])`.

The mark's gradient is added when the first batch of an optimiser step goes backward: the gradients of the step before
are gone by then, and clipping comes later. The loss scale of `precision="16-mixed"` and its autocast are the trainer's.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from wm.errors import WatermarkError
from wm.integrations.plan import MarkPlan
from wm.integrations.run import MarkFailedError, MarkRun
from wm.savepoint import fingerprint
from wm.schemes.mtlsign import Mark

try:
    import lightning
    from lightning.pytorch.strategies import SingleDeviceStrategy
except ImportError as error:
    raise ImportError("the callback needs Lightning: pip install 'wmreg[lightning]'") from error

__all__ = ["MarkCallback", "MarkFailedError", "MarkPlan"]


class MarkCallback(lightning.Callback):
    """Marks a network of a `LightningModule` in the last steps of its training, and writes it at the end.

    The trainer's checkpoints hold the mark's state, head included, and are as secret as the evidence.

    Args:
        plan: what is marked, and how; its `network` is looked up in the `LightningModule`.
    """

    def __init__(self, plan: MarkPlan) -> None:
        super().__init__()
        self._run = MarkRun(plan)
        self._held: dict[str, Any] = {}  # of a checkpoint, until the model is in place
        self._is_due = False

    @property
    def mark(self) -> Mark | None:
        """The mark, from the first of its steps on."""
        return self._run.mark

    @property
    def report(self) -> dict[str, Any]:
        """What was measured at the end, JSON-able; empty before."""
        return self._run.report

    @property
    def state_key(self) -> str:
        """Under which checkpoints hold the state; of several marks in one training each has its own."""
        return f"wmreg mark {fingerprint(self._run.plan.watermark_key)[:16]}"

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Refuse what the mark does not go through.

        Raises:
            ValueError: several processes, a sharded model, or optimisation by hand.
        """
        if stage != "fit":
            return
        self._held = {}
        if trainer.world_size > 1 or not isinstance(trainer.strategy, SingleDeviceStrategy):
            raise ValueError(
                f"a mark is embedded by one process on one device, not by {type(trainer.strategy).__name__} on "
                f"{trainer.world_size}: train the task as you like, then the last epochs with "
                "Trainer(devices=1, strategy='auto') and this callback"
            )
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"{type(pl_module).__name__} optimises by hand: add wm.Mark's loss in its training_step, as "
                "docs/training.md shows for a loop of one's own"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state until the training goes on."""
        self._held = state_dict

    def state_dict(self) -> dict[str, Any]:
        """Return the mark's state: tensors and texts, which `weights_only` loads."""
        state = self._run.state()
        return {"conditions": self._run.conditions(), "state": state} if state else {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the plan, and go on with a mark that is under way.

        Raises:
            ValueError: too few steps, no such network, or an optimiser that reads the loss several times a step.
            WatermarkError: `mismatch`, the checkpoint holds another mark or none; others as of `wm.Mark`.
        """
        if any(isinstance(optimizer, LBFGS) for optimizer in trainer.optimizers):
            raise ValueError("LBFGS reads the loss several times a step, which no mark is for: take another optimiser")
        total = trainer.estimated_stepping_batches
        finite = int(total) if total != float("inf") and total >= 0 else None
        held, self._held, self._is_due = self._held, {}, False
        if self._run.begin(pl_module, done=trainer.global_step, total=finite):
            _check_same(held.get("conditions", {}), self._run.conditions())
            self._run.restore(pl_module, held["state"])

    def on_before_zero_grad(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Note that an optimiser step begins."""
        self._is_due = True

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Add the mark's gradient, with the first batch of a step, and log what it told."""
        if not self._is_due:
            return
        self._is_due = False
        plugin = trainer.precision_plugin
        told = self._run.step(
            pl_module,
            done=trainer.global_step,
            computing=plugin.train_step_context(),
            scaler=getattr(plugin, "scaler", None),
        )
        if told:
            pl_module.log_dict({f"watermark/{name}": value.float() for name, value in told.items()})

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Finish, measure, log and write the mark.

        Raises:
            MarkFailedError: nodes would not verify it; nothing was written.
        """
        with torch.enable_grad():
            self._run.end(pl_module, done=trainer.global_step)
        share = self.report["matched"] / self.report["triggers"]
        for logger in trainer.loggers:
            logger.log_metrics({"watermark/matched_at_the_end": share}, step=trainer.global_step)


def _check_same(held: dict[str, str], wanted: dict[str, str]) -> None:
    if not held:
        raise WatermarkError(
            "mismatch",
            "the mark was under way when the checkpoint was written, and it holds no state of it: go on from one of a "
            "training with this callback and this key",
        )
    for name in sorted(set(held) | set(wanted)):
        if held.get(name) != wanted.get(name):
            raise WatermarkError(
                "mismatch",
                f"the checkpoint is of another mark, with another {name}: plan it as it was planned then, for as many "
                "steps of training",
            )
