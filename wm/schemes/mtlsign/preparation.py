"""What is checked and described before a mark is made of a model."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from wm.alignment import probing_for
from wm.architectures import Architecture, OwnArchitecture
from wm.data import Examples
from wm.errors import WatermarkError
from wm.evidence import check_taps
from wm.info import Info, decode_info, encode_info
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.shadows import TuningLoss
from wm.tap_shapes import taps_of
from wm.taps import taps_for
from wm.triggers import InputSpec, Normalisation, Spec

NAME = "mtlsign"


def described(
    model: nn.Module,
    taps: Sequence[str] | None,
    input_spec: Spec | tuple[int, int, int],
    architecture: Architecture,
    settings: EmbedSettings,
    *,
    has_negatives: bool,
) -> Info:
    """Describe how a head of these settings connects to the model, within what every reader of an info accepts.

    Raises:
        WatermarkError: as of `Mark`.
    """
    if isinstance(input_spec, tuple):
        channels, height, width = input_spec
        input_spec = InputSpec(channels, height, width, Normalisation(("0",) * channels, ("1",) * channels))
    modules = tuple(taps or settings.taps or taps_for(architecture, input_spec))
    if len(set(modules)) < len(modules):
        raise WatermarkError("unknown_architecture", f"taps are distinct modules, each named once: {modules}")
    found = tuple(taps_of(model, modules, input_spec))
    centred = not has_negatives if settings.centred is None else settings.centred
    info = Info(
        scheme=NAME,
        architecture=architecture,
        taps=found,
        pooling=settings.pooling,
        hidden=settings.hidden,
        triggers=settings.triggers,
        gamma=settings.gamma,
        input=input_spec,
        reference=probing_for(found, pooling=settings.pooling, centred=centred),
    )
    decode_info(encode_info(replace(info, model_sha256="0" * 64)), builder=lambda: model)
    if not isinstance(architecture, OwnArchitecture):
        check_taps(info)
    return info


def check_tuning(settings: EmbedSettings, tuning: Examples | TuningLoss | None, negatives: Sequence[nn.Module]) -> None:
    """Check that copies can be tuned, where the settings ask for any; raises ValueError."""
    has_shadows = settings.tuning_regularizer != "none" and settings.shadows > 0
    if tuning is None and (has_shadows or (negatives and settings.siblings)):
        raise ValueError(
            "nothing to tune copies of the model with: give tuning=, examples of its task or a function that returns a "
            "network's loss; or leave them out with tuning_regularizer='none' and siblings=0 in the settings"
        )


def check_precision(model: nn.Module) -> None:
    """Check that the weights are float32, as they are verified, and finite.

    Raises:
        WatermarkError: `mismatch` for weights of another type, `malformed` for one that is not finite.
    """
    for name, value in model.named_parameters():
        if value.dtype != torch.float32:
            raise WatermarkError(
                "mismatch",
                f"{name!r} is {value.dtype}: a mark is embedded into float32 weights and verified in them; "
                "convert the model with model.float(), and compute in less with torch.autocast",
            )
        if not bool(torch.isfinite(value).all()):
            raise WatermarkError("malformed", f"{name!r} holds a value that is not finite: the training has diverged")


def memory_format(model: nn.Module) -> torch.memory_format:
    """The format of the model's own convolutions, so that their inputs are not turned round in every step."""
    kernels = [value for value in model.parameters() if value.ndim == 4 and not value.is_contiguous()]
    turned = any(value.is_contiguous(memory_format=torch.channels_last) for value in kernels)
    return torch.channels_last if turned else torch.contiguous_format
