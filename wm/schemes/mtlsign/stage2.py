"""Stage 2 of MTLSign: tune a trained model so that its taps carry the key's labels.

    minimise  s·(CE_D_WM + λ2·R_DA + λ3·CE_negatives) + λ1·||W - W0||² + w·CE_primary

where the cross-entropies are means over the triggers and s is 1, or N in the paper's form. Batch normalisation stays
frozen throughout, so that the triggers never touch its statistics and the branch trains on exactly what verification
reads. R_DA is the module `tuning_regularizer`'s, the negative controls are `negatives`'. A last phase trains only the
head, on features that no longer change.

Source: Li et al. 2022, equations 7 to 10. The primary term is ours: without it task accuracy falls (SCHEMES 1.1-C).
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.architectures import Architecture, default_taps, skeleton
from wm.backbone import backbone_names, device_of, features, features_in_evaluation, on_device, taps_of
from wm.branch import agreements, logit_margins
from wm.data import Dataset, fraction_of
from wm.head import Head, initial_head
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.randomness import generator, seed_of
from wm.schemes.mtlsign.negatives import Negative, make_negatives, matched_by, negative_loss
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.shadows import Shadowing
from wm.schemes.mtlsign.tuning_regularizer import TuningRegularizer
from wm.training import accuracy, cosine, endless_batches, primary_loss
from wm.triggers import make_triggers

NAME = "mtlsign"


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
        WatermarkError: `unknown_architecture` for a tap that does not exist.
        ValueError: the key's length.
    """
    started = time.monotonic()
    info = _info(data, architecture, settings)
    triggers = make_triggers(watermark_key, info.input, count=info.triggers)
    sample = fraction_of(data.train, settings.tuning_fraction, seed=seed_of(seed, "shadow sample"))
    shadowing = Shadowing(info, triggers, sample, settings, seed)
    work = _Work(model, data, shadowing, make_negatives(negatives, shadowing))
    work.run(progress)
    before, after = (accuracy(it, data.validation.images, data.validation.labels) for it in (model, work.model))
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "steps": settings.steps,
        "validation_accuracy": {"clean": before, "marked": after},
        "weight_change": work.weight_change(),
        "negatives": work.negatives_matched(),
        "curves": work.curves,
    }
    return Marked(work.model.eval(), work.head.eval(), info, report)


def _info(data: Dataset, architecture: Architecture, settings: EmbedSettings) -> Info:
    modules = settings.taps or default_taps(architecture)
    taps = taps_of(skeleton(architecture), modules, data.input)
    return Info(
        scheme=NAME,
        architecture=architecture,
        taps=tuple(taps),
        pooling=settings.pooling,
        hidden=settings.hidden,
        triggers=settings.triggers,
        gamma=settings.gamma,
        input=data.input,
    )


class _Work:
    """One embedding under way."""

    def __init__(self, model: nn.Module, data: Dataset, shadowing: Shadowing, negatives: Sequence[Negative]) -> None:
        info, triggers, settings, seed = shadowing.info, shadowing.triggers, shadowing.settings, shadowing.seed
        self.model = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
        self._device = device_of(self.model)
        self._info, self._settings = info, settings
        self._images = on_device(triggers.images, self._device)
        self._labels = triggers.labels.to(self._device)
        first = self._read(self.model)
        self.head = initial_head(first, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed)
        self.curves: dict[str, list[list[float]]] = {"marked": [], "unseen_shadow": []}
        if negatives:
            self.curves["negative"] = []
        self._anchored = _anchored(self.model, info)
        self._primary = endless_batches(data.train, images=settings.primary_batch, seed=seed)
        self._chosen = _endless_choices(settings.triggers, settings.trigger_batch, seed=seed)
        self._noise = generator(seed, "feature noise")
        self._regularizer = TuningRegularizer(shadowing)
        self._negatives = negatives
        self._scale = float(settings.triggers) if settings.reduction == "sum" else 1.0

    def run(self, progress: ProgressCallback) -> None:
        """Do all joint steps, meeting a new shadow now and then, and train the head to the end."""
        settings = self._settings
        optimizer = torch.optim.Adam(
            [
                {"params": list(self.model.parameters()), "lr": settings.backbone_lr},
                {"params": list(self.head.parameters()), "lr": settings.head_lr},
            ],
            fused=True,
        )
        for step in range(settings.steps):
            if self._regularizer.is_due(step):
                self._meet_shadow(step)
            for group, lr in zip(optimizer.param_groups, (settings.backbone_lr, settings.head_lr), strict=True):
                group["lr"] = lr * cosine(step, settings.steps)
            self._joint_step(optimizer)
            progress(Progress("embedding", step + 1, settings.steps, self._detail()))
        self._finish_head(progress)

    @torch.no_grad()
    def weight_change(self) -> float:
        """Return ||W - W0|| over the tapped prefix, relative to ||W0||."""
        change = sum(float((now - then).square().sum()) for now, then in self._anchored)
        size = sum(float(then.square().sum()) for _, then in self._anchored)
        return math.sqrt(change / size)

    def negatives_matched(self) -> dict[str, int]:
        """Count for each negative control the triggers that it answers as the key demands."""
        return matched_by(self.head, self._negatives, self._labels)

    def _meet_shadow(self, step: int) -> None:
        self.curves["unseen_shadow"].append([step, self._share(self._regularizer.meet(self.model))])
        self._note(step, self._read(self.model))

    def _note(self, step: int, read: Tensor) -> None:
        """Put the marked share, and the greatest of the negative controls, into the curves."""
        self.curves["marked"].append([step, self._share(read)])
        if self._negatives:
            self.curves["negative"].append([step, max(self._share(it.read) for it in self._negatives)])

    def _joint_step(self, optimizer: torch.optim.Optimizer) -> None:
        settings = self._settings
        chosen = next(self._chosen)
        optimizer.zero_grad()
        read = features(self.model, self._info.modules, self._images[chosen], pooling=self._info.pooling)
        loss = self._scale * self._head_loss(read, chosen)
        if settings.lambda1:
            loss = loss + settings.lambda1 * self._distance()
        torch.autograd.backward(loss)
        labels = self._labels[chosen].long()
        weight = self._scale * settings.lambda2
        self._regularizer.add_fresh_gradient(self.model, self.head, chosen, labels, weight=weight)
        if settings.primary_weight:
            torch.autograd.backward(settings.primary_weight * primary_loss(self.model, next(self._primary)))
        optimizer.step()

    def _head_loss(self, read: Tensor, chosen: Tensor) -> Tensor:
        """Cross-entropy on the present model's features, and weighted on a shadow's and on the negative controls'."""
        settings, labels = self._settings, self._labels[chosen].long()
        loss = F.cross_entropy(self.head(self._noisy(read)), labels)
        tuned = self._regularizer.tuned(read, chosen)
        if tuned is not None:
            loss = loss + settings.lambda2 * F.cross_entropy(self.head(self._noisy(tuned)), labels)
        if self._negatives and settings.negative_weight:
            loss = loss + settings.negative_weight * negative_loss(
                self.head, self._negatives, chosen, noisy=self._noisy
            )
        return loss

    def _finish_head(self, progress: ProgressCallback) -> None:
        steps, lr = self._settings.head_steps, self._settings.head_lr
        optimizer = torch.optim.Adam(self.head.parameters(), lr=lr, fused=True)
        read = self._read(self.model)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * cosine(step, steps)
            chosen = next(self._chosen)
            optimizer.zero_grad()
            torch.autograd.backward(self._head_loss(read[chosen], chosen))
            optimizer.step()
            progress(Progress("finishing the head", step + 1, steps))
        self._note(self._settings.steps, read)

    def _distance(self) -> Tensor:
        return torch.stack([(now - then).square().sum() for now, then in self._anchored]).sum()

    def _noisy(self, read: Tensor) -> Tensor:
        if not self._settings.feature_noise:
            return read
        noise = torch.randn(read.shape, generator=self._noise).to(read.device)
        return read + self._settings.feature_noise * self.head.std * noise

    def _read(self, model: nn.Module) -> Tensor:
        return features_in_evaluation(model, self._info.modules, self._images, pooling=self._info.pooling)

    @torch.no_grad()
    def _share(self, read: Tensor) -> float:
        return float(agreements(logit_margins(self.head, read), self._labels).float().mean())

    def _detail(self) -> str:
        return f"{self._regularizer.met} shadows"


def _anchored(model: nn.Module, info: Info) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair each parameter of the tapped prefix with its value in W0."""
    prefix = set(backbone_names(skeleton(info.architecture), info.modules, info.input.outline()))
    return [(value, value.detach().clone()) for name, value in model.named_parameters() if name in prefix]


def _endless_choices(total: int, batch: int, *, seed: int) -> Iterator[Tensor]:
    order = generator(seed, "trigger order")
    while True:
        yield from torch.split(torch.randperm(total, generator=order), batch)
