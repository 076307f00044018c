"""Reading a network at its taps, and no further.

The watermark branch needs the outputs of a few modules only, so the forward pass is cut off as soon as the
last of them has answered: for a ResNet-18 tapped at its first three stages that skips three quarters of the
parameters. Taps are module paths, as `nn.Module.named_modules` gives them. Of detectors and segmenters only the
backbone runs: what is in front of it resizes and normalises pictures, which is done to triggers already (SCHEMES 5).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 (the name everybody uses)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wm.errors import WatermarkError
from wm.triggers import Spec

BATCH_IMAGES = 100

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
            entry_of(model)(images)
        except AllTapsRead:
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


def classes_of(skeleton: nn.Module, spec: Spec) -> int:
    """Tell how many classes a network tells apart, from the shape of its answer; otherwise as `taps_of`.

    Raises:
        WatermarkError: `mismatch` for an input that the network cannot take, or an answer that is no row of scores.
    """
    with torch.no_grad(), evaluating(skeleton), refusing_input(str(spec)):
        answer = skeleton(placed(spec.outline(), skeleton))
    if not isinstance(answer, Tensor) or answer.ndim != 2:
        raise WatermarkError("mismatch", "the network does not answer with a row of scores for each input")
    return answer.shape[1]


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
        read_taps(skeleton, modules, placed(image, skeleton))
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


def entry_of(model: nn.Module) -> nn.Module:
    """Return what takes the pictures: the network, or of torchvision's detectors and segmenters the backbone."""
    backbone = getattr(model, "backbone", None)
    # Somebody's own network may have a module of that name behind others: only of torchvision's is it known.
    if isinstance(backbone, nn.Module) and any(it.__module__.startswith("torchvision.") for it in type(model).__mro__):
        return backbone
    return model


def placed(outline: Tensor, model: nn.Module) -> Tensor:
    """An outlined input as the model takes it: without storage where the model has none, else of zeros beside it."""
    return torch.zeros_like(outline, device=next((it.device for it in model.parameters()), torch.device("cpu")))


def _pooled_each(outputs: Sequence[Tensor], *, pooling: int) -> list[Tensor]:
    """Per tap, shape (n, channels, cells)."""
    grids = [(min(pooling, output.shape[2]), min(pooling, output.shape[3])) for output in outputs]
    return [_averaged(output, grid).flatten(2) for output, grid in zip(outputs, grids, strict=True)]


def _averaged(output: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average over the cells of a grid, in single precision also where mixed precision gave the output.

    An average of many would lose most of its digits else. Their sum may overflow where each of them and the average do
    not: a thief may have multiplied a channel by almost anything. It is summed in double precision then.
    """
    average = F.adaptive_avg_pool2d(output.float(), grid)
    if torch.is_grad_enabled() or average.is_meta or bool(torch.isfinite(average).all()):
        return average
    return F.adaptive_avg_pool2d(output.double(), grid).float()


@contextmanager
def refusing_input(size: str) -> Iterator[None]:
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


class AllTapsRead(Exception):  # noqa: N818 (control flow, not an error)
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
                    raise AllTapsRead

            stack.callback(module.register_forward_hook(record).remove)
        yield
