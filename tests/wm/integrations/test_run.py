"""Promised: what a trainer's callbacks share gives the model the joint gradient, and the owner no mark that fails."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_network import KEY, OTHER_KEY, SEED, SETTINGS, TAPS, SmallNetwork
from torch import nn

import wm
from registry.policy import Thresholds
from wm.data import Dataset
from wm.integrations import MarkFailedError, MarkPlan
from wm.integrations.run import CONTROL_SHARE, MarkRun
from wm.randomness import seeded

QUIET = replace(SETTINGS, tuning_regularizer="none")


def small() -> SmallNetwork:
    with seeded("small network"):
        return SmallNetwork()


def planned(directory: Path, **more: object) -> MarkPlan:
    options = {"watermark_key": KEY, "directory": directory, "taps": TAPS, "input_spec": (3, 32, 32), "settings": QUIET}
    return MarkPlan(**(options | more))


def stepped(plan: MarkPlan, model: nn.Module, **more: object) -> MarkRun:
    run = MarkRun(plan)
    assert not run.begin(model, done=0, total=plan.recipe.steps)
    run.step(model, done=0, computing=nullcontext(), **more)
    return run


def trained(run: MarkRun, model: nn.Module, *, rate: float = 1e-3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for done in range(run.plan.recipe.steps):
        optimizer.zero_grad()
        run.step(model, done=done, computing=nullcontext())
        optimizer.step()


def test_the_gradients_are_those_of_the_joint_loss(few_digits: Dataset, tmp_path: Path) -> None:
    images, labels = few_digits.train.images[:16], few_digits.train.labels[:16]
    model, plan = small().eval(), planned(tmp_path)
    mark = wm.Mark(model, KEY, taps=TAPS, input_spec=(3, 32, 32), settings=QUIET)
    head = torch.optim.Adam(mark.parameters(), lr=QUIET.head_lr, fused=True)
    joint = F.cross_entropy(model(images), labels) + mark.loss(model)
    wanted = torch.autograd.grad(joint, [*model.parameters()], retain_graph=True)
    joint.backward()
    head.step()
    model.zero_grad()
    run = stepped(plan, model)
    for part in range(2):  # two batches of one step
        mine = slice(8 * part, 8 * part + 8)
        (F.cross_entropy(model(images[mine]), labels[mine]) / 2).backward()
    for value, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(value.grad, gradient, rtol=1e-4, atol=1e-6)
    assert any(gradient.abs().max() > 0.01 for gradient in wanted)
    for ours, theirs in zip(run.mark.parameters(), mark.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_before_the_last_steps_of_the_training_nothing_is_done(tmp_path: Path) -> None:
    model, run = small(), MarkRun(planned(tmp_path))
    assert not run.begin(model, done=0, total=10)
    assert run.step(model, done=3, computing=nullcontext()) == {}
    assert run.mark is None
    assert run.state() == {}
    assert all(value.grad is None for value in model.parameters())
    assert {"matched", "mark_loss", "loss"} <= set(run.step(model, done=4, computing=nullcontext()))
    assert run.first == 4


def test_a_loss_scale_is_in_the_models_gradients_and_not_in_the_head(tmp_path: Path) -> None:
    plain, scaled = small(), small()
    run = stepped(planned(tmp_path), plain)
    with_scale = stepped(planned(tmp_path), scaled, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert torch.equal(scaled.stem[0].weight.grad, 1024 * plain.stem[0].weight.grad)
    for ours, theirs in zip(with_scale.mark.parameters(), run.mark.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_loss_scale_that_overflows_leaves_the_head_as_it_is(tmp_path: Path) -> None:
    model = small()
    run = MarkRun(planned(tmp_path))
    run.begin(model, done=0, total=6)
    run.step(model, done=0, computing=nullcontext())
    before = [value.clone() for value in run.mark.parameters()]
    run.step(model, done=1, computing=nullcontext(), scaler=torch.amp.GradScaler("cpu", init_scale=float("inf")))
    assert all(torch.equal(value, then) for value, then in zip(run.mark.parameters(), before, strict=True))
    run.step(model, done=2, computing=nullcontext())
    assert not all(torch.equal(value, then) for value, then in zip(run.mark.parameters(), before, strict=True))


def test_a_mark_is_written_when_it_is_measured(few_digits: Dataset, tmp_path: Path) -> None:
    model, run = small(), MarkRun(planned(tmp_path, settings=SETTINGS, tuning=few_digits.train))
    run.begin(model, done=0, total=6)
    trained(run, model)
    assert list(tmp_path.iterdir()) == []
    run.end(model, done=6)
    assert run.report["matched"] >= 95
    assert run.report["steps"] == 6
    evidence, weights = tmp_path / "evidence.safetensors", tmp_path / "model.safetensors"
    found = wm.verify(weights, evidence, KEY, control_seed=SEED, permutations=0, controls=0, builder=SmallNetwork)
    assert found.matched == run.report["matched"]


def test_a_mark_below_the_threshold_is_not_written(tmp_path: Path) -> None:
    model, run = small(), MarkRun(planned(tmp_path, settings=replace(QUIET, head_steps=0, head_lr=1e-9)))
    run.begin(model, done=0, total=6)
    trained(run, model)
    with pytest.raises(MarkFailedError, match="of 100 triggers, and nodes ask for 70: nothing was written"):
        run.end(model, done=6)
    assert list(tmp_path.iterdir()) == []
    assert run.mark.matched(model) == run.report["matched"] < 70


def test_a_mark_that_a_negative_control_answers_is_not_written(tmp_path: Path) -> None:
    settings = replace(QUIET, negative_weight=0, siblings=0, fresh_negatives=0, steps=1)
    model = small()
    run = MarkRun(planned(tmp_path, settings=settings, negatives=[small()]))
    run.begin(model, done=0, total=1)
    trained(run, model)
    with pytest.raises(MarkFailedError, match=r"given-0 matches \d+ of 100 triggers, more than 59%"):
        run.end(model, done=1)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_settings_takes_the_measured_recipe_with_or_without_negative_controls(tmp_path: Path) -> None:
    usual, beside = (planned(tmp_path, settings=None, negatives=negatives) for negatives in ([], [small()]))
    assert (usual.recipe, beside.recipe) == (wm.EmbedSettings(), wm.EmbedSettings.beside_a_base())
    assert usual.conditions()["setting steps"] != beside.conditions()["setting steps"]


def test_a_training_that_stops_early_leaves_no_mark(tmp_path: Path) -> None:
    model, run = small(), MarkRun(planned(tmp_path))
    run.begin(model, done=0, total=10)
    with pytest.raises(MarkFailedError, match="stopped after 3 of 10 optimiser steps"):
        run.end(model, done=3)
    trained(run, model)
    with pytest.raises(MarkFailedError, match="stopped after 9 of 10 optimiser steps"):
        run.end(model, done=9)
    assert list(tmp_path.iterdir()) == []


def test_the_bound_for_controls_is_that_of_the_ledgers_usual_policy() -> None:
    assert Thresholds().control_permille == CONTROL_SHARE * 1000


def test_a_state_goes_on_with_the_same_bits(few_digits: Dataset, tmp_path: Path) -> None:
    whole, broken = small(), small()
    plan = planned(tmp_path, settings=SETTINGS, tuning=few_digits.train)
    runs = [MarkRun(plan), MarkRun(plan)]
    for run, model in zip(runs, (whole, broken), strict=True):
        run.begin(model, done=0, total=6)
        for done in range(3):
            run.step(model, done=done, computing=nullcontext())
    state = {name: value.clone() for name, value in runs[1].state().items()}
    again = MarkRun(plan)
    assert again.begin(broken, done=3, total=6)
    again.restore(broken, state)
    for run, model in zip((runs[0], again), (whole, broken), strict=True):
        model.zero_grad()
        for done in range(3, 6):
            run.step(model, done=done, computing=nullcontext())
    assert torch.equal(whole.stem[0].weight.grad, broken.stem[0].weight.grad)
    assert all(map(torch.equal, runs[0].mark.parameters(), again.mark.parameters()))


@pytest.mark.parametrize(
    ("more", "steps", "error", "message"),
    [
        ({"network": "backbone"}, 6, ValueError, "SmallNetwork has no module 'backbone'.* stem, deep, dropout"),
        ({"network": lambda model: model.state_dict()}, 6, ValueError, "not a OrderedDict"),
        ({}, 5, ValueError, "5 optimiser steps, fewer than the 6 of the mark"),
        ({}, None, ValueError, "give it a number of steps"),
        ({"taps": ("stem", "nowhere")}, 6, wm.WatermarkError, "no module 'nowhere'"),
        ({"settings": SETTINGS}, 6, ValueError, "nothing to tune copies of the model with"),
        ({"base": Path("nowhere.safetensors")}, 6, FileNotFoundError, "nowhere.safetensors"),
    ],
)
def test_a_mistake_in_the_plan_shows_before_the_training(
    more: dict, steps: int | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        MarkRun(planned(tmp_path, **more)).begin(small(), done=0, total=steps)
    MarkRun(planned(tmp_path)).begin(small(), done=0, total=6)


def test_a_plan_does_not_show_its_key_and_takes_none_of_another_length(tmp_path: Path) -> None:
    assert repr(KEY) not in repr(planned(tmp_path))
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        planned(tmp_path, watermark_key=KEY[:31])


def test_conditions_tell_plans_apart_without_the_key(tmp_path: Path) -> None:
    mine, other, seeds = (
        planned(tmp_path, **more).conditions() for more in ({}, {"watermark_key": OTHER_KEY}, {"seed": 1})
    )
    assert mine == planned(tmp_path / "elsewhere").conditions()
    assert [name for name in mine if mine[name] != other[name]] == ["watermark key"]
    assert [name for name in mine if mine[name] != seeds[name]] == ["seed"]
    assert KEY.hex() not in str(mine)


def test_a_compiled_network_is_marked_as_what_it_was_made_of(tmp_path: Path) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = torch.compile(small(), backend="eager")

    model = Outer()
    assert type(planned(tmp_path, network="network").network_of(model)) is SmallNetwork
