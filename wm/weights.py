"""Weights on disk: safetensors whose names, shapes and dtypes are exactly those of the architecture.

An owner's own model is loaded whole. Of a suspect only the backbone counts, so that a thief who replaces the
classifier, as anyone does who reuses a network for other classes, gains nothing: the tensors on which the taps
depend must fit exactly, the others are never read.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wm import tensorfile
from wm.architectures import Architecture, build, skeleton
from wm.backbone import backbone_names
from wm.errors import WatermarkError
from wm.info import Info

MODEL_BYTES_MAX = 2 << 30
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
    expected = skeleton(architecture).state_dict()
    with tensorfile.opened(path, file_bytes_max=file_bytes_max) as handle:
        surplus = sorted(set(handle.keys()) - set(expected))
        if surplus:
            raise WatermarkError(
                "mismatch", f"{path.name} holds tensors that {architecture.name} lacks: {_few(surplus)}"
            )
        tensors = _read(path.name, handle, expected)
    model = build(architecture, seed=0)  # non-persistent buffers are in no file: only a real build has them
    _fill(model, tensors)
    return model.eval()


def load_backbone(path: Path, info: Info, *, file_bytes_max: int = MODEL_BYTES_MAX) -> nn.Module:
    """Load what a suspect has in front of the last tap.

    Args:
        path: a safetensors file.
        info: names the architecture and the taps.
        file_bytes_max: largest acceptable file.

    Returns:
        A model of the architecture in evaluation mode, on the CPU; behind the last tap its weights mean nothing.

    Raises:
        WatermarkError: `malformed`, `too_large`, or `mismatch` naming the tensor.
        OSError: the file cannot be read.
    """
    tensors = _backbone_tensors(path, info, file_bytes_max=file_bytes_max)
    model = build(info.architecture, seed=0)
    _fill(model, tensors)
    return model.eval()


def check_backbone(path: Path, info: Info, *, file_bytes_max: int = MODEL_BYTES_MAX) -> None:
    """Check that `load_backbone` would read a file, without building the network; arguments and errors as there."""
    _backbone_tensors(path, info, file_bytes_max=file_bytes_max)


def _backbone_tensors(path: Path, info: Info, *, file_bytes_max: int) -> dict[str, Tensor]:
    bare = skeleton(info.architecture)
    names = backbone_names(bare, info.modules, info.input.outline())
    shapes = bare.state_dict()
    with tensorfile.opened(path, file_bytes_max=file_bytes_max) as handle:
        return _read(path.name, handle, {name: shapes[name] for name in names})


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
        raise WatermarkError(
            "mismatch", f"{file_name}: {name!r} is {tensor.dtype}, expected {like.dtype}; convert it and save again"
        )
    _check_finite(file_name, name, tensor)
    return tensor


def _check_finite(file_name: str, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise WatermarkError("malformed", f"{file_name}: {name!r} holds a value that is not finite")


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
