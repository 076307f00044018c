"""The plot of a claim: every count stands at its share, against the bounds of the policy that judges it."""

from dataclasses import replace

from fakes import LedgerMaker, good_measurement, with_control

from node.explorer.plot import plot_of
from registry.policy import Thresholds
from registry.verdict import ControlKind, Outcome, Statistic


def vote(measurement=None):
    outcome = Outcome.VERIFIED if measurement else Outcome.UNVERIFIABLE
    return LedgerMaker().vote_message(bytes(32), outcome=outcome, reason="matched", measurement=measurement)


def test_every_model_is_a_mark_at_its_share_and_the_suspect_is_drawn_last():
    measured = with_control(good_measurement(450), ControlKind.BASE, 330)
    drawn = plot_of({"node-1": vote(measured)}, Thresholds(gamma_permille=650, refute_permille=550))
    assert drawn is not None
    (row,) = drawn.rows
    assert [(mark.kind, mark.percent) for mark in row.marks[-2:]] == [("base", 55.0), ("suspect", 75.0)]
    assert row.suspect.matched == 450
    assert row.best_control == 330
    assert (drawn.gamma_percent, drawn.refute_percent, drawn.kinds) == (65.0, 55.0, ("base", "fresh"))


def test_nodes_that_did_not_measure_have_no_row_and_without_any_there_is_no_plot():
    drawn = plot_of({"node-1": vote(), "node-2": vote(good_measurement())}, Thresholds())
    assert drawn is not None
    assert [row.member for row in drawn.rows] == ["node-2"]
    assert 0 < drawn.rows[0].y < drawn.axis_y < drawn.height
    assert plot_of({"node-1": vote()}, Thresholds()) is None
    assert plot_of({}, Thresholds()) is None


def test_bounds_move_with_the_chance_and_of_integrity_only_all_is_enough():
    counted = replace(good_measurement(90, total=100), statistic=Statistic.CLASSES, chance_ppm=100_000)
    drawn = plot_of({"node-1": vote(counted)}, Thresholds())
    assert drawn is not None
    assert (drawn.chance_percent, drawn.refute_percent, drawn.gamma_percent) == (10.0, 28.0, 46.0)
    intact = replace(counted, statistic=Statistic.INTEGRITY, controls=())
    drawn = plot_of({"node-1": vote(intact)}, Thresholds())
    assert drawn is not None
    assert drawn.is_integrity
    assert (drawn.refute_percent, drawn.gamma_percent) == (100.0, 100.0)
