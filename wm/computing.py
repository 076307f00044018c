"""Where and how a verification computes: the same numbers on every machine, as far as that can be.

Evaluation mode is the caller's business; here are fp32 without TF32 and deterministic kernels.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch


def software() -> str:
    """Versions that a measurement depends on."""
    return f"torch {version('torch')}, torchvision {version('torchvision')}, Python {platform.python_version()}"


def place_of(device: str) -> torch.device:
    """Return torch's device of a word: "cpu", "cuda", or "auto" for a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def name_of(device: torch.device) -> str:
    """Name what computes: "cpu", or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic fp32 inside the block; the settings are restored."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=deterministic)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, convolution
