"""Promised: the pictures are standard QR codes, no two integers share one, and none is ever cropped."""

import numpy as np
import pytest
import qrcode
import segno
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qrcode.util import MODE_8BIT_BYTE, QRData

from wm.triggers.qr import render, symbols

INTEGERS = st.integers(0, 2**30 - 1)


def one(integer: int) -> np.ndarray:
    return symbols(np.array([integer], dtype=np.uint32))[0]


def drawn(dark: np.ndarray, *, channels: int, height: int, width: int) -> torch.Tensor:
    return render(dark, black=torch.zeros(channels), white=torch.ones(channels), height=height, width=width)


def by_qrcode(integer: int) -> np.ndarray:
    code = qrcode.QRCode(version=1, error_correction=qrcode.constants.ERROR_CORRECT_H, border=0, mask_pattern=3)
    code.add_data(QRData(integer.to_bytes(4, "big"), mode=MODE_8BIT_BYTE), optimize=0)
    code.make(fit=False)
    return np.array(code.modules, dtype=bool)


def by_segno(integer: int) -> np.ndarray:
    payload = integer.to_bytes(4, "big")
    code = segno.make(payload, version=1, error="h", mode="byte", mask=3, boost_error=False, micro=False)
    return np.array([list(row) for row in code.matrix], dtype=bool)


@given(INTEGERS)
@settings(max_examples=50, deadline=None)
def test_symbols_are_those_of_the_package_qrcode(integer: int) -> None:
    assert np.array_equal(one(integer), by_qrcode(integer))


@given(INTEGERS)
@settings(max_examples=50, deadline=None)
def test_symbols_differ_from_segno_only_by_its_padding(integer: int) -> None:
    # segno 1.6.6 writes a whole byte of zeros after a bit stream that already ends at a byte (ISO/IEC 18004, 7.4.10,
    # asks for none), which shifts the pad codewords: the same modules differ for every payload.
    difference = one(integer) ^ by_segno(integer)
    assert np.array_equal(difference, one(0) ^ by_segno(0))


@given(INTEGERS, INTEGERS)
@settings(max_examples=100, deadline=None)
def test_two_integers_share_a_picture_only_if_they_are_equal(first: int, second: int) -> None:
    assert np.array_equal(one(first), one(second)) == (first == second)


def test_six_hundred_pictures_are_far_apart() -> None:
    dark = symbols(np.arange(0, 600 * 1789, 1789, dtype=np.uint32)).reshape(600, -1)
    distances = (dark[:, None] ^ dark[None]).sum(2) + 441 * np.eye(600, dtype=int)
    assert distances.min() > 30


def test_an_integer_of_more_than_thirty_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="30 bits"):
        one(2**30)


@pytest.mark.parametrize(
    ("side", "scale", "margin"), [(21, 1, 0), (28, 1, 3), (32, 1, 5), (64, 3, 0), (112, 5, 3), (224, 10, 7)]
)
def test_a_picture_is_scaled_by_whole_pixels_and_centred_on_white(side: int, scale: int, margin: int) -> None:
    dark = symbols(np.array([5], dtype=np.uint32))
    image = drawn(dark, channels=3, height=side, width=side)
    end = margin + 21 * scale
    assert image.shape == (1, 3, side, side)
    middle = image[0, 0, margin:end:scale, margin:end:scale]
    assert torch.equal(middle, 1 - torch.from_numpy(dark[0]).float())
    assert torch.equal(image[:, 0], image[:, 2])
    outside = image.clone()
    outside[:, :, margin:end, margin:end] = 1
    assert bool((outside == 1).all())


def test_a_picture_that_would_have_to_be_cropped_is_refused() -> None:
    with pytest.raises(ValueError, match="21 x 21"):
        drawn(symbols(np.array([5], dtype=np.uint32)), channels=1, height=20, width=32)


def test_every_channel_has_a_black_and_a_white_of_its_own() -> None:
    dark = symbols(np.array([5, 6], dtype=np.uint32))
    black, white = torch.tensor([0.5, -2.0]), torch.tensor([4.0, 3.0])
    image = render(dark, black=black, white=white, height=70, width=45)
    plain = drawn(dark, channels=2, height=70, width=45)
    assert image.is_contiguous()
    assert torch.equal(image, torch.where(plain == 1, white[:, None, None], black[:, None, None]))
