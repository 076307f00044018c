"""Promised: a setting out of range is refused by name."""

import math

import pytest

from wm.schemes.mtlsign import EmbedSettings


def test_the_defaults_are_the_papers_trigger_count_and_threshold() -> None:
    settings = EmbedSettings()
    assert (settings.triggers, settings.gamma, settings.tuning_regularizer) == (600, "0.7", "head")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triggers", 50),
        ("gamma", "0.4"),
        ("pooling", 0),
        ("tuning_regularizer", "straight_through"),
        ("tuning_fraction", 0),
        ("reduction", "max"),
        ("precision", "float16"),
        ("negative_weight", -0.1),
        ("siblings", -1),
        ("fresh_negatives", -1),
        ("steps", 0),
        ("backbone_lr", 0),
        ("lambda1", -0.1),
        ("feature_noise", -1),
        ("triggers", 600.0),
        ("gamma", 0.7),
        ("taps", "layer1"),
        ("taps", ()),
        ("taps", ("layer1", 2)),
        ("steps", 1.5),
        ("steps", True),
        ("head_steps", "400"),
        ("lambda1", math.inf),
        ("lambda2", math.nan),
        ("backbone_lr", math.inf),
        ("head_lr", "0.001"),
        ("tuning_fraction", None),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        EmbedSettings(**{name: value})


def test_whole_numbers_are_amounts_too_and_taps_are_paths() -> None:
    settings = EmbedSettings(taps=("layer1", "layer2.0"), lambda1=1, feature_noise=0)
    assert (settings.taps, settings.lambda1) == (("layer1", "layer2.0"), 1)


def test_the_papers_loss_has_no_primary_term_and_lies_in_the_papers_grid() -> None:
    paper = EmbedSettings.paper()
    assert (paper.primary_weight, paper.reduction, paper.tuning_regularizer) == (0, "sum", "fomaml")
    assert all(0.02 <= weight <= 0.2 for weight in (paper.lambda1, paper.lambda2))
    assert paper.triggers == EmbedSettings().triggers


def test_beside_a_base_the_backbone_is_given_more_room_to_move() -> None:
    usual, beside = EmbedSettings(), EmbedSettings.beside_a_base()
    assert beside.scaled_lr
    assert beside.backbone_lr > usual.backbone_lr
    assert beside.lambda1 < usual.lambda1
    assert min(beside.negative_weight, beside.siblings, beside.fresh_negatives) > 0
    assert (usual.centred, beside.centred) == (None, False)  # a base must differ in the mean too
