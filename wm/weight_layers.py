"""The layers that hold nearly all of a network's weights."""

from torch import Tensor, nn


def prunable(model: nn.Module) -> list[Tensor]:
    """List the weights that pruning and quantisation act on: of convolutional and linear layers, without biases."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
