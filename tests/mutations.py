"""Random damage to bytes, as fuzzers do it: the same seed gives the same damage."""

import random


def mutated(raw: bytes, draw: random.Random, *, others: list[bytes]) -> bytes:
    """A changed copy: flipped bits, cut, stretched, repeated, joined with another, or nothing but noise."""
    data = bytearray(raw)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data)) if data else 0
        match draw.randrange(7):
            case 0 if data:
                data[at] ^= 1 << draw.randrange(8)
            case 1 if data:
                data[at] = draw.choice((0x00, 0x7F, 0x80, 0xC0, 0xC1, 0xC7, 0xD9, 0xDC, 0xDD, 0xDF, 0xFF))
            case 2:
                del data[at:]
            case 3:
                data[at:at] = draw.randbytes(draw.choice((1, 4, 64, 5000)))
            case 4:
                data[at:at] = data[at : at + 32] * draw.choice((1, 2, 200))
            case 5:
                other = draw.choice(others)
                data[at:] = other[draw.randrange(len(other)) :]
            case 6:
                data[:] = draw.randbytes(draw.randrange(100))
    return bytes(data)
