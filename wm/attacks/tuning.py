"""The training loop that the attacks share, and the places in a network that they name.

Adam with a rate that falls to zero along a cosine, as everywhere in this library. The model is in training mode: unlike
an owner who embeds, a thief lets the batch statistics drift.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.backbone import device_of, evaluating
from wm.batch_statistics import prompt_statistics
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.networks.mask_rcnn import predictors
from wm.progress import Progress, ProgressCallback
from wm.randomness import seed_of, seeded
from wm.scenes import Scenes
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
    with prompt_statistics(model):  # of students, which begin anew
        for step in range(tuning.epochs * steps_an_epoch):
            set_rate(optimizer, tuning.lr * cosine(step, tuning.epochs * steps_an_epoch))
            optimizer.zero_grad()
            torch.autograd.backward(tuning.loss(model, next(batches)))
            optimizer.step()
            tuning.after_step()
            if not (step + 1) % steps_an_epoch:
                progress(Progress("tuning", (step + 1) // steps_an_epoch, tuning.epochs))
    return model.eval()


def last_layers(model: nn.Module, data: Dataset) -> list[nn.Linear | nn.Conv2d]:
    """Find the layers that answer: the one that gives the classes, or of what finds objects all that stand at an end.

    Raises:
        WatermarkError: `unknown_architecture`, the network does not end in such layers.
    """
    if not isinstance(data.train, Scenes):
        return [last_layer(model, data)]
    found = predictors(model)
    if not found:
        raise WatermarkError("unknown_architecture", "the network has no layers that answer as a Mask R-CNN's do")
    return found


def last_layer(model: nn.Module, data: Dataset) -> nn.Linear | nn.Conv2d:
    """Find the layer that gives the classes: what runs last on an example, wherever the network declares it.

    Args:
        model: runs once, in evaluation mode; its own mode is restored.
        data: with an example to run it on, and the number of classes.

    Raises:
        WatermarkError: `unknown_architecture`, the network does not end in a linear or convolutional layer with an
            output for each class.
    """
    ran: list[tuple[nn.Module, Tensor]] = []
    layers = [module for module in model.modules() if _is_layer(module)]
    with ExitStack() as stack, torch.no_grad(), evaluating(model):
        for layer in layers:
            hook = layer.register_forward_hook(lambda module, _inputs, answer: ran.append((module, answer)))
            stack.callback(hook.remove)
        model(data.train.images[:1].to(device_of(model)))
    last, answer = ran[-1] if ran else (model, None)
    if not isinstance(last, nn.Linear | nn.Conv2d) or answer is None:
        raise WatermarkError("unknown_architecture", f"the network ends in {type(last).__name__}, not in its classes")
    outputs = answer.shape[-1 if isinstance(last, nn.Linear) else -3]
    if outputs != data.classes:
        message = f"the network's last layer has {outputs} outputs, one for each of {data.classes} classes is needed"
        raise WatermarkError("unknown_architecture", message)
    return last


def forget(layers: Iterable[nn.Linear | nn.Conv2d], *, seed: int) -> None:
    """Give layers fresh weights."""
    with seeded("attack", "last layer", seed):
        for layer in layers:
            device = layer.weight.device
            layer.to("cpu").reset_parameters()
            layer.to(device)


def _is_layer(module: nn.Module) -> bool:
    """Whether it has weights and computes with them itself, as its children do where it has some."""
    is_leaf = next(module.children(), None) is None and next(module.parameters(), None) is not None
    return is_leaf or isinstance(module, nn.Linear | nn.Conv2d)
