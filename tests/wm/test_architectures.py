"""Promised: networks come from the catalogue, by data alone, and are outlined before any memory is taken for them."""

import pytest
import torch

from wm.architectures import (
    Architecture,
    PartBuilder,
    build,
    classifiers,
    default_taps,
    names,
    skeleton,
    text_classifiers,
)
from wm.errors import WatermarkError
from wm.tap_shapes import possible_taps

pytestmark = pytest.mark.long

TOO_LARGE = {"regnet_y_128gf", "vit_h_14", "vit_l_16", "vit_l_32"}
SAMPLE = (
    *("resnet18", "googlenet", "inception_v3", "shufflenet_v2_x0_5", "vgg11", "swin_t", "regnet_y_400mf", "vit_b_32"),
    *("fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large", "keypointrcnn_resnet50_fpn"),
    *("lraspp_mobilenet_v3_large", "fcn_resnet50"),
)


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where pretrained weights would be fetched."""

    def download(*_: object, **__: object) -> None:
        raise AssertionError("weights are never downloaded")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)


def assert_outlined(name: str) -> None:
    model, other = (skeleton(Architecture(name, {"num_classes": classes})) for classes in (7, 9))
    held = model.state_dict()
    assert {value.device.type for value in held.values()} == {"meta"}
    assert any(held[key].shape != value.shape for key, value in other.state_dict().items())
    assert possible_taps(model, channels=3, height=224, width=224)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_name_of_the_catalogue_is_outlined_with_its_classes(name: str) -> None:
    assert_outlined(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(names()) - TOO_LARGE - set(text_classifiers())))
def test_every_name_of_the_catalogue_is_outlined(name: str) -> None:
    assert_outlined(name)


@pytest.mark.parametrize("name", sorted(TOO_LARGE))
def test_a_network_that_is_too_large_is_refused_before_it_is_allocated(name: str) -> None:
    with pytest.raises(WatermarkError, match="parameters") as caught:
        build(Architecture(name), seed=1)
    assert caught.value.code == "too_large"


def test_arguments_that_make_a_network_too_large_are_refused_before_it_is_allocated() -> None:
    with pytest.raises(WatermarkError, match="parameters") as caught:
        build(Architecture("vgg11", {"num_classes": 100_000}), seed=1)
    assert caught.value.code == "too_large"


def test_the_catalogue_holds_all_of_torchvisions_classifiers_detectors_and_segmenters() -> None:
    assert len(classifiers()) >= 80
    assert len(names()) >= 98
    assert {"resnet18", "regnet_x_400mf", "maskrcnn_resnet50_fpn", "deeplabv3_resnet101"} <= set(names())
    assert "maskrcnn_resnet50_fpn" not in classifiers()
    assert not set(text_classifiers()) & set(classifiers())


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "lraspp_mobilenet_v3_large"])
def test_one_seed_gives_one_network_and_leaves_the_global_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = (build(Architecture(name), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["resnet18", "fcn_resnet50", "ssdlite320_mobilenet_v3_large"])
def test_a_part_of_a_network_has_values_drawn_as_the_whole_has(name: str) -> None:
    architecture = Architecture(name, {"num_classes": 3})
    whole = build(architecture, seed=1).state_dict()
    wanted = list(whole)[:40]
    builder = PartBuilder(architecture, wanted)
    first, again, other = (builder.build(seed=seed).state_dict() for seed in (1, 1, 2))
    assert list(first) == list(whole)
    for key in wanted:
        assert torch.equal(first[key], again[key])
        if first[key].ndim == 4:
            assert not torch.equal(first[key], other[key])
            assert first[key].std() == pytest.approx(whole[key].std(), rel=0.5)
    if name != "ssdlite320_mobilenet_v3_large":  # which runs itself while it is built
        assert {first[key].device.type for key in set(whole) - set(wanted) if whole[key].ndim} == {"meta"}


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "ssdlite320_mobilenet_v3_large", "googlenet"])
def test_the_outline_is_that_of_the_network(name: str) -> None:
    arguments = {"num_classes": 5}
    outlined = skeleton(Architecture(name, arguments)).state_dict()
    built = build(Architecture(name, arguments), seed=1).state_dict()
    assert {key: (value.shape, value.dtype) for key, value in outlined.items()} == {
        key: (value.shape, value.dtype) for key, value in built.items()
    }


@pytest.mark.parametrize("name", ["", "resnet19", "os.system", "raft_large", "r3d_18", "quantized_resnet18"])
def test_a_name_outside_the_catalogue_is_refused(name: str) -> None:
    with pytest.raises(WatermarkError, match="catalogue") as caught:
        Architecture(name)
    assert caught.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"weights": 1}),
        ("resnet18", {"num_classes": "10"}),
        ("resnet18", {"num_classes": True}),
        ("resnet18", {"num_classes": 0}),
        ("resnet18", {"num_classes": 10**9}),
        ("resnet18", {"norm_layer": 3}),
        ("resnet18", {"aux_loss": True}),
        ("resnet18", {"weights_backbone": 1}),
        ("fcn_resnet50", {"aux_loss": 1}),
        ("fcn_resnet50", {"weights_backbone": 1}),
        ("keypointrcnn_resnet50_fpn", {"num_keypoints": 10**6}),
        ("vit_b_16", {"image_size": 10**6}),
    ],
)
def test_an_argument_outside_the_list_or_its_range_is_refused(name: str, arguments: dict[str, int]) -> None:
    with pytest.raises(WatermarkError) as caught:
        Architecture(name, arguments)
    assert caught.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    ("name", "arguments", "tensor"),
    [
        ("fcn_resnet50", {"aux_loss": True}, "aux_classifier.0.weight"),
        ("keypointrcnn_resnet50_fpn", {"num_keypoints": 5}, "roi_heads.keypoint_predictor.kps_score_lowres.bias"),
        ("vit_b_32", {"image_size": 64}, "encoder.pos_embedding"),
    ],
)
def test_an_argument_of_the_list_changes_the_network(name: str, arguments: dict[str, int], tensor: str) -> None:
    shapes = [
        {key: value.shape for key, value in skeleton(Architecture(name, given)).state_dict().items()}
        for given in ({}, arguments)
    ]
    assert shapes[0].get(tensor) != shapes[1][tensor]


def test_arguments_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(WatermarkError, match="cannot be built") as caught:
        skeleton(Architecture("vit_b_32", {"image_size": 33}))
    assert caught.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet18", "layer1"),
        ("wide_resnet50_2", "layer1"),
        ("maskrcnn_resnet50_fpn", "backbone.body.layer1"),
        ("deeplabv3_resnet50", "backbone.layer1"),
    ],
)
def test_the_default_taps_are_the_first_three_stages_and_can_be_read(name: str, first: str) -> None:
    taps = default_taps(Architecture(name))
    assert (taps[0], len(taps)) == (first, 3)
    found = possible_taps(skeleton(Architecture(name)), channels=3, height=64, width=64)
    assert set(taps) <= {tap.module for tap in found}


@pytest.mark.parametrize("name", ["vgg11", "swin_t", "lraspp_mobilenet_v3_large"])
def test_without_default_taps_the_error_says_how_to_find_some(name: str) -> None:
    with pytest.raises(WatermarkError, match="possible_taps") as caught:
        default_taps(Architecture(name))
    assert caught.value.code == "unknown_architecture"
