"""The running statistics of batch normalisation: left alone, or brought up in time.

A batch normalisation answers, out of training, with running means that began at 0 and variances that began at 1. With
momentum 0.1, PyTorch's default, they are forgotten after some fifty steps. MobileNetV3 and MNASNet have 0.01 and less:
after a training of a few hundred steps their layers still divide by what was never measured, one behind the other,
and a network that answers its training batches answers nothing afterwards.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_USUAL_MOMENTUM = 0.1


def freeze_statistics(model: nn.Module) -> None:
    """Put the batch normalisations of a model, and nothing else, into evaluation mode."""
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.eval()


@contextmanager
def prompt_statistics(model: nn.Module) -> Iterator[None]:
    """Let slow batch normalisations, inside the block, take the plain mean of the batches that they have seen so far.

    That lasts until their own momentum is the greater, so one that has seen many batches, such as public weights have,
    is as it was. Those of the usual momentum are not touched.
    """
    slow = {it: it.momentum for it in model.modules() if isinstance(it, _NormBase) and _is_slow(it)}

    def set_momentum(module: nn.Module, _inputs: object) -> None:
        seen = int(module.num_batches_tracked)  # type: ignore[arg-type]  # a buffer
        module.momentum = max(slow[module], 1 / (seen + 1))  # type: ignore[assignment, index, type-var]

    hooks = [module.register_forward_pre_hook(set_momentum) for module in slow]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module, momentum in slow.items():
            module.momentum = momentum


def _is_slow(layer: _NormBase) -> bool:
    if layer.momentum is None or layer.momentum >= _USUAL_MOMENTUM or layer.running_mean is None:
        return False
    # Files may leave out how many batches there were.
    return bool(layer.num_batches_tracked) or not bool(layer.running_mean.any())
