"""A callback that puts a mark into a training by Hugging Face's Trainer: `Trainer(callbacks=[MarkCallback(plan)])`.

The mark's gradient is added when an optimiser step begins, before its first batch: the gradients are at zero then, and
clipping comes later. `on_pre_optimizer_step` comes after the clipping and would be too late. The loss scale and the
precision are the trainer's.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm.errors import WatermarkError
from wm.integrations.plan import MarkPlan
from wm.integrations.run import MarkFailedError, MarkRun
from wm.savepoint import Savepoint, fingerprint
from wm.schemes.mtlsign import Mark

try:
    import transformers
    from accelerate import DistributedType, PartialState  # which the Trainer cannot run without
except ImportError as error:
    raise ImportError("the callback needs transformers and accelerate: pip install 'wmreg[transformers]'") from error

__all__ = ["MarkCallback", "MarkFailedError", "MarkPlan"]

_IN_BACKWARD = ("lomo", "layerwise")  # optimisers that step while gradients come, so that there is no sum of them


class MarkCallback(transformers.TrainerCallback):
    """Marks a network of a Trainer's model in the last steps of its training, and writes it at the end.

    Each checkpoint of the Trainer gets one file more, with the mark's state; it is as secret as the evidence.

    Args:
        plan: what is marked, and how; its `network` is looked up in the Trainer's model.
        checkpoint: the checkpoint's directory, where the Trainer goes on from one that is not in its `output_dir`: a
            Trainer does not tell its callbacks.
    """

    def __init__(self, plan: MarkPlan, *, checkpoint: Path | str | None = None) -> None:
        super().__init__()
        self._run = MarkRun(plan)
        self._checkpoint = checkpoint
        self._told: dict[str, Tensor] = {}

    @property
    def mark(self) -> Mark | None:
        """The mark, from the first of its steps on."""
        return self._run.mark

    @property
    def report(self) -> dict[str, Any]:
        """What was measured at the end, JSON-able; empty before."""
        return self._run.report

    def on_init_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **_others: object,
    ) -> None:
        """Refuse what the mark does not go through, as soon as there is a Trainer; errors as of `on_train_begin`."""
        _check(args)

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        *,
        model: nn.Module,
        **_others: object,
    ) -> None:
        """Check the plan, and go on with a mark that is under way.

        Raises:
            ValueError: several processes or devices, a sharded or compiled model, an optimiser that steps in the
                backward pass, another model at the end than that of the last step, a search; too few steps, or no such
                network.
            WatermarkError: `mismatch`, the checkpoint has no state of this mark; others as of `wm.Mark`.
            OSError: it cannot be read.
        """
        _check(args)
        if state.is_hyper_param_search:
            raise ValueError("a search trains many models under one key: search first, then mark the training you keep")
        self._told = {}
        with _own_forward(model):
            if self._run.begin(model, done=state.global_step, total=state.max_steps if state.max_steps > 0 else None):
                self._go_on(args, state, model)

    def on_step_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **_others: object,
    ) -> None:
        """Add the mark's gradient."""
        with _own_forward(model):
            self._told = self._run.step(
                model,
                done=state.global_step,
                computing=_precision(args, next(model.parameters()).device),
                scaler=getattr(optimizer, "scaler", None),
            )

    def on_log(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        *,
        logs: dict[str, float],
        **_others: object,
    ) -> None:
        """Put what the last step told of the mark into the log, for whoever reads it after this callback."""
        if "loss" in logs:
            told = {f"watermark_{name}": float(value) for name, value in self._told.items()}
            logs.update(told)
            state.log_history[-1].update(told)

    def on_save(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        *,
        model: nn.Module,
        **_others: object,
    ) -> None:
        """Put the mark's state into the checkpoint that the Trainer has just written.

        Raises:
            OSError: it cannot be written.
        """
        if self.mark is not None:
            savepoint = self._savepoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
            savepoint.begin(self._conditions(model))
            savepoint.write(self._run.state())

    def on_train_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        *,
        model: nn.Module,
        **_others: object,
    ) -> None:
        """Finish, measure and write the mark.

        Raises:
            MarkFailedError: nodes would not verify it; nothing was written.
        """
        with _own_forward(model):
            self._run.end(model, done=state.global_step)
        share = self.report["matched"] / self.report["triggers"]
        state.log_history.append({"watermark_matched_at_the_end": share, "step": state.global_step})

    def _go_on(self, args: transformers.TrainingArguments, state: transformers.TrainerState, model: nn.Module) -> None:
        directory = self._checkpoint or args.resume_from_checkpoint
        savepoint = self._savepoint(Path(directory or Path(args.output_dir) / f"checkpoint-{state.global_step}"))
        held = savepoint.begin(self._conditions(model))
        if held is None:
            raise WatermarkError(
                "mismatch",
                f"{savepoint.path}: no such file, though the mark was under way at step {state.global_step}: give the "
                "callback the directory that the Trainer goes on from, checkpoint=, or go on from an older checkpoint",
            )
        self._run.restore(model, held)

    def _savepoint(self, directory: Path) -> Savepoint:
        return Savepoint(directory / f"wmreg-mark-{fingerprint(self._run.plan.watermark_key)[:16]}.safetensors")

    def _conditions(self, model: nn.Module) -> dict[str, str]:
        """With the weights of the checkpoint, since it is found by its name alone."""
        weights = fingerprint(self._run.plan.network_of(model).state_dict())
        return {**self._run.conditions(), "set of weights": weights}


def _check(args: transformers.TrainingArguments) -> None:
    kind = PartialState().distributed_type
    if kind != DistributedType.NO or args.world_size > 1 or args.n_gpu > 1 or args.deepspeed or args.fsdp:
        raise ValueError(
            f"a mark is embedded by one process on one device without sharding, not by {args.world_size} processes "
            f"with {args.n_gpu} GPUs each, {kind}, deepspeed={args.deepspeed!r}, fsdp={args.fsdp!r}: train the task as "
            "you like, then the last epochs with this callback on one device (CUDA_VISIBLE_DEVICES=0)"
        )
    refused = {
        "torch_compile": bool(args.torch_compile),
        "load_best_model_at_end": bool(args.load_best_model_at_end),
        "optim": any(name in str(args.optim).lower() for name in _IN_BACKWARD),
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise ValueError(f"TrainingArguments {name}={getattr(args, name)!r} does not go with a mark: {_WHY[name]}")


_WHY = {
    "torch_compile": "its taps are read by hooks, which the compiled model leaves out; compile the network inside "
    "of it, self.network = torch.compile(network), or nothing",
    "load_best_model_at_end": "the mark is in the weights of the last step",
    "optim": "this optimiser steps while gradients come, so that the mark's cannot be added; take another",
}


def _precision(args: transformers.TrainingArguments, device: torch.device) -> AbstractContextManager[object]:
    if args.bf16 or args.fp16:
        return torch.autocast(device.type, dtype=torch.bfloat16 if args.bf16 else torch.float16)
    return nullcontext()


@contextmanager
def _own_forward(model: nn.Module) -> Iterator[None]:
    """Inside the block the model computes as its class says.

    accelerate puts its autocast around the Trainer's model, also where verification will read it in full precision.
    """
    held = vars(model)
    patched, own = held.get("forward"), held.get("_original_forward")
    if patched is None or own is None:
        yield
        return
    held["forward"] = own
    try:
        yield
    finally:
        held["forward"] = patched
