"""Networks of the catalogue with other numbers of channels, as a suspect's file says.

A thief adds channels that nothing reads, splits some or drops dead ones: the network computes the same, and its weights
no longer fit the architecture. Such a network is rebuilt from the shapes in the file. Only the two axes of channels of
plain convolutions, linear layers and batch normalisations may differ, the hidden units and inputs of an LSTM, the
numbers in a word's vector, and there may be more words. All of them must fit each other: values that are added have
equally many channels, a normalisation has one entry for each, both directions of an LSTM have equally many units.
Nothing of it is taken on trust: the outline is run without storage first, so that shapes which lie cost no memory, and
then once on a single picture or word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchvision.ops import FrozenBatchNorm2d

from wm.architectures import PARAMETERS_MAX
from wm.backbone import Tap, read_taps
from wm.errors import WatermarkError

CHANNELS_MAX = 4096  # of one layer; the widest of the catalogue has fewer in front of any usual tap
Shape = tuple[int, ...]

_GATES = 4  # of an LSTM, whose rows lie behind each other in one tensor
_NORMALISATIONS = (nn.BatchNorm2d, FrozenBatchNorm2d)
_PAIRWISE = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__", "mul", "mul_", "__mul__", "__imul__"})


def check_widths(model: nn.Module, shapes: Mapping[str, Shape]) -> None:
    """Raise unless shapes differ from a network's in numbers of channels alone, where these may differ.

    Args:
        model: of the architecture, on any device.
        shapes: by name, of tensors of its state dict.

    Raises:
        WatermarkError: `mismatch` naming the tensor, `too_large`.
    """
    held = model.state_dict()
    for name, shape in shapes.items():
        if shape != tuple(held[name].shape) and not _may_differ(model, name, shape, tuple(held[name].shape)):
            raise WatermarkError("mismatch", f"{name!r} has shape {shape}, expected {tuple(held[name].shape)}")
        if shape != tuple(held[name].shape) and _channels_of(model, name, shape) > CHANNELS_MAX:
            raise WatermarkError("too_large", f"{name!r} has shape {shape}, more than {CHANNELS_MAX} channels")
    parameters = sum(prod(shape) for shape in shapes.values())
    if parameters > PARAMETERS_MAX:
        raise WatermarkError("too_large", f"{parameters} parameters, the limit is {PARAMETERS_MAX}")


def refit(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a network in place of its own, whatever their numbers of channels; they were checked before."""
    for name, tensor in tensors.items():
        path, _, part = name.rpartition(".")
        layer = model.get_submodule(path)
        is_parameter = part in dict(layer.named_parameters(recurse=False))
        setattr(layer, part, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)
        if part == "weight" and isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = tensor.shape[0], tensor.shape[1] * layer.groups
        elif part == "weight" and isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = tensor.shape
        elif isinstance(layer, nn.BatchNorm2d) and tensor.ndim:
            layer.num_features = len(tensor)
        elif isinstance(layer, nn.Embedding):
            layer.num_embeddings, layer.embedding_dim = tensor.shape
        elif isinstance(layer, nn.LSTM) and part.startswith("weight_ih"):
            layer.input_size, layer.hidden_size = tensor.shape[1], tensor.shape[0] // _GATES


@torch.no_grad()
def check_runs(model: nn.Module, taps: Sequence[Tap], image: Tensor) -> tuple[Tap, ...]:
    """Run a refitted network up to its taps, and raise unless all its numbers of channels fit each other.

    Args:
        model: in evaluation mode; without storage, or with it.
        taps: what the info says of the architecture's own; only their channels may differ.
        image: a picture or a text as the network takes them, one of them, on the model's device.

    Returns:
        The taps that it has.

    Raises:
        WatermarkError: `mismatch`, `too_large` for a tap of more channels than can be aligned.
    """
    with _layers_checked(model), _PairsChecked(), _refusing():
        outputs = read_taps(model, [tap.module for tap in taps], image)
    found = []
    for tap, output in zip(taps, outputs, strict=True):
        if output.ndim != 4 or tuple(output.shape[2:]) != (tap.height, tap.width):
            raise WatermarkError("mismatch", f"tap {tap.module!r} answers with the shape {tuple(output.shape)}")
        if output.shape[1] > CHANNELS_MAX:
            raise WatermarkError("too_large", f"tap {tap.module!r} has more than {CHANNELS_MAX} channels")
        found.append(Tap(tap.module, *output.shape[1:]))
    return tuple(found)


def _may_differ(model: nn.Module, name: str, shape: Shape, expected: Shape) -> bool:
    if len(shape) != len(expected) or 0 in shape or shape[2:] != expected[2:]:
        return False
    path, _, _part = name.rpartition(".")
    layer = model.get_submodule(path)
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1
    if isinstance(layer, nn.Embedding):
        return shape[0] >= expected[0]  # words may have been added, whose ids are in no trigger
    return isinstance(layer, nn.Linear | FrozenBatchNorm2d | nn.BatchNorm2d | nn.LSTM)


def _channels_of(model: nn.Module, name: str, shape: Shape) -> int:
    """The greater number of channels along an axis that may differ."""
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, nn.Embedding):
        return shape[1]
    if isinstance(layer, nn.LSTM):
        return max(-(-shape[0] // _GATES), shape[-1] if len(shape) > 1 else 0)
    return max(shape[:2])


@contextmanager
def _layers_checked(model: nn.Module) -> Iterator[None]:
    """Inside the block, a layer whose tensors do not fit what it is given, or each other, raises before it runs.

    A normalisation or a bias would repeat its one entry for all channels, and whether the fast code for an LSTM looks
    at all of its shapes is not left to it.
    """
    with ExitStack() as stack:
        for layer in model.modules():
            if isinstance(layer, _NORMALISATIONS):
                stack.callback(layer.register_forward_pre_hook(_check_normalisation).remove)
            elif isinstance(layer, nn.LSTM):
                stack.callback(layer.register_forward_pre_hook(_check_lstm).remove)
        yield


def _check_normalisation(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    entries = {len(it) for it in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)) if it.ndim}
    if entries != {inputs[0].shape[1]}:
        raise WatermarkError("mismatch", f"{entries} entries normalise {inputs[0].shape[1]} channels")


def _check_lstm(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    read, units = inputs[0].shape[-1], layer.get_parameter("weight_hh_l0").shape[1]
    fitting = {"weight_ih": (_GATES * units, read), "weight_hh": (_GATES * units, units), "bias": (_GATES * units,)}
    for name, tensor in layer.named_parameters():
        expected = next(shape for part, shape in fitting.items() if name.startswith(part))
        if tuple(tensor.shape) != expected:
            raise WatermarkError(
                "mismatch", f"{name} of an LSTM has shape {tuple(tensor.shape)}, its other tensors ask for {expected}"
            )


class _PairsChecked(TorchFunctionMode):
    """Inside the block, values of different numbers of channels are not added or multiplied: one would be repeated."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        _types: object,
        arguments: tuple[Any, ...] = (),
        options: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if getattr(function, "__name__", "") in _PAIRWISE:
            channels = {it.shape[1] for it in arguments if isinstance(it, Tensor) and it.ndim == 4}
            if len(channels) > 1:
                raise WatermarkError("mismatch", f"values of {sorted(channels)} channels are added")
        return function(*arguments, **(options or {}))


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what layers raise whose channels do not fit into a refusal; want of memory stays what it is."""
    try:
        yield
    except WatermarkError:
        raise
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        if "allocate memory" in str(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        raise WatermarkError(
            "mismatch", f"the numbers of channels in the file do not fit each other: {error}"
        ) from error
