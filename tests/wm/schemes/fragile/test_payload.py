"""Promised: a payload comes back as it was, labels come from the key alone, and a hostile twin is refused by name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wm.errors import WatermarkError
from wm.schemes import fragile
from wm.schemes.fragile.payload import FragilePayload, decimal, payload_from
from wm.triggers import InputSpec, Normalisation

_KEY = bytes(range(32))
_SPEC = InputSpec(3, 5, 4, Normalisation(("0.5",) * 3, ("0.2",) * 3))
_PIXELS = torch.arange(20 * 60).to(torch.uint8).view(20, 3, 5, 4)
_PAYLOAD = FragilePayload(
    pixels=_PIXELS, classes=7, tolerates_tf32=True, margin_least="1.250e-02", margin_most="2.000e-02"
)


def test_it_comes_back_as_it_was() -> None:
    read = payload_from(_PAYLOAD.fields(), _PAYLOAD.tensors(), spec=_SPEC, classes=7)
    assert torch.equal(read.pixels, _PIXELS)
    assert (read.fields(), read.classes, read.total, read.chance) == (_PAYLOAD.fields(), 7, 20, None)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-30, 1e30))
def test_every_margin_is_spelled_as_a_payload_may(value: float) -> None:
    spelled = decimal(value)
    read = payload_from(
        _PAYLOAD.fields() | dict.fromkeys(("margin_least", "margin_most"), spelled),
        _PAYLOAD.tensors(),
        spec=_SPEC,
        classes=7,
    )
    assert float(read.margin_least) == pytest.approx(value, rel=1e-3)


def test_labels_come_from_the_key() -> None:
    triggers = fragile.class_triggers(_PAYLOAD, _KEY)
    assert torch.equal(triggers.pixels, _PIXELS)
    assert triggers.labels.dtype == torch.int64
    assert int(triggers.labels.max()) < 7


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("triggers", 21),
        ("triggers", 19),
        ("triggers", 1),
        ("triggers", 1025),
        ("triggers", "20"),
        ("triggers", True),
        ("tolerates_tf32", 2),
        ("margin_least", 0.0125),
        ("margin_least", "1.25e-02"),
        ("margin_least", "0.125e-01"),
        ("margin_least", "-1.250e-02"),
        ("margin_least", "nan"),
        ("margin_least", "1.250e-02\n"),
        ("margin_least", "3.000e-02"),
        ("margin_most", "inf"),
        ("margin_most", "１.250e-02"),
        ("another", 1),
    ],
)
def test_a_field_that_no_honest_program_writes_is_refused(field: str, value: object) -> None:
    with pytest.raises(WatermarkError) as refused:
        payload_from(_PAYLOAD.fields() | {field: value}, _PAYLOAD.tensors(), spec=_SPEC, classes=7)
    assert refused.value.code == "malformed"
    assert field in str(refused.value) or "pixels" in str(refused.value) or "exactly the keys" in str(refused.value)


def test_a_missing_field_is_refused() -> None:
    fields = _PAYLOAD.fields()
    del fields["margin_most"]
    with pytest.raises(WatermarkError, match="exactly the keys"):
        payload_from(fields, _PAYLOAD.tensors(), spec=_SPEC, classes=7)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"pixels": _PIXELS, "labels": torch.zeros(20)},
        {"pixels": _PIXELS.float()},
        {"pixels": _PIXELS[:19]},
        {"pixels": _PIXELS.transpose(2, 3)},
        {"pixels": _PIXELS[:, :1]},
    ],
)
def test_other_tensors_are_refused(tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WatermarkError, match="pixels") as refused:
        payload_from(_PAYLOAD.fields(), tensors, spec=_SPEC, classes=7)
    assert refused.value.code == "malformed"


def test_too_many_pixels_are_refused_before_any_is_looked_at() -> None:
    huge = InputSpec(3, 1024, 1024, _SPEC.normalisation)
    with pytest.raises(WatermarkError, match="take fewer") as refused:
        payload_from(_PAYLOAD.fields() | {"triggers": 1024}, {}, spec=huge, classes=7)
    assert refused.value.code == "too_large"
