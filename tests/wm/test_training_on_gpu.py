"""Promised on a GPU: a killed embedding goes on there, and in bfloat16 a mark takes (`make gpu`).

Bits are compared on the CPU: some of a GPU's kernels add up in another order each time.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from interrupted import KilledError, Killing

import wm
from wm.data import Dataset

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


def embedded(owner, data: Dataset, settings: wm.EmbedSettings, **more: object) -> wm.Embedding:
    model = owner.clean.to(DEVICE)
    try:
        return wm.embed(model, data, owner.key, architecture=owner.architecture, settings=settings, seed=1, **more)
    finally:
        owner.clean.cpu()


def matched(owner, embedding: wm.Embedding) -> list[int]:
    head, info = embedding.head, embedding.info
    return [wm.count_matched(embedding.model, head, info, key) for key in (owner.key, owner.other_key)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_embedding_goes_on_there_to_a_mark_that_is_as_good(
    owner, few_digits: Dataset, tmp_path: Path, precision: str
) -> None:
    settings = replace(owner.settings, steps=6, precision=precision)
    whole = embedded(owner, few_digits, settings)
    with pytest.raises(KilledError):
        embedded(owner, few_digits, settings, savepoint=Killing(tmp_path / "state", after=4))
    resumed = embedded(owner, few_digits, settings, savepoint=tmp_path / "state")
    assert all(value.device.type == DEVICE for value in resumed.model.state_dict().values())
    assert len(resumed.report["history"]) == len(whole.report["history"]) == 3
    for row, other in zip(whole.report["history"], resumed.report["history"], strict=True):
        assert other["mark_loss"] == pytest.approx(row["mark_loss"], rel=0.05)
    for embedding in (whole, resumed):
        own, other = matched(owner, embedding)
        assert own >= 95
        assert 25 <= other <= 75


def test_in_bfloat16_the_weights_stay_in_single_precision(owner, few_digits: Dataset) -> None:
    half = embedded(owner, few_digits, replace(owner.settings, precision="bfloat16"))
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}
    assert matched(owner, half)[0] >= 95
