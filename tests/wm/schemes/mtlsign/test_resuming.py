"""Promised: an embedding that was killed goes on to the same bits, and only the very same embedding does."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from interrupted import KilledError, Killing
from torch import nn

import wm
from wm.architectures import build
from wm.data import Dataset
from wm.randomness import seeded
from wm.savepoint import fill, fill_optimizer, optimizer_state
from wm.training import endless_batches

pytestmark = pytest.mark.long

KEY = bytes(range(32))


def own_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


ARCHITECTURE = wm.OwnArchitecture(own_net)
SETTINGS = wm.EmbedSettings(
    taps=("2", "4"),
    triggers=100,
    hidden=8,
    pooling=2,
    steps=6,
    trigger_batch=30,
    primary_batch=2,
    shadows=2,
    shadow_steps=1,
    head_steps=3,
    backbone_lr=1e-3,
)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build(ARCHITECTURE, seed=1).eval()


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return build(ARCHITECTURE, seed=2).eval()


def embedded(model: nn.Module, data: Dataset, **more: object) -> wm.Embedding:
    usual = {"watermark_key": KEY, "architecture": ARCHITECTURE, "settings": SETTINGS, "seed": 1}
    return wm.embed(model, data, **usual | more)


def assert_same(first: wm.Embedding, other: wm.Embedding) -> None:
    for ours, theirs in ((first.model, other.model), (first.head, other.head)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    assert {**first.report, "seconds": 0} == {**other.report, "seconds": 0}


@pytest.mark.parametrize(
    ("changes", "beside_base"),
    [
        ({}, False),
        ({"siblings": 1, "fresh_negatives": 1, "align_every": 4}, True),  # the kills are between two alignments
        ({"siblings": 0, "fresh_negatives": 0, "align_every": 0}, True),
        ({"tuning_regularizer": "fomaml", "reduction": "sum", "primary_weight": 0.0}, False),
        ({"tuning_regularizer": "delta", "feature_noise": 0.0}, False),
        ({"precision": "bfloat16"}, False),
    ],
    ids=["head", "negatives", "negatives as they are", "fomaml", "delta", "bfloat16"],
)
def test_an_embedding_that_was_killed_goes_on_to_the_same_bits(
    model: nn.Module, base: nn.Module, few_digits: Dataset, tmp_path: Path, changes: dict, beside_base: bool
) -> None:
    usual = {"settings": replace(SETTINGS, **changes), "negatives": [base] if beside_base else []}
    whole = embedded(model, few_digits, **usual)
    with pytest.raises(KilledError):
        embedded(model, few_digits, savepoint=Killing(tmp_path / "state", after=2), **usual)  # one shadow was met
    with pytest.raises(KilledError):
        embedded(model, few_digits, savepoint=Killing(tmp_path / "state", after=3), **usual)  # and another
    steps = list[wm.Progress]()
    resumed = embedded(model, few_digits, savepoint=tmp_path / "state", progress=steps.append, **usual)
    assert_same(whole, resumed)
    assert [it.done for it in steps if it.phase == "embedding"] == [6]
    assert_same(whole, embedded(model, few_digits, savepoint=tmp_path / "state", **usual))


def test_only_the_very_same_embedding_goes_on_from_a_savepoint(
    model: nn.Module, base: nn.Module, few_digits: Dataset, tmp_path: Path
) -> None:
    path, before = tmp_path / "state", None
    few = {"settings": replace(SETTINGS, steps=1, shadows=0)}
    embedded(model, few_digits, savepoint=path, **few)
    before = path.read_bytes()
    shorter = replace(few_digits, train=few_digits.train.take(torch.arange(30)))
    for changes, named in [
        ({"seed": 2}, r"another seed \(1 there, 2 here\)"),
        ({"watermark_key": bytes(32)}, "another watermark key"),
        ({"settings": replace(SETTINGS, steps=2, shadows=0)}, r"another setting steps \(1 there, 2 here\)"),
        ({"data": shorter}, "another data set"),
        ({"model": base}, "another model to begin with"),
        ({"negatives": [base]}, "another set of negative controls"),
    ]:
        with pytest.raises(wm.WatermarkError, match=named) as caught:
            embedded(**{"model": model, "data": few_digits, "savepoint": path, **few, **changes})
        assert caught.value.code == "mismatch"
    assert path.read_bytes() == before


def test_a_plain_training_does_not_go_on_from_an_embedding(
    model: nn.Module, few_digits: Dataset, tmp_path: Path
) -> None:
    embedded(model, few_digits, savepoint=tmp_path / "state", settings=replace(SETTINGS, steps=1, shadows=0))
    with pytest.raises(wm.WatermarkError, match="another training"):
        wm.training.fit(model, few_digits, epochs=1, seed=1, savepoint=wm.Savepoint(tmp_path / "state"))


class Loop:
    """An owner's own loop: SGD with momentum, batch normalisation in training mode."""

    def __init__(self, data: Dataset, begun: Callable[[nn.Module], None] = lambda _model: None) -> None:
        with seeded("own net"):
            self.model = own_net()
        begun(self.model)
        self.mark = wm.Mark(self.model, KEY, input_spec=data.input, settings=SETTINGS, tuning=data.train)
        parameters = [*self.model.parameters(), *self.mark.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-2, momentum=0.9)
        self.batches = endless_batches(data.train, images=16, seed=1)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            batch = next(self.batches)
            loss = F.cross_entropy(self.model(batch.images), batch.labels)
            self.optimizer.zero_grad()
            (loss + self.mark.loss(self.model)).backward()
            self.mark.record(task_loss=loss)
            self.optimizer.step()


def test_a_mark_in_a_loop_of_ones_own_goes_on_too_also_when_made_of_the_trained_model(few_digits: Dataset) -> None:
    whole, killed = Loop(few_digits), Loop(few_digits)
    whole.train(6)
    killed.train(3)
    model, optimizer = killed.model.state_dict(), optimizer_state(killed.optimizer)
    resumed = Loop(few_digits, begun=lambda fresh: fill(fresh.state_dict(), model))
    fill_optimizer(resumed.optimizer, optimizer)
    resumed.batches.order.restore(killed.batches.order.state())
    resumed.mark.load_state_dict(killed.mark.state_dict())
    resumed.train(3)
    for loop in (whole, resumed):
        loop.mark.finish(loop.model)
    for name, value in whole.mark.head.state_dict().items():
        assert torch.equal(value, resumed.mark.head.state_dict()[name])
    assert torch.equal(whole.model[0].weight, resumed.model[0].weight)
    assert whole.mark.weight_change(whole.model) == resumed.mark.weight_change(resumed.model) > 0
    assert whole.mark.curves == resumed.mark.curves
    assert whole.mark.history() == resumed.mark.history()


def test_the_state_of_a_mark_of_another_shape_is_refused(few_digits: Dataset) -> None:
    state = Loop(few_digits).mark.state_dict()
    state["branch.head.output.bias"] = torch.zeros(3)
    with pytest.raises(wm.WatermarkError, match=r"another shape or type for 'output\.bias'"):
        Loop(few_digits).mark.load_state_dict(state)


def test_a_state_without_the_readings_of_a_negative_control_is_refused(
    model: nn.Module, base: nn.Module, few_digits: Dataset
) -> None:
    settings = replace(SETTINGS, siblings=0, fresh_negatives=0, shadows=0)
    mark = wm.Mark(
        model, KEY, input_spec=few_digits.input, architecture=ARCHITECTURE, settings=settings, tuning=few_digits.train,
        negatives=[base],
    )  # fmt: skip
    state = mark.state_dict()
    del state["branch.negatives.0.0"]
    with pytest.raises(wm.WatermarkError, match="lacks or has too much"):
        mark.load_state_dict(state)
