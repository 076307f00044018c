"""The training loop that the attacks share, and the places in a network that they name.

Adam with a rate that falls to zero along a cosine, as everywhere in this library. The model is in training mode: unlike
an owner who embeds, a thief lets the batch statistics drift.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.backbone import device_of
from wm.data import Examples
from wm.errors import WatermarkError
from wm.progress import Progress, ProgressCallback
from wm.randomness import seed_of, seeded
from wm.training import cosine, endless_batches, primary_loss, set_rate, usual_batch

EPOCHS = 20  # passes over the thief's data, where the strength is something else
LR = 3e-4  # Adam's first rate, where the strength is something else: three times the fine-tuning of `wmreg embed`

Loss = Callable[[nn.Module, Examples], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How to train.

    Attributes:
        epochs: passes over the examples, at least 1.
        lr: Adam's first learning rate.
        seed: decides the order of the examples.
        loss: of the model and a batch, a scalar with a graph.
        parameters: what is trained; None for everything, in training mode. Parts are trained in evaluation mode, so
            that nothing in front of them changes.
        after_step: called when the weights have changed, to put back what must stay.
    """

    epochs: int = EPOCHS
    lr: float = LR
    seed: int
    loss: Loss = primary_loss
    parameters: Iterable[nn.Parameter] | None = None
    after_step: Callable[[], None] = lambda: None


def tune(model: nn.Module, examples: Examples, tuning: Tuning, progress: ProgressCallback) -> nn.Module:
    """Train a model in place.

    Returns:
        The same model, in evaluation mode.
    """
    model.to(memory_format=torch.channels_last).train(tuning.parameters is None)
    optimizer = torch.optim.Adam(tuning.parameters or model.parameters(), lr=tuning.lr, fused=True)
    batch_images = usual_batch(examples)
    batches = endless_batches(examples, images=batch_images, seed=seed_of(tuning.seed, "attack"))
    steps_an_epoch = max(1, round(len(examples) / batch_images))
    for epoch in range(tuning.epochs):
        for step in range(steps_an_epoch):
            set_rate(optimizer, tuning.lr * cosine(epoch * steps_an_epoch + step, tuning.epochs * steps_an_epoch))
            optimizer.zero_grad()
            torch.autograd.backward(tuning.loss(model, next(batches)))
            optimizer.step()
            tuning.after_step()
        progress(Progress("tuning", epoch + 1, tuning.epochs))
    return model.eval()


def last_layer(model: nn.Module) -> nn.Linear | nn.Conv2d:
    """Find the layer that gives the classes.

    Raises:
        WatermarkError: `unknown_architecture`, the network does not end in a linear or convolutional layer.
    """
    *_, last = (module for module in model.modules() if list(module.parameters(recurse=False)))
    if not isinstance(last, nn.Linear | nn.Conv2d):
        raise WatermarkError("unknown_architecture", f"the network ends in {type(last).__name__}, not in its classes")
    return last


def forget_last_layer(model: nn.Module, *, seed: int) -> None:
    """Give the last layer fresh weights."""
    layer = last_layer(model)
    device = device_of(model)
    with seeded("attack", "last layer", seed):
        fresh = layer.to("cpu")
        fresh.reset_parameters()
    layer.to(device)
