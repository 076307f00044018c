"""Promised: pictures of every size, and the paper's loss whatever the parts in which it is computed."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wm.schemes.fragile.generating import variance_share
from wm.schemes.fragile.generator import Equalised, Generator, stage_sizes


@given(st.integers(1, 300), st.integers(1, 300))
def test_sizes_double_up_to_the_pictures_own(height: int, width: int) -> None:
    sizes = stage_sizes(height, width)
    assert sizes[-1] == (height, width)
    assert max(sizes[0]) <= 7
    for smaller, larger in itertools.pairwise(sizes):
        assert all(full in {2 * half - 1, 2 * half} for half, full in zip(smaller, larger, strict=True))


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 28, 28), (3, 5, 9), (2, 33, 21)])
def test_pictures_have_the_size_that_was_asked_for(channels: int, height: int, width: int) -> None:
    draws = torch.Generator().manual_seed(1)
    made = Generator(latent=8, width=20, channels=channels, height=height, width_pixels=width, draws=draws)
    pictures = made(torch.randn(3, 8, generator=draws))
    assert pictures.shape == (3, channels, height, width)
    assert 0 < float(pictures.min()) < float(pictures.max()) < 1
    assert float(pictures.std(0).mean()) > 0.01


def test_an_equalised_convolution_keeps_the_deviation_at_any_width() -> None:
    for width in (4, 64, 256):
        draws = torch.Generator().manual_seed(1)
        layer = Equalised(width, width, side=3, gain=1.0, draws=draws)
        out = layer(torch.randn(2, width, 12, 12, generator=draws))[:, :, 1:-1, 1:-1]
        assert float(out.std()) == pytest.approx(1, rel=0.2)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_variance_in_parts_is_torchs_variance_of_all_posteriors(seed: int, part: int) -> None:
    logits = torch.randn(10, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.zeros(10, dtype=torch.int64)
    shares = [
        variance_share(rows, marks, "uniform", total=10)
        for rows, marks in zip(logits.split(part), labels.split(part), strict=True)
    ]
    assert float(sum(shares)) == pytest.approx(float(logits.softmax(1).var()), rel=1e-9)


def test_a_pair_ties_the_label_with_the_nearest_other_alone() -> None:
    logits, label = torch.tensor([[1.0, 1.0, -50.0, -60.0]]), torch.tensor([0])
    assert float(variance_share(logits, label, "pair", total=1)) == pytest.approx(0, abs=1e-9)
    assert float(variance_share(logits, label, "uniform", total=1)) > 0.05
