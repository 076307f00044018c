"""A small Mask R-CNN and generated pictures of shapes, for the tests that need a network that finds objects."""

from dataclasses import replace

import torch

import wm
from wm.architectures import Architecture
from wm.data import Dataset
from wm.datasets.shapes import shapes

SIDE = 32
ARGUMENTS = {
    "num_classes": 4, "min_size": SIDE, "max_size": SIDE, "anchor": 4, "channels": 8, "hidden": 16, "samples": 16,
}  # fmt: skip
ARCHITECTURE = Architecture("maskrcnn_resnet18_fpn", ARGUMENTS)
SETTINGS = wm.EmbedSettings(
    triggers=100,
    hidden=32,
    pooling=2,
    steps=4,
    trigger_batch=50,
    primary_batch=2,
    shadows=2,
    shadow_steps=1,
    tuning_fraction=1.0,
    head_steps=100,
)


def few_shapes(*, seed: int = 0, train: int = 4) -> Dataset:
    """As few pictures as a step needs."""
    drawn = shapes(20, side=SIDE, seed=seed)
    few = {"train": train, "validation": 1, "test": 2}
    return replace(drawn, **{part: getattr(drawn, part).take(torch.arange(count)) for part, count in few.items()})
