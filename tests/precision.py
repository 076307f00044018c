"""What GPUs may do by themselves to single precision, for as long as a test lasts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def tf32(*, is_allowed: bool) -> Iterator[None]:
    """Let products be computed in TF32 inside the block, or not, whatever was set before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if is_allowed else "highest")
    try:
        with torch.backends.cudnn.flags(allow_tf32=is_allowed):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
