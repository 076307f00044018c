"""Generated pictures of discs, squares and triangles with their masks: instance segmentation without any data.

Each picture has one to four shapes of any colour, size and turn on a noisy ground; later ones cover earlier ones, and
one of which less than half is left to be seen is no object. A seed and a number make a picture, equal on every machine
up to the last bit of a sine.
"""

import math

import torch
from torch import Tensor

from wm.data import TEST_FRACTION, VALIDATION_FRACTION, Dataset, stratified_split
from wm.errors import WatermarkError
from wm.randomness import generator
from wm.scenes import Objects, input_of, scenes_of

CLASSES = ("background", "disc", "square", "triangle")
COUNT_LEAST, COUNT_MAX = 20, 20_000
SHAPES_MAX = 4
RADIUS_LEAST, RADIUS_MOST = 0.12, 0.3  # of the circle around a shape, as a share of the side
SEEN_LEAST = 0.5
_SIDES = {1: 0, 2: 4, 3: 3}  # of each class; a disc has none
_NOISE, _CONTRAST = 0.06, 0.25  # of pixels in [0, 1]


def shapes(count: int, *, side: int, seed: int = 0) -> Dataset:
    """Draw a data set.

    Args:
        count: pictures altogether; a fifth of them is for the test, a tenth for validation.
        side: pixels.
        seed: decides every picture and the split.

    Raises:
        WatermarkError: `malformed`, the count is out of range.
    """
    if not COUNT_LEAST <= count <= COUNT_MAX:
        raise WatermarkError("malformed", f"{count} pictures of shapes: {COUNT_LEAST} to {COUNT_MAX} can be drawn")
    drawn = [draw(number, side=side, seed=seed) for number in range(count)]
    every = scenes_of(torch.stack([image for image, _ in drawn]), [objects for _, objects in drawn])
    test, validation, train = stratified_split(every.labels, (TEST_FRACTION, VALIDATION_FRACTION), seed=seed)
    return Dataset("shapes", len(CLASSES), input_of(side), every.take(train), every.take(validation), every.take(test))


def draw(number: int, *, side: int, seed: int) -> tuple[Tensor, Objects]:
    """Draw one picture.

    Args:
        number: which.
        side: pixels.
        seed: of the data set.

    Returns:
        Pixels, uint8, shape (3, side, side), and what is to be seen, at least one object.
    """
    draws = generator("shapes", seed, number)
    ground = torch.rand(3, generator=draws)
    image = ground[:, None, None].repeat(1, side, side)
    labels = torch.randint(
        1, len(CLASSES), (int(torch.randint(1, SHAPES_MAX + 1, (), generator=draws)),), generator=draws
    )
    masks, whole = list[Tensor](), list[int]()
    for label in labels.tolist():
        mask = _mask(_SIDES[label], side, draws)
        image[:, mask] = _colour(ground, draws)[:, None]
        masks = [earlier & ~mask for earlier in masks] + [mask]
        whole.append(int(mask.sum()))
    seen = torch.tensor([int(mask.sum()) >= SEEN_LEAST * size for mask, size in zip(masks, whole, strict=True)])
    image += _NOISE * torch.randn(image.shape, generator=draws)
    return (image.clamp(0, 1) * 255).round().byte(), Objects(labels[seen], torch.stack(masks)[seen])


def _colour(ground: Tensor, draws: torch.Generator) -> Tensor:
    """A colour that can be told from the ground in at least one channel."""
    colour = torch.rand(3, generator=draws)
    while float((colour - ground).abs().max()) < _CONTRAST:
        colour = torch.rand(3, generator=draws)
    return colour


def _mask(sides: int, side: int, draws: torch.Generator) -> Tensor:
    """A disc or a regular polygon somewhere within the picture, bool, shape (side, side)."""
    share, turn, left, top = torch.rand(4, generator=draws).tolist()
    radius = side * (RADIUS_LEAST + (RADIUS_MOST - RADIUS_LEAST) * share)
    place = torch.arange(side) + 0.5
    x, y = (place - radius - (side - 2 * radius) * shift for shift in (left, top))
    if not sides:
        return torch.le(x[None].square() + y[:, None].square(), radius**2)
    inner = radius * math.cos(math.pi / sides)  # of the circle that touches the edges
    normals = [2 * math.pi * (turn + edge) / sides for edge in range(sides)]
    within = [x[None] * math.cos(angle) + y[:, None] * math.sin(angle) <= inner for angle in normals]
    return torch.stack(within).all(0)
