"""Promised: a head is six tensors that fit, are finite, and treat every input alone."""

import pytest
import torch

from wm.backbone import Tap
from wm.errors import WatermarkError
from wm.head import Head, distance_from_centre, head_from_tensors, initial_head, recentre

TAPS = (Tap("a", 2, 2, 2), Tap("b", 4, 1, 1))


def head() -> Head:
    features = torch.cat([torch.randn(50, 8), 100 * torch.randn(50, 4)], dim=1)
    return initial_head(features, TAPS, pooling=2, hidden=5, seed=1)


def test_a_head_survives_its_tensors() -> None:
    original, features = head(), torch.randn(7, 12)
    rebuilt = head_from_tensors(original.tensors(), inputs=12, hidden=5)
    assert torch.equal(rebuilt(features), original(features))


def test_one_deviation_serves_a_whole_tap() -> None:
    std = head().std
    assert len(set(std[:8].tolist())) == 1
    assert len(set(std[8:].tolist())) == 1
    assert std[0] < 2
    assert std[-1] > 50


def test_a_dead_tap_divides_by_something() -> None:
    dead = initial_head(torch.zeros(5, 12), TAPS, pooling=2, hidden=5, seed=1)
    assert bool(torch.isfinite(dead(torch.zeros(3, 12))).all())


def test_a_head_centred_anew_answers_as_before_and_lies_where_it_is_told() -> None:
    made = head()
    moved = torch.cat([4 + 3 * torch.randn(60, 8), 500 + 10 * torch.randn(60, 4)], dim=1)
    before = made(moved)
    assert distance_from_centre(made, moved) > 3
    std = made.std.clone()
    recentre(made, moved)
    assert torch.allclose(made(moved), before, atol=1e-4)
    assert distance_from_centre(made, moved) < 1e-5
    assert torch.equal(made.std, std)


def test_an_answer_does_not_depend_on_the_other_inputs_of_the_batch() -> None:
    features = torch.randn(9, 12)
    made = head()
    assert torch.allclose(made(features)[:1], made(features[:1]), atol=1e-6)


def broken(name: str, tensor: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = head().tensors()
    if tensor is None:
        del tensors[name]
    else:
        tensors[name] = tensor
    return tensors


@pytest.mark.parametrize(
    ("name", "tensor", "code"),
    [
        ("mean", None, "mismatch"),
        ("code", torch.zeros(1), "mismatch"),
        ("mean", torch.zeros(11), "mismatch"),
        ("mean", torch.zeros(12, dtype=torch.float64), "mismatch"),
        ("mean", torch.full((12,), torch.nan), "malformed"),
        ("output.bias", torch.full((2,), torch.inf), "malformed"),
        ("std", torch.zeros(12), "malformed"),
        ("std", -torch.ones(12), "malformed"),
    ],
)
def test_a_head_whose_tensors_are_wrong_is_refused(name: str, tensor: torch.Tensor | None, code: str) -> None:
    with pytest.raises(WatermarkError) as caught:
        head_from_tensors(broken(name, tensor), inputs=12, hidden=5)
    assert caught.value.code == code
    assert name in str(caught.value)


def test_a_head_too_large_is_refused_before_it_is_built() -> None:
    with pytest.raises(WatermarkError) as caught:
        head_from_tensors({}, inputs=1 << 20, hidden=256)
    assert caught.value.code == "too_large"
