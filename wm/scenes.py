"""Pictures with objects in them: what instance segmentation is trained on, its loss, and what a network finds.

A network of torchvision's kind takes pictures with pixels in [0, 1] and normalises them itself; in training mode it
answers with a dictionary of losses, in evaluation mode with what it found. Class 0 is the background.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import masks_to_boxes

from wm.average_precision import Found, mean_average_precision
from wm.backbone import device_of, evaluating
from wm.data import Examples
from wm.randomness import seeded
from wm.triggers import InputSpec, Normalisation

BATCH_PICTURES = 8  # in training; also enough for batch normalisation
EMBEDDING_PICTURES = 4  # in an embedding: batch normalisation is frozen there and needs no large batches
# Of triggers, in pixels; the greatest is the authors'. A backbone takes any size, and a node's work grows with it.
TRIGGER_SIDE_LEAST, TRIGGER_SIDE_MAX = 32, 112
EVALUATION_BATCH_PICTURES = 16
MASK_THRESHOLD = 0.5
_NORMALISATION = nn.modules.batchnorm._NormBase  # noqa: SLF001 (the one base class of all batch normalisations)
# What torchvision's detectors do to pixels in [0, 1], whatever they are trained on: ImageNet's mean and deviation.
LEVELS = Normalisation(mean=("0.485", "0.456", "0.406"), std=("0.229", "0.224", "0.225"))


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects in one picture.

    Attributes:
        labels: their classes, int64 from 1, shape (k,).
        masks: their visible pixels, bool, shape (k, height, width), none of them empty.
    """

    labels: Tensor
    masks: Tensor

    @property
    def boxes(self) -> Tensor:
        """Left, top, right, bottom in pixels, the last two exclusive, float32, shape (k, 4)."""
        return masks_to_boxes(self.masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True)
class Scenes(Examples):
    """Pictures and their objects.

    Attributes:
        images: pixels, uint8, shape (n, 3, height, width): many of them are in memory.
        labels: the class of each picture's first object, 0 for none, int64, shape (n,), so that sets are divided alike.
        objects: one for each picture.
        numbers: which pictures of the whole they are, int64, shape (n,).
    """

    objects: tuple[Objects, ...]
    numbers: Tensor

    def take(self, indices: Tensor) -> "Scenes":
        """Select pictures; `indices` is int64, shape (k,)."""
        objects = tuple(self.objects[index] for index in indices.tolist())
        return Scenes(self.images[indices], self.labels[indices], objects, self.numbers[indices])

    def pictures(self, device: torch.device) -> list[Tensor]:
        """Return each picture as a network takes it: pixels in [0, 1], float32, shape (3, height, width)."""
        return list(self.images.to(device).float() / 255)

    def targets(self, device: torch.device) -> list[dict[str, Tensor]]:
        """Return each picture's objects as a network takes them."""
        return [
            {
                "boxes": each.boxes.to(device),
                "labels": each.labels.to(device),
                "masks": each.masks.to(device, torch.uint8),
            }
            for each in self.objects
        ]


def scenes_of(images: Tensor, objects: Sequence[Objects]) -> Scenes:
    """Gather pictures, uint8, shape (n, 3, height, width), and their objects, numbered from 0."""
    labels = torch.tensor([int(each.labels[0]) if len(each.labels) else 0 for each in objects])
    return Scenes(images, labels, tuple(objects), torch.arange(len(labels)))


def input_of(side: int) -> InputSpec:
    """Return what a detector's backbone is shown as triggers: of half the pictures' side in pixels, within limits."""
    side = min(max(side // 2, TRIGGER_SIDE_LEAST), TRIGGER_SIDE_MAX)
    return InputSpec(3, side, side, LEVELS)


def detection_loss(model: nn.Module, batch: Scenes) -> Tensor:
    """Sum up the losses that a network answers with, a scalar with a graph.

    Batch normalisation keeps its mode, everything else answers as in training. Networks learn from a sample of their
    proposals, drawn from torch's global generator: it is seeded here by the pictures, so that on a CPU one seed of a
    training gives one model. A GPU draws from its own, and adds gradients of regions up in any order.

    Args:
        model: of torchvision's kind, on any device.
        batch: pictures of one size.
    """
    device = device_of(model)
    with _answering_with_losses(model), seeded("proposals", *batch.numbers.tolist()):
        losses: dict[str, Tensor] = model(batch.pictures(device), batch.targets(device))
    return torch.stack(list(losses.values())).sum()


@torch.no_grad()
def find_objects(model: nn.Module, scenes: Scenes) -> list[Found]:
    """Run a network over pictures, in evaluation mode and in batches; its mode is restored.

    Returns:
        What it found in each picture, on the CPU.
    """
    device, found = device_of(model), list[Found]()
    with evaluating(model):
        for indices in torch.split(torch.arange(len(scenes)), EVALUATION_BATCH_PICTURES):
            for answer in model(scenes.take(indices).pictures(device)):
                masks = answer["masks"][:, 0] >= MASK_THRESHOLD
                found.append(Found(answer["scores"].cpu(), answer["labels"].cpu(), masks.cpu()))
    return found


def mask_precision(model: nn.Module, scenes: Scenes, overlaps: Sequence[float] | None = None) -> float:
    """Measure the mean average precision of a network's masks, in [0, 1]; the overlaps are COCO's ten by default."""
    truth = [(each.labels, each.masks) for each in scenes.objects]
    return mean_average_precision(find_objects(model, scenes), truth, overlaps)


@contextmanager
def _answering_with_losses(model: nn.Module) -> Iterator[None]:
    """Put all but batch normalisation into training mode inside the block and restore each module's own mode."""
    modes = [(module, module.training) for module in model.modules() if not isinstance(module, _NORMALISATION)]
    for module, _ in modes:
        module.training = True
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
