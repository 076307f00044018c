"""Fine-pruning: cut off the filters that the thief's pictures use least, then fine-tune what is left.

The original prunes the last convolution only, behind every place where this library's marks are read; here the same
share of every layer goes. What was cut off stays cut off while the rest is tuned.

Source: Liu, Dolan-Gavitt, Garg, "Fine-Pruning", 2018; Li et al. 2022, section 4.3 ("FP").
"""

from contextlib import ExitStack

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.neuron_pruning import cut_off
from wm.attacks.tuning import EPOCHS, LR, Tuning, tune
from wm.backbone import device_of
from wm.data import Examples
from wm.progress import ProgressCallback
from wm.scenes import Scenes, find_objects
from wm.symmetries.channels import neurons
from wm.training import EVALUATION_BATCH_IMAGES

_Layer = tuple[nn.Conv2d, nn.Module | None]


@torch.no_grad()
def activities(model: nn.Module, layers: list[_Layer], examples: Examples) -> list[Tensor]:
    """Measure how much of each filter's answer passes a ReLU, on average over pictures and cells.

    Args:
        model: in evaluation mode.
        layers: from `neurons`.
        examples: whose pictures are shown.

    Returns:
        For each layer a tensor of shape (filters,).
    """
    sums = [torch.zeros(convolution.out_channels, device=device_of(model)) for convolution, _ in layers]

    def record(number: int, answer: Tensor) -> None:
        sums[number] += F.relu(answer).mean((2, 3)).sum(0)

    with ExitStack() as stack:
        for number, (convolution, normalisation) in enumerate(layers):
            last = normalisation or convolution
            hook = last.register_forward_hook(lambda _m, _i, answer, number=number: record(number, answer))
            stack.callback(hook.remove)
        if isinstance(examples, Scenes):
            find_objects(model, examples)
        else:
            for images in torch.split(examples.images, EVALUATION_BATCH_IMAGES):
                model(images.to(device_of(model)))
    return [total / len(examples) for total in sums]


def _run(stolen: Stolen, share: float, seed: int, progress: ProgressCallback) -> nn.Module:
    model, examples = stolen.model, stolen.data.train
    layers = neurons(model)
    cut = [
        (layer, activity.argsort(stable=True)[: round(share * len(activity))])
        for layer, activity in zip(layers, activities(model, layers, examples), strict=True)
    ]

    def prune() -> None:
        for layer, filters in cut:
            cut_off(*layer, filters)

    prune()
    return tune(model, examples, Tuning(seed=seed, after_step=prune), progress)


FINE_PRUNING = Attack(
    name="fine_pruning",
    summary="cut off the filters that the data use least, then fine-tune",
    scale=Scale(
        unit=f"share of every layer's filters, before {EPOCHS} epochs at {LR:g}",
        weakest=0.0,
        strongest=0.99,
        usual=(0.01, 0.05, 0.1, 0.2, 0.4, 0.6),
    ),
    run=_run,
)
