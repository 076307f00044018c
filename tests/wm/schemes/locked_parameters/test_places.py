"""Promised: places, signs and sizes follow from key and shapes alone, and spread over all that may be locked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from locked import KEY, OTHER_KEY
from torch import nn

from wm.architectures import Architecture, build, skeleton
from wm.errors import WatermarkError
from wm.schemes.locked_parameters import lockable, positions
from wm.schemes.locked_parameters.places import pattern, signs
from wm.triggers.prg import keystream

SHAPES = {"b.weight": (40, 3), "a.weight": (8, 3, 5, 5), "c.weight": (900,)}


def dumb_places(key: bytes, shapes: dict[str, tuple[int, ...]], count: int) -> list[tuple[str, int]]:
    everything = [(name, entry) for name in sorted(shapes) for entry in range(int(np.prod(shapes[name])))]
    stream, drawn = keystream(key, b"wmreg/pos/v1", 40 * count), list[tuple[str, int]]()
    for at in range(0, len(stream), 4):
        word = int.from_bytes(stream[at : at + 4], "big")
        if word < 2**32 // len(everything) * len(everything):
            place = everything[word % len(everything)]
            drawn += [place] if place not in drawn else []
    return drawn[:count]


@given(st.binary(min_size=32, max_size=32), st.permutations(sorted(SHAPES)), st.integers(1, 120))
@settings(max_examples=15, deadline=None)
def test_places_are_those_of_a_plain_draw_whatever_the_order_of_the_tensors(
    key: bytes, order: list[str], count: int
) -> None:
    places = positions(key, {name: SHAPES[name] for name in order}, count)
    found = [(places.names[tensor], entry) for tensor, entry in zip(places.tensor, places.entry.tolist(), strict=True)]
    assert found == dumb_places(key, SHAPES, count)
    assert len(set(found)) == count


FIRST = [("a.weight", 61), ("c.weight", 274), ("a.weight", 352), ("a.weight", 528)]
FIRST_SIGNS = [1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0]
FIRST_SIZES = [1.2605211, 0.9690548, -1.2035648]


def test_the_first_places_signs_and_sizes_of_a_known_key_stay_what_they_are() -> None:
    places = positions(KEY, SHAPES, 4)
    assert [(places.names[it], int(entry)) for it, entry in zip(places.tensor, places.entry, strict=True)] == FIRST
    assert signs(KEY, 12).int().tolist() == FIRST_SIGNS
    assert pattern(KEY, 3).tolist() == pytest.approx(FIRST_SIZES, rel=1e-6)


def test_a_tensor_is_met_as_often_as_its_size_says() -> None:
    places = positions(KEY, {"small": (10_000,), "large": (30_000,)}, 4000)
    large = int((places.tensor == places.names.index("large")).sum())
    assert abs(large - 3000) < 5 * (4000 * 0.25 * 0.75) ** 0.5


def test_another_key_has_other_places_signs_and_sizes() -> None:
    own, other = (positions(key, {"w": (100_000,)}, 600) for key in (KEY, OTHER_KEY))
    assert len(set(own.entry.tolist()) & set(other.entry.tolist())) < 30
    assert 230 < int((signs(KEY, 600) == signs(OTHER_KEY, 600)).sum()) < 370
    assert float(torch.corrcoef(torch.stack([pattern(key, 600).abs() for key in (KEY, OTHER_KEY)]))[0, 1]) < 0.2


def test_what_is_written_differs_in_size_and_is_never_near_0() -> None:
    written = pattern(KEY, 2000)
    assert 0.5 <= float(written.abs().min()) < 0.51
    assert 1.49 < float(written.abs().max()) <= 1.5
    assert torch.equal(written > 0, signs(KEY, 2000))


def test_a_network_too_small_is_refused() -> None:
    assert len(positions(KEY, {"w": (1000,)}, 100)) == 100
    with pytest.raises(WatermarkError, match="999 weights that can be locked, too few for 100") as refused:
        positions(KEY, {"w": (999,)}, 100)
    assert refused.value.code == "mismatch"


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "bilstm", "maskrcnn_resnet18_fpn", "vit_b_32"])
def test_a_node_finds_in_the_skeleton_what_the_owner_finds_in_the_network(name: str) -> None:
    architecture = Architecture(name, {"num_classes": 3})
    other = Architecture(name, {"num_classes": 7})
    shapes = lockable(skeleton(architecture))
    assert shapes == lockable(skeleton(other)) != {}
    held = skeleton(architecture).state_dict()
    assert all(tuple(held[name].shape) == shape for name, shape in shapes.items())
    assert not any("bn" in name or name.endswith("bias") or name.startswith("embedding") for name in shapes)


def test_a_network_with_storage_has_the_places_of_its_skeleton() -> None:
    architecture = Architecture("shufflenet_v2_x0_5", {"num_classes": 10})
    assert lockable(build(architecture, seed=1)) == lockable(skeleton(architecture))


def test_a_tensor_of_two_names_is_locked_under_one() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert lockable(nn.Sequential(first, second, nn.Linear(4, 2))) == {"0.weight": (4, 4)}


def test_a_network_that_has_nothing_but_its_classifier_has_nothing_to_lock() -> None:
    assert lockable(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.BatchNorm1d(2))) == lockable(nn.ReLU()) == {}
