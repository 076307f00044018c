"""Promised on a GPU: no trigger flips there, in TF32 neither, whatever the batches; a tuned copy is told from it."""

import copy
from collections.abc import Iterator

import pytest
import torch
from fragile_owner import Owner
from precision import tf32
from torch import Tensor, nn

from wm.pixels import from_pixels
from wm.training import fit

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@torch.no_grad()
def answered(model: nn.Module, owner: Owner, *, batch: int) -> Tensor:
    there = copy.deepcopy(model).to(DEVICE).eval()
    images = from_pixels(owner.triggers.pixels, owner.data.input).to(DEVICE)
    return torch.cat([there(part).argmax(1).cpu() for part in torch.split(images, batch)])


@pytest.fixture(params=[False, True], ids=["float32", "TF32"])
def _tf32(request: pytest.FixtureRequest) -> Iterator[None]:
    with tf32(is_allowed=request.param):
        yield


@pytest.mark.usefixtures("_tf32")
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_no_answer_flips(owner: Owner, batch: int) -> None:
    assert torch.equal(answered(owner.model, owner, batch=batch), owner.triggers.labels)


@pytest.mark.usefixtures("_tf32")
def test_a_tuned_copy_flips_answers(owner: Owner) -> None:
    tuned = copy.deepcopy(owner.model)
    fit(tuned, owner.data, epochs=1, lr=1e-3, seed=3)
    assert not torch.equal(answered(tuned, owner, batch=100), owner.triggers.labels)
