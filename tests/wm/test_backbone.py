"""Promised: taps are read by path, no module behind the last one runs, and modes are restored."""

import pytest
import torch
from torch import nn

from wm.architectures import Architecture, build, skeleton
from wm.backbone import Tap, backbone_names, evaluating, feature_count, features_in_evaluation, pooled, read_taps
from wm.errors import WatermarkError
from wm.tap_shapes import describe_taps, possible_taps


class Three(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)
        self.bell = nn.BatchNorm2d(3)
        self.third = nn.Identity()
        self.ran = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        middle = self.bell(self.second(self.first(images)))
        self.ran = True
        return self.third(middle)


def test_taps_come_in_the_order_asked_for_and_nothing_behind_them_runs() -> None:
    model, images = Three(), torch.randn(2, 1, 8, 8)
    second, first = read_taps(model, ["second", "first"], images)
    assert torch.equal(first, model.first(images))
    assert torch.equal(second, model.second(first))
    assert not model.ran


def test_hooks_do_not_stay_behind() -> None:
    model = Three()
    read_taps(model, ["first"], torch.randn(2, 1, 8, 8))
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3, 4, 4)


def test_gradients_flow_through_the_taps() -> None:
    model = Three()
    pooled(read_taps(model, ["second"], torch.randn(2, 1, 8, 8)), pooling=1).sum().backward()
    assert model.first.weight.grad is not None


@pytest.mark.parametrize("module", ["fourth", "first.0", "second.weight"])
def test_a_module_that_does_not_exist_is_refused(module: str) -> None:
    with pytest.raises(WatermarkError, match="no module") as caught:
        read_taps(Three(), [module], torch.randn(2, 1, 8, 8))
    assert caught.value.code == "unknown_architecture"


def test_a_module_that_never_runs_is_refused() -> None:
    model = Three()
    model.unused = nn.Identity()
    with pytest.raises(WatermarkError, match="never run"):
        read_taps(model, ["unused"], torch.randn(2, 1, 8, 8))


def test_pooling_keeps_the_cells_of_a_channel_together_and_small_maps_as_they_are() -> None:
    large, small = torch.arange(32.0).reshape(1, 2, 4, 4), torch.tensor([[[[100.0]]]])
    assert pooled([large, small], pooling=2)[0].tolist() == [2.5, 4.5, 10.5, 12.5, 18.5, 20.5, 26.5, 28.5, 100]
    assert feature_count([Tap("a", 2, 4, 4), Tap("b", 1, 1, 1)], pooling=2) == 9


def test_an_images_features_do_not_depend_on_its_neighbours() -> None:
    model, images = Three(), torch.randn(120, 1, 8, 8)
    model.train()
    alone = features_in_evaluation(model, ["bell"], images[:1], pooling=2)
    together = features_in_evaluation(model, ["bell"], images, pooling=2)
    assert torch.allclose(alone[0], together[0], atol=1e-6)
    assert model.training


def test_modes_are_restored_one_by_one() -> None:
    model = Three()
    model.bell.eval()
    with evaluating(model):
        assert not model.first.training
    assert model.first.training
    assert not model.bell.training


def test_shapes_are_found_without_computing() -> None:
    taps = describe_taps(skeleton(Architecture("resnet18")), ["layer1", "layer3"], channels=3, height=32, width=32)
    assert taps == [Tap("layer1", 64, 8, 8), Tap("layer3", 256, 2, 2)]


def test_a_tap_without_height_and_width_is_refused() -> None:
    with pytest.raises(WatermarkError, match="height"):
        describe_taps(skeleton(Architecture("resnet18")), ["fc"], channels=3, height=32, width=32)


def test_possible_taps_are_listed_in_the_order_in_which_they_answer() -> None:
    found = possible_taps(skeleton(Architecture("resnet18")), channels=3, height=32, width=32)
    assert found[0] == Tap("conv1", 64, 16, 16)
    assert Tap("layer3", 256, 2, 2) in found
    assert "fc" not in {tap.module for tap in found}
    stages = [tap.module for tap in found if tap.module in {"layer1", "layer2", "layer3"}]
    assert stages == ["layer1", "layer2", "layer3"]


@pytest.mark.parametrize(
    ("name", "module", "side"),
    [
        ("swin_t", "features.1", 32),
        ("swin_t", "features.7", 16),
        ("swin_v2_t", "features.2", 64),
        ("convnext_tiny", "features.1.0.block.2", 32),
    ],
)
def test_a_module_that_answers_channels_last_is_no_tap(name: str, module: str, side: int) -> None:
    network = skeleton(Architecture(name))
    with pytest.raises(WatermarkError, match=f"'{module}'.*second axis.*possible_taps") as caught:
        describe_taps(network, [module], channels=3, height=side, width=side)
    assert caught.value.code == "unknown_architecture"
    found = {tap.module for tap in possible_taps(network, channels=3, height=side, width=side)}
    assert "features.0.0" in found
    assert module not in found


def test_of_a_network_that_answers_channels_last_the_other_modules_are_taps() -> None:
    network = skeleton(Architecture("swin_t"))
    assert possible_taps(network, channels=3, height=32, width=32) == [
        Tap("features.0.0", 96, 8, 8),
        Tap("permute", 768, 1, 1),
        Tap("avgpool", 768, 1, 1),
    ]
    (tap,) = describe_taps(network, ["features.0.0"], channels=3, height=32, width=32)
    assert tap == Tap("features.0.0", 96, 8, 8)


def test_a_network_of_one_size_of_pictures_is_read_as_it_says() -> None:
    class Fixed(Three):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if images.shape[2:] != (8, 8):
                raise KeyError(images.shape)
            return super().forward(images)

    assert possible_taps(Fixed(), channels=1, height=8, width=8)[0] == Tap("first", 2, 6, 6)
    assert describe_taps(Fixed(), ["second"], channels=1, height=8, width=8) == [Tap("second", 3, 4, 4)]


def test_of_a_detector_only_the_backbone_runs_on_the_pictures_as_they_are() -> None:
    model = build(Architecture("fasterrcnn_mobilenet_v3_large_320_fpn", {"num_classes": 2}), seed=1).eval()
    images = torch.randn(2, 3, 64, 64)
    (read,) = read_taps(model, ["backbone.body.1"], images)
    assert torch.equal(read, model.backbone.body["1"](model.backbone.body["0"](images)))


def test_an_input_that_is_too_small_for_the_last_modules_still_has_taps_in_front_of_them() -> None:
    ssd = skeleton(Architecture("ssd300_vgg16"))
    assert possible_taps(ssd, channels=3, height=64, width=64)
    assert describe_taps(ssd, ["backbone.features.2"], channels=3, height=64, width=64)


@pytest.mark.parametrize(
    ("name", "module", "size"),
    [
        ("resnet18", "layer1", (1, 32, 32)),
        ("vit_b_32", "conv_proj", (3, 32, 32)),
        ("inception_v3", "Mixed_7c", (3, 32, 32)),
        ("ssd300_vgg16", "backbone.extra.3", (3, 32, 32)),
    ],
)
def test_an_input_that_the_network_does_not_take_is_refused(name: str, module: str, size: tuple[int, int, int]) -> None:
    channels, height, width = size
    with pytest.raises(WatermarkError) as caught:
        describe_taps(skeleton(Architecture(name)), [module], channels=channels, height=height, width=width)
    assert caught.value.code == "mismatch"


def test_weights_of_modules_that_never_run_themselves_are_part_of_the_backbone() -> None:
    names = backbone_names(skeleton(Architecture("swin_t")), ["features.1"], torch.empty(1, 3, 64, 64, device="meta"))
    assert {"features.1.0.attn.qkv.weight", "features.1.0.attn.relative_position_bias_table"} <= set(names)
    assert not [name for name in names if name.startswith(("features.2", "head"))]


def test_the_backbone_ends_at_the_last_tap() -> None:
    names = backbone_names(skeleton(Architecture("resnet18")), ["layer1"], torch.empty(1, 3, 32, 32, device="meta"))
    assert "conv1.weight" in names
    assert "bn1.running_mean" in names
    assert not [name for name in names if name.startswith(("layer2", "layer4", "fc"))]
