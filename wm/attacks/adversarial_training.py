"""Adversarial training: fine-tune all layers on pictures that were changed to be classified wrongly.

One signed gradient step of 1.25 ε from a random start within ε, for every batch, as in fast adversarial training.

Source: Madry et al. 2018; Wong, Rice, Kolter 2020 for the single step; as an attack, Lukas et al. 2022.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Generator, Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.tuning import EPOCHS, LR, Tuning, tune
from wm.backbone import device_of, evaluating
from wm.data import Examples
from wm.errors import WatermarkError
from wm.progress import ProgressCallback
from wm.randomness import generator
from wm.triggers import InputSpec

_STEP = 1.25  # of ε


def perturbed(model: nn.Module, batch: Examples, spec: InputSpec, *, levels: float, source: Generator) -> Tensor:
    """Change pictures by at most some levels of 255 a pixel so that the model's loss rises.

    Args:
        model: its weights' gradients are left as they were.
        batch: normalised pictures.
        spec: its normalisation turns levels into units of the network's input, and bounds the pixels.
        levels: ε, of 255.
        source: of the random start.

    Returns:
        Normalised pictures on the model's device, whose pixels lie in [0, 1].
    """
    device = device_of(model)
    mean, std = (
        torch.tensor([float(value) for value in values], device=device)[:, None, None]
        for values in (spec.normalisation.mean, spec.normalisation.std)
    )
    clean, bound = batch.images.to(device), levels / 255 / std
    start = clean + (2 * torch.rand(batch.images.shape, generator=source).to(device) - 1) * bound
    start.requires_grad_()
    with evaluating(model):
        loss = F.cross_entropy(model(start), batch.labels.to(device))
    (gradient,) = torch.autograd.grad(loss, start)
    moved = start.detach() + _STEP * bound * gradient.sign()
    moved = torch.minimum(torch.maximum(moved, clean - bound), clean + bound)
    return torch.minimum(torch.maximum(moved, (0 - mean) / std), (1 - mean) / std)


def _run(stolen: Stolen, levels: float, seed: int, progress: ProgressCallback) -> nn.Module:
    spec = stolen.data.input
    if not isinstance(spec, InputSpec):
        raise WatermarkError("unknown_architecture", "adversarial training changes pixels, this network reads texts")
    source = generator(seed, "adversarial start")

    def loss(model: nn.Module, batch: Examples) -> Tensor:
        images = perturbed(model, batch, spec, levels=levels, source=source)
        return F.cross_entropy(model(images), batch.labels.to(images.device))

    return tune(stolen.model, stolen.data.train, Tuning(seed=seed, loss=loss), progress)


ADVERSARIAL_TRAINING = Attack(
    name="adversarial_training",
    summary="fine-tune all layers on adversarial pictures",
    scale=Scale(
        unit=f"levels of 255 by which a pixel may change, for {EPOCHS} epochs at {LR:g}",
        weakest=0.1,
        strongest=128.0,
        usual=(2, 8, 16, 32),
    ),
    run=_run,
    needs_classes=True,
)
