"""Promised: an attack works on a copy, repeats bit by bit with its seed, and refuses a strength off its scale."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from wm.attacks import ATTACKS, Scale, Stolen, attack_of, attacked, sweep
from wm.attacks.forgeries import FORGERIES

pytestmark = pytest.mark.long

WITH_SMALL_NETS = sorted(set(ATTACKS) - {"overwriting"})  # which embeds into networks of the catalogue
DRAWING = {"ftal", "rtll", "rtal", "weight_shift", "spoil", "permutation", "scaling", "dummy_neurons"}


def first_strength(name: str) -> float:
    if name == "neuron_pruning":
        return 0.5  # the usual ones would leave layers of eight filters as they are
    scale = ATTACKS[name].scale
    return 1 if scale.usual == (60,) else scale.usual[0]  # one epoch of a student


def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].shape == other[name].shape and torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.parametrize("name", WITH_SMALL_NETS)
def test_one_seed_gives_a_bit_identical_model_and_leaves_the_stolen_one_alone(stolen: Stolen, name: str) -> None:
    before, strength = tensors(stolen.model), first_strength(name)
    first, again = (tensors(attacked(ATTACKS[name], stolen, strength=strength, seed=1)) for _ in range(2))
    assert are_equal(first, again)
    assert are_equal(tensors(stolen.model), before)
    assert not are_equal(first, before)


@pytest.mark.parametrize("name", sorted(DRAWING))
def test_another_seed_gives_another_model(stolen: Stolen, name: str) -> None:
    first, other = (tensors(attacked(ATTACKS[name], stolen, strength=first_strength(name), seed=n)) for n in (1, 2))
    assert not are_equal(first, other)


@pytest.mark.parametrize("name", [*ATTACKS, *FORGERIES])
def test_a_strength_off_the_scale_is_refused_and_its_ends_are_not(name: str) -> None:
    scale = {**ATTACKS, **FORGERIES}[name].scale
    least, most = sorted((scale.weakest, scale.strongest))
    for strength in (least, most, *scale.usual):
        scale.check(strength)
    for strength in (least - 1, most * 2 + 1, math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="is not in"):
            scale.check(strength)


def test_half_a_bit_is_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        ATTACKS["quantisation"].scale.check(4.5)


@pytest.mark.parametrize(("usual", "problem"), [((0.5, 0.1), "weak to strong"), ((0.1, 2.0), "is not in")])
def test_a_scale_whose_usual_strengths_do_not_rise_on_it_cannot_be_made(usual: tuple[float, ...], problem) -> None:
    with pytest.raises(ValueError, match=problem):
        Scale(unit="share", weakest=0.0, strongest=1.0, usual=usual)


def test_a_sweep_checks_all_strengths_before_it_begins_and_takes_them_in_turn(stolen: Stolen) -> None:
    pruning = ATTACKS["magnitude_pruning"]
    with pytest.raises(ValueError, match="is not in"):
        sweep(pruning, stolen, strengths=(0.1, 1.5), seed=1)
    assert [strength for strength, _ in sweep(pruning, stolen, strengths=(0.1, 0.5), seed=1)] == [0.1, 0.5]
    assert [strength for strength, _ in sweep(pruning, stolen, seed=1)] == list(pruning.scale.usual)


def test_a_sweep_begins_each_time_from_the_stolen_model(stolen: Stolen) -> None:
    (_, _), (_, swept) = sweep(ATTACKS["scaling"], stolen, strengths=(2, 5), seed=1)
    alone = attacked(ATTACKS["scaling"], stolen, strength=5, seed=1)
    assert are_equal(tensors(swept), tensors(alone))


def test_an_unknown_attack_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(ValueError, match="ftll"):
        attack_of("ftl")
    with pytest.raises(ValueError, match="quantisation"):
        attack_of("zzzz")
    assert attack_of("ftll") is ATTACKS["ftll"]


def test_what_lives_on_a_claim_needs_one(stolen: Stolen) -> None:
    before_any_claim = replace(stolen, model=copy.deepcopy(stolen.model), revealed=None)
    with pytest.raises(ValueError, match="head and key"):
        attacked(ATTACKS["spoil"], before_any_claim, strength=5, seed=1)
