"""Promised: taps show what the LSTM computed, padding and neighbours change nothing, frozen vectors stay."""

import pytest
import torch

from wm.architectures import Architecture, PartBuilder, build, default_taps, skeleton, text_classifiers, vocabulary_of
from wm.backbone import Tap, backbone_names, features_in_evaluation, read_taps
from wm.data import Dataset, Examples
from wm.errors import WatermarkError
from wm.networks import bilstm
from wm.tap_shapes import taps_of
from wm.training import fit
from wm.triggers import InputSpec, Normalisation, TextSpec

ARGUMENTS = {"vocabulary": 100, "dimension": 6, "hidden": 5, "num_classes": 3}
ARCHITECTURE = Architecture("bilstm", ARGUMENTS)
SPEC = TextSpec(20, 100, "0" * 64)


@pytest.fixture
def model() -> torch.nn.Module:
    return build(ARCHITECTURE, seed=1).eval()


@pytest.fixture
def texts() -> torch.Tensor:
    return torch.randint(2, 100, (120, 20), generator=torch.Generator().manual_seed(1))


def test_the_default_taps_are_read_from_every_layer() -> None:
    taps = taps_of(skeleton(ARCHITECTURE), default_taps(ARCHITECTURE), SPEC)
    assert taps == [
        Tap(f"layers.{layer}.{part}", 10, 1, cells) for layer in (0, 1) for part, cells in (("states", 4), ("final", 1))
    ]
    assert len(default_taps(Architecture("bilstm", {"layers": 3}))) == 6


def test_the_taps_show_what_the_lstm_computed(model: torch.nn.Module, texts: torch.Tensor) -> None:
    with torch.no_grad():
        read = model.embedding(texts)
        for number in (0, 1):
            states, final = read_taps(model, [f"layers.{number}.states", f"layers.{number}.final"], texts)
            read, (last, _) = model.layers[number].lstm(read)
            assert torch.equal(states[:, :, 0].transpose(1, 2), read[:, [4, 8, 12, 16]])
            assert torch.equal(final[:, :, 0, 0], torch.cat([last[0], last[1]], dim=1))


def test_a_texts_answer_does_not_depend_on_its_neighbours(model: torch.nn.Module, texts: torch.Tensor) -> None:
    modules = default_taps(ARCHITECTURE)
    texts[:, 15:] = bilstm.PADDING
    alone, together = (features_in_evaluation(model, modules, part, pooling=4) for part in (texts[:1], texts))
    assert torch.allclose(alone[0], together[0], atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(model(texts[:1])[0], model(texts)[0], atol=1e-6)


def test_the_classifier_averages_over_words_and_not_over_padding(model: torch.nn.Module, texts: torch.Tensor) -> None:
    texts[:, 15:] = bilstm.PADDING
    with torch.no_grad():
        read = model.layers[1](model.layers[0](model.embedding(texts)))
        assert torch.allclose(model(texts), model.classifier(read[:, :15].mean(1)), atol=1e-5)
        assert torch.equal(model(torch.zeros(1, 20, dtype=torch.int64))[0], model.classifier.bias)


def test_padding_has_no_vector_and_gets_none(model: torch.nn.Module, texts: torch.Tensor) -> None:
    texts[:, 15:] = bilstm.PADDING
    before = model.embedding.weight.detach().clone()
    fit(model, dataset(texts), epochs=1, seed=1)
    assert not bool(model.embedding.weight[bilstm.PADDING].any())
    assert not torch.equal(model.embedding.weight, before)


def test_a_frozen_embedding_stays_while_the_rest_is_trained(model: torch.nn.Module, texts: torch.Tensor) -> None:
    bilstm.freeze_embedding(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit(model, dataset(texts), epochs=1, seed=1)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(before) - {bilstm.EMBEDDING}


def test_known_vectors_are_taken_over_and_the_others_brought_to_their_size(model: torch.nn.Module) -> None:
    vectors, known = torch.zeros(100, 6), torch.zeros(100, dtype=torch.bool)
    vectors[10:20], known[10:20] = 0.01 * torch.randn(10, 6, generator=torch.Generator().manual_seed(1)), True
    drawn = model.embedding.weight.detach().clone()
    bilstm.begin_with(model, vectors, known)
    weight = model.embedding.weight.detach()
    assert torch.equal(weight[10:20], vectors[10:20])
    assert torch.allclose(weight[20:], drawn[20:] * vectors[10:20].std())
    assert not bool(weight[bilstm.PADDING].any())


def test_all_weights_in_front_of_the_taps_are_the_backbone() -> None:
    held = set(skeleton(ARCHITECTURE).state_dict())
    found = set(backbone_names(skeleton(ARCHITECTURE), default_taps(ARCHITECTURE), SPEC.outline()))
    assert found == held - {"classifier.weight", "classifier.bias"}
    first = backbone_names(skeleton(ARCHITECTURE), ["layers.0.final"], SPEC.outline())
    assert {name for name in found if name.startswith("layers.1")} == found - set(first)


def test_a_part_of_the_network_is_built_as_the_whole_is(texts: torch.Tensor) -> None:
    names = backbone_names(skeleton(ARCHITECTURE), default_taps(ARCHITECTURE), SPEC.outline())
    first, again, other = (PartBuilder(ARCHITECTURE, names).build(seed=seed) for seed in (1, 1, 2))
    read = [features_in_evaluation(it, default_taps(ARCHITECTURE), texts, pooling=4) for it in (first, again, other)]
    assert torch.equal(read[0], read[1])
    assert not torch.equal(read[0], read[2])
    assert {name for name, value in first.state_dict().items() if value.is_meta} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_the_catalogue_knows_which_networks_read_texts() -> None:
    assert text_classifiers() == ("bilstm",)
    assert (vocabulary_of(ARCHITECTURE), vocabulary_of(Architecture("resnet18"))) == (100, None)
    assert vocabulary_of(Architecture("bilstm")) == 20_000


@pytest.mark.parametrize(
    "arguments",
    [
        {"vocabulary": 63},
        {"vocabulary": (1 << 20) + 1},
        {"dimension": 0},
        {"hidden": 1025},
        {"layers": 5},
        {"layers": True},
        {"num_classes": 1},
        {"dropout": 1},
    ],
)
def test_an_argument_out_of_its_range_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(WatermarkError) as caught:
        Architecture("bilstm", arguments)
    assert caught.value.code == "unknown_architecture"


def test_a_table_of_vectors_that_is_too_large_is_refused_before_it_is_allocated() -> None:
    with pytest.raises(WatermarkError, match="parameters") as caught:
        build(Architecture("bilstm", {"vocabulary": 1 << 20, "dimension": 1024}), seed=1)
    assert caught.value.code == "too_large"


def test_pictures_shown_to_it_and_texts_shown_to_others_are_refused() -> None:
    pictures = InputSpec(3, 32, 32, Normalisation(("0.5",) * 3, ("0.5",) * 3))
    for architecture, modules, spec in (
        (ARCHITECTURE, default_taps(ARCHITECTURE), pictures),
        (Architecture("resnet18"), ["layer1"], SPEC),
    ):
        with pytest.raises(WatermarkError, match="does not take") as caught:
            taps_of(skeleton(architecture), modules, spec)
        assert caught.value.code == "mismatch"


def dataset(texts: torch.Tensor) -> Dataset:
    examples = Examples(texts, torch.arange(len(texts)) % 3)
    return Dataset("texts", 3, SPEC, examples, examples, examples)
