"""Promised: networks that find objects are attacked as classifiers are, in their backbone and their predictors."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scenes import ARCHITECTURE, ARGUMENTS, SETTINGS, SIDE, few_shapes
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

import wm
from wm.architectures import Architecture, OwnArchitecture, build
from wm.attacks import ATTACKS, Stolen, attacked, sweep
from wm.attacks.forgeries import FORGERIES
from wm.attacks.tuning import last_layers
from wm.branch import Branch, count_matched
from wm.evidence import EvidenceFile, save_evidence, with_reference
from wm.progress import silent
from wm.randomness import generator
from wm.symmetries.channels import neurons
from wm.training import score
from wm.triggers import make_triggers
from wm.weights import save_weights

pytestmark = pytest.mark.long

KEY, OTHER_KEY = bytes(range(32)), bytes(reversed(range(32)))
NEEDING_CLASSES = ["label_smoothing", "adversarial_training", "distillation", "extraction_soft", "extraction_hard"]
PRESERVING = [attack.name for attack in ATTACKS.values() if attack.preserves_function]
ENDS = ("cls_score", "bbox_pred", "mask_fcn_logits", "scores", "offsets")  # layers behind which nothing is left
DATA = few_shapes()


@pytest.fixture(scope="module")
def marked() -> Stolen:
    """A detector with a mark, and what a claim shows of it."""
    clean = build(ARCHITECTURE, seed=1).eval()
    made = wm.embed(clean, DATA, KEY, architecture=ARCHITECTURE, settings=SETTINGS, seed=1)
    evidence = with_reference(EvidenceFile(made.head, made.info, bytes(32)), made.model)
    triggers = make_triggers(KEY, made.info.input, count=made.info.triggers)
    branch = Branch(evidence.head, evidence.info, triggers, evidence.reference)
    return Stolen(model=made.model, architecture=ARCHITECTURE, data=DATA, revealed=branch)


@pytest.fixture
def stolen(marked: Stolen) -> Stolen:
    return replace(marked, model=copy.deepcopy(marked.model))


def matched_of(model: nn.Module, stolen: Stolen, *, aligned: bool) -> int:
    branch = stolen.revealed
    assert branch is not None
    return count_matched(model, branch.head, branch.info, KEY, reference=branch.reference if aligned else None)


def is_predictor(name: str) -> bool:
    return name.startswith("roi_heads.") and name.split(".")[-2] in ENDS


def pyramid(model: nn.Module) -> dict[str, Tensor]:
    """What a backbone gives for a picture of noise, level by level: all that the rest of the network sees."""
    noise = torch.rand(1, 3, SIDE, SIDE, generator=generator("noise")) - 0.5
    with torch.no_grad():
        levels: dict[str, Tensor] = model.eval().get_submodule("backbone")(noise)
    return levels


def worn(model: nn.Module) -> nn.Module:
    """Give every normalisation something to do: a mistake in it would not show in a fresh one."""
    source = generator("worn")
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | FrozenBatchNorm2d):
            for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                value.detach().copy_(torch.rand(value.shape, generator=source) + 0.5)
    return model.eval()


def frozen_mask_rcnn() -> nn.Module:
    """A network of torchvision's own making, whose batch normalisation is frozen as in its pretrained ones."""
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d)
    return MaskRCNN(body, num_classes=4, min_size=SIDE, max_size=SIDE, box_batch_size_per_image=16)


NETWORKS = {
    "narrow": lambda: build(ARCHITECTURE, seed=1),
    "cascade": lambda: build(Architecture("cascade_maskrcnn_resnet18_fpn", ARGUMENTS), seed=1),
    "frozen": frozen_mask_rcnn,
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", PRESERVING)
def test_what_only_moves_channels_leaves_the_pyramid_as_it_is(network: str, name: str) -> None:
    model = worn(NETWORKS[network]())
    stolen = Stolen(model=model, architecture=OwnArchitecture(), data=DATA)
    moved = attacked(ATTACKS[name], stolen, strength=ATTACKS[name].scale.usual[1], seed=1)
    for level, before in pyramid(model).items():
        after = pyramid(moved)[level]
        assert float((before - after).abs().max() / before.abs().max()) < 1e-4
    weight = "backbone.body.layer2.0.conv1.weight"
    was, now = (it.state_dict()[weight] for it in (model, moved))
    assert now.shape != was.shape or not torch.allclose(now, was)


@pytest.mark.parametrize(("name", "strength"), [("permutation", 1.0), ("scaling", 1000)])
def test_alignment_finds_the_mark_again(stolen: Stolen, name: str, strength: float) -> None:
    moved = attacked(ATTACKS[name], stolen, strength=strength, seed=1)
    assert matched_of(stolen.model, stolen, aligned=False) >= 95
    assert matched_of(moved, stolen, aligned=False) < 80
    assert matched_of(moved, stolen, aligned=True) >= 95
    another = worn(build(ARCHITECTURE, seed=9))
    assert matched_of(another, stolen, aligned=True) < 80


def test_a_verifier_rebuilds_the_network_with_dummies(stolen: Stolen, tmp_path: Path) -> None:
    branch = stolen.revealed
    assert branch is not None
    model_sha256 = save_weights(stolen.model, tmp_path / "model")
    info = branch.info.with_files(model_sha256=model_sha256, base_sha256=None)
    save_evidence(tmp_path / "evidence", EvidenceFile(branch.head, info, bytes(32), branch.reference))
    wider = attacked(ATTACKS["dummy_neurons"], stolen, strength=0.5, seed=1)
    save_weights(wider, tmp_path / "wider")
    found = wm.verify(tmp_path / "wider", tmp_path / "evidence", KEY, control_seed=bytes(32), controls=1)
    assert found.matched >= 95
    assert found.controls[0].matched < 80


@pytest.mark.parametrize("network", ["narrow", "cascade"])
@pytest.mark.parametrize("name", ["ftll", "rtll"])
def test_of_all_layers_the_predictors_are_the_last(network: str, name: str) -> None:
    stolen = Stolen(model=NETWORKS[network]().eval(), architecture=OwnArchitecture(), data=DATA)
    before = stolen.model.state_dict()
    after = attacked(ATTACKS[name], stolen, strength=1e-3, seed=1).state_dict()
    changed = {each for each, value in after.items() if not torch.equal(value, before[each])}
    assert changed == {each for each in before if is_predictor(each)}
    assert len(changed) == (6 if network == "narrow" else 14)


@pytest.mark.parametrize("network", ["narrow", "cascade"])
def test_retraining_forgets_the_predictors_first(network: str) -> None:
    stolen = Stolen(model=NETWORKS[network]().eval(), architecture=OwnArchitecture(), data=DATA)
    tuned, retrained = (attacked(ATTACKS[name], stolen, strength=1e-6, seed=1) for name in ("ftal", "rtal"))
    for name, was in stolen.model.named_parameters():
        if is_predictor(name):
            assert torch.allclose(tuned.get_parameter(name), was, atol=1e-3)
            assert not torch.allclose(retrained.get_parameter(name), was, atol=1e-3)
        else:
            assert torch.allclose(retrained.get_parameter(name), was, atol=1e-3)


def test_a_network_without_such_predictors_is_refused() -> None:
    with pytest.raises(wm.WatermarkError, match="Mask R-CNN") as caught:
        last_layers(nn.Linear(3, 3), DATA)
    assert caught.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    ("name", "frozen"), [("neuron_pruning", False), ("neuron_pruning", True), ("fine_pruning", False)]
)
def test_filters_of_the_backbone_are_cut_off_and_stay_so(stolen: Stolen, name: str, frozen) -> None:
    if frozen:
        stolen = replace(stolen, model=worn(frozen_mask_rcnn()))
    pruned = attacked(ATTACKS[name], stolen, strength=0.25, seed=1)
    layers = neurons(pruned)
    assert len(layers) == 28  # 20 of a ResNet-18, 8 of the pyramid
    for convolution, normalisation in layers:
        filters = convolution.weight.flatten(1).abs().sum(1) == 0
        assert int(filters.sum()) == round(0.25 * len(filters))
        for value in (convolution.bias, getattr(normalisation, "weight", None), getattr(normalisation, "bias", None)):
            assert value is None or not value[filters].any()


def test_attacks_that_need_classes_are_refused_before_any_work(stolen: Stolen) -> None:
    assert [attack.name for attack in ATTACKS.values() if attack.needs_classes] == NEEDING_CLASSES
    for name in NEEDING_CLASSES:
        attack = ATTACKS[name]
        with pytest.raises(wm.WatermarkError, match="one class") as caught:
            sweep(attack, stolen, seed=1)
        assert caught.value.code == "unknown_architecture"
        with pytest.raises(wm.WatermarkError, match="one class"):
            attacked(attack, stolen, strength=attack.scale.usual[0], seed=1)


@pytest.mark.parametrize(
    ("name", "strength"),
    [
        *(("ftal", 1e-3), ("rtal", 1e-3), ("magnitude_pruning", 0.5), ("neuron_pruning", 0.3), ("fine_pruning", 0.2)),
        *(("weight_shift", 0.5), ("quantisation", 8), ("overwriting", 1), ("spoil", 2)),
    ],
)
def test_attacks_change_the_backbone_and_leave_a_network_that_finds_objects(
    stolen: Stolen, name: str, strength: float
) -> None:
    changed = attacked(ATTACKS[name], stolen, strength=strength, seed=1)
    weight = "backbone.body.layer2.0.conv1.weight"
    assert not torch.equal(changed.get_parameter(weight), stolen.model.get_parameter(weight))
    assert all(bool(torch.isfinite(value).all()) for value in changed.state_dict().values())
    assert 0 <= score(changed, DATA.test) <= 1


@pytest.mark.parametrize(
    ("name", "strength"),
    [("posthoc_head", 5), ("universal_head", 1), pytest.param("public_base", 1e-4, marks=pytest.mark.slow)],
)
def test_forgers_take_them_too(stolen: Stolen, name: str, strength: float) -> None:
    own = replace(stolen, revealed=None)
    forged = FORGERIES[name].forge(own, strength, 1, lambda _number: OTHER_KEY, silent)
    assert stolen.revealed is not None
    assert forged.info.taps == stolen.revealed.info.taps
    assert wm.count_matched(forged.accused, forged.head, forged.info, OTHER_KEY) > 0.4 * forged.info.triggers
