"""Promised: networks come from the catalogue, by data alone."""

import pytest
import torch

from wm.architectures import Architecture, build, default_taps, names, skeleton
from wm.errors import WatermarkError


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "inception_v3", "shufflenet_v2_x0_5", "vgg11", "swin_t"])
def test_a_name_of_the_catalogue_is_outlined_with_its_classes(name: str) -> None:
    model = skeleton(Architecture(name, {"num_classes": 7}))
    assert list(model.state_dict().values())[-1].shape == (7,)


@pytest.mark.slow
def test_every_name_of_the_catalogue_can_be_outlined_or_is_too_large() -> None:
    too_large = {"vit_h_14", "vit_l_16", "vit_l_32"}
    for name in set(names()) - too_large:
        model = skeleton(Architecture(name, {"num_classes": 7}))
        assert any(7 in value.shape for value in model.state_dict().values())
    for name in too_large:
        with pytest.raises(WatermarkError, match="parameters"):
            skeleton(Architecture(name))
    assert len(names()) >= 65


def test_one_seed_gives_one_network_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (build(Architecture("shufflenet_v2_x0_5"), seed=seed) for seed in (1, 1, 2))
    weights = [model.conv1[0].weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "name", ["", "resnet19", "os.system", "fasterrcnn_resnet50_fpn", "regnet_y_400mf", "__class__"]
)
def test_a_name_outside_the_catalogue_is_refused(name: str) -> None:
    with pytest.raises(WatermarkError, match="catalogue") as caught:
        Architecture(name)
    assert caught.value.code == "unknown_architecture"


@pytest.mark.parametrize(
    "arguments",
    [
        {"weights": 1},
        {"num_classes": "10"},
        {"num_classes": True},
        {"num_classes": 0},
        {"num_classes": 10**9},
        {"norm_layer": 3},
    ],
)
def test_an_argument_outside_the_list_or_its_range_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(WatermarkError) as caught:
        Architecture("resnet18", arguments)
    assert caught.value.code == "unknown_architecture"


def test_a_network_too_large_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(WatermarkError, match="parameters") as caught:
        build(Architecture("vit_h_14"), seed=1)
    assert caught.value.code == "too_large"


def test_residual_networks_have_default_taps_and_others_need_a_choice() -> None:
    assert default_taps(Architecture("resnet50")) == ("layer1", "layer2", "layer3")
    with pytest.raises(WatermarkError, match="name the modules"):
        default_taps(Architecture("vgg11"))
