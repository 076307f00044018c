"""A mark that is being embedded: what stage 2 adds to the loss of a model's own task, for anybody's training loop.

    minimise  s·(CE_D_WM + λ2·R_DA + λ3·CE_negatives) + λ1·||W - W0||²  [+ the loss of the primary task]

where the cross-entropies are means over the triggers and s is 1, or N in the paper's form. W0 is the model as it was
when the mark was made. The taps are read in evaluation mode, whatever mode the model is in: triggers never touch the
statistics of a batch normalisation, dropout is off, and the branch trains on exactly what verification reads. R_DA is
the module `tuning_regularizer`'s, the negative controls are `negatives`'. At the end the head is trained alone, on
features that no longer change.

Source: Li et al. 2022, equations 7 to 10. The primary term is ours: without it task accuracy falls (SCHEMES 1.1-C).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.architectures import Architecture, OwnArchitecture
from wm.backbone import (
    backbone_names,
    device_of,
    differentiable,
    evaluating,
    features,
    features_in_evaluation,
    full_precision,
)
from wm.branch import agreements, logit_margins
from wm.data import Examples
from wm.head import initial_head
from wm.progress import Progress, ProgressCallback, silent
from wm.randomness import generator
from wm.schemes.mtlsign.branch_loss import BranchLoss
from wm.schemes.mtlsign.mark_files import write_mark
from wm.schemes.mtlsign.negatives import make_negatives, matched_by
from wm.schemes.mtlsign.preparation import check_precision, check_tuning, described, memory_format
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.shadows import Shadowing, TuningLoss
from wm.schemes.mtlsign.tuning_regularizer import TuningRegularizer
from wm.training import cosine
from wm.triggers import Spec, make_triggers
from wm.verification import reproducible


class Mark:
    """Head, triggers and W0 of one watermark, for a training loop of the caller's own.

    ::

        mark = wm.Mark(model, key, taps=("layer2", "layer3"), input_spec=(3, 32, 32), tuning=examples)
        optimizer = torch.optim.Adam([*model.parameters(), *mark.parameters()], lr=1e-4)
        for images, labels in loader:
            loss = criterion(model(images), labels) + mark.loss(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        mark.finish(model)
        mark.save(directory, model)

    Any `nn.Module` will do whose tapped modules answer with channels, height and width. What comes of it depends on
    whether a stranger can rebuild the network:

    * With an `architecture` of the catalogue, what `save` writes is what `wmreg embed` writes: it can be published and
      claimed, since every node rebuilds the network by that name.
    * Without one the network is the caller's own. He measures suspects himself, `wm.verify(..., builder=...)`, with
      alignment, permutations and fresh controls. A publication of it can be made and shows later that the head is as
      old as it is; but nodes run no stranger's code: they find a claim on it UNVERIFIABLE, `unknown_architecture`.

    Make the mark when the primary training is done, on the model's final device, and train on gently: this is stage 2
    of the paper, and what was measured. Made of an untrained model it does not take: the head is centred by the
    features of W0, which the primary training then leaves far behind, and R_func holds the model back.

    Attributes:
        head: c_WM, in float32; it belongs into the optimiser.
        info: how the head connects.
        settings: the recipe; of its fields `steps` is how many calls of `loss` there will be, over which the shadows of
            R_DA are spread, and the rates of backbone and head are the caller's optimiser's own business.
        curves: by name, [step, share of the triggers] whenever a shadow was met and at the end.
    """

    def __init__(  # noqa: PLR0913 (the public face; all but the model and its key by name)
        self,
        model: nn.Module,
        watermark_key: bytes,
        *,
        taps: Sequence[str] | None = None,
        input_spec: Spec | tuple[int, int, int],
        architecture: Architecture | None = None,
        settings: EmbedSettings | None = None,
        tuning: Examples | TuningLoss | None = None,
        negatives: Sequence[nn.Module] = (),
        seed: int = 0,
    ) -> None:
        """Take the model as it is for W0 and make an untrained head for it.

        Args:
            model: with parameters in float32; left untouched. Its modules are read by hooks: give the module itself,
                not what DataParallel or torch.compile made of it.
            watermark_key: 32 bytes.
            taps: module paths, as `named_modules` gives them; by default the settings', or the architecture's.
            input_spec: what the model takes; channels, height and width alone stand for pixels in [0, 1] that are not
                normalised. Triggers are normalised as the model's own inputs are.
            architecture: what the model was built from, where it is of the catalogue; `OwnArchitecture(builder)` for an
                own one of which fresh negative controls are wanted.
            settings: the recipe, by default the measured one.
            tuning: what R_DA tunes copies of the model with, as a thief would: examples of a classification, or for any
                other task a function that returns a network's loss on the next batch.
            negatives: networks that must answer by chance, such as the public base that the model was fine-tuned from;
                on the model's device, left untouched.
            seed: decides the head's first weights and every order.

        Raises:
            WatermarkError: `unknown_architecture` for a tap that does not exist, never runs or answers with something
                else; `mismatch` for an input that the model does not take, parameters that are not float32, or a model
                that is not of the architecture; `malformed` or `too_large` for what no info may hold.
            ValueError: the key's length, or nothing to tune with.
        """
        self.settings = settings = settings or EmbedSettings()
        check_tuning(settings, tuning, negatives)
        check_precision(model)
        self.info = info = described(model, taps, input_spec, architecture or OwnArchitecture(), settings)
        names = set(backbone_names(model, info.modules, info.input.outline()))
        triggers = make_triggers(watermark_key, info.input, count=info.triggers)
        shadowing = Shadowing(info, triggers, tuning, settings, seed)
        self._device = device_of(model)
        self._images = triggers.images.to(self._device, memory_format=memory_format(model))
        self._labels = triggers.labels.to(self._device)
        self._negatives = make_negatives(negatives, shadowing)
        self._anchor = {name: value.detach().clone() for name, value in model.named_parameters() if name in names}
        first = self._read(model)
        self.head = initial_head(first, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed)
        self.curves: dict[str, list[list[float]]] = {"marked": [], "unseen_shadow": []}
        if self._negatives:
            self.curves["negative"] = []
        self._regularizer = TuningRegularizer(shadowing)
        self._branch_loss = BranchLoss(self.head, self._labels, self._regularizer, self._negatives, settings, seed=seed)
        self._chosen = _endless_choices(settings.triggers, settings.trigger_batch, seed=seed)
        self._scale = float(settings.triggers) if settings.reduction == "sum" else 1.0
        self._steps = 0  # calls of `loss`

    @property
    def shadows_met(self) -> int:
        """Number of shadows that R_DA has looked at."""
        return self._regularizer.met

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the head's parameters, for the optimiser."""
        return self.head.parameters()

    def loss(self, model: nn.Module) -> Tensor:
        """Return what stage 2 adds to the loss of the primary task; a scalar with a graph, in float32.

        Now and then, as the settings say, a shadow of the model is made first, which takes as long as some steps.

        Args:
            model: the one that the mark was made for, as it is now, in any mode, which is restored. The taps are read
                in the caller's autocast, if there is one.

        Raises:
            ValueError: the model is on another device, or lacks a parameter that the taps depend on.
        """
        settings = self.settings
        anchored = self._anchored(model)
        if self._regularizer.is_due(self._steps):
            self._meet_shadow(model)
        chosen = next(self._chosen)
        labels = self._labels[chosen].long()
        # The first of all terms, so that its gradient is added last: one seed goes on giving the same bits.
        with full_precision(self._device):
            weight = self._scale * settings.lambda2
            fresh = self._regularizer.fresh_term(model, self.head, chosen, labels, weight=weight)
        with evaluating(model), differentiable(model):
            read = features(model, self.info.modules, self._images[chosen], pooling=self.info.pooling)
        with full_precision(self._device):
            loss = self._scale * self._branch_loss.terms(read, chosen).weighted(settings)
            if settings.lambda1:
                loss = loss + settings.lambda1 * _distance(anchored)
        self._steps += 1
        return loss if fresh is None else fresh + loss

    def finish(self, model: nn.Module, *, progress: ProgressCallback = silent) -> None:
        """Train the head alone, with Adam, on features that no longer change; call it after the last step.

        Args:
            model: as it will be released.
            progress: called after every step.

        Raises:
            ValueError: the model is on another device, or lacks a parameter that the taps depend on.
        """
        self._anchored(model)
        steps, lr = self.settings.head_steps, self.settings.head_lr
        optimizer = torch.optim.Adam(self.head.parameters(), lr=lr, fused=True)
        read = self._read(model)
        with full_precision(self._device):
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = lr * cosine(step, steps)
                chosen = next(self._chosen)
                optimizer.zero_grad()
                torch.autograd.backward(self._branch_loss.terms(read[chosen], chosen).weighted(self.settings))
                optimizer.step()
                progress(Progress("finishing the head", step + 1, steps))
        self._note(read)

    def matched(self, model: nn.Module) -> int:
        """Count the triggers that a model answers as the key demands, read as verification reads it.

        Args:
            model: any whose taps have these channels, on any device, in any mode, which is restored.

        Returns:
            An integer in [0, info.triggers].
        """
        with reproducible():
            return self._matched(self._read(model))

    @torch.no_grad()
    def weight_change(self, model: nn.Module) -> float:
        """Return ||W - W0|| over the tapped prefix, relative to ||W0||."""
        anchored = self._anchored(model)
        change = sum(float((now - then).square().sum()) for now, then in anchored)
        size = sum(float(then.square().sum()) for _, then in anchored)
        return math.sqrt(change / size)

    def negatives_matched(self) -> dict[str, int]:
        """Count for each negative control the triggers that it answers as the key demands."""
        return matched_by(self.head, self._negatives, self._labels)

    def save(self, directory: Path | str, model: nn.Module, *, base: Path | None = None) -> None:
        """Write `model.safetensors` and `evidence.safetensors`, as a bundle of `wmreg embed` has them.

        Beside a `watermark_key.json` of the same key (`wmreg keygen --watermark-key`) that is a bundle, to be published
        before the model is released. The evidence is readable by its owner only, and secret until a claim.

        Args:
            directory: made if there is none; files of these names are replaced.
            model: as it will be released, in any mode.
            base: the public weights that the model was fine-tuned from, safetensors: declared, and copied beside.

        Raises:
            WatermarkError: `malformed` for weights that are not finite; `mismatch` for a model that no node could read,
                such as one in half precision.
            OSError: the directory cannot be written.
        """
        write_mark(Path(directory), model, self.head, self.info, base=base)

    def _meet_shadow(self, model: nn.Module) -> None:
        with full_precision(self._device):
            read = self._regularizer.meet(model)
        self.curves["unseen_shadow"].append([self._steps, self._share(read)])
        self._note(self._read(model))

    def _note(self, read: Tensor) -> None:
        """Put the marked share, and the greatest of the negative controls, into the curves."""
        self.curves["marked"].append([self._steps, self._share(read)])
        if self._negatives:
            self.curves["negative"].append([self._steps, max(self._share(it.read) for it in self._negatives)])

    def _anchored(self, model: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        """Pair each parameter of the tapped prefix with its value in W0."""
        if device_of(model) != self._device:
            raise ValueError(
                f"the model is on {device_of(model)}, its mark on {self._device}: make the mark where it is"
            )
        held = dict(model.named_parameters())
        if missing := sorted(set(self._anchor) - set(held)):
            raise ValueError(f"the mark was made for another model: this one has no parameter {missing[0]!r}")
        return [(value, self._anchor[name]) for name, value in held.items() if name in self._anchor]

    def _read(self, model: nn.Module) -> Tensor:
        return features_in_evaluation(model, self.info.modules, self._images, pooling=self.info.pooling)

    def _share(self, read: Tensor) -> float:
        return self._matched(read) / self.info.triggers

    @torch.no_grad()
    def _matched(self, read: Tensor) -> int:
        return int(agreements(logit_margins(self.head, read.to(self._device)), self._labels).sum())


def _distance(anchored: Sequence[tuple[nn.Parameter, Tensor]]) -> Tensor:
    return torch.stack([(now - then).square().sum() for now, then in anchored]).sum()


def _endless_choices(total: int, batch: int, *, seed: int) -> Iterator[Tensor]:
    order = generator(seed, "trigger order")
    while True:
        yield from torch.split(torch.randperm(total, generator=order), batch)
