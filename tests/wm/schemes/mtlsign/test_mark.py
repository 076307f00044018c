"""Promised: any network, in its owner's own training loop, carries a mark that can be measured, and published."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_network import KEY, OTHER_KEY, SEED, SETTINGS
from torch import nn

import wm
from wm.architectures import Architecture, build
from wm.data import Dataset
from wm.randomness import seeded
from wm.schemes.mtlsign.mark_files import BASE, EVIDENCE, MODEL
from wm.training import endless_batches
from wm.weights import save_weights

TAPS = ("stem", "deep.2")


class OwnNet(nn.Module):
    """No network of the catalogue: batch normalisation, dropout, and a module that happens to be called backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU())
        self.backbone = nn.Dropout(0.5)
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU())
        self.pair = Pair()
        self.classifier = nn.Linear(16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        read = self.deep(self.backbone(self.stem(images)))
        return self.classifier(self.pair(read)[0].mean((2, 3)))


class Pair(nn.Module):
    def forward(self, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return read, read


def own_net() -> nn.Module:
    with seeded("own net"):
        return OwnNet()


def marked(
    model: nn.Module, data: Dataset, settings: wm.EmbedSettings = SETTINGS, *, steps: int = 6, **more: object
) -> wm.Mark:
    """An owner's own loop: SGD, his own loss, the model in training mode."""
    mark = wm.Mark(model, KEY, input_spec=data.input, settings=settings, tuning=data.train, **more)
    optimizer = torch.optim.SGD([*model.parameters(), *mark.parameters()], lr=1e-3, momentum=0.9)
    batches = endless_batches(data.train, images=16, seed=1)
    model.train()
    with seeded("dropout of the owner's loop"):
        for _ in range(steps):
            batch = next(batches)
            loss = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.1) + mark.loss(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    mark.finish(model)
    return mark


@torch.no_grad()
def moved(model: nn.Module) -> None:
    """What an optimiser would have done."""
    next(model.parameters()).mul_(1.001)


@pytest.fixture(scope="module")
def own(few_digits: Dataset) -> tuple[nn.Module, wm.Mark]:
    model = own_net()
    return model, marked(model, few_digits, taps=TAPS)


def test_a_network_of_ones_own_carries_the_mark_and_an_independent_one_does_not(own, few_digits: Dataset) -> None:
    model, mark = own
    assert mark.matched(model) >= 95
    with seeded("another net"):
        assert 25 <= mark.matched(OwnNet()) <= 75
    assert mark.shadows_met == 2
    assert 0 < mark.weight_change(model) < 0.5
    assert model.training


def test_a_scaled_rate_follows_the_size_of_the_tapped_weights(few_digits: Dataset) -> None:
    settings = replace(SETTINGS, backbone_lr=2e-3, scaled_lr=True)
    small, large = own_net(), own_net()
    with torch.no_grad():
        for name, value in large.named_parameters():
            if value.ndim > 1 and not name.startswith("classifier"):
                value.mul_(3)
        large.classifier.weight.mul_(100)  # behind the last tap
    rates = [
        wm.Mark(it, KEY, taps=TAPS, input_spec=few_digits.input, settings=settings, tuning=few_digits.train).backbone_lr
        for it in (small, large)
    ]
    sizes = sorted(float(it.weight.detach().square().mean().sqrt()) for it in (small.stem[0], small.deep[0]))
    assert rates[0] == pytest.approx(2e-3 * sum(sizes) / 2)
    assert rates[1] == pytest.approx(3 * rates[0])
    plain = replace(settings, scaled_lr=False)
    mark = wm.Mark(small, KEY, taps=TAPS, input_spec=few_digits.input, settings=plain, tuning=few_digits.train)
    assert mark.backbone_lr == 2e-3


def test_what_is_saved_is_measured_with_its_builder_and_all_controls(own, few_digits: Dataset, tmp_path: Path) -> None:
    model, mark = own
    mark.save(tmp_path, model)
    assert (tmp_path / EVIDENCE).stat().st_mode & 0o077 == 0
    found = measured(tmp_path, permutations=19, controls=2, builder=OwnNet)
    assert found.matched == mark.matched(model)
    assert (found.permutations_as_good, [it.kind for it in found.controls]) == (0, ["fresh", "fresh"])
    assert all(it.matched <= 75 for it in found.controls)
    assert 25 <= measured(tmp_path, OTHER_KEY, builder=OwnNet).matched <= 75


def measured(directory: Path, key: bytes = KEY, *, permutations: int = 0, controls: int = 0, **more) -> wm.Evidence:
    model, evidence = directory / MODEL, directory / EVIDENCE
    return wm.verify(model, evidence, key, control_seed=SEED, permutations=permutations, controls=controls, **more)


def test_renumbered_channels_of_ones_own_network_are_aligned(own, tmp_path: Path) -> None:
    model, mark = own
    mark.save(tmp_path, model)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    held = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias", "stem.1.running_mean"):
        held[name] = held[name][order]
    held["stem.1.running_var"] = held["stem.1.running_var"][order]
    held["deep.0.weight"] = held["deep.0.weight"][:, order]
    moved = OwnNet()
    moved.load_state_dict(held)
    save_weights(moved, tmp_path / MODEL)
    found = measured(tmp_path, builder=OwnNet)
    assert found.matched_unaligned < 90 < found.matched
    assert found.aligned


def test_a_node_that_has_not_its_code_refuses_a_network_of_ones_own(own, tmp_path: Path) -> None:
    model, mark = own
    mark.save(tmp_path, model)
    with pytest.raises(wm.WatermarkError, match="its owner's own") as caught:
        measured(tmp_path)
    assert caught.value.code == "unknown_architecture"


def test_a_builder_of_another_network_is_refused(own, tmp_path: Path) -> None:
    model, mark = own
    mark.save(tmp_path, model)
    with pytest.raises(wm.WatermarkError) as caught:
        measured(tmp_path, builder=lambda: nn.Sequential(nn.Conv2d(3, 8, 5)))
    assert caught.value.code == "unknown_architecture"


@pytest.mark.long
def test_a_network_of_the_catalogue_gives_evidence_as_wmreg_embed_does(few_digits: Dataset, tmp_path: Path) -> None:
    architecture = Architecture("resnet18", {"num_classes": 10})
    model = build(architecture, seed=1)
    settings = replace(SETTINGS, shadows=0, feature_noise=0)
    mark = marked(model, few_digits, settings, steps=1, architecture=architecture, taps=("layer1",))
    base = tmp_path / "public.safetensors"
    base_sha256 = save_weights(build(architecture, seed=2), base)
    mark.save(tmp_path / "bundle", model, base=base)
    evidence = wm.load_evidence(tmp_path / "bundle" / EVIDENCE)
    assert evidence.info.architecture == architecture
    assert evidence.info.modules == ("layer1",)
    assert evidence.info.base_sha256 == base_sha256
    assert (tmp_path / "bundle" / BASE).read_bytes() == base.read_bytes()
    assert evidence.reference is not None
    assert measured(tmp_path / "bundle").matched >= 95


def test_a_mark_that_no_weight_carries_is_refused(few_digits: Dataset) -> None:
    model = own_net().requires_grad_(False)
    mark = wm.Mark(model, KEY, taps=TAPS, input_spec=few_digits.input, settings=SETTINGS, tuning=few_digits.train)
    mark.loss(model).backward()
    with pytest.raises(wm.WatermarkError, match="no weight in front of the taps has moved") as refused:
        mark.finish(model)
    assert refused.value.code == "mismatch"
    moved(model)
    mark.finish(model)


def test_a_state_of_another_key_is_refused(few_digits: Dataset) -> None:
    one, other = (
        wm.Mark(own_net(), key, taps=TAPS, input_spec=few_digits.input, settings=SETTINGS, tuning=few_digits.train)
        for key in (KEY, bytes(32))
    )
    with pytest.raises(wm.WatermarkError, match="another watermark key"):
        other.load_state_dict(one.state_dict())
    one.load_state_dict(one.state_dict())


def test_weights_that_are_not_finite_are_refused_before_anything_is_tuned(few_digits: Dataset) -> None:
    model = own_net()
    next(model.parameters()).data[0] = torch.nan
    with pytest.raises(wm.WatermarkError, match="not finite") as refused:
        wm.Mark(model, KEY, taps=TAPS, input_spec=few_digits.input, settings=SETTINGS, tuning=few_digits.train)
    assert refused.value.code == "malformed"


def test_modes_statistics_and_the_global_generator_are_the_callers_own(few_digits: Dataset) -> None:
    model = own_net().train()
    model.deep.eval()
    modes = [module.training for module in model.modules()]
    statistics, state = model.stem[1].running_mean.clone(), torch.get_rng_state()
    mark = wm.Mark(model, KEY, taps=TAPS, input_spec=few_digits.input, settings=SETTINGS, tuning=few_digits.train)
    for _ in range(3):  # the second meets a shadow, tuned with dropout
        mark.loss(model).backward()
    moved(model)
    mark.finish(model)
    mark.matched(model)
    assert mark.shadows_met == 1
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(statistics, model.stem[1].running_mean)
    assert [module.training for module in model.modules()] == modes


def test_one_seed_gives_one_loss_and_another_another(few_digits: Dataset) -> None:
    model = own_net()
    first, again, other = (
        wm.Mark(model, KEY, taps=TAPS, input_spec=few_digits.input, settings=SETTINGS, tuning=few_digits.train, seed=it)
        for it in (1, 1, 2)
    )
    losses = [mark.loss(model).item() for mark in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]


def test_r_da_takes_the_loss_of_any_task(few_digits: Dataset) -> None:
    seen = list[nn.Module]()

    def tuning(network: nn.Module) -> torch.Tensor:
        seen.append(network)
        return network(few_digits.train.images[:8]).square().mean()

    model = own_net()
    mark = wm.Mark(model, KEY, taps=TAPS, input_spec=(3, 32, 32), settings=replace(SETTINGS, steps=2), tuning=tuning)
    for _ in range(2):
        mark.loss(model)
    assert len(seen) == 2 * SETTINGS.shadow_steps
    assert model not in seen


def test_under_autocast_the_loss_is_in_single_precision_and_the_count_the_same(own, few_digits: Dataset) -> None:
    model, mark = own
    plain = mark.matched(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = mark.loss(model)
        assert mark.matched(model) == plain
    loss.backward()
    assert loss.dtype == torch.float32
    assert model.stem[0].weight.grad.dtype == torch.float32


def test_in_bfloat16_steps_and_shadows_compute_in_it_and_counts_do_not(few_digits: Dataset) -> None:
    seen = list[torch.dtype]()

    def tuning(network: nn.Module) -> torch.Tensor:
        answers = network(few_digits.train.images[:8])
        tuned.append(answers.dtype)
        return answers.square().mean()

    tuned = list[torch.dtype]()
    model = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    settings = replace(SETTINGS, steps=1, shadows=1, precision="bfloat16")
    mark = wm.Mark(model, KEY, taps=("2",), input_spec=(3, 32, 32), settings=settings, tuning=tuning)
    model[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    loss = mark.loss(model)
    assert seen[-1] == torch.bfloat16
    assert set(tuned) == {torch.bfloat16}
    assert loss.dtype == torch.float32
    moved(model)
    mark.finish(model)
    mark.matched(model)
    assert seen[-1] == torch.float32


def made(model: nn.Module | None = None, **more: object) -> wm.Mark:
    settings = replace(SETTINGS, tuning_regularizer="none")
    options = {"taps": TAPS, "input_spec": (3, 32, 32), "settings": settings} | more
    return wm.Mark(model or own_net(), KEY, **options)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (lambda: {"taps": ("stem", "nowhere")}, "unknown_architecture", "no module 'nowhere'"),
        (lambda: {"taps": ("pair",)}, "unknown_architecture", "'pair' does not answer .* but with tuple"),
        (lambda: {"taps": ("classifier",)}, "unknown_architecture", r"but with a tensor of shape \(1, 10\)"),
        (lambda: {"taps": ("stem", "stem")}, "unknown_architecture", "distinct"),
        (lambda: {"taps": None}, "unknown_architecture", "no default taps for 'own'"),
        (lambda: {"input_spec": (1, 32, 32)}, "mismatch", "does not take an input of 1 x 32 x 32"),
        (lambda: {"input_spec": (3, 20, 20)}, "malformed", "input.height"),
        (lambda: {"model": own_net().double()}, "mismatch", "'stem.0.weight' is torch.float64"),
        (lambda: {"model": own_net().bfloat16()}, "mismatch", r"model.float\(\)"),
        (lambda: {"architecture": Architecture("resnet18")}, "unknown_architecture", "no module 'stem'"),
    ],
)
def test_what_cannot_be_marked_is_refused_by_name(options: Callable[[], dict], code: str, message: str) -> None:
    made()
    with pytest.raises(wm.WatermarkError, match=message) as caught:
        made(**options())
    assert caught.value.code == code


@pytest.mark.parametrize(("shift", "negatives", "stays"), [(0.01, 0, True), (5.0, 0, False), (5.0, 1, True)])
def test_a_head_is_centred_anew_where_a_training_has_left_it_behind(shift: float, negatives: int, stays: bool) -> None:
    settings = replace(SETTINGS, tuning_regularizer="none", siblings=0, fresh_negatives=0)
    model = own_net()
    mark = made(model, settings=settings, negatives=[own_net() for _ in range(negatives)])
    centre = mark.head.mean.clone()
    mark.loss(model).backward()
    with torch.no_grad():
        model.stem[1].bias.add_(shift)  # in front of a ReLU that a tap is behind
    mark.finish(model)
    assert torch.equal(mark.head.mean, centre) is stays
    if not stays:
        assert mark.matched(model) >= 75  # 52 where it stays


def test_without_anything_to_tune_with_r_da_is_refused_and_says_how_to_do_without() -> None:
    with pytest.raises(ValueError, match="tuning_regularizer='none'"):
        made(settings=SETTINGS)
    with pytest.raises(ValueError, match="siblings=0"):
        made(negatives=[own_net()])


def test_beside_a_negative_control_nothing_is_centred_unless_it_is_asked_for() -> None:
    alone = replace(SETTINGS, tuning_regularizer="none", siblings=0, fresh_negatives=0)

    def is_centred(settings: wm.EmbedSettings, negatives: list[nn.Module]) -> bool:
        return made(settings=settings, negatives=negatives).info.reference.centred

    assert is_centred(alone, [])
    assert not is_centred(alone, [own_net()])  # the mean move is what sets the model apart from it
    assert is_centred(replace(alone, centred=True), [own_net()])
    assert not is_centred(replace(alone, centred=False), [])


def test_the_recipe_without_settings_is_the_measured_one_with_or_without_negative_controls(
    few_digits: Dataset,
) -> None:
    options = {"settings": None, "tuning": few_digits.train, "architecture": wm.OwnArchitecture(OwnNet)}
    assert made(**options).settings == wm.EmbedSettings()
    assert made(**options, negatives=[own_net()]).settings == wm.EmbedSettings.beside_a_base()


def test_another_model_has_no_loss() -> None:
    with pytest.raises(ValueError, match="made for another model"):
        made().loss(nn.Sequential(nn.Conv2d(3, 8, 3)))


def test_a_model_that_was_halved_before_it_is_saved_is_refused(tmp_path: Path) -> None:
    model = own_net()
    mark = made(model)
    mark.save(tmp_path / "whole", model)
    with pytest.raises(wm.WatermarkError, match="float16"):
        mark.save(tmp_path / "half", model.half())
    assert list((tmp_path / "half").iterdir()) == []
