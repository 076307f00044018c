"""Stage 2 of MTLSign: tune a trained model so that its taps carry the key's labels.

    minimise  Σ_D_WM CE + w·CE_primary + λ1·||W - W0||² + λ2·R_DA

Batch normalisation stays frozen throughout, so that the triggers never touch its statistics and the branch trains on
exactly what verification reads. R_DA acts on the head alone: it must answer rightly on the features of tuned copies
(shadows) too. A last phase trains only the head, on features that no longer change.

Source: Li et al. 2022, equations 7 to 10. The primary term is ours: without it task accuracy falls (SCHEMES 1.1-C).
Back-propagating R_DA through a straight-through estimate diverges (SCHEMES 0, item 6), so it is not offered.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.shadows import Shadowing, shadow_features
from wm.training import accuracy, cosine, endless_batches, primary_loss
from wm.triggers import Triggers, make_triggers

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
    work = _Work(model, data, info, triggers, settings, seed)
    work.run(progress)
    before, after = (accuracy(it, data.validation.images, data.validation.labels) for it in (model, work.model))
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "steps": settings.steps,
        "validation_accuracy": {"clean": before, "marked": after},
        "weight_change": work.weight_change(),
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


@dataclass(slots=True)
class _Curves:
    points: dict[str, list[list[float]]] = field(default_factory=dict)

    def add(self, name: str, step: int, value: float) -> None:
        self.points.setdefault(name, []).append([step, round(value, 4)])


class _Work:
    """One embedding under way."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        info: Info,
        triggers: Triggers,
        settings: EmbedSettings,
        seed: int,
    ) -> None:
        self.model = copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
        self._device = device_of(self.model)
        self._info, self._settings = info, settings
        self._images = on_device(triggers.images, self._device)
        self._labels = triggers.labels.to(self._device)
        first = self._read(self.model)
        self.head = initial_head(first, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed)
        self.curves: dict[str, list[list[float]]] = {"marked": [], "unseen_shadow": []}
        self._anchored = _anchored(self.model, info)
        self._primary = endless_batches(data.train, images=settings.primary_batch, seed=seed)
        self._chosen = _endless_choices(settings.triggers, settings.trigger_batch, seed=seed)
        self._noise = generator(seed, "feature noise")
        self._draws = generator(seed, "shadow drawn")
        sample = fraction_of(data.train, settings.tuning_fraction, seed=seed_of(seed, "shadow sample"))
        self._shadowing = Shadowing(info, triggers, sample, settings, seed)
        self._shadows: list[Tensor] = []

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
            if self._is_shadow_due(step):
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

    def _is_shadow_due(self, step: int) -> bool:
        settings = self._settings
        if settings.tuning_regularizer == "none" or not settings.shadows:
            return False
        # The first fifth is left to the mark itself: R_DA needs something to protect.
        start = settings.steps // 5
        every = max(1, (settings.steps - start) // settings.shadows)
        return step >= start and (step - start) % every == 0 and len(self._shadows) < settings.shadows

    def _meet_shadow(self, step: int) -> None:
        read = shadow_features(self.model, self._shadowing, number=len(self._shadows))
        self.curves["unseen_shadow"].append([step, self._share(read)])
        self.curves["marked"].append([step, self._share(self._read(self.model))])
        self._shadows.append(read)

    def _joint_step(self, optimizer: torch.optim.Optimizer) -> None:
        settings = self._settings
        chosen = next(self._chosen)
        optimizer.zero_grad()
        read = features(self.model, self._info.modules, self._images[chosen], pooling=self._info.pooling)
        loss = self._head_loss(read, chosen)
        if settings.lambda1:
            loss = loss + settings.lambda1 * self._distance()
        torch.autograd.backward(loss)
        if settings.primary_weight:
            torch.autograd.backward(settings.primary_weight * primary_loss(self.model, next(self._primary)))
        optimizer.step()

    def _head_loss(self, read: Tensor, chosen: Tensor) -> Tensor:
        """Cross-entropy on the present model's features and, weighted, on those of one shadow drawn at random.

        The paper sums over the shadows; drawing one has the same expectation at a fraction of the cost.
        """
        labels = self._labels[chosen].long()
        loss = F.cross_entropy(self.head(self._noisy(read)), labels)
        if not self._shadows:
            return loss
        drawn = int(torch.randint(len(self._shadows), (), generator=self._draws))
        tuned = F.cross_entropy(self.head(self._noisy(self._shadows[drawn][chosen])), labels)
        return loss + self._settings.lambda2 * tuned

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
        self.curves["marked"].append([self._settings.steps, self._share(read)])

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
        return f"{len(self._shadows)} shadows"


def _anchored(model: nn.Module, info: Info) -> list[tuple[nn.Parameter, Tensor]]:
    """Pair each parameter of the tapped prefix with its value in W0."""
    prefix = set(backbone_names(skeleton(info.architecture), info.modules, info.input.outline()))
    return [(value, value.detach().clone()) for name, value in model.named_parameters() if name in prefix]


def _endless_choices(total: int, batch: int, *, seed: int) -> Iterator[Tensor]:
    order = generator(seed, "trigger order")
    while True:
        yield from torch.split(torch.randperm(total, generator=order), batch)
