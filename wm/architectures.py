"""The catalogue of networks that a node can rebuild, by name: torchvision's, and networks of our own.

Of torchvision it has the classifiers, detectors and segmenters; ours read texts, or segment instances. A network
reaches a node as data: a builder's name and allow-listed arguments (here) and tensors (`wm.weights`). No stranger's
code is ever run, and pretrained weights are never downloaded. How large a network is becomes known before any memory
is taken for it: it is first outlined without storage.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wm.errors import WatermarkError
from wm.networks import bilstm, mask_rcnn
from wm.randomness import seeded

CLASSES_MAX = 100_000
KEYPOINTS_MAX = 1_000
SIDE_MAX = 1_024  # pixels
PARAMETERS_MAX = 1 << 28  # 1 GiB in fp32; a control costs a node as much as the suspect does
OWN = "own"  # what an info calls a network that the catalogue lacks; no name of the catalogue

# Argument -> type, least, most. Every argument of a builder that a stranger may choose.
_COMMON: dict[str, tuple[type, int, int]] = {"num_classes": (int, 2, CLASSES_MAX)}
_FLAG, _PIXELS = (bool, 0, 1), (int, 16, SIDE_MAX)
_FURTHER: dict[str, dict[str, tuple[type, int, int]]] = {
    "bilstm": bilstm.ARGUMENTS,
    "deeplabv3_mobilenet_v3_large": {"aux_loss": _FLAG},
    "deeplabv3_resnet101": {"aux_loss": _FLAG},
    "deeplabv3_resnet50": {"aux_loss": _FLAG},
    "fcn_resnet101": {"aux_loss": _FLAG},
    "fcn_resnet50": {"aux_loss": _FLAG},
    "googlenet": {"transform_input": _FLAG},
    "inception_v3": {"transform_input": _FLAG},
    "keypointrcnn_resnet50_fpn": {"num_keypoints": (int, 1, KEYPOINTS_MAX)},
    "maskrcnn_resnet50_fpn": mask_rcnn.SIZES,
    "maskrcnn_resnet50_fpn_v2": mask_rcnn.SIZES,
    **dict.fromkeys(mask_rcnn.BUILDERS, mask_rcnn.ARGUMENTS),
    "vit_b_16": {"image_size": _PIXELS},
    "vit_b_32": {"image_size": _PIXELS},
}

# Our own, beside torchvision's; docs/architectures.md tells what an entry is asked for.
_CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {}
_TEXTS: dict[str, Callable[..., nn.Module]] = {"bilstm": bilstm.BiLSTM}
_OURS = _CLASSIFIERS | _TEXTS | mask_rcnn.BUILDERS

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


@dataclass(frozen=True, slots=True)
class OwnArchitecture(Architecture):
    """A network that the catalogue lacks: who has its code verifies it, and nodes refuse it, `unknown_architecture`.

    Attributes:
        builder: makes the network, freshly initialised by torch's global generators, which are seeded for it; None
            where no more of it is needed than the caller's own instance.
    """

    name: str = field(default=OWN, init=False)
    arguments: Mapping[str, int] = field(default_factory=dict, init=False)
    builder: Callable[[], nn.Module] | None = None

    def __post_init__(self) -> None:
        """Nothing of it stands in the catalogue."""

    def build(self) -> nn.Module:
        """Make the network on the CPU.

        Raises:
            WatermarkError: `unknown_architecture` where nobody said how.
        """
        if self.builder is None:
            raise WatermarkError(
                "unknown_architecture",
                "the network is its owner's own: give a builder, a function without arguments that makes it",
            )
        return self.builder().to("cpu")


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return the catalogue's names in alphabetical order."""
    return tuple(sorted([*classifiers(), *_detectors(), *_segmenters(), *text_classifiers()]))


@lru_cache(maxsize=1)
def classifiers() -> tuple[str, ...]:
    """Return the names of the networks that give a picture one of several classes, in alphabetical order."""
    return tuple(sorted([*_listed(torchvision.models), *_CLASSIFIERS]))


def text_classifiers() -> tuple[str, ...]:
    """Return the names of the networks that give a text one of several classes, in alphabetical order."""
    return tuple(sorted(_TEXTS))


def instance_segmenters() -> tuple[str, ...]:
    """Return the names of the networks that find the objects in a picture with their masks, in alphabetical order."""
    return tuple(name for name in _detectors() if "maskrcnn" in name)


def vocabulary_of(architecture: Architecture) -> int | None:
    """Return how many token ids a network knows; None for one that takes pictures."""
    if architecture.name not in text_classifiers():
        return None
    return int(architecture.arguments.get("vocabulary", bilstm.VOCABULARY))


@lru_cache(maxsize=1)
def _detectors() -> tuple[str, ...]:
    return tuple(sorted([*_listed(torchvision.models.detection), *mask_rcnn.BUILDERS]))


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
    if name in text_classifiers():
        return bilstm.taps(int(architecture.arguments.get("layers", bilstm.LAYERS)))
    if name not in classifiers() and "_resnet" in name:
        prefix = "backbone.body" if name in _detectors() else "backbone"
        return tuple(f"{prefix}.{tap}" for tap in _RESIDUAL_TAPS)
    raise WatermarkError(
        "unknown_architecture",
        f"no default taps for {name!r}: name the modules whose outputs the head reads; "
        "wm.tap_shapes.possible_taps lists them",
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
    if not isinstance(architecture, OwnArchitecture):
        skeleton(architecture)  # counts the parameters before any memory is taken for them
    with seeded("architecture", seed):
        return _builder_call(architecture)


def build_blank(architecture: Architecture) -> nn.Module:
    """Build a network that is to be filled from a file: as `build`, but where that draws values, these are zeros."""
    if isinstance(architecture, OwnArchitecture):
        return build(architecture, seed=0)
    skeleton(architecture)
    try:
        with seeded("architecture", 0), _Allocations(lambda _number: False, draws=False):
            return _builder_call(architecture)
    except WatermarkError:  # the few that run themselves while they are built
        return build(architecture, seed=0)


class PartBuilder:
    """Builds networks of which only some tensors have values: most of the time goes into drawing random numbers.

    Args:
        architecture: what to build.
        names: the tensors of the state dict that are to have values; the others are on the meta device.

    Raises:
        WatermarkError: as `skeleton`.
    """

    def __init__(self, architecture: Architecture, names: Collection[str]) -> None:
        self._architecture = architecture
        self._needless: frozenset[int] = frozenset()
        if isinstance(architecture, OwnArchitecture):
            return  # its code may compute with what it allocates
        with _Allocations(lambda _number: True) as allocations:
            model = _builder_call(architecture)
        _check_size(architecture, model)
        numbers = {_storage_of(tensor): number for number, tensor in enumerate(allocations.made)}
        held = model.state_dict(keep_vars=True)
        needless = {numbers.get(_storage_of(tensor)) for name, tensor in held.items() if name not in names}
        self._needless = frozenset(number for number in needless if number is not None)

    def build(self, *, seed: int | bytes) -> nn.Module:
        """Build one on the CPU, in training mode; its values are not those that `build` gives for the same seed."""
        try:
            with seeded("architecture", seed), _Allocations(self._needless.__contains__):
                return _builder_call(self._architecture)
        except WatermarkError:  # the few that run themselves while they are built, which nothing on meta can
            return build(self._architecture, seed=seed)


def skeleton(architecture: Architecture) -> nn.Module:
    """Build a network without storage (torch's meta device): names, shapes and dtypes only.

    A caller's own has storage, since its code may look at values.

    Raises:
        WatermarkError: `too_large` over 2^28 parameters; `unknown_architecture` if its arguments do not go together.
    """
    if isinstance(architecture, OwnArchitecture):
        with seeded("architecture", 0):
            return architecture.build()
    with _Allocations(lambda _number: True):
        model = _builder_call(architecture)
    _check_size(architecture, model)
    return model.to("meta")


def _check_size(architecture: Architecture, model: nn.Module) -> None:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > PARAMETERS_MAX:
        raise WatermarkError(
            "too_large", f"{architecture.name} has {parameters} parameters, the limit is {PARAMETERS_MAX}"
        )


_ALLOCATING = frozenset({torch.empty, torch.zeros, torch.ones})  # by which layers make their parameters and buffers
_DRAWING = frozenset({Tensor.normal_, Tensor.uniform_})  # by which they are initialised


class _Allocations(TorchFunctionMode):
    """Inside the block, tensors of a size that somebody chose get no storage where that is wished.

    Under `with torch.device("meta")` nothing at all would have any, and builders that work their widths out with
    tensors (the RegNets) or keep small tables (the detectors' anchors) would fail.

    Nothing is drawn for what has no storage: torch would look up how, which takes longer than all else.

    Args:
        is_bare: tells by its number, from 0, whether an allocation gets no storage.
        draws: False leaves everything at zero, for a network that is to be filled.

    Attributes:
        made: what was allocated, by number; held, so that no storage is used twice.
    """

    def __init__(self, is_bare: Callable[[int], bool], *, draws: bool = True) -> None:
        super().__init__()
        self._is_bare, self._draws = is_bare, draws
        self.made: list[Tensor] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        options: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        options = dict(options or {})
        if function in _DRAWING and (arguments[0].is_meta or not self._draws):
            return arguments[0]
        if function not in _ALLOCATING:
            return function(*arguments, **options)
        if function is torch.empty and not self._draws:
            function = torch.zeros
        if self._is_bare(len(self.made)):
            options["device"] = "meta"
        self.made.append(function(*arguments, **options))
        return self.made[-1]


def _storage_of(tensor: Tensor) -> int:
    """What a parameter and the tensor that it was made of have in common; their addresses are 0 on meta."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 -- torch tells storages apart by it as well


def _builder_call(architecture: Architecture) -> nn.Module:
    if isinstance(architecture, OwnArchitecture):
        return architecture.build()
    if architecture.name in _OURS:
        return _OURS[architecture.name](**architecture.arguments)
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
