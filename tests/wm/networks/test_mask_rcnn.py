"""Promised: the cascade refines boxes in three stages of rising overlap, and its names fit torchvision's network."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou

from wm.architectures import Architecture, build, default_taps, instance_segmenters, skeleton
from wm.backbone import backbone_names, read_taps
from wm.datasets.shapes import shapes
from wm.errors import WatermarkError
from wm.networks.cascade import LOSS_WEIGHTS, OVERLAPS, Stage
from wm.networks.mask_rcnn import arguments_for
from wm.scenes import detection_loss, find_objects

ARGUMENTS = {"num_classes": 4, "min_size": 32, "max_size": 32, "anchor": 4, "channels": 8, "hidden": 16, "samples": 16}
CASCADE = Architecture("cascade_maskrcnn_resnet18_fpn", ARGUMENTS)
PLAIN = Architecture("maskrcnn_resnet18_fpn", ARGUMENTS)
SCENES = shapes(20, side=32).train.take(torch.arange(2))


@pytest.fixture
def model() -> nn.Module:
    return build(CASCADE, seed=1).eval()


def stage(number: int = 0) -> Stage:
    return Stage(number, inputs=8, hidden=4, num_classes=3)


def target(*boxes: tuple[float, ...], label: int = 2) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.full((len(boxes),), label)}]


@pytest.mark.parametrize(("number", "objects"), [(0, 3), (1, 2), (2, 1)])
def test_each_stage_asks_for_a_greater_overlap(number: int, objects: int) -> None:
    there = target((0.0, 0.0, 10.0, 10.0))
    boxes = torch.tensor([[0.0, 0.0, 10.0, height] for height in (4.9, 5.1, 6.1, 7.1)])
    assert box_iou(there[0]["boxes"], boxes)[0].tolist() == pytest.approx([0.49, 0.51, 0.61, 0.71])
    logits = torch.zeros(4, 3)
    logits[:, 2] = 100  # certain that each is an object: wrong for those that overlap too little
    loss, _ = stage(number).losses((logits, torch.zeros(4, 4)), [boxes], there)
    assert loss.item() == pytest.approx(LOSS_WEIGHTS[number] * 100 * (4 - objects) / 4)


def test_refined_boxes_are_those_that_the_loss_wants_and_have_no_graph() -> None:
    there, boxes = target((2.0, 3.0, 12.0, 13.0)), [torch.tensor([[1.0, 2.0, 11.0, 12.0]])]
    made = stage(1)
    right = torch.cat(made.coder.encode([there[0]["boxes"]], boxes)).requires_grad_()
    _, none = made.losses((torch.zeros(1, 3), right), boxes, there)
    _, some = made.losses((torch.zeros(1, 3), right + 1), boxes, there)
    assert none.item() == 0
    assert some.item() == pytest.approx(LOSS_WEIGHTS[1] * 4 * (1 - 1 / 18))
    refined = made.refined(right, boxes, [(20, 20)])
    assert torch.allclose(refined[0], there[0]["boxes"])
    assert not refined[0].requires_grad
    assert made.refined(right, boxes, [(8, 9)])[0].tolist()[0] == pytest.approx([2, 3, 9, 8])  # clipped


def test_a_picture_without_objects_is_background() -> None:
    logits = torch.zeros(1, 3)
    logits[:, 0] = 100
    classifier, box = stage().losses((logits, torch.ones(1, 4)), [torch.tensor([[1.0, 2.0, 11.0, 12.0]])], target())
    assert (classifier.item(), box.item()) == (pytest.approx(0), 0)


def test_the_stages_learn_and_the_mask_branch_with_them(model: nn.Module) -> None:
    torch.autograd.backward(detection_loss(model, SCENES))
    still = {name for name, value in model.named_parameters() if value.grad is None or not bool(value.grad.any())}
    assert {name.split(".")[0] for name in still} <= {"rpn", "backbone"}  # pyramid levels where nothing was proposed
    for number in range(len(OVERLAPS)):
        assert f"roi_heads.stages.{number}.offsets.weight" not in still


def test_a_stage_is_shown_what_the_one_before_refined(model: nn.Module) -> None:
    shown: list[Tensor] = []
    heads = model.get_submodule("roi_heads")
    heads.get_submodule("box_roi_pool").register_forward_pre_hook(lambda _m, inputs: shown.append(inputs[1][0]))
    with torch.no_grad():
        for each in heads.stages:
            nn.init.zeros_(each.offsets.weight)
            nn.init.constant_(each.offsets.bias, 0.5)
        model(SCENES.take(torch.arange(1)).pictures(torch.device("cpu")))
    first, second, third = shown
    for each, before, after in zip(heads.stages, (first, second), (second, third), strict=False):
        assert torch.allclose(each.refined(torch.full((len(before), 4), 0.5), [before], [(32, 32)])[0], after)
        assert not torch.allclose(before, after)


def test_the_classes_are_the_mean_of_the_three_stages_answers(model: nn.Module) -> None:
    heads = model.get_submodule("roi_heads")
    answers = torch.tensor([[0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    with torch.no_grad():
        for each, logits in zip(heads.stages, answers, strict=True):
            nn.init.zeros_(each.scores.weight)
            each.scores.bias.copy_(logits)
    found = find_objects(model, SCENES)[0]
    mean = functional.softmax(answers, 1).mean(0)
    for score, label in zip(found.scores.tolist(), found.labels.tolist(), strict=True):
        assert score == pytest.approx(mean[label].item(), abs=1e-5)


def test_masks_come_in_the_pictures_size_and_boxes_within_it(model: nn.Module) -> None:
    with torch.no_grad():
        answer = model(SCENES.pictures(torch.device("cpu")))[0]
    assert len(answer["scores"])
    assert answer["masks"].shape == (len(answer["scores"]), 1, 32, 32)
    assert 0 <= answer["boxes"].min() <= answer["boxes"].max() <= 32


def test_one_seed_gives_one_loss_and_leaves_the_global_generator_alone(model: nn.Module) -> None:
    before = torch.get_rng_state()
    first, again = (detection_loss(model, SCENES).item() for _ in range(2))
    assert first == again
    assert math.isfinite(first)
    assert torch.equal(before, torch.get_rng_state())


def test_its_names_are_torchvisions_but_for_the_box_heads() -> None:
    theirs, ours = (
        {name: value.shape for name, value in skeleton(Architecture(name, {"num_classes": 91})).state_dict().items()}
        for name in ("maskrcnn_resnet50_fpn", "cascade_maskrcnn_resnet50_fpn")
    )
    assert {name for name in theirs if theirs[name] != ours.get(name)} == {
        f"roi_heads.{layer}.{part}"
        for layer in ("box_head.fc6", "box_head.fc7", "box_predictor.cls_score", "box_predictor.bbox_pred")
        for part in ("weight", "bias")
    }
    assert {name.split(".")[1] for name in set(ours) - set(theirs)} == {"stages"}


@pytest.mark.parametrize("architecture", [CASCADE, PLAIN])
def test_its_taps_are_the_first_stages_of_the_backbone_and_nothing_behind_them_runs(architecture: Architecture) -> None:
    taps = default_taps(architecture)
    assert taps == ("backbone.body.layer1", "backbone.body.layer2", "backbone.body.layer3")
    names = backbone_names(skeleton(architecture), taps, torch.empty(1, 3, 32, 32, device="meta"))
    assert all(name.startswith("backbone.body.") and not name.startswith("backbone.body.layer4") for name in names)
    outputs = read_taps(build(architecture, seed=1).eval(), taps, torch.zeros(1, 3, 32, 32))
    assert [tuple(output.shape[1:]) for output in outputs] == [(64, 8, 8), (128, 4, 4), (256, 2, 2)]


def test_the_catalogue_knows_which_networks_segment_instances() -> None:
    assert {"maskrcnn_resnet50_fpn", CASCADE.name, PLAIN.name} <= set(instance_segmenters())
    assert not {"fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "resnet18"} & set(instance_segmenters())


@pytest.mark.parametrize("name", instance_segmenters())
@pytest.mark.parametrize("side", [64, 256, 1024])
def test_arguments_that_fit_a_size_of_pictures_are_those_that_the_network_takes(name: str, side: int) -> None:
    chosen = arguments_for(name, side)
    transform = skeleton(Architecture(name, {"num_classes": 4, **chosen})).transform
    assert (transform.min_size, transform.max_size) == ((side,), side)
    assert chosen.get("anchor") in {None, min(32, side // 8)}
    assert chosen.get("channels") == (32 if side == 64 and "resnet18" in name else None)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (CASCADE.name, {"min_size": 15}),
        (CASCADE.name, {"max_size": 1025}),
        (CASCADE.name, {"anchor": 3}),
        (CASCADE.name, {"channels": 513}),
        (CASCADE.name, {"samples": True}),
        ("maskrcnn_resnet50_fpn", {"anchor": 8}),
        ("fasterrcnn_resnet50_fpn", {"min_size": 64}),
    ],
)
def test_an_argument_that_a_network_does_not_take_is_refused(name: str, arguments: dict[str, int]) -> None:
    with pytest.raises(WatermarkError) as caught:
        Architecture(name, arguments)
    assert caught.value.code == "unknown_architecture"


def test_one_that_is_too_large_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(WatermarkError, match="parameters") as caught:
        build(Architecture(CASCADE.name, {"channels": 512, "hidden": 4096}), seed=1)
    assert caught.value.code == "too_large"
