"""Promised: an honest head falls to chance on permuted channels and fresh networks; a universal head is unmasked."""

import pytest
import torch

from wm.backbone import features_in_evaluation
from wm.branch import Branch, agreements, logit_margins
from wm.controls import ControlFiles, _permuted_features, compare_with_files, compare_with_fresh, permutations_as_good
from wm.errors import WatermarkError
from wm.head import Head
from wm.progress import silent
from wm.randomness import generator
from wm.triggers import make_triggers

pytestmark = pytest.mark.long

SEED = bytes(32)


def branch_of(owner) -> tuple[Branch, torch.Tensor]:
    info = owner.embedding.info
    triggers = make_triggers(owner.key, info.input, count=info.triggers)
    read = features_in_evaluation(owner.embedding.model, info.modules, triggers.images, pooling=info.pooling)
    return Branch(owner.embedding.head, info, triggers), read


def test_no_permutation_of_the_channels_is_as_good_as_the_owners_order(owner) -> None:
    branch, read = branch_of(owner)
    assert permutations_as_good(branch, read, draws=50, seed=SEED, progress=silent) == 0


def test_a_head_that_reads_all_channels_alike_is_unmasked(owner) -> None:
    branch, read = branch_of(owner)
    universal = Head(inputs=read.shape[1], hidden=4)
    for parameter in universal.parameters():
        torch.nn.init.constant_(parameter, 0.0)
    with torch.no_grad():
        universal.output.bias[1] = 1.0
    symmetric = Branch(universal, branch.info, branch.triggers)
    assert permutations_as_good(symmetric, read, draws=20, seed=SEED, progress=silent) == 20


@pytest.mark.parametrize("draws", [1, 16, 50])
@pytest.mark.parametrize("strength", [0.0, 0.1, 0.2, 0.5])
def test_permutations_that_are_not_counted_to_their_end_are_counted_right(owner, strength: float, draws: int) -> None:
    branch, read = branch_of(owner)
    noise = torch.randn(read.shape, generator=torch.Generator().manual_seed(1)) * read.std()
    weak = (strength * read + (1 - strength) * noise).detach()  # so that some permutations are as good
    found = permutations_as_good(branch, weak, draws=draws, seed=SEED, progress=silent)
    source, labels = generator("channel permutations", SEED), branch.triggers.labels
    with torch.no_grad():
        own = int(agreements(logit_margins(branch.head, weak), labels).sum())
        counts = [
            int(agreements(logit_margins(branch.head, weak[:, order]), labels).sum())
            for order in (_permuted_features(branch.info.taps, branch.info.pooling, source) for _ in range(draws))
        ]
    assert found == sum(count >= own for count in counts)


@pytest.fixture(scope="module")
def matches(owner) -> torch.Tensor:
    branch, read = branch_of(owner)
    with torch.no_grad():
        return agreements(logit_margins(branch.head, read), branch.triggers.labels)


def test_fresh_networks_are_near_chance_and_their_counts_add_up(owner, matches: torch.Tensor) -> None:
    branch, _ = branch_of(owner)
    first, again = (compare_with_fresh(branch, matches, count=2, seed=SEED, progress=silent) for _ in range(2))
    assert first == again
    for control in first:
        assert control.matched <= 75
        assert control.suspect_only - control.control_only == int(matches.sum()) - control.matched


def test_the_suspect_as_its_own_base_or_as_a_public_model_is_no_better_than_it(owner, matches: torch.Tensor) -> None:
    branch, _ = branch_of(owner)
    files = ControlFiles(base=owner.model_path, public=(owner.model_path, owner.model_path))
    controls = compare_with_files(branch, matches, files, progress=silent)
    assert [(control.name, control.kind) for control in controls] == [
        ("base", "base"),
        ("public-0", "public"),
        ("public-1", "public"),
    ]
    for control in controls:
        assert (control.matched, control.suspect_only, control.control_only) == (int(matches.sum()), 0, 0)


def test_where_no_file_is_given_none_is_compared(owner, matches: torch.Tensor) -> None:
    assert compare_with_files(branch_of(owner)[0], matches, ControlFiles(), progress=silent) == []


def test_a_base_that_is_no_weights_file_is_refused(owner, matches: torch.Tensor) -> None:
    branch, _ = branch_of(owner)
    with pytest.raises(WatermarkError):
        compare_with_files(branch, matches, ControlFiles(base=owner.evidence_path), progress=silent)
