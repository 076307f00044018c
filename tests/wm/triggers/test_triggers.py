"""Promised: a key and an input specification give D_WM, normalised as the model's own images are."""

from dataclasses import replace

import pytest
import torch

from wm.triggers import PROBE_KEY, InputSpec, Normalisation, TextSpec, make_probes, make_triggers

SPEC = InputSpec(1, 24, 32, Normalisation(("0.25",), ("0.5",)))


def test_triggers_have_two_levels_and_the_right_shape() -> None:
    triggers = make_triggers(bytes(32), SPEC, count=100)
    assert triggers.images.shape == (100, 1, 24, 32)
    assert triggers.images.unique().tolist() == [-0.5, 1.5]
    assert triggers.labels.dtype == torch.bool
    assert triggers.labels.shape == (100,)


def test_the_same_key_gives_the_same_triggers_and_another_does_not() -> None:
    first, again = (make_triggers(bytes(32), SPEC, count=100) for _ in range(2))
    other = make_triggers(bytes([1] * 32), SPEC, count=100)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_the_probes_are_the_triggers_of_the_public_key() -> None:
    assert torch.equal(make_probes(SPEC), make_triggers(PROBE_KEY, SPEC, count=256).images)


def test_an_input_smaller_than_a_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="21"):
        make_triggers(bytes(32), InputSpec(1, 20, 20, SPEC.normalisation), count=100)


TEXTS = TextSpec(64, 500, "0" * 64)


def test_texts_have_labels_and_probes_as_pictures_have() -> None:
    triggers = make_triggers(bytes(32), TEXTS, count=100)
    assert (triggers.images.shape, triggers.images.dtype) == ((100, 64), torch.int64)
    assert torch.equal(triggers.labels, make_triggers(bytes(32), SPEC, count=100).labels)
    assert torch.equal(make_probes(TEXTS), make_triggers(PROBE_KEY, TEXTS, count=256).images)


def test_the_words_meaning_is_in_no_trigger() -> None:
    other = replace(TEXTS, words_sha256="1" * 64)
    assert torch.equal(make_triggers(bytes(32), TEXTS, count=9).images, make_triggers(bytes(32), other, count=9).images)


def test_an_outline_is_as_a_trigger_but_holds_nothing_and_of_a_text_one_token() -> None:
    for spec, shape in ((SPEC, (1, 1, 24, 32)), (TEXTS, (1, 1))):
        outline, drawn = spec.outline(), make_triggers(bytes(32), spec, count=2).images
        assert outline.is_meta
        assert (outline.shape, outline.dtype, outline.ndim) == (shape, drawn.dtype, drawn.ndim)
