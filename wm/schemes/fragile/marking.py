"""Making the triggers of a model that stays as it is.

generator -> [noise measured -> triggers levelled, polished into the band -> what is left behind begun anew] ...

Noise is measured on the triggers themselves, since it grows with the size of what a network computes, and again after
they have been moved; it is over when all margins lie above the least and as many as possible below the most.

Source: Yin et al. 2022; the band is SCHEMES 1.3's remedy against nodes that disagree.
"""

import copy
import time
from dataclasses import dataclass
from functools import partial

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
from wm.schemes.fragile.levelling import TIES_MAX
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
    ties = 1 if settings.boundary == "pair" else min(data.classes - 1, TIES_MAX)
    polished = _polished(frozen, generating, spec, settings, ties=ties, progress=progress)
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
    model: nn.Module,
    generating: Generating,
    spec: InputSpec,
    settings: Settings,
    *,
    ties: int,
    progress: ProgressCallback,
) -> _Polished:
    """Polish until all margins lie in the band that their noise sets, as far as the attempts go.

    A few triggers have far more noise than the others, which is why the band is not set by the greatest: they are begun
    anew. What is good stays as it is, with the noise that it has.

    What does not get into the band is moved behind it at the end: such a trigger is less sensitive, but no noise flips
    it.

    Raises:
        WatermarkError: `mismatch`, some do not even reach the least.
    """
    polishing = partial(polish, model, spec=spec, ties=ties, rounds=settings.polishing_rounds, batch=settings.batch)
    measuring = partial(_measured, model, spec=spec, settings=settings)
    triggers = generating.triggers(attempt=0)
    is_open = torch.ones(len(triggers), dtype=torch.bool)
    in_band: list[int] = []
    measured = measuring(triggers)
    band = _band(measured, settings)
    for attempt in range(1, settings.attempts + 1):
        aimed = Band(least=_HEADROOM * band.least, most=band.most)
        triggers = _replaced(triggers, is_open, polishing(_those(triggers, is_open), band=aimed).pixels)
        measured = measured.replaced(is_open, measuring(_those(triggers, is_open)))
        reached = aimed.holds(measured.margins)
        if attempt == 1:  # the noise near the boundary; before, it was that of the generator's triggers
            band = _band(measured, settings)
        is_noisy = measured.leasts(settings.margin_least) > band.least
        is_open = ~band.holds(measured.margins) | is_noisy
        in_band.append(int((~is_open).sum()))
        progress(Progress("polishing", attempt, settings.attempts, f"{in_band[-1]} of {len(triggers)} in the band"))
        if not bool(is_open.any()):
            break
        if attempt < settings.attempts:
            stuck = is_open & (is_noisy | ~reached)
            triggers = _replaced(triggers, stuck, generating.triggers(attempt=attempt).pixels[stuck])
    for widening in _WIDENINGS:
        least = measured.least(settings.margin_least)
        short = measured.margins < least
        if not bool(short.any()):
            break
        wide = Band(least=_HEADROOM * least, most=widening * max(band.most, least))
        triggers = _replaced(triggers, short, polishing(_those(triggers, short), band=wide).pixels)
        measured = measured.replaced(short, measuring(_those(triggers, short)))
    _check_least(measured.margins, measured.least(settings.margin_least))
    return _Polished(triggers, measured, in_band)


def _those(triggers: ClassTriggers, chosen: Tensor) -> ClassTriggers:
    return ClassTriggers(triggers.pixels[chosen], triggers.labels[chosen])


def _replaced(triggers: ClassTriggers, chosen: Tensor, pixels: Tensor) -> ClassTriggers:
    all_pixels = triggers.pixels.clone()
    all_pixels[chosen] = pixels
    return ClassTriggers(all_pixels, triggers.labels)


def _measured(model: nn.Module, triggers: ClassTriggers, *, spec: InputSpec, settings: Settings) -> Margins:
    return measure(model, from_pixels(triggers.pixels, spec), triggers.labels, tf32=settings.tolerates_tf32)


def _band(measured: Margins, settings: Settings) -> Band:
    """Set the band by the noise of nearly all triggers."""
    least = measured.usual_least(settings.margin_least)
    return Band(least=least, most=least * settings.margin_most / settings.margin_least)


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
