"""Pictures among which those that count are hidden, all made of these: mirrored, shifted, mixed, or nearly the same.

Pictures are handled as whole byte strings, or as one large integer, since a loop over pixels in Python would keep a
node's event loop waiting; nothing here needs an array library.
"""

import random

from node.endpoint.pictures import Shape


def mirrored(picture: bytes, shape: Shape) -> bytes:
    """The picture with left and right exchanged."""
    return b"".join(row[::-1] for row in _rows(picture, shape))


def shifted(picture: bytes, shape: Shape, *, down: int, right: int) -> bytes:
    """The picture moved by so many pixels; what leaves on one side comes in on the other."""
    rows = [row[-right:] + row[:-right] if right else row for row in _rows(picture, shape)]
    height = shape.height
    planes = [rows[first : first + height] for first in range(0, len(rows), height)]
    return b"".join(row for plane in planes for row in plane[height - down :] + plane[: height - down])


def mixed(one: bytes, other: bytes) -> bytes:
    """The mean of two pictures of one size, each halved and rounded down before."""
    upper = int.from_bytes(b"\xfe" * len(one))
    halves = ((int.from_bytes(picture) & upper) >> 1 for picture in (one, other))
    return sum(halves).to_bytes(len(one))


def near_twin(picture: bytes, chance: random.Random) -> bytes:
    """The picture with a random lowest bit in every pixel: the same to the eye and, nearly always, to a network."""
    lowest = int.from_bytes(b"\x01" * len(picture))
    noise = int.from_bytes(chance.randbytes(len(picture))) & lowest
    return (int.from_bytes(picture) ^ noise).to_bytes(len(picture))


def far_decoy(pictures: tuple[bytes, ...], shape: Shape, chance: random.Random) -> bytes:
    """A picture that is made of the given ones and is none of them, except by chance."""
    picture = chance.choice(pictures)
    if chance.random() < 1 / 3:
        picture = mixed(picture, chance.choice(pictures))
    if chance.random() < 1 / 2:
        picture = mirrored(picture, shape)
    down, right = (1 + chance.randrange(max(1, side // 4)) for side in (shape.height, shape.width))
    return shifted(picture, shape, down=down % shape.height, right=right % shape.width)


def _rows(picture: bytes, shape: Shape) -> list[bytes]:
    return [picture[first : first + shape.width] for first in range(0, len(picture), shape.width)]
