"""Promised: what only moves channels changes the weights and not the outputs, and alignment undoes it.

Outputs are equal within 1e-4 of the largest logit: fp32 adds up in another order.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from wm.architectures import Architecture, build
from wm.attacks import ATTACKS, Stolen, attacked
from wm.attacks.forgeries.forgery import fit_head
from wm.attacks.permutation import partial_order, reorder
from wm.backbone import Tap, features_in_evaluation, read_taps
from wm.branch import Branch
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, with_reference
from wm.head import initial_head
from wm.progress import silent
from wm.randomness import generator, seeded
from wm.symmetries.channels import free_streams, odd_streams
from wm.weights import load_weights, save_weights

pytestmark = pytest.mark.long

TOLERANCE = 1e-4
PRESERVING = [attack.name for attack in ATTACKS.values() if attack.preserves_function]


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


@pytest.mark.parametrize("name", PRESERVING)
def test_the_outputs_stay_and_the_weights_do_not(stolen: Stolen, answers, name: str) -> None:
    attack = ATTACKS[name]
    before = answers(stolen.model, stolen.data.test)
    for strength in attack.scale.usual:
        model = attacked(attack, stolen, strength=strength, seed=1)
        assert difference(before, answers(model, stolen.data.test)) < TOLERANCE
        weight, was = model.get_parameter("layer2.conv2.weight"), stolen.model.get_parameter("layer2.conv2.weight")
        assert weight.shape != was.shape or not torch.allclose(weight, was)


@pytest.mark.parametrize("name", ["ftal", "magnitude_pruning", "quantisation", "weight_shift", "spoil"])
def test_other_attacks_do_change_the_outputs(stolen: Stolen, answers, name: str) -> None:
    model = attacked(ATTACKS[name], stolen, strength=ATTACKS[name].scale.usual[2], seed=1)
    before = answers(stolen.model, stolen.data.test)
    assert difference(before, answers(model, stolen.data.test)) > 10 * TOLERANCE


@pytest.mark.parametrize("architecture", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
@pytest.mark.parametrize("name", PRESERVING)
def test_it_holds_for_networks_of_the_catalogue(digits, answers, architecture: str, name: str) -> None:
    of = Architecture(architecture, {"num_classes": 10})
    model, examples = build(of, seed=1).eval(), digits.test.take(torch.arange(4))
    with torch.no_grad():  # as fresh, normalisation does nothing, and a mistake in it would not show
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                    tensor.copy_(torch.rand(tensor.shape, generator=generator("warm", tensor.numel())) + 0.5)
    stolen = Stolen(model=model, architecture=of, data=digits)
    if (architecture, name) == ("squeezenet1_1", "sign_flip"):  # all its channels are behind a ReLU at once
        with pytest.raises(WatermarkError, match="turned over"):
            attacked(ATTACKS[name], stolen, strength=1.0, seed=1)
        return
    moved = attacked(ATTACKS[name], stolen, strength=ATTACKS[name].scale.usual[1], seed=1)
    assert difference(answers(model, examples), answers(moved, examples)) < TOLERANCE


def test_a_permutation_that_forgets_one_reader_is_seen_in_the_outputs(stolen: Stolen, answers) -> None:
    before = answers(stolen.model, stolen.data.test)
    stream = free_streams(stolen.model)[0]
    stream.readers.pop()
    reorder(stolen.model, stream, torch.arange(stream.channels).flip(0))
    assert difference(before, answers(stolen.model, stolen.data.test)) > 10 * TOLERANCE


def test_what_is_read_in_front_of_a_normalisation_is_turned_over_and_found_again(stolen: Stolen, matched) -> None:
    branch = marked_at(stolen, "layer1.conv1", "layer2.conv2")
    turned = attacked(ATTACKS["sign_flip"], stolen, strength=0.5, seed=1)
    assert matched(stolen.model, branch) >= 190
    assert matched(turned, replace(branch, reference=None)) < 140
    assert matched(turned, branch) >= 190


def marked_at(stolen: Stolen, *modules: str) -> Branch:
    """A head that was fitted to other taps of the same network."""
    of, model = stolen.revealed, stolen.model
    outputs = read_taps(model, modules, of.triggers.images[:1])
    taps = tuple(Tap(name, *output.shape[1:]) for name, output in zip(modules, outputs, strict=True))
    info = replace(of.info, taps=taps, reference=None)
    read = features_in_evaluation(model, modules, of.triggers.images, pooling=info.pooling)
    head = initial_head(read, taps, pooling=info.pooling, hidden=info.hidden, seed=1)
    fit_head(head, read, of.triggers.labels, steps=200, progress=silent)
    evidence = with_reference(EvidenceFile(head, info, bytes(32)), model)
    return Branch(head, evidence.info, of.triggers, evidence.reference)


@pytest.mark.parametrize(("name", "strength"), [("permutation", 1.0), ("scaling", 10), ("scaling", 1000)])
def test_what_moves_channels_breaks_the_mark_until_they_are_aligned(
    stolen: Stolen, matched, name: str, strength: float
) -> None:
    moved = attacked(ATTACKS[name], stolen, strength=strength, seed=1)
    assert matched(stolen.model, stolen.revealed) >= 190
    assert matched(moved, replace(stolen.revealed, reference=None)) < 140
    assert matched(moved, stolen.revealed) >= 190


def test_all_of_them_at_once_are_undone_and_a_fresh_network_stays_at_chance(stolen: Stolen, matched) -> None:
    hidden = stolen
    for name, strength in (("permutation", 1.0), ("scaling", 10), ("dummy_neurons", 0.5)):
        hidden = replace(hidden, model=attacked(ATTACKS[name], hidden, strength=strength, seed=1))
    with pytest.raises(WatermarkError):
        matched(hidden.model, replace(stolen.revealed, reference=None))
    assert matched(hidden.model, stolen.revealed) >= 190
    with seeded("another small net"):
        fresh = type(stolen.model)()
    assert matched(fresh, stolen.revealed) < 140


def test_a_copy_that_was_tuned_first_is_aligned_to_what_it_answers_as_it_is(stolen: Stolen, matched) -> None:
    tuned = attacked(ATTACKS["ftal"], stolen, strength=1e-4, seed=1)
    hidden = attacked(ATTACKS["permutation"], replace(stolen, model=tuned), strength=1.0, seed=1)
    as_it_is = matched(tuned, replace(stolen.revealed, reference=None))
    assert matched(hidden, replace(stolen.revealed, reference=None)) < 140
    assert matched(hidden, stolen.revealed) >= as_it_is - 10


@pytest.mark.parametrize(("share", "moved"), [(0.001, 2), (0.25, 16), (1.0, 64)])
def test_as_many_channels_move_as_the_strength_says(share: float, moved: int) -> None:
    order = partial_order(64, share, generator(1))
    assert sorted(order.tolist()) == list(range(64))
    assert int((order != torch.arange(64)).sum()) == moved


def test_scaling_stays_between_the_factor_and_its_inverse(stolen: Stolen) -> None:
    model = attacked(ATTACKS["scaling"], stolen, strength=5, seed=1)
    ratios = model.get_parameter("layer1.bn1.weight") / stolen.model.get_parameter("layer1.bn1.weight")
    assert 1 / 5 - 1e-6 <= ratios.min() < 1 < ratios.max() <= 5 + 1e-6


def test_dummies_make_a_network_that_is_no_longer_of_the_catalogue(digits, tmp_path) -> None:
    of = Architecture("resnet18", {"num_classes": 10})
    stolen = Stolen(model=build(of, seed=1), architecture=of, data=digits)
    plain, wide = tmp_path / "plain", tmp_path / "wide"
    save_weights(stolen.model, plain)
    save_weights(attacked(ATTACKS["dummy_neurons"], stolen, strength=0.01, seed=1), wide)
    load_weights(plain, of)
    with pytest.raises(WatermarkError) as caught:
        load_weights(wide, of)
    assert caught.value.code == "mismatch"


@pytest.mark.parametrize("name", PRESERVING)
def test_a_network_without_free_channels_is_refused(digits, name: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    stolen = Stolen(model=model, architecture=Architecture("resnet18"), data=digits)
    with pytest.raises(WatermarkError) as caught:
        attacked(ATTACKS[name], stolen, strength=ATTACKS[name].scale.usual[0], seed=1)
    assert caught.value.code == "unknown_architecture"


class Shared(nn.Module):
    """One convolution used twice: its channels cannot be renumbered apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        read = self.first(images)
        both = read + self.bn(read)  # read before and after a normalisation: may move, but not be scaled
        return self.last(self.twice(self.twice(both)))


def test_weights_that_are_used_twice_stay_where_they_are() -> None:
    with pytest.raises(WatermarkError):
        free_streams(Shared().eval())


class SharedAndNormalised(nn.Module):
    """A convolution and its normalisation, used twice: a sign would be changed for one use and read by both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.bn = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        read = self.bn(self.twice(self.first(images)))
        return self.bn(self.twice(read))


def test_what_is_normalised_twice_is_not_turned_over() -> None:
    with pytest.raises(WatermarkError, match="turned over"):
        odd_streams(SharedAndNormalised().eval())
