"""The catalogue of networks that a node can rebuild: torchvision's classifiers, by name, but for the RegNets.

A network reaches a node as data: a builder's name and allow-listed arguments (here) and tensors
(`wm.weights`). No stranger's code is ever run, and pretrained weights are never downloaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torchvision.models
from torch import nn

from wm.errors import WatermarkError
from wm.randomness import seeded

CLASSES_MAX = 100_000
PARAMETERS_MAX = 1 << 28  # 1 GiB in fp32; a control costs a node as much as the suspect does

# Name -> (least, most). Every argument of a builder that a stranger may choose; all are integers.
_ARGUMENTS = {"num_classes": (2, CLASSES_MAX)}

# What a builder must be told so that it answers with one tensor and initialises itself without a warning.
_FIXED: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}

# These work out their widths with tensors while they are built, so nothing can be known of them without building them.
_WITHOUT_OUTLINE = "regnet"

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
            _check_argument(argument, value)


def names() -> tuple[str, ...]:
    """Return the catalogue's names in alphabetical order."""
    listed: list[str] = torchvision.models.list_models(module=torchvision.models)  # type: ignore[attr-defined]
    return tuple(sorted(name for name in listed if not name.startswith(_WITHOUT_OUTLINE)))


def default_taps(architecture: Architecture) -> tuple[str, ...]:
    """Return the module paths at which a watermark branch reads this architecture.

    Raises:
        WatermarkError: `unknown_architecture` where the catalogue has no default and the owner must choose.
    """
    if architecture.name.startswith(_RESIDUAL_PREFIXES):
        return _RESIDUAL_TAPS
    raise WatermarkError(
        "unknown_architecture",
        f"no default taps for {architecture.name!r}: name the modules whose outputs the head reads",
    )


def build(architecture: Architecture, *, seed: int | bytes) -> nn.Module:
    """Build a freshly initialised network on the CPU.

    Args:
        architecture: what to build.
        seed: decides the initial weights; one seed gives one network for one version of torch.

    Returns:
        The network in training mode.

    Raises:
        WatermarkError: `too_large` over 2^28 parameters.
    """
    skeleton(architecture)  # counts the parameters before any memory is taken for them
    with seeded("architecture", seed):
        return _builder_call(architecture)


def skeleton(architecture: Architecture) -> nn.Module:
    """Build a network without storage (torch's meta device): names, shapes and dtypes only.

    Raises:
        WatermarkError: `too_large` over 2^28 parameters.
    """
    with torch.device("meta"):
        model = _builder_call(architecture)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > PARAMETERS_MAX:
        raise WatermarkError(
            "too_large", f"{architecture.name} has {parameters} parameters, the limit is {PARAMETERS_MAX}"
        )
    return model


def _builder_call(architecture: Architecture) -> nn.Module:
    fixed = _FIXED.get(architecture.name, {})
    arguments = dict(architecture.arguments) | fixed
    model: nn.Module = torchvision.models.get_model(  # type: ignore[attr-defined]
        architecture.name, weights=None, **arguments
    )
    return model


def _check_argument(argument: str, value: object) -> None:
    if argument not in _ARGUMENTS:
        allowed = ", ".join(sorted(_ARGUMENTS))
        raise WatermarkError(
            "unknown_architecture", f"argument {argument!r} is not allowed; the catalogue takes: {allowed}"
        )
    least, most = _ARGUMENTS[argument]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WatermarkError(
            "unknown_architecture", f"{argument} must be an integer in [{least}, {most}], not {value!r}"
        )
