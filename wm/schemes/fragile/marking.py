"""Making the triggers of a model that stays as it is.

generator -> [noise measured -> triggers climb and are polished into the band -> what is left behind begun anew] ...

Noise is measured on the triggers themselves, since it grows with the size of what a network computes, and again after
they have been moved; it is over when all margins lie above the least and as many as possible below the most.

Source: Yin et al. 2022; the band is SCHEMES 1.3's remedy against nodes that disagree.
"""

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.backbone import evaluating
from wm.data import Dataset
from wm.errors import WatermarkError
from wm.pixels import from_pixels
from wm.progress import Progress, ProgressCallback, silent
from wm.scenes import Scenes
from wm.schemes.fragile.drawing import draw_labels
from wm.schemes.fragile.generating import Generating
from wm.schemes.fragile.numerics import Margins, measure
from wm.schemes.fragile.payload import FragilePayload, check_size, decimal
from wm.schemes.fragile.polishing import Band, polish
from wm.schemes.fragile.settings import Settings
from wm.schemes.scheme import ClassTriggers, Marked, matches
from wm.training import score
from wm.triggers import InputSpec

_HEADROOM = 1.1  # of the margin aimed at, since noise is a little greater when it is measured again
_WIDENINGS = (2.0, 8.0, 32.0)  # of the band's upper end, for triggers that do not get into it


@dataclass(frozen=True, slots=True)
class _Polished:
    """Triggers whose margins are known, and how it went: of each attempt how many were in the band."""

    triggers: ClassTriggers
    measured: Margins
    in_band: list[int]


def embed(
    model: nn.Module,
    data: Dataset,
    watermark_key: bytes,
    *,
    settings: Settings = Settings(),  # noqa: B008 (frozen)
    seed: int,
    progress: ProgressCallback = silent,
) -> Marked:
    """Make triggers that tell whether a model was touched.

    Args:
        model: trained on the data, in float32; left untouched. The work is done on its device.
        data: the primary task, of labelled pictures.
        watermark_key: 32 bytes; it draws labels and latents.
        settings: the recipe.
        seed: decides, with the key, the generator's first weights.
        progress: called after every iteration and attempt.

    Returns:
        A copy of the model with the same bits, the payload, and a report.

    Raises:
        WatermarkError: `mismatch` for data or a model that the scheme is not for, or a model that no picture brings to
            its labels; `too_large` where the triggers do not fit an evidence file.
        ValueError: the key's length.
    """
    started = time.monotonic()
    spec = _input_of(data)
    check_size(spec, triggers=settings.triggers)
    marked = copy.deepcopy(model).eval()
    frozen = copy.deepcopy(marked).requires_grad_(requires_grad=False)
    _check_model(frozen, data, spec)
    labels = draw_labels(watermark_key, count=settings.triggers, classes=data.classes)
    generating = Generating(frozen, spec, labels, watermark_key, settings, seed=seed)
    history = generating.train(progress)
    polished = _polished(frozen, generating, spec, settings, progress)
    payload = _payload(polished, data.classes, settings)
    matched = int(matches(marked, polished.triggers, spec).sum())
    before, after = (score(it, data.validation) for it in (model, marked))
    report = {
        "seconds": round(time.monotonic() - started, 1),
        "validation_accuracy": {"clean": before, "marked": after},
        "matched": {"clean": int(matches(model, polished.triggers, spec).sum()), "marked": matched},
        "triggers": settings.triggers,
        "noise": polished.measured.noise,
        "margins": {"least": payload.margin_least, "most": payload.margin_most},
        "in_band": polished.in_band,
        "history": history,
    }
    return Marked(marked, payload, report)


def _polished(
    model: nn.Module, generating: Generating, spec: InputSpec, settings: Settings, progress: ProgressCallback
) -> _Polished:
    """Polish until all margins lie in the band that their own noise sets, as far as the attempts go.

    What is below the band then is moved behind it: such a trigger is less sensitive, but no noise flips it.

    Raises:
        WatermarkError: `mismatch`, some do not even reach the least.
    """
    triggers = generating.triggers(attempt=0)
    in_band: list[int] = []
    was_outside = torch.zeros(len(triggers), dtype=torch.bool)
    measured, band = _measured(model, triggers, spec, settings)
    for attempt in range(1, settings.attempts + 1):
        aimed = Band(least=_HEADROOM * band.least, most=band.most)
        triggers = polish(model, triggers, spec, band=aimed, rounds=settings.polishing_rounds, batch=settings.batch)
        measured, band = _measured(model, triggers, spec, settings)
        held = band.holds(measured.margins)
        in_band.append(int(held.sum()))
        progress(Progress("polishing", attempt, settings.attempts, f"{in_band[-1]} of {len(held)} in the band"))
        if bool(held.all()):
            break
        if attempt < settings.attempts:
            # What is a little outside for the first time is polished further; the rest is stuck.
            stuck = ~held & (was_outside | (measured.margins < 0) | (measured.margins > 2 * band.most))
            was_outside = ~held & ~stuck
            fresh = generating.triggers(attempt=attempt).pixels
            pixels = torch.where(stuck[:, None, None, None], fresh, triggers.pixels)
            triggers = ClassTriggers(pixels, triggers.labels)
    for widening in _WIDENINGS:
        if bool((measured.margins >= band.least).all()):
            break
        wide = Band(least=_HEADROOM * band.least, most=widening * band.most)
        triggers = polish(model, triggers, spec, band=wide, rounds=settings.polishing_rounds, batch=settings.batch)
        measured, band = _measured(model, triggers, spec, settings)
    _check_least(measured.margins, band.least)
    return _Polished(triggers, measured, in_band)


def _measured(model: nn.Module, triggers: ClassTriggers, spec: InputSpec, settings: Settings) -> tuple[Margins, Band]:
    images = from_pixels(triggers.pixels, spec)
    measured = measure(model, images, triggers.labels, tf32=settings.tolerates_tf32)
    least = measured.least(settings.margin_least)
    return measured, Band(least=least, most=least * settings.margin_most / settings.margin_least)


def _payload(polished: _Polished, classes: int, settings: Settings) -> FragilePayload:
    margins = polished.measured.margins
    return FragilePayload(
        pixels=polished.triggers.pixels,
        classes=classes,
        tolerates_tf32=settings.tolerates_tf32,
        margin_least=decimal(float(margins.min())),
        margin_most=decimal(float(margins.max())),
    )


def _input_of(data: Dataset) -> InputSpec:
    if not isinstance(data.input, InputSpec) or isinstance(data.train, Scenes):
        raise WatermarkError("mismatch", "the fragile scheme is for networks that classify pictures; data is of others")
    return data.input


def _check_model(model: nn.Module, data: Dataset, spec: InputSpec) -> None:
    if any(it.dtype != torch.float32 for it in model.parameters()):
        raise WatermarkError("mismatch", "the model's parameters must be float32; convert it with model.float()")
    place = next(model.parameters()).device
    with torch.no_grad(), evaluating(model):
        answer = model(torch.zeros(1, spec.channels, spec.height, spec.width, device=place))
    if not isinstance(answer, Tensor) or answer.shape != (1, data.classes):
        raise WatermarkError("mismatch", f"the model does not answer a picture with {data.classes} logits")


def _check_least(margins: Tensor, least: float) -> None:
    short = int((margins < least).sum())
    if short:
        raise WatermarkError(
            "mismatch",
            f"{short} of {len(margins)} triggers did not reach a margin of {least:.2e}; "
            "give more iterations, polishing rounds or attempts",
        )
