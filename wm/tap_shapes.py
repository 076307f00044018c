"""What a network's modules answer with, and so where a mark could read it; nothing is computed for a skeleton.

A module is a tap if it answers with channels, height and width, in this order. Whether the order is this one a single
picture does not tell: a second, taller one is shown as far as the network takes it, and the channels must stay as many.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

import torch
from torch import Tensor, nn

from wm.backbone import AllTapsRead, Tap, entry_of, evaluating, placed, read_taps, refusing_input
from wm.errors import WatermarkError
from wm.triggers import Spec

_TALL = 64  # pixels: high enough that an output's height differs from a small picture's


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
    with torch.no_grad(), evaluating(skeleton), refusing_input(size):
        outputs = read_taps(skeleton, modules, placed(outline, skeleton))
    taller = _shapes_of_taller(skeleton, modules, outline)
    for module, output in zip(modules, outputs, strict=True):
        if not isinstance(output, Tensor) or output.ndim != 4:
            answer = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise WatermarkError(
                "unknown_architecture",
                f"the module {module!r} does not answer with channels x height x width but with {answer}; "
                "wm.tap_shapes.possible_taps lists those that do",
            )
        if not _has_channels_first(output.shape, taller.get(module)):
            raise WatermarkError(
                "unknown_architecture",
                f"the module {module!r} answers with a tensor of shape {tuple(output.shape)} whose second axis grows "
                "with the picture, so it does not hold the channels (height x width x channels, perhaps); take a "
                "module of channels x height x width, wm.tap_shapes.possible_taps lists them",
            )
        taps.append(Tap(module, *output.shape[1:]))
    return taps


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
        with refusing_input(f"{channels} x {height} x {width}"):
            _record_shapes(skeleton, modules, outline, shapes)
    except WatermarkError:
        if not shapes:
            raise
    taller = _shapes_of_taller(skeleton, list(shapes), outline)
    return [Tap(name, *shape[1:]) for name, shape in shapes.items() if _has_channels_first(shape, taller.get(name))]


def _record_shapes(
    model: nn.Module, modules: Mapping[str, nn.Module], outline: Tensor, shapes: dict[str, torch.Size]
) -> None:
    """Note the shapes of the outputs with four axes as they come, until all are known or the network raises."""

    def recording(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                shapes.setdefault(name, output.shape)
            if len(shapes) == len(modules):
                raise AllTapsRead

        return record

    with ExitStack() as stack, torch.no_grad(), evaluating(model), suppress(AllTapsRead):
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(recording(name)).remove)
        entry_of(model)(placed(outline, model))


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
