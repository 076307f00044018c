"""An integer becomes a picture: a version 1-H QR code, drawn without a QR library.

One canonical symbol for every image size: version 1, error correction H, byte mode, the integer as 4
big-endian bytes, data mask 3, no border, padded as ISO/IEC 18004 (7.4.10) says: 21 x 21 modules. For a fixed
version, level, mode and mask every module is an affine function over GF(2) of the payload bits, so

    Q(n) = Q(0) xor (the xor of Q(2^i) xor Q(0) over the set bits i of n)

needs 31 constant symbols, and no two integers share a picture since the 30 differences are independent.
The tests compare with the packages `qrcode` and `segno`.

Source: Li et al. 2022, section 3.2 (QR encoder as the injective map); SCHEMES 5. The authors' code crops a
larger symbol to the image, which cuts payload away; here nothing is cropped.
"""

import base64

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENCODER = "qr-1H/1"  # the name in `info`; another drawing of the same integers is another encoder
MODULES = 21
PAYLOAD_BITS = 30

# Q(0), then Q(2^i) xor Q(0) for i = 0..29, each 441 modules row by row, packed most significant bit first.
_SYMBOLS_BASE64 = (
    "/gP8EBBujLt0VduvLsEVB/qv4BIAM46EAHkDlfNpfC2uKgB9p/qCUEGEujhd1wSusKkEQZ/jkAAQAAEgAA4AAFAAAYAADAAAAAAF"
    "gAAAATBQHa0AJYwBh1AABwAAeAAG4AAoAACoAAlIAFAAAmAAAAAAQAAFgAA0AAEgAAkAAAAAAkAAFAFatA5TgH7jAmTAAAlAAF4A"
    "AZAADgAAKAAGwgAnAAGYAAoAABgAA8AADAAAQAADAAAAAADAAAcA/OgHBMAePQDbGAADQAAxAAE4AAGAAEpAATAAHYAAZAACgAAk"
    "AAHgAAMAAFAAAIAAAAAAcAAEgGqYAeIACglAvcIAAvAAHwAApAAFIAAyEAFIAA0AAAwAAgAABAAAsAAFAAAIAAHAAAAAAFgAA8Ab"
    "KIFxLAmaAC4XAAHgAACAAAwAARIAEwAA4AAHQAAZAACAAAEAACgAAcAAFgAAYAAAAAA8AADgBoKA7RYADZArUYAAUAAFIAATAAFA"
    "gAxAAHgAA3AAAgAAIAABgAAQAAFgAA8AAEAAAAAAHgAAMAmA4D5nABIwC7RAAAQAAeAAGJAA0AAHAAAYAAEQAAqAABgAAoAAAAAA"
    "UAADgAAUAAAAAAsAAFgHaDADbYEQoABZQAApAAFYAAwEACAAA0AAEgAAhAAGoAAMAACAAAoAAAAAAsAAEgAAAAAEgAA8AXcYEaHA"
    "gC4ERHAACwAA3IAGYAACAADAAA2AAAQAAwAAEgAAIAACgAAAAADgAAUAAAAAAwAADgAbbA7FoEaAAzBYAAjAADYgApAAEIAAkAAG"
    "IAAZAAGAAAQAAFgAAAAABAAAsAAAgAAAAAAAAAkAjI4Cq2AwPICYnAAGZAAFAACoAASAAGQAA6AAEgAAQAAAAAA0AAHAAAkAADgA"
    "AEAAAAAAAAACAGYpAieoHIVADSYAATEAAAAAbAAFYAAxAAGoAAAAAFAAAIAAEgAAUAAEgAAIAACAAAAAACAAA4AHL4FTZAnEYBJX"
    "IAFYAAtAADwAAJAAFIAArAADIAAxAABgAA8AAAAAAYAAEgAAgAAAAAAgAACgAKvAdEACAIAOEYgAXAAGwAAMAABwAAWAAGoAAlAA"
    "CQAAkAADgAAoAAAgAAYAACgAAAAAHAAAAAqKoFQaADApA4TAAFIAA3AAG4AAvAAEYAA6AABAAApAAHAAAAAACgAAAAAEgAAAAAAA"
    "AAsAAEADogAbVoBYREBFYAA+AAHoAAQAAD4AAxAAC4AAFAACwAAUAAAAAAwAAFAAAQAABAAAAAACgAAYAmCQFp2I0BQEQVAAH4AA"
    "QAACQAAlAAHQAAtAACYAArAAAAAAIAAEAAA0AAAAAAEAAAAAAQAAFgCYpA8HojCXAZEAAA9AAAwAA4AAGQAAXAACwAA7AAGoAAIA"
    "ABAAA4AACAAAIAAFgAAAAAAAAAUAhGxCw0AdJQEwaAACgAALAAB4AAzAAFIAAFAAAgAAyAAAgAAkAAGgAAAAABgAAYAAAAAAgAAA"
    "AHAxEtHAA4dAbUoAACAAF4AAXAAHIAAWAAAQAArAADYAA0AAFAAAUAACAAA0AAAAAAAAAHAAAQA5F4UANAaWYFqZAADgAAPAACYA"
    "AkAAHAAAVAACoAAtAACAAAcAACAAAoAACAAAIAAAAAAEAAEADgXBeFgHh4A2IwAAOAAAYAAxAAGAAA+AABwAAyAAHgAAgAAAgAA4"
    "AAGgAAAAAEgAAAAAGAAA4AsRIALSCEU4HKjAAA4AArAAGAAAQAADoAABAAAIAA0AADAAAsAAGgAAQAAAAAAwAAAAAA4AACgCxkAI"
    "IIMTQAcLYAADAAH4AAzAAAQAAOAAEgAAbAAGQAAEAACgAAIAAFAAAoAAHgAAAAAHgAAAAJSQEBoAJMQUiFAAEYAA1AADQAADAAAo"
    "AA6AAFoAARAAEAAAIAABgAAUAAGgAA0AAAAAAcAABABhJAcHAB6rBScAAAzAAGQAAMAAAYAAgAADoAA1AABQAAYAABAAAsAABAAA"
    "wAADAAAAAAHgAAsAkUgBxUAtawBJSCAGIAAzAAGoAArAAGQAAmAADAAANAAAgAAkAAEgAAsAAHAAAIAAAAAAsAAHgCDwAPdADxpA"
    "MRIIAyAACIAAhAAH4AAZAADoAA2AAEgAA0AABAAAsAACgAAAAAAgAAAAAHAAA4AeQwFjkAvYADADAACYQAxAAH4AAhAAFoAAQAAA"
    "wAAaAADAAAgAABgAAoAAAAAAgAAAAAA8AACgApBA+LABrKAsQIAAjBACAAAkAAHQAA0AABQAAiAAB4A="
)


def symbols(integers: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Encode integers as QR codes.

    Args:
        integers: shape (n,), each below 2^30.

    Returns:
        True where a module is dark, shape (n, 21, 21).

    Raises:
        ValueError: an integer is too large.
    """
    if integers.size and int(integers.max()) >= 1 << PAYLOAD_BITS:
        raise ValueError(f"an integer of {int(integers.max())} needs more than {PAYLOAD_BITS} bits")
    bits = integers[:, None] >> np.arange(PAYLOAD_BITS, dtype=np.uint32) & np.uint32(1)
    # A sum modulo 2 is the xor; of at most 31 ones it is exact in floating point, whose product of matrices is fast.
    ones = torch.from_numpy(bits.astype(np.float32)) @ _BASIS[1:] + _BASIS[0]
    dark: NDArray[np.bool_] = (ones.to(torch.uint8) & 1).bool().numpy()
    return dark.reshape(-1, MODULES, MODULES)


def render(dark: NDArray[np.bool_], *, black: Tensor, white: Tensor, height: int, width: int) -> Tensor:
    """Draw symbols as large as whole pixels per module allow, centred on white.

    Args:
        dark: shape (n, 21, 21).
        black: what a dark module is in each channel, float32, shape (channels,).
        white: the same of a light one, and of the margin.
        height: at least 21 pixels.
        width: at least 21 pixels.

    Returns:
        float32, shape (n, channels, height, width), contiguous. An odd margin leaves the larger part below and to the
        right.

    Raises:
        ValueError: the image is smaller than a symbol. Nothing is ever cropped.
    """
    scale = min(height, width) // MODULES
    if scale < 1:
        raise ValueError(f"a QR code needs {MODULES} x {MODULES} pixels, the input has {height} x {width}")
    side = scale * MODULES
    top, left = (height - side) // 2, (width - side) // 2
    black, white = black[:, None, None], white[:, None, None]
    images = torch.empty(len(dark), len(white), height, width).copy_(white)
    modules = torch.where(torch.from_numpy(dark)[:, None], black, white)
    inside = images[:, :, top : top + side, left : left + side]
    inside.view(*images.shape[:2], MODULES, scale, MODULES, scale).copy_(modules[:, :, :, None, :, None])
    return images


def _unpacked_basis() -> Tensor:
    packed = np.frombuffer(base64.b64decode(_SYMBOLS_BASE64), dtype=np.uint8)
    modules = MODULES * MODULES
    bits = np.unpackbits(packed, count=(1 + PAYLOAD_BITS) * modules).reshape(-1, modules)
    return torch.from_numpy(bits.astype(np.float32))


_BASIS = _unpacked_basis()
