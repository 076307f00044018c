"""Promised: what is written is read again, anything else is refused by name, and the labels follow from the key."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.errors import WatermarkError
from wm.schemes import margin
from wm.schemes.margin.draws import labels_for
from wm.schemes.margin.payload import PIXEL_BYTES_MAX, TRIGGERS_LEAST, TRIGGERS_MAX
from wm.triggers import InputSpec, Normalisation

KEY = bytes(range(32))
LEVELS = Normalisation(("0.5",) * 3, ("0.25",) * 3)
SPEC = InputSpec(3, 4, 4, LEVELS)
PIXELS = torch.arange(24 * 48).remainder(256).to(torch.uint8).reshape(24, 3, 4, 4)


@given(st.integers(TRIGGERS_LEAST, 60), st.integers(2, 1000))
def test_a_payload_is_read_as_it_was_written(count: int, classes: int) -> None:
    payload = margin.MarginPayload(PIXELS[:1].repeat(count, 1, 1, 1), SPEC, classes)
    read = margin.payload_from(payload.fields(), payload.tensors(), spec=SPEC, classes=classes)
    assert torch.equal(read.pixels, payload.pixels)
    assert (read.spec, read.classes, read.total, read.chance) == (SPEC, classes, count, Fraction(1, classes))


def test_the_triggers_are_the_pixels_and_the_keys_labels() -> None:
    triggers = margin.class_triggers(margin.MarginPayload(PIXELS, SPEC, 10), KEY)
    assert torch.equal(triggers.pixels, PIXELS)
    assert torch.equal(triggers.labels, labels_for(KEY, PIXELS, SPEC, classes=10))


@pytest.mark.parametrize(
    ("fields", "tensors", "said"),
    [
        ({}, {"pixels": PIXELS}, "exactly the keys"),
        ({"triggers": 24, "classes": 10}, {"pixels": PIXELS}, "exactly the keys"),
        ({"triggers": "24"}, {"pixels": PIXELS}, "payload.triggers"),
        ({"triggers": True}, {"pixels": PIXELS}, "payload.triggers"),
        ({"triggers": TRIGGERS_LEAST - 1}, {"pixels": PIXELS[: TRIGGERS_LEAST - 1]}, "payload.triggers"),
        ({"triggers": TRIGGERS_MAX + 1}, {"pixels": PIXELS}, "payload.triggers"),
        ({"triggers": 24}, {}, "exactly the tensors"),
        ({"triggers": 24}, {"pixels": PIXELS, "labels": torch.zeros(24)}, "exactly the tensors"),
        ({"triggers": 23}, {"pixels": PIXELS}, "'pixels'"),
        ({"triggers": 24}, {"pixels": PIXELS.float()}, "'pixels'"),
        ({"triggers": 24}, {"pixels": PIXELS.flatten(2)}, "'pixels'"),
        ({"triggers": 24}, {"pixels": PIXELS[:, :1]}, "'pixels'"),
    ],
)
def test_a_hostile_payload_is_malformed(fields: dict[str, object], tensors: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(WatermarkError, match=said) as refusal:
        margin.payload_from(fields, tensors, spec=SPEC, classes=10)
    assert refusal.value.code == "malformed"


def test_pixels_beyond_what_a_node_looks_at_are_too_large_before_any_is_touched() -> None:
    spec = InputSpec(3, 1024, 1024, LEVELS)
    assert PIXEL_BYTES_MAX < 24 * 3 * 1024 * 1024
    with pytest.raises(WatermarkError, match="use fewer triggers") as refusal:
        margin.payload_from({"triggers": 24}, {}, spec=spec, classes=10)
    assert refusal.value.code == "too_large"


def test_a_hundred_colour_pictures_of_usual_size_are_not_too_large() -> None:
    pixels = torch.zeros(100, 3, 224, 224, dtype=torch.uint8)
    spec = InputSpec(3, 224, 224, LEVELS)
    assert margin.payload_from({"triggers": 100}, {"pixels": pixels}, spec=spec, classes=10).total == 100
