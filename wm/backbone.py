"""Reading a network at its taps, and no further.

The watermark branch needs the outputs of a few modules only, so the forward pass is cut off as soon as the
last of them has answered: for a ResNet-18 tapped at its first three stages that skips three quarters of the
parameters. Taps are module paths, as `nn.Module.named_modules` gives them. Of detectors and segmenters only the
backbone runs: what is in front of it resizes and normalises pictures, which is done to triggers already (SCHEMES 5).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody uses)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wm.errors import WatermarkError
from wm.triggers import Spec

BATCH_IMAGES = 100
_TALL = 64  # pixels: high enough that an output's height differs from a small picture's

Precision = Literal["float32", "bfloat16"]  # of a training's forward and backward; weights are float32 with both


@dataclass(frozen=True, slots=True)
class Tap:
    """One place where features are read: a module path and the output's channels, height and width.

    A network for texts answers with rows of positions: height 1.
    """

    module: str
    channels: int
    height: int
    width: int

    def cells(self, pooling: int) -> int:
        """Return how many pooled features each channel has: a tap smaller than the grid stays as it is."""
        return min(pooling, self.height) * min(pooling, self.width)


def feature_count(taps: Sequence[Tap], *, pooling: int) -> int:
    """Return d, the head's input width."""
    return sum(tap.channels * tap.cells(pooling) for tap in taps)


def read_taps(model: nn.Module, modules: Sequence[str], images: Tensor) -> list[Tensor]:
    """Run the network up to the last tap.

    Args:
        model: any mode; the mode is the caller's choice (evaluation for every verdict).
        modules: distinct module paths.
        images: pictures, shape (n, channels, height, width), or texts, shape (n, length), on the model's device.

    Returns:
        The outputs in the order of `modules`; the first one where a module runs several times.

    Raises:
        WatermarkError: `unknown_architecture` for a path that does not exist or never runs.
    """
    outputs: dict[str, Tensor] = {}
    with _listening(model, modules, outputs):
        try:
            _entry(model)(images)
        except _AllTapsRead:
            return [outputs[module] for module in modules]
    missing = [module for module in modules if module not in outputs]
    raise WatermarkError("unknown_architecture", f"the modules {missing} never run, so they cannot be taps")


def pooled(outputs: Sequence[Tensor], *, pooling: int) -> Tensor:
    """Average each channel over a grid of at most pooling x pooling cells and line the results up.

    Args:
        outputs: per tap, float, shape (n, channels, height, width).
        pooling: cells per side, at least 1.

    Returns:
        Shape (n, d), float32: tap by tap, channel by channel, cell by cell.
    """
    return torch.cat([part.flatten(1) for part in _pooled_each(outputs, pooling=pooling)], dim=1)


def features(model: nn.Module, modules: Sequence[str], images: Tensor, *, pooling: int) -> Tensor:
    """Read and pool the taps, shape (n, d); gradients flow."""
    return pooled(read_taps(model, modules, images), pooling=pooling)


@torch.no_grad()
def features_in_evaluation(model: nn.Module, modules: Sequence[str], images: Tensor, *, pooling: int) -> Tensor:
    """Read and pool the taps of a model put into evaluation mode, in batches.

    Batches bound the memory; in evaluation mode no image's features depend on its neighbours. Computed in the weights'
    own precision, also inside a caller's autocast.

    Returns:
        Shape (n, d), on the model's device. The model's mode is restored.
    """
    device = device_of(model)
    with evaluating(model), full_precision(device):
        rows = [
            features(model, modules, part.to(device), pooling=pooling) for part in torch.split(images, BATCH_IMAGES)
        ]
    return torch.cat(rows)


@torch.no_grad()
def taps_in_evaluation(model: nn.Module, modules: Sequence[str], images: Tensor, *, pooling: int) -> list[Tensor]:
    """Read and pool as `features_in_evaluation` does, and keep taps, channels and cells apart.

    Returns:
        Per tap, shape (n, channels, cells), on the model's device.
    """
    (parts,) = taps_on_grids(model, modules, images, poolings=(pooling,))
    return parts


@torch.no_grad()
def taps_on_grids(
    model: nn.Module, modules: Sequence[str], images: Tensor, *, poolings: Sequence[int]
) -> list[list[Tensor]]:
    """Read as `taps_in_evaluation` does, once, and pool over several grids.

    Returns:
        For each grid per tap, shape (n, channels, cells), on the model's device.
    """
    device = device_of(model)
    rows: list[list[list[Tensor]]] = [[] for _ in poolings]
    with evaluating(model), full_precision(device):
        for part in torch.split(images, BATCH_IMAGES):
            outputs = read_taps(model, modules, part.to(device))
            for row, pooling in zip(rows, poolings, strict=True):
                row.append(_pooled_each(outputs, pooling=pooling))
    return [[torch.cat(parts) for parts in zip(*row, strict=True)] for row in rows]


def describe_taps(skeleton: nn.Module, modules: Sequence[str], *, channels: int, height: int, width: int) -> list[Tap]:
    """Find the taps' output shapes without computing anything.

    Args:
        skeleton: from `wm.architectures.skeleton`, on the meta device.
        modules: distinct module paths.
        channels: of the network's input.
        height: of the network's input, pixels.
        width: of the network's input, pixels.

    Returns:
        One `Tap` per path.

    Raises:
        WatermarkError: as of `taps_of`.
    """
    image = torch.empty(1, channels, height, width, device="meta")
    return _described(skeleton, modules, image, f"{channels} x {height} x {width}")


def taps_of(skeleton: nn.Module, modules: Sequence[str], spec: Spec) -> list[Tap]:
    """Find the taps' output shapes for the input that a specification outlines; otherwise as `describe_taps`.

    A network that has storage runs twice, on zeros; its mode is restored.

    Raises:
        WatermarkError: `unknown_architecture` for a path that does not exist, never runs, or does not
            answer with one tensor of channels, height and width, in this order; `mismatch` for an input that the
            network cannot take.
    """
    return _described(skeleton, modules, spec.outline(), str(spec))


def _described(skeleton: nn.Module, modules: Sequence[str], outline: Tensor, size: str) -> list[Tap]:
    taps = []
    with torch.no_grad(), evaluating(skeleton), _refusing_input(size):
        outputs = read_taps(skeleton, modules, _placed(outline, skeleton))
    taller = _shapes_of_taller(skeleton, modules, outline)
    for module, output in zip(modules, outputs, strict=True):
        if not isinstance(output, Tensor) or output.ndim != 4:
            answer = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise WatermarkError(
                "unknown_architecture",
                f"the module {module!r} does not answer with channels x height x width but with {answer}; "
                "wm.backbone.possible_taps lists those that do",
            )
        if not _has_channels_first(output.shape, taller.get(module)):
            raise WatermarkError(
                "unknown_architecture",
                f"the module {module!r} answers with a tensor of shape {tuple(output.shape)} whose second axis grows "
                "with the picture, so it does not hold the channels (height x width x channels, perhaps); take a "
                "module of channels x height x width, wm.backbone.possible_taps lists them",
            )
        taps.append(Tap(module, *output.shape[1:]))
    return taps


def classes_of(skeleton: nn.Module, spec: Spec) -> int:
    """Tell how many classes a network tells apart, from the shape of its answer; otherwise as `taps_of`.

    Raises:
        WatermarkError: `mismatch` for an input that the network cannot take, or an answer that is no row of scores.
    """
    with torch.no_grad(), evaluating(skeleton), _refusing_input(str(spec)):
        answer = skeleton(_placed(spec.outline(), skeleton))
    if not isinstance(answer, Tensor) or answer.ndim != 2:
        raise WatermarkError("mismatch", "the network does not answer with a row of scores for each input")
    return answer.shape[1]


def possible_taps(skeleton: nn.Module, *, channels: int, height: int, width: int) -> list[Tap]:
    """List the modules at which a watermark branch could read a network, in the order in which they answer.

    Args:
        skeleton: from `wm.architectures.skeleton`, on the meta device; or any network, which runs twice, on zeros.
        channels: of the network's input.
        height: of the network's input, pixels.
        width: of the network's input, pixels.

    Returns:
        One `Tap` for each module that answers with one tensor of channels, height and width, in this order. An input
        that is too small for the later modules is none for the earlier.

    Raises:
        WatermarkError: `mismatch` for an input that no module takes.
    """
    modules = {name: module for name, module in skeleton.named_modules() if name}
    outline = torch.empty(1, channels, height, width, device="meta")
    shapes: dict[str, torch.Size] = {}
    try:
        with _refusing_input(f"{channels} x {height} x {width}"):
            _record_shapes(skeleton, modules, outline, shapes)
    except WatermarkError:
        if not shapes:
            raise
    taller = _shapes_of_taller(skeleton, list(shapes), outline)
    return [Tap(name, *shape[1:]) for name, shape in shapes.items() if _has_channels_first(shape, taller.get(name))]


def backbone_names(skeleton: nn.Module, modules: Sequence[str], image: Tensor) -> list[str]:
    """Name the tensors of the state dict on which the taps depend.

    Args:
        skeleton: on the meta device; or with storage, and then it runs once, on zeros.
        modules: distinct module paths.
        image: an input on the meta device, such as `Spec.outline` gives.

    Returns:
        Names of the parameters and buffers that are used before the last tap has answered, in the state dict's order;
        also those of modules that never run themselves, as the attention of the Swin transformers has.
    """
    with torch.no_grad(), evaluating(skeleton), _Watching() as watching:
        read_taps(skeleton, modules, _placed(image, skeleton))
    held: dict[str, Tensor] = skeleton.state_dict(keep_vars=True)
    return [name for name, tensor in held.items() if id(tensor) in watching.used]


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter that has a value."""
    return next(parameter.device for parameter in model.parameters() if not parameter.is_meta)


def on_device(images: Tensor, device: torch.device) -> Tensor:
    """Move a batch to a device; pictures get the memory format that convolutions are fastest in."""
    return images.to(device, memory_format=torch.channels_last) if images.ndim == 4 else images.to(device)


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Inside the block compute in a precision; `float32` leaves it to an autocast of the caller's, if there is one."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=torch.bfloat16)


def full_precision(device: torch.device) -> torch.autocast:
    """Inside the block nothing is computed in less precision than its arguments have, whatever the caller chose."""
    return torch.autocast(device.type, enabled=False)


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode inside the block so that it has gradients: cuDNN has none of recurrent layers."""
    recurrent = any(isinstance(it, nn.RNNBase) and not it.training for it in model.modules())
    if not recurrent or device_of(model).type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=False):  # PyTorch's own kernels have them
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode inside the block and restore each one's own mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _entry(model: nn.Module) -> nn.Module:
    """Return what takes the pictures: the network, or of torchvision's detectors and segmenters the backbone."""
    backbone = getattr(model, "backbone", None)
    # Somebody's own network may have a module of that name behind others: only of torchvision's is it known.
    if isinstance(backbone, nn.Module) and any(it.__module__.startswith("torchvision.") for it in type(model).__mro__):
        return backbone
    return model


def _placed(outline: Tensor, model: nn.Module) -> Tensor:
    """An outlined input as the model takes it: without storage where the model has none, else of zeros beside it."""
    return torch.zeros_like(outline, device=next((it.device for it in model.parameters()), torch.device("cpu")))


def _pooled_each(outputs: Sequence[Tensor], *, pooling: int) -> list[Tensor]:
    """Per tap, shape (n, channels, cells)."""
    grids = [(min(pooling, output.shape[2]), min(pooling, output.shape[3])) for output in outputs]
    # In single precision also where mixed precision gave the outputs: an average of many would lose most of its digits.
    return [F.adaptive_avg_pool2d(output.float(), grid).flatten(2) for output, grid in zip(outputs, grids, strict=True)]


def _record_shapes(
    model: nn.Module, modules: Mapping[str, nn.Module], outline: Tensor, shapes: dict[str, torch.Size]
) -> None:
    """Note the shapes of the outputs with four axes as they come, until all are known or the network raises."""

    def recording(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                shapes.setdefault(name, output.shape)
            if len(shapes) == len(modules):
                raise _AllTapsRead

        return record

    with ExitStack() as stack, torch.no_grad(), evaluating(model), suppress(_AllTapsRead):
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(recording(name)).remove)
        _entry(model)(_placed(outline, model))


def _shapes_of_taller(model: nn.Module, modules: Sequence[str], outline: Tensor) -> dict[str, torch.Size]:
    """The modules' shapes for a picture of more height, as far as the network takes one; none for texts."""
    shapes: dict[str, torch.Size] = {}
    if outline.ndim == 4:
        count, channels, height, width = outline.shape
        taller = outline.new_empty(count, channels, max(2 * height, _TALL), width)
        # Many networks know one size only, and somebody's own says so with an error of its own.
        with suppress(Exception):
            _record_shapes(model, {name: model.get_submodule(name) for name in modules}, taller, shapes)
    return shapes


def _has_channels_first(shape: torch.Size, taller: torch.Size | None) -> bool:
    """Whether the axis behind the batch is none of the picture's: it is as long for a picture of another height."""
    return taller is None or shape[1] == taller[1]


@contextmanager
def _refusing_input(size: str) -> Iterator[None]:
    """Turn what a network raises for an input of the wrong size into a refusal; nothing is computed on meta tensors."""
    try:
        yield
    except WatermarkError:
        raise
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        raise WatermarkError("mismatch", f"the network does not take an input of {size}: {error}") from error


class _Watching(TorchFunctionMode):
    """Notes which tensors torch's functions are given inside the block.

    Attributes:
        used: their ids.
    """

    def __init__(self) -> None:
        super().__init__()
        self.used: set[int] = set()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        options: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        self._note([*arguments, *(options or {}).values()])
        return function(*arguments, **(options or {}))

    def _note(self, values: Iterable[object]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                self.used.add(id(value))
            elif isinstance(value, list | tuple):
                self._note(value)


class _AllTapsRead(Exception):  # noqa: N818 (control flow, not an error)
    """Ends the forward pass: torch has no other way to leave a module's forward from outside."""


@contextmanager
def _listening(model: nn.Module, modules: Sequence[str], outputs: dict[str, Tensor]) -> Iterator[None]:
    with ExitStack() as stack:
        for name in modules:
            try:
                module = model.get_submodule(name)
            except AttributeError as error:
                raise WatermarkError("unknown_architecture", f"the network has no module {name!r}") from error

            def record(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                outputs.setdefault(name, output)
                if len(outputs) == len(modules):
                    raise _AllTapsRead

            stack.callback(module.register_forward_hook(record).remove)
        yield
