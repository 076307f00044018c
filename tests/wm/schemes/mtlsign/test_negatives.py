"""Promised: negative controls are taught random labels, so the head tells them from the model that carries the mark."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from wm.backbone import Tap, features_in_evaluation
from wm.branch import agreements, logit_margins
from wm.data import Dataset
from wm.head import initial_head
from wm.randomness import generator
from wm.schemes.mtlsign.negatives import Negative, make_negatives, matched_by, negative_loss
from wm.schemes.mtlsign.shadows import Shadowing
from wm.triggers import make_triggers


@pytest.fixture(scope="module")
def shadowing(owner, few_digits: Dataset) -> Shadowing:
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
    assert torch.equal(given.read, read)
    assert 0 < float((tuned.read - read).norm()) < float((fresh.read - read).norm())
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
    negative = Negative("relative", relative, torch.randint(2, (200,), generator=source))
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
