"""Decoys are made of the pictures that they hide, and are none of them."""

import random

import pytest
from endpoints import SHAPE, class_of, pictures
from hypothesis import given
from hypothesis import strategies as st

from node.endpoint.decoys import far_decoy, mirrored, mixed, near_twin, shifted
from node.endpoint.pictures import Pictures, Shape

PICTURE = st.binary(min_size=SHAPE.picture_bytes, max_size=SHAPE.picture_bytes)
SMALL = Shape(channels=2, height=2, width=3)
COUNTED = bytes(range(12))


def test_a_mirrored_picture_has_left_and_right_exchanged_in_every_channel():
    assert list(mirrored(COUNTED, SMALL)) == [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]


def test_a_shifted_picture_comes_in_again_on_the_other_side():
    assert list(shifted(COUNTED, SMALL, down=1, right=0)) == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8]
    assert list(shifted(COUNTED, SMALL, down=0, right=1)) == [2, 0, 1, 5, 3, 4, 8, 6, 7, 11, 9, 10]
    assert shifted(COUNTED, SMALL, down=0, right=0) == COUNTED


@given(PICTURE, st.integers(0, 3), st.integers(0, 4))
def test_mirroring_twice_and_shifting_back_give_the_picture(picture: bytes, down: int, right: int):
    assert mirrored(mirrored(picture, SHAPE), SHAPE) == picture
    there = shifted(picture, SHAPE, down=down, right=right)
    assert shifted(there, SHAPE, down=(4 - down) % 4, right=(5 - right) % 5) == picture
    assert sorted(there) == sorted(picture)


@given(PICTURE, PICTURE)
def test_a_mixed_picture_is_the_mean_pixel_by_pixel(one: bytes, other: bytes):
    assert list(mixed(one, other)) == [a // 2 + b // 2 for a, b in zip(one, other, strict=True)]


@given(PICTURE)
def test_a_near_twin_differs_in_lowest_bits_alone(picture: bytes):
    twin = near_twin(picture, random.Random(1))
    assert all(a >> 1 == b >> 1 for a, b in zip(picture, twin, strict=True))
    assert class_of(twin) == class_of(picture)


def test_twins_of_one_picture_differ_from_it_and_from_each_other():
    picture, chance = pictures(1).pixels[0], random.Random(1)
    assert len({picture, *(near_twin(picture, chance) for _ in range(20))}) == 21


def test_far_decoys_are_other_pictures_and_the_same_for_everybody_who_draws_with_the_same_seed():
    asked = pictures(20).pixels
    one, other = ([far_decoy(asked, SHAPE, chance) for _ in range(50)] for chance in map(random.Random, (7, 7)))
    assert one == other
    assert not set(one) & set(asked)
    assert one != [far_decoy(asked, SHAPE, random.Random(8)) for _ in range(50)]


def test_pictures_of_a_single_pixel_have_decoys_too():
    dot = Shape(channels=1, height=1, width=1)
    assert far_decoy((b"\x07",), dot, random.Random(1)) in {b"\x07", b"\x06"}


@pytest.mark.parametrize("changes", [{"pixels": (bytes(59),)}, {"mean": ("0", "0")}, {"std": ()}])
def test_pictures_that_do_not_fit_their_shape_or_normalisation_are_a_mistake(changes: dict[str, object]):
    known = {"shape": SHAPE, "mean": ("0",) * 3, "std": ("1",) * 3, "pixels": (bytes(60),)}
    Pictures(**known)
    with pytest.raises(ValueError, match=r"needed|must have"):
        Pictures(**known | changes)
