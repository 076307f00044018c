"""Promised: TF32 as it is defined, margins as they are defined, and nothing is left changed behind a measurement."""

import math
import struct

import pytest
import torch
from fragile_owner import small_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wm.schemes.fragile.numerics import CUT_OFF, Margins, _Tf32, margins_of, measure, variations
from wm.schemes.fragile.other_sums import AnotherOrder


def _reference(value: float, *, is_rounded: bool) -> float:
    """Keep 10 bits of the mantissa by exact arithmetic."""
    if value == 0:
        return 0.0
    mantissa, exponent = math.frexp(value)
    scaled = mantissa * 2**11
    return math.ldexp(float(round(scaled) if is_rounded else math.trunc(scaled)), exponent - 11)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e30, 1e30).filter(lambda value: value == 0 or abs(value) > 1e-30), st.booleans())
def test_factors_keep_ten_bits(value: float, is_rounded: bool) -> None:
    single = struct.unpack("f", struct.pack("f", value))[0]
    with _Tf32(is_rounded=is_rounded):
        product = torch.mm(torch.tensor([[single]]), torch.ones(1, 1))
    assert float(product) == _reference(single, is_rounded=is_rounded)


def test_biases_and_sums_do_not() -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad(), _Tf32(is_rounded=False):
        layer.weight.fill_(1.0)
        layer.bias.fill_(1 + 2**-20)
        assert float(layer(torch.zeros(1, 1))) == 1 + 2**-20


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), nn.Sequential(nn.Flatten(), nn.Linear(75, 4))],
)
def test_convolutions_and_linear_layers_are_computed_in_it(network: nn.Module) -> None:
    images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    found = variations(tf32=True)
    assert not torch.equal(found["TF32, rounded"](network, images), found["float32"](network, images))
    assert not torch.equal(found[CUT_OFF](network, images), found["TF32, rounded"](network, images))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(8, 4, 3), nn.Flatten()),
        nn.Sequential(nn.Flatten(2), nn.Linear(25, 4), nn.Flatten()),  # of rows, whose axis is not the channels'
    ],
)
def test_sums_in_another_order_are_the_same_but_for_their_last_digits(network: nn.Module) -> None:
    images = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    usual = network(images)
    with AnotherOrder(torch.Generator().manual_seed(1)):
        other = network(images)
    assert not torch.equal(other, usual)
    torch.testing.assert_close(other, usual, rtol=1e-4, atol=1e-5)


def test_orders_differ_and_each_is_always_the_same() -> None:
    model = small_network(1)
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    found = variations(tf32=True)
    first, again, second = (found[f"TF32, order {number}"](model, images) for number in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_convolutions_in_groups_are_left_as_they_are() -> None:
    layer, images = nn.Conv2d(4, 4, 3, groups=2), torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    usual = layer(images)
    with AnotherOrder(torch.Generator().manual_seed(1)):
        assert torch.equal(layer(images), usual)


def test_a_margin_is_the_labels_logit_minus_the_best_other() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5], [3.0, 1.0, 2.5]])
    assert margins_of(logits, torch.tensor([0, 1])).tolist() == [0.5, -2.0]


def _exact(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_least_margin_is_ten_times_what_chance_draws_and_above_what_it_does_not() -> None:
    drawn = {"float32": _exact(0.1, 0.05), "TF32, rounded": _exact(0.2, 0.1)}
    quiet = Margins(_exact(0, 0), {**drawn, CUT_OFF: _exact(0.3, 0.2)})
    loud = Margins(_exact(0, 0), {**drawn, CUT_OFF: _exact(0.3, 3.0)})
    assert (quiet.least(10), loud.least(10)) == pytest.approx((2.4, 4.5))  # TF32's orders are not all measured
    assert torch.allclose(quiet.leasts(10), _exact(2.4, 1.2))
    assert torch.allclose(loud.leasts(10), _exact(2.4, 4.5))
    assert 1.2 < quiet.usual_least(10) < 2.4
    assert quiet.noise == {"float32": 0.1, "TF32, rounded": 0.2, CUT_OFF: 0.3}


def test_what_is_measured_again_takes_the_place_of_what_was() -> None:
    before = Margins(_exact(1, 2, 3), {"float32": _exact(0.1, 0.2, 0.3)})
    after = before.replaced(torch.tensor([True, False, True]), Margins(_exact(7, 9), {"float32": _exact(0.7, 0.9)}))
    assert after.margins.tolist() == [7, 2, 9]
    assert after.distances["float32"].tolist() == [0.7, 0.2, 0.9]
    assert before.margins.tolist() == [1, 2, 3]


def test_a_measurement_leaves_everything_as_it_was() -> None:
    network = small_network(1).train()
    before, threads = [it.clone() for it in network.state_dict().values()], torch.get_num_threads()
    images = torch.randn(9, 3, 12, 11, generator=torch.Generator().manual_seed(1))
    found = measure(network, images, torch.zeros(9, dtype=torch.int64), tf32=True)
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    assert network.training
    assert network[0].weight.dtype == torch.float32
    assert torch.get_num_threads() == threads
    assert torch.backends.mkldnn.enabled
    assert found.margins.dtype == torch.float64
    assert 0 < found.noise["float32"] < found.noise["TF32, rounded"] < found.noise[CUT_OFF] < 0.1


def test_without_tf32_it_is_left_out() -> None:
    with_it, without = (set(variations(tf32=tf32)) for tf32 in (True, False))
    assert with_it - without == {"TF32, rounded", CUT_OFF, *(f"TF32, order {number}" for number in range(1, 5))}
    assert without < with_it
