"""Promises: the served network answers as the library says, and what does not fit is told before anything is served."""

import pytest
import torch

from client.errors import InputError, InvalidError
from client.serving.network import kind_named, load_network
from wm.architectures import Architecture, build
from wm.schemes.scheme import answers
from wm.weights import save_weights

OPTIONS = {"classes": 10, "size": "3x32x32", "mean": "0.5,0.4,0.3", "std": "0.5,0.5,0.25"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "squeezenet.safetensors"
    save_weights(build(Architecture("squeezenet1_1", {"num_classes": 10}), seed=1), path)
    return path


def test_the_scores_are_those_of_the_library(weights):
    kind = kind_named("squeezenet1_1", **OPTIONS)
    network = load_network(weights, kind, device="cpu")
    pixels = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    rows = network.scores(pixels.numpy().tobytes())
    assert network.classes == 10
    assert [row.index(max(row)) for row in rows] == answers(network.model, pixels, kind.input).tolist()


def test_without_levels_pixels_are_in_0_to_1():
    levels = kind_named("resnet18", **{**OPTIONS, "mean": None, "std": None}).input.normalisation
    assert (levels.mean, levels.std) == (("0", "0", "0"), ("1", "1", "1"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": "32x32"}, "--input 32x32"),
        ({"size": "0x32x32"}, "--input"),
        ({"size": "3x32x1025"}, "--input"),
        ({"size": "17x32x32"}, "--input"),
        ({"mean": "0.5"}, "--mean 0.5: expected 3"),
        ({"mean": "0.5,0.5,nan"}, "--mean"),
        ({"std": "0.5,0.5,0"}, "--std"),
        ({"std": "1,1,-1"}, "--std"),
    ],
)
def test_an_option_that_says_nothing_sensible_is_named(changes, told):
    with pytest.raises(InputError, match=told):
        kind_named("resnet18", **OPTIONS | changes)


def test_only_a_classifier_that_fits_its_file_and_its_pictures_is_served(weights):
    with pytest.raises(InputError, match="no classifier"):
        load_network(weights, kind_named("fcn_resnet50", **OPTIONS), device="cpu")
    with pytest.raises(InvalidError, match=r"squeezenet\.safetensors"):
        load_network(weights, kind_named("resnet18", **OPTIONS), device="cpu")
    one = kind_named("squeezenet1_1", classes=10, size="1x32x32", mean=None, std=None)
    with pytest.raises(InvalidError, match="does not answer a picture of 1 x 32 x 32"):
        load_network(weights, one, device="cpu")
    with pytest.raises(InputError, match="no such device"):
        load_network(weights, kind_named("squeezenet1_1", **OPTIONS), device="moon")
