"""Promised: every classifier has usual taps, at different depths, which can be read; nobody's taps have changed."""

import pytest

from wm.architectures import Architecture, classifiers, default_taps, skeleton
from wm.backbone import Tap
from wm.errors import WatermarkError
from wm.tap_shapes import describe_taps
from wm.taps import chosen_of, taps_for
from wm.triggers import InputSpec, Normalisation

TOO_LARGE = {"regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32"}
ONE_SIZE = ("vit", "maxvit")  # they take pictures of 224 pixels, if not told otherwise
FAST = ("vgg11", "mobilenet_v3_small", "densenet121", "swin_t", "googlenet", "squeezenet1_1", "vit_b_32", "maxvit_t")


def input_of(height: int, width: int | None = None) -> InputSpec:
    return InputSpec(3, height, width or height, Normalisation(("0.5",) * 3, ("0.5",) * 3))


def usual_taps(name: str, spec: InputSpec) -> list[Tap]:
    architecture = Architecture(name, {"num_classes": 10})
    modules = taps_for(architecture, spec)
    return describe_taps(skeleton(architecture), modules, channels=3, height=spec.height, width=spec.width)


def assert_read_at_different_depths(name: str) -> None:
    side = 224 if name.startswith(ONE_SIZE) else 75 if name == "inception_v3" else 32
    taps = usual_taps(name, input_of(side))
    assert len(taps) == 3 or name.startswith(("vit", "swin", "alexnet"))
    assert all(tap.channels >= 16 and tap.height == tap.width < side / 2 for tap in taps)
    assert [tap.height for tap in taps] == sorted({tap.height for tap in taps}, reverse=True)
    assert taps[0].height > 1


@pytest.mark.parametrize("name", FAST)
def test_a_classifier_is_read_at_different_depths(name: str) -> None:
    assert_read_at_different_depths(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(classifiers()) - TOO_LARGE - set(FAST)))
def test_every_classifier_is_read_at_different_depths(name: str) -> None:
    assert_read_at_different_depths(name)


def test_a_chain_of_layers_is_read_in_front_of_its_poolings() -> None:
    assert usual_taps("vgg11", input_of(32)) == [
        Tap("features.9", 256, 8, 8),
        Tap("features.14", 512, 4, 4),
        Tap("features.19", 512, 2, 2),
    ]


def test_blocks_are_taken_rather_than_their_parts() -> None:
    assert [tap.module for tap in usual_taps("densenet121", input_of(64))] == [
        "features.denseblock1",
        "features.denseblock2",
        "features.denseblock3",
    ]


def test_where_a_block_is_narrow_its_widest_part_is_taken() -> None:
    assert usual_taps("mobilenet_v3_small", input_of(32)) == [
        Tap("features.2.block.0", 72, 8, 8),
        Tap("features.4.block.0", 96, 4, 4),
        Tap("features.9.block.0", 288, 2, 2),
    ]


def test_the_tables_of_an_attention_are_no_taps() -> None:
    assert [tap.module for tap in usual_taps("swin_v2_t", input_of(224))] == ["features.0.0", "permute"]


def test_pictures_that_are_no_squares_have_taps_as_well() -> None:
    taps = usual_taps("vgg11", input_of(32, 48))
    assert [(tap.module, tap.width) for tap in taps] == [("features.9", 12), ("features.14", 6), ("features.19", 3)]


def test_a_small_network_is_read_at_larger_outputs_too() -> None:
    found = [Tap("a", 8, 16, 16), Tap("b", 16, 8, 8), Tap("pooling", 16, 1, 1)]
    assert chosen_of(found, input_of(32)) == ("a", "b")
    assert chosen_of(found[1:], input_of(32)) == ("b", "pooling")
    assert chosen_of([], input_of(32)) == ()


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_residual_networks_keep_the_papers_taps(name: str) -> None:
    architecture = Architecture(name)
    assert taps_for(architecture, input_of(32)) == default_taps(architecture) == ("layer1", "layer2", "layer3")


def test_of_a_detector_without_default_taps_the_owner_must_choose() -> None:
    with pytest.raises(WatermarkError, match="possible_taps") as caught:
        taps_for(Architecture("ssdlite320_mobilenet_v3_large"), input_of(64))
    assert caught.value.code == "unknown_architecture"
