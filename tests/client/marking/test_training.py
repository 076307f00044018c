"""Promised: `wmreg train` takes a rate, and says so where a network has learnt nothing."""

import pytest

from client.marking.models import (
    FINE_TUNING,
    FROM_SCRATCH,
    MASKS_FROM_SCRATCH,
    Schedule,
    constant_score,
    load_data,
    schedule_of,
)
from client.marking.task import Task, hidden_by_renumbering, unlearnt

pytestmark = pytest.mark.long


def task(**changes):
    usual = {
        "data": "digits",
        "fraction": 1.0,
        "arch": "shufflenet_v2_x0_5",
        "weights": None,
        "seed": 1,
        "epochs": None,
    }
    return Task(**{**usual, "device": "cpu", **changes})


@pytest.fixture(scope="module")
def digits():
    return load_data(task())


def test_a_schedule_is_the_usual_one_but_for_what_is_given(digits, tmp_path):
    assert schedule_of(task(), digits) == FROM_SCRATCH
    assert schedule_of(task(lr=3e-4), digits) == Schedule(epochs=FROM_SCRATCH.epochs, lr=3e-4)
    assert schedule_of(task(epochs=0, weights=tmp_path), digits) == Schedule(epochs=0, lr=FINE_TUNING.lr)


def test_one_answer_to_everything_is_as_right_as_the_commonest_class(digits):
    counts = [int((digits.test.labels == label).sum()) for label in range(10)]
    assert constant_score(digits) == max(counts) / sum(counts)


def test_a_mark_that_fresh_networks_answer_aligned_is_told_of():
    def report(*counts, further=()):
        marks = [{"embedding": {"fresh_aligned": list(each)}} for each in further]
        return {"triggers": 600, "embedding": {"fresh_aligned": list(counts)}, "further": marks}

    assert hidden_by_renumbering(report(290, 354)) == ()  # what nodes ask of a control
    assert "answers 355 of 600" in hidden_by_renumbering(report(290, 355))[0]
    assert "answers 400 of 600" in hidden_by_renumbering(report(290, further=[(300, 400)]))[0]
    assert hidden_by_renumbering(report()) == hidden_by_renumbering({"triggers": 100, "further": []}) == ()


def test_a_network_is_unlearnt_up_to_what_one_answer_scores():
    assert "10.28%" in unlearnt(0.1028, 0.1028)[0]
    assert unlearnt(0.1029, 0.1028) == ()
    assert unlearnt(0.0, None) == ()


def test_train_warns_of_a_network_that_has_learnt_nothing_and_of_no_other(wmreg, tmp_path):
    words = ("train", "--arch", "shufflenet_v2_x0_5", "--device", "cpu")
    idle = wmreg(*words, "--epochs", 0, "--out", tmp_path / "idle.safetensors")
    trained = wmreg(*words, "--epochs", 3, "--lr", 3e-3, "--out", tmp_path / "trained.safetensors")
    assert (idle.code, trained.code) == (0, 0)
    assert "HAS NOT LEARNT ITS TASK" in idle.out
    assert "--lr" in idle.out
    assert "HAS NOT LEARNT" not in trained.out


def test_the_help_names_the_rates_that_are_usual(wmreg):
    told = " ".join(wmreg("train", "--help").out.split())
    usual = f"[default: {FROM_SCRATCH.lr:g}, with masks {MASKS_FROM_SCRATCH.lr:g}; to fine-tune {FINE_TUNING.lr:g}]"
    assert usual in told


@pytest.mark.parametrize("rate", [0, -1, 2, "nan", "much"])
def test_a_rate_that_is_none_is_refused_before_any_training(wmreg, tmp_path, rate):
    refused = wmreg("train", "--lr", rate, "--out", tmp_path / "out.safetensors")
    assert refused.code == 2
    assert "--lr" in refused.err
    assert not (tmp_path / "out.safetensors").exists()
