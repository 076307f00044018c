"""Promised: negative controls are taught random labels, so the head tells them from the model that carries the mark."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

import wm
from wm import data
from wm.architectures import build
from wm.backbone import Tap, features_in_evaluation
from wm.branch import agreements, logit_margins
from wm.head import initial_head
from wm.randomness import generator
from wm.schemes.mtlsign.negatives import Negative, aligned, make_negatives, matched_by, negative_loss
from wm.schemes.mtlsign.shadows import Shadowing
from wm.training import fit
from wm.triggers import make_triggers

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shadowing(owner, few_digits: data.Dataset) -> Shadowing:
    info = owner.embedding.info
    triggers = make_triggers(owner.key, info.input, count=info.triggers)
    settings = replace(owner.settings, siblings=1, fresh_negatives=1)
    return Shadowing(info, triggers, few_digits.train, settings, 1)


def test_where_nothing_is_given_there_are_none(shadowing: Shadowing) -> None:
    assert make_negatives([], shadowing) == []


def test_a_given_network_brings_tuned_copies_and_fresh_networks_and_stays_as_it_is(owner, shadowing: Shadowing) -> None:
    before = {name: value.clone() for name, value in owner.clean.state_dict().items()}
    given, tuned, fresh = made = make_negatives([owner.clean], shadowing)
    assert [negative.name for negative in made] == ["given-0", "given-0 tuned-0", "fresh-0"]
    info = shadowing.info
    read = features_in_evaluation(owner.clean, info.modules, shadowing.triggers.images, pooling=info.pooling)
    assert torch.equal(given.reads[0], read)
    assert 0 < float((tuned.reads[0] - read).norm()) < float((fresh.reads[0] - read).norm())
    assert all(torch.equal(value, before[name]) for name, value in owner.clean.state_dict().items())
    assert not torch.equal(given.labels, fresh.labels)
    assert all(30 <= int(negative.labels.sum()) <= 70 for negative in made)


def fitted(*, with_negative: bool) -> tuple[int, int]:
    """Fit a head on a model's features, with a relative's near by; return what both match, of 200."""
    source = generator("negatives", "features")
    read = torch.randn(200, 64, generator=source)
    relative = read + 0.3 * torch.randn(
        64, generator=source
    )  # the same shift for every trigger, as another weight makes
    labels = torch.randint(2, (200,), generator=source)
    negative = Negative("relative", nn.Identity(), (relative,), torch.randint(2, (200,), generator=source))
    with torch.enable_grad():
        head = initial_head(read, [Tap("t", 64, 1, 1)], pooling=1, hidden=64, seed=1)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            loss = F.cross_entropy(head(read), labels)
            if with_negative:
                loss = loss + negative_loss(head, [negative], torch.arange(200), noisy=lambda it: it)
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        matched = int(agreements(logit_margins(head, read), labels.bool()).sum())
    return matched, matched_by(head, [negative], labels.bool())["relative"]


def test_a_relative_answers_as_the_marked_model_does_unless_it_was_a_negative_control() -> None:
    marked, relative = fitted(with_negative=False)
    assert (marked, relative > 180) == (200, True)
    marked, relative = fitted(with_negative=True)
    assert marked > 195
    assert relative < 120


def test_an_aligned_reading_is_the_verifiers_and_takes_the_place_of_the_one_before(owner, shadowing: Shadowing) -> None:
    made = make_negatives([owner.clean], shadowing)
    evidence = wm.load_evidence(owner.evidence_path)

    for marked in (owner.clean, owner.embedding.model):  # the last one is the released model
        read = aligned(made, marked, shadowing)

    for before, after in zip(made, read, strict=True):
        assert len(after.reads) == 2
        assert torch.equal(after.reads[0], before.reads[0])
        assert not torch.equal(*after.reads)
        margins = logit_margins(evidence.head, after.reads[1])
        counted = wm.count_matched(
            before.network, evidence.head, evidence.info, owner.key, reference=evidence.reference
        )
        assert int(agreements(margins, shadowing.triggers.labels).sum()) == counted


def test_of_a_controls_readings_the_one_that_matches_more_is_counted() -> None:
    source = generator("negatives", "readings")
    read, labels = torch.randn(40, 8, generator=source), torch.ones(40, dtype=torch.bool)
    head = initial_head(read, [Tap("t", 8, 1, 1)], pooling=1, hidden=8, seed=1)
    counts = [int(agreements(logit_margins(head, part), labels).sum()) for part in (read, -read)]
    assert counts[0] != counts[1]
    for reads in ((read, -read), (-read, read)):
        negative = Negative("relative", nn.Identity(), reads, torch.zeros(40, dtype=torch.int64))
        assert matched_by(head, [negative], labels) == {"relative": max(counts)}


@pytest.mark.slow
def test_a_base_stays_out_of_the_aligned_count_too_unless_it_is_never_aligned_in_training() -> None:
    architecture, key, digits = wm.Architecture("resnet18", {"num_classes": 10}), bytes(range(32)), data.digits()
    base = build(architecture, seed=1)
    fit(base, digits, epochs=1, lr=1e-3, seed=1)
    base.eval()
    recipe = replace(
        wm.EmbedSettings.beside_a_base(), triggers=200, steps=20, head_steps=300, shadows=0, siblings=0,
        fresh_negatives=0,
    )  # fmt: skip
    found = {}
    for align_every in (0, recipe.align_every):
        settings = replace(recipe, align_every=align_every)
        made = wm.embed(base, digits, key, architecture=architecture, settings=settings, negatives=[base], seed=1)
        evidence = wm.with_reference(wm.EvidenceFile(made.head, made.info, bytes(32)), made.model)
        found[align_every] = [
            wm.count_matched(model, evidence.head, evidence.info, key, reference=reference)
            for model in (made.model, base)
            for reference in (None, evidence.reference)
        ]
    *marked, plain, with_alignment = found[0]
    assert min(marked) >= 190
    assert (plain <= 118, with_alignment > 118) == (True, True)  # 0.59 of 200: nodes refute, `shared_ancestor`
    *marked, plain, with_alignment = found[recipe.align_every]
    assert min(marked) >= 190
    assert max(plain, with_alignment) <= 118
