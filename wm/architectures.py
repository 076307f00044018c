"""The catalogue of networks that a node can rebuild: torchvision's classifiers, detectors and segmenters, by name.

A network reaches a node as data: a builder's name and allow-listed arguments (here) and tensors (`wm.weights`). No
stranger's code is ever run, and pretrained weights are never downloaded. How large a network is becomes known before
any memory is taken for it: it is first outlined without storage.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torchvision.models
from torch import nn
from torch.overrides import TorchFunctionMode

from wm.errors import WatermarkError
from wm.randomness import seeded

CLASSES_MAX = 100_000
KEYPOINTS_MAX = 1_000
SIDE_MAX = 1_024  # pixels
PARAMETERS_MAX = 1 << 28  # 1 GiB in fp32; a control costs a node as much as the suspect does

# Argument -> type, least, most. Every argument of a builder that a stranger may choose.
_COMMON: dict[str, tuple[type, int, int]] = {"num_classes": (int, 2, CLASSES_MAX)}
_FLAG, _PIXELS = (bool, 0, 1), (int, 16, SIDE_MAX)
_FURTHER: dict[str, dict[str, tuple[type, int, int]]] = {
    "deeplabv3_mobilenet_v3_large": {"aux_loss": _FLAG},
    "deeplabv3_resnet101": {"aux_loss": _FLAG},
    "deeplabv3_resnet50": {"aux_loss": _FLAG},
    "fcn_resnet101": {"aux_loss": _FLAG},
    "fcn_resnet50": {"aux_loss": _FLAG},
    "googlenet": {"transform_input": _FLAG},
    "inception_v3": {"transform_input": _FLAG},
    "keypointrcnn_resnet50_fpn": {"num_keypoints": (int, 1, KEYPOINTS_MAX)},
    "vit_b_16": {"image_size": _PIXELS},
    "vit_b_32": {"image_size": _PIXELS},
}

# What a builder must be told so that it answers with one tensor and initialises itself without a warning.
_FIXED: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}

_RESIDUAL_PREFIXES = ("resnet", "resnext", "wide_resnet")
_RESIDUAL_TAPS = ("layer1", "layer2", "layer3")  # the paper's choice: the outputs of the first three stages


@dataclass(frozen=True, slots=True)
class Architecture:
    """A builder's name and arguments, checked against the catalogue when made.

    Raises:
        WatermarkError: `unknown_architecture`, naming the name or argument that the catalogue lacks.
    """

    name: str
    arguments: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in names():
            raise WatermarkError(
                "unknown_architecture",
                f"no architecture {self.name!r} in the catalogue; wm.architectures.names() lists it",
            )
        for argument, value in self.arguments.items():
            _check_argument(self.name, argument, value)


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the catalogue's names in alphabetical order."""
    return tuple(sorted([*classifiers(), *_detectors(), *_segmenters()]))


@lru_cache(maxsize=1)
def classifiers() -> tuple[str, ...]:
    """Return the names of the networks that give a picture one of several classes, in alphabetical order."""
    return _listed(torchvision.models)


@lru_cache(maxsize=1)
def _detectors() -> tuple[str, ...]:
    return _listed(torchvision.models.detection)


@lru_cache(maxsize=1)
def _segmenters() -> tuple[str, ...]:
    return _listed(torchvision.models.segmentation)


def default_taps(architecture: Architecture) -> tuple[str, ...]:
    """Return the module paths at which a watermark branch reads this architecture.

    Raises:
        WatermarkError: `unknown_architecture` where the catalogue has no default and the owner must choose.
    """
    name = architecture.name
    if name in classifiers() and name.startswith(_RESIDUAL_PREFIXES):
        return _RESIDUAL_TAPS
    if name not in classifiers() and "_resnet" in name:
        prefix = "backbone.body" if name in _detectors() else "backbone"
        return tuple(f"{prefix}.{tap}" for tap in _RESIDUAL_TAPS)
    raise WatermarkError(
        "unknown_architecture",
        f"no default taps for {name!r}: name the modules whose outputs the head reads; "
        "wm.backbone.possible_taps lists them",
    )


def build(architecture: Architecture, *, seed: int | bytes) -> nn.Module:
    """Build a freshly initialised network on the CPU.

    Args:
        architecture: what to build.
        seed: decides the initial weights; one seed gives one network for one version of torch.

    Returns:
        The network in training mode.

    Raises:
        WatermarkError: `too_large` over 2^28 parameters; `unknown_architecture` if its arguments do not go together.
    """
    skeleton(architecture)  # counts the parameters before any memory is taken for them
    with seeded("architecture", seed):
        return _builder_call(architecture)


def skeleton(architecture: Architecture) -> nn.Module:
    """Build a network without storage (torch's meta device): names, shapes and dtypes only.

    Raises:
        WatermarkError: `too_large` over 2^28 parameters; `unknown_architecture` if its arguments do not go together.
    """
    with _ParametersWithoutStorage():
        model = _builder_call(architecture)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > PARAMETERS_MAX:
        raise WatermarkError(
            "too_large", f"{architecture.name} has {parameters} parameters, the limit is {PARAMETERS_MAX}"
        )
    return model.to("meta")


_ALLOCATING = frozenset({torch.empty, torch.zeros, torch.ones})  # by which layers make their parameters and buffers


class _ParametersWithoutStorage(TorchFunctionMode):
    """Inside the block, tensors of a size that somebody chose get no storage.

    Under `with torch.device("meta")` nothing at all would have any, and builders that work their widths out with
    tensors (the RegNets) or keep small tables (the detectors' anchors) would fail.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        options: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        options = dict(options or {})
        if function in _ALLOCATING:
            options["device"] = "meta"
        return function(*arguments, **options)


def _builder_call(architecture: Architecture) -> nn.Module:
    arguments: dict[str, Any] = dict(architecture.arguments) | _FIXED.get(architecture.name, {})
    if architecture.name not in classifiers():
        arguments["weights_backbone"] = None  # or it is downloaded
    try:
        model: nn.Module = torchvision.models.get_model(  # type: ignore[attr-defined]
            architecture.name, weights=None, **arguments
        )
    except (ValueError, AssertionError, RuntimeError) as error:  # such as an image that no whole patches fill
        if isinstance(error, RuntimeError) and "allocate memory" in str(error):
            raise
        raise WatermarkError("unknown_architecture", f"{architecture.name} cannot be built so: {error}") from error
    return model


def _listed(module: Any) -> tuple[str, ...]:  # noqa: ANN401 -- a module of torchvision
    listed: list[str] = torchvision.models.list_models(module=module)  # type: ignore[attr-defined]
    return tuple(sorted(listed))


def _check_argument(name: str, argument: str, value: object) -> None:
    known = _COMMON | _FURTHER.get(name, {})
    if argument not in known:
        raise WatermarkError(
            "unknown_architecture",
            f"argument {argument!r} is not allowed; {name} takes: {', '.join(sorted(known))}",
        )
    kind, least, most = known[argument]
    if type(value) is not kind or not least <= int(value) <= most:  # type: ignore[call-overload]
        expected = "true or false" if kind is bool else f"an integer in [{least}, {most}]"
        raise WatermarkError("unknown_architecture", f"{argument} must be {expected}, not {value!r}")
