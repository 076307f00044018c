"""Weights on disk: safetensors whose names and shapes are exactly those of the architecture.

Floating-point numbers may have another width than the architecture's: a copy in half precision, as many are released,
is read as the numbers that it holds, since nobody should get rid of a mark by rounding.

An owner's own model is loaded whole. Of a suspect only the backbone counts, so that a thief who replaces the
classifier, as anyone does who reuses a network for other classes, gains nothing: the tensors on which the taps
depend must fit, the others are never read. Their numbers of channels may differ from the catalogue's, as long as they
fit each other (`wm.widths`), so that channels which nothing reads hide nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm import tensorfile
from wm.architectures import Architecture, build, build_blank, skeleton
from wm.backbone import backbone_names
from wm.errors import WatermarkError
from wm.info import Info
from wm.widths import check_runs, check_widths, refit

MODEL_BYTES_MAX = 2 << 30
_FLOATING = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_BATCH_COUNT = ".num_batches_tracked"  # decides nothing in evaluation; frozen batch normalisation lacks it


def save_weights(model: nn.Module, path: Path) -> str:
    """Write a model's state dict atomically.

    Args:
        model: on any device, in any memory format.
        path: replaced if it exists.

    Returns:
        SHA-256 of the file, lower-case hexadecimal: the `model_sha256` of the evidence.

    Raises:
        WatermarkError: `malformed` if a tensor is not finite: a diverged training is not worth keeping.
        OSError: the folder cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for name, tensor in tensors.items():
        _check_finite(path.name, name, tensor)
    return tensorfile.write(path, tensors)


def load_weights(path: Path, architecture: Architecture, *, file_bytes_max: int = MODEL_BYTES_MAX) -> nn.Module:
    """Load a whole model.

    Args:
        path: a safetensors file.
        architecture: what the file must fit.
        file_bytes_max: largest acceptable file.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        WatermarkError: `malformed`, `too_large`, or `mismatch` naming the tensor.
        OSError: the file cannot be read.
    """
    tensors = _all_tensors(path, architecture, file_bytes_max=file_bytes_max)
    model = build_blank(architecture)  # non-persistent buffers are in no file: only a real build has them
    _fill(model, tensors)
    return model.eval()


def load_named(
    path: Path, architecture: Architecture, names: Collection[str], *, file_bytes_max: int = MODEL_BYTES_MAX
) -> nn.Module:
    """Load some tensors of a model; the file's other tensors are never read.

    Args:
        path: a safetensors file.
        architecture: what the tensors must fit.
        names: of the state dict.
        file_bytes_max: largest acceptable file.

    Returns:
        A model in evaluation mode, on the CPU, in which all other weights mean nothing.

    Raises:
        WatermarkError: `malformed`, `too_large`, or `mismatch` naming the tensor.
        OSError: the file cannot be read.
    """
    tensors = _named_tensors(path, architecture, names, file_bytes_max=file_bytes_max)
    model = build_blank(architecture)
    _fill(model, tensors)
    return model.eval()


def check_named(
    path: Path, architecture: Architecture, names: Collection[str], *, file_bytes_max: int = MODEL_BYTES_MAX
) -> None:
    """Check that `load_named` would read a file, without building the network; arguments and errors as there."""
    _named_tensors(path, architecture, names, file_bytes_max=file_bytes_max)


def check_weights(path: Path, architecture: Architecture, *, file_bytes_max: int = MODEL_BYTES_MAX) -> None:
    """Check that `load_weights` would read a file, without building the network; arguments and errors as there."""
    _all_tensors(path, architecture, file_bytes_max=file_bytes_max)


def load_transferred(
    path: Path, architecture: Architecture, *, seed: int, file_bytes_max: int = MODEL_BYTES_MAX
) -> nn.Module:
    """Load what of a file fits a model of the same architecture for another task; the rest is freshly initialised.

    What does not fit is a classifier for other classes. That the features fit is checked where they are read.

    Args:
        path: a safetensors file.
        architecture: what to build.
        seed: decides what the file does not.
        file_bytes_max: largest acceptable file.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        WatermarkError: `malformed`, `too_large`, or `mismatch` where nothing or a tensor's type does not fit.
        OSError: the file cannot be read.
    """
    model = build(architecture, seed=seed)
    with tensorfile.opened(path, file_bytes_max=file_bytes_max) as handle:
        shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        fitting = {name: like for name, like in model.state_dict().items() if shapes.get(name) == tuple(like.shape)}
        if not fitting:
            raise WatermarkError("mismatch", f"{path.name} holds no tensor of {architecture.name}")
        tensors = _read(path.name, handle, fitting)
    _fill(model, tensors)
    return model.eval()


def load_backbone(path: Path, info: Info, *, file_bytes_max: int = MODEL_BYTES_MAX) -> nn.Module:
    """Load what a suspect has in front of the last tap.

    Args:
        path: a safetensors file.
        info: names the architecture and the taps.
        file_bytes_max: largest acceptable file.

    Returns:
        A model of the architecture in evaluation mode, on the CPU; behind the last tap its weights mean nothing. Where
        the file has other numbers of channels, so has the model, and its taps perhaps.

    Raises:
        WatermarkError: `malformed`, `too_large`, or `mismatch` naming the tensor.
        OSError: the file cannot be read.
    """
    tensors = _backbone_tensors(path, info, file_bytes_max=file_bytes_max)
    model = build_blank(info.architecture).eval()
    if _has_shapes_of(model, tensors):
        _fill(model, tensors)
        return model
    refit(model, tensors)
    check_runs(model, info.taps, torch.zeros_like(info.input.outline(), device="cpu"))
    return model


def check_backbone(path: Path, info: Info, *, file_bytes_max: int = MODEL_BYTES_MAX) -> None:
    """Check that `load_backbone` would read a file, without building the network; arguments and errors as there."""
    _backbone_tensors(path, info, file_bytes_max=file_bytes_max)


def _named_tensors(
    path: Path, architecture: Architecture, names: Collection[str], *, file_bytes_max: int
) -> dict[str, Tensor]:
    held = skeleton(architecture).state_dict()
    with tensorfile.opened(path, file_bytes_max=file_bytes_max) as handle:
        return _read(path.name, handle, {name: held[name] for name in names})


def _all_tensors(path: Path, architecture: Architecture, *, file_bytes_max: int) -> dict[str, Tensor]:
    expected = skeleton(architecture).state_dict()
    with tensorfile.opened(path, file_bytes_max=file_bytes_max) as handle:
        surplus = sorted(set(handle.keys()) - set(expected))
        if surplus:
            raise WatermarkError(
                "mismatch", f"{path.name} holds tensors that {architecture.name} lacks: {_few(surplus)}"
            )
        return _read(path.name, handle, expected)


def _backbone_tensors(path: Path, info: Info, *, file_bytes_max: int) -> dict[str, Tensor]:
    bare = skeleton(info.architecture)
    image = info.input.outline()
    names = backbone_names(bare, info.modules, image)
    held = bare.state_dict()
    expected = {name: held[name] for name in names}
    with tensorfile.opened(path, file_bytes_max=file_bytes_max) as handle:
        told = _outlined(handle, expected)
        if not _has_shapes_of(bare, told):
            _check_others(path.name, bare, told, info, image)
        return _read(path.name, handle, expected | told)


def _outlined(handle: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
    """The expected tensors as the file says they are, without their contents: its shapes, our types."""
    held = set(handle.keys())
    shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in expected if name in held}
    # A shape of many dimensions is no shape of ours, and torch would refuse to outline it: it is left to be refused.
    return {
        name: torch.empty(shape, dtype=expected[name].dtype, device="meta")
        for name, shape in shapes.items()
        if len(shape) == expected[name].ndim
    }


def _has_shapes_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    held = model.state_dict()
    return all(tensor.shape == held[name].shape for name, tensor in tensors.items())


def _check_others(file_name: str, bare: nn.Module, told: Mapping[str, Tensor], info: Info, image: Tensor) -> None:
    """Check numbers of channels other than the architecture's, before any tensor is read.

    Raises:
        WatermarkError: `mismatch`, `too_large`; where nothing can be aligned, also for a tap of other channels.
    """
    try:
        check_widths(bare, {name: tuple(tensor.shape) for name, tensor in told.items()})
        refit(bare.to("meta"), told)  # an owner's own network had storage
        taps = check_runs(bare, info.taps, image)
    except WatermarkError as error:
        raise WatermarkError(error.code, f"{file_name}: {error}") from error
    if info.reference is None and taps != info.taps:
        raise WatermarkError(
            "mismatch", f"{file_name}: its taps have other channels, and the evidence cannot align them"
        )


def _fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors, all or some, into a model; `_read` saw to it that none is missing that counts."""
    held = model.state_dict()  # with the versions of its modules, by which some of them tell old files from new
    held.update(tensors)
    model.load_state_dict(held)


def _read(file_name: str, handle: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ANN401
    held = set(handle.keys())
    missing = sorted(name for name in set(expected) - held if not name.endswith(_BATCH_COUNT))
    if missing:
        raise WatermarkError("mismatch", f"{file_name} lacks the tensors {_few(missing)}: another architecture?")
    return {name: _read_one(file_name, handle, name, like) for name, like in expected.items() if name in held}


def _read_one(file_name: str, handle: Any, name: str, like: Tensor) -> Tensor:  # noqa: ANN401
    # The shape is compared before the tensor is read, so that a wrong file costs no memory.
    shape = tuple(handle.get_slice(name).get_shape())
    if shape != tuple(like.shape):
        raise WatermarkError("mismatch", f"{file_name}: {name!r} has shape {shape}, expected {tuple(like.shape)}")
    tensor: Tensor = handle.get_tensor(name)
    if tensor.dtype != like.dtype:
        if not {tensor.dtype, like.dtype} <= _FLOATING:
            raise WatermarkError(
                "mismatch", f"{file_name}: {name!r} is {tensor.dtype}, expected {like.dtype}; convert it and save again"
            )
        tensor = tensor.to(like.dtype)
    _check_finite(file_name, name, tensor)
    return tensor


def _check_finite(file_name: str, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise WatermarkError("malformed", f"{file_name}: {name!r} holds a value that is not finite")


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
