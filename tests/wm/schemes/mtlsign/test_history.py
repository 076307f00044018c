"""Promised: rows are means over their steps, hold what was measured, stay few, and are put back whole."""

import json

import torch

from wm.schemes.mtlsign.history import ROWS_MAX, History


def filled(steps: int, *, pass_steps: int = 2, begun: History | None = None) -> History:
    history = begun or History(steps=5, pass_steps=pass_steps, curves=("marked",))
    while history.steps < steps:
        history.end_row()
        step = float(history.steps)
        history.add({"loss": step, "each": torch.tensor([step, 3.0])})
        if history.steps >= 2:
            history.add({"late": torch.tensor(step)})
        history.steps += 1
    return history


def test_a_row_is_the_mean_of_its_steps_and_of_several_networks_the_greatest() -> None:
    history = filled(5)
    history.end_row(early=True)
    assert history.rows() == [
        {"step": 2, "loss": 0.5, "each": 3.0},
        {"step": 4, "loss": 2.5, "each": 3.0, "late": 2.5},
        {"step": 5, "loss": 4.0, "each": 4.0, "late": 4.0},
    ]
    json.dumps(history.rows(), allow_nan=False)


def test_a_row_that_is_not_full_is_not_there_yet() -> None:
    history = filled(3)
    history.end_row()
    assert [row["step"] for row in history.rows()] == [2]


def test_what_is_not_finite_is_left_out_since_json_has_no_such_number() -> None:
    history = History(steps=1, pass_steps=1, curves=())
    history.add({"loss": float("nan"), "other": 1.0})
    history.steps += 1
    history.end_row()
    assert history.rows() == [{"step": 1, "other": 1.0}]


def test_a_long_training_has_no_more_rows_than_can_be_drawn() -> None:
    history = History(steps=10_000, pass_steps=6, curves=())
    for _ in range(10_000):
        history.end_row()
        history.add({"loss": 1.0})
        history.steps += 1
    history.end_row(early=True)
    assert len(history.rows()) == ROWS_MAX


def test_it_goes_on_from_any_step_as_if_it_had_not_stopped() -> None:
    whole = filled(5)
    whole.note("marked", 0.5)
    for steps in range(6):
        begun, again = filled(steps), History(steps=5, pass_steps=2, curves=("marked",))
        again.restore(begun.state())
        filled(5, begun=again)
        again.note("marked", 0.5)
        assert again.rows() == whole.rows()
        assert again.curves == whole.curves == {"marked": [[5, 0.5]]}
        again.end_row(early=True)
        assert again.rows()[-1]["step"] == 5
