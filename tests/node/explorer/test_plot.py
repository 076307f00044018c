"""The plot of a claim: every count stands at its share, against the bounds of the policy that judges it."""

from dataclasses import replace

from fakes import LedgerMaker, counted, good_measurement, with_control

from node.explorer.bounds import bounds_of
from node.explorer.plot import plot_of
from registry.policy import Thresholds
from registry.verdict import ControlKind, Outcome, Statistic, least_passing


def vote(measurement=None):
    outcome = Outcome.VERIFIED if measurement else Outcome.UNVERIFIABLE
    return LedgerMaker().vote_message(bytes(32), outcome=outcome, reason="matched", measurement=measurement)


def test_every_model_is_a_mark_at_its_share_and_the_suspect_is_drawn_last():
    measured = with_control(good_measurement(450), ControlKind.BASE, 330)
    drawn = plot_of({"node-1": vote(measured)}, Thresholds(gamma_permille=720, refute_permille=550))
    assert drawn is not None
    (row,) = drawn.rows
    assert [(mark.kind, mark.percent) for mark in row.marks[-2:]] == [("base", 55.0), ("suspect", 75.0)]
    assert row.suspect.matched == 450
    assert row.best_control == 330
    assert (drawn.verify_percent, drawn.refute_percent, drawn.kinds) == (72.0, 55.0, ("base", "fresh"))


def test_nodes_that_did_not_measure_have_no_row_and_without_any_there_is_no_plot():
    drawn = plot_of({"node-1": vote(), "node-2": vote(good_measurement())}, Thresholds())
    assert drawn is not None
    assert [row.member for row in drawn.rows] == ["node-2"]
    assert 0 < drawn.rows[0].y < drawn.axis_y < drawn.height
    assert plot_of({"node-1": vote()}, Thresholds()) is None
    assert plot_of({}, Thresholds()) is None


def test_bounds_move_with_the_chance_and_of_integrity_only_all_is_enough():
    tenth = replace(good_measurement(90, total=100), statistic=Statistic.CLASSES, chance_ppm=100_000)
    drawn = plot_of({"node-1": vote(tenth)}, Thresholds())
    assert drawn is not None
    assert (drawn.chance_percent, drawn.refute_percent, drawn.verify_percent) == (10.0, 28.0, 46.0)
    intact = replace(tenth, statistic=Statistic.INTEGRITY, controls=())
    drawn = plot_of({"node-1": vote(intact)}, Thresholds())
    assert drawn is not None
    assert drawn.is_integrity
    assert (drawn.refute_percent, drawn.verify_percent, drawn.chance_percent) == (100.0, 100.0, 0.0)
    assert drawn.rows[0].best_control is None


def test_few_triggers_are_verified_by_no_count_and_the_tail_asks_for_more_than_the_share():
    drawn = plot_of({"node-1": vote(good_measurement(50, total=60))}, Thresholds())
    assert drawn is not None
    assert drawn.verify_percent is None
    drawn = plot_of({"node-1": vote(counted(Statistic.SIGNS))}, Thresholds())
    assert drawn is not None
    assert (drawn.refute_percent, drawn.verify_percent) == (60.0, 93.0)


def test_one_node_that_lies_of_the_statistic_moves_no_bound():
    tenth = replace(good_measurement(90, total=100), statistic=Statistic.CLASSES, chance_ppm=100_000)
    lie = replace(tenth, statistic=Statistic.INTEGRITY, chance_ppm=900_000, controls=())
    drawn = plot_of({"node-1": vote(tenth), "node-2": vote(lie)}, Thresholds())
    assert drawn is not None
    assert not drawn.is_integrity
    assert (drawn.chance_percent, drawn.refute_percent, drawn.verify_percent) == (10.0, 28.0, 46.0)


def test_bounds_are_those_by_which_the_engine_judges_and_of_integrity_there_are_none():
    half, tenth = good_measurement(), counted(Statistic.CLASSES)
    stingy, aligned = good_measurement(50, total=60), replace(good_measurement(70, total=100), aligned=True)
    found = bounds_of([half, half, tenth, counted(Statistic.INTEGRITY)], Thresholds())
    assert [(it.total, it.chance_percent, it.refuted_below, it.verified_from) for it in found] == [
        (100, 10.0, 28, 46),
        (600, 50.0, 360, 420),
    ]
    assert [it.verified_from for it in bounds_of([stingy], Thresholds())] == [61]
    plain = replace(aligned, aligned=False)
    assert len(bounds_of([aligned, plain], Thresholds(alpha_bits=64))) == len(
        {least_passing(it, Thresholds()) for it in (aligned, plain)}
    )
