"""Promised: a training by Hugging Face's Trainer with the callback is the owner's own loop, and leaves a bundle."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_network import KEY, OTHER_KEY, SEED, SETTINGS, TAPS, SmallNetwork
from torch import nn
from torch.utils.data import Dataset as TorchDataset

import wm
from wm.architectures import Architecture, build
from wm.backbone import computing_in
from wm.data import Dataset
from wm.integrations import MarkFailedError, MarkPlan
from wm.randomness import seeded
from wm.training import cosine, set_rate

MISSING = "Hugging Face's callback is NOT tested: the extra wmreg[transformers] is missing"
pytest.importorskip("accelerate", reason=MISSING)
transformers = pytest.importorskip("transformers", reason=MISSING)

from wm.integrations.transformers import MarkCallback  # noqa: E402

pytestmark = pytest.mark.long

STEPS, BATCH = 9, 8


class Classifier(nn.Module):
    """A network as the Trainer wants it: with the labels, it answers with its loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.network(pixel_values)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Pictures(TorchDataset):
    def __init__(self, data: Dataset) -> None:
        self._examples = data.train.take(torch.arange(40))

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self._examples.images[place], "labels": self._examples.labels[place]}


class InOrder(transformers.Trainer):
    def _get_train_sampler(self, *_: object) -> torch.utils.data.Sampler:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def small(dropout: float = 0.5) -> SmallNetwork:
    with seeded("small network"):
        return SmallNetwork(dropout)


def planned(directory: Path, data: Dataset, **more: object) -> MarkPlan:
    options = {"watermark_key": KEY, "directory": directory, "network": "network", "taps": TAPS}
    options |= {"input_spec": data.input, "settings": SETTINGS, "tuning": data.train}
    return MarkPlan(**(options | more))


def arguments(directory: Path, **more: object) -> transformers.TrainingArguments:
    options = {"output_dir": str(directory / "trainer"), "max_steps": STEPS, "per_device_train_batch_size": BATCH}
    options |= {"use_cpu": True, "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
    options |= {"optim": "sgd", "learning_rate": 0.01, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    options |= {"dataloader_pin_memory": False, "seed": 7}
    return transformers.TrainingArguments(**(options | more))


def trainer(
    callback: MarkCallback, directory: Path, data: Dataset, model: nn.Module, **more: object
) -> transformers.Trainer:
    return InOrder(
        model=model, args=arguments(directory, **more), train_dataset=Pictures(data), callbacks=[callback]
    )  # fmt: skip


def fit(plan: MarkPlan, directory: Path, data: Dataset, network: nn.Module, **more: object) -> MarkCallback:
    callback = MarkCallback(plan)
    run = trainer(callback, directory, data, Classifier(network), **more)
    with seeded("dropout"):
        run.train()
    return callback


def by_hand(data: Dataset, network: nn.Module, *, gathered: int, clip: float, precision: str) -> wm.Mark:
    """The owner's own loop: the joint loss of each step, over so many batches."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    examples, place = data.train.take(torch.arange(40)), torch.device("cpu")
    batches = [slice(begin, begin + BATCH) for begin in range(0, 40, BATCH)]
    steps = [batches[begin : begin + gathered] for begin in range(0, len(batches), gathered)]
    mark = None
    network.train()
    for done in range(STEPS):
        optimizer.zero_grad()
        if done == STEPS - SETTINGS.steps:
            mark = wm.Mark(network, KEY, taps=TAPS, input_spec=data.input, settings=SETTINGS, tuning=data.train)
            head = torch.optim.Adam(mark.parameters(), lr=SETTINGS.head_lr, fused=True)
        if mark is not None:
            set_rate(head, SETTINGS.head_lr * cosine(mark.steps_done, SETTINGS.steps))
            with computing_in(precision, place):
                extra = mark.loss(network)
            extra.backward()
            head.step()
            head.zero_grad()
        gathering = steps[done % len(steps)]
        for batch in gathering:
            with computing_in(precision, place):
                loss = F.cross_entropy(network(examples.images[batch]), examples.labels[batch])
            (loss / len(gathering)).backward()
        if clip:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
    mark.finish(network)
    return mark


@pytest.mark.parametrize(
    ("gathered", "clip", "precision"),
    [pytest.param(1, 0.0, "float32", marks=pytest.mark.slow), (2, 0.2, "float32"), (2, 0.0, "bfloat16")],
)
def test_it_gives_the_bits_of_ones_own_loop(
    gathered: int, clip: float, precision: str, few_digits: Dataset, tmp_path: Path
) -> None:
    ours, theirs = small(dropout=0), small(dropout=0)
    options = {"gradient_accumulation_steps": gathered, "max_grad_norm": clip, "bf16": precision == "bfloat16"}
    callback = fit(planned(tmp_path / "bundle", few_digits), tmp_path, few_digits, theirs, **options)
    mark = by_hand(few_digits, ours, gathered=gathered, clip=clip, precision=precision)
    held = theirs.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in ours.state_dict().items())
    assert all(map(torch.equal, mark.parameters(), callback.mark.parameters()))
    assert callback.report["matched"] == mark.matched(ours) >= 90
    assert callback.mark.steps_done == SETTINGS.steps


@pytest.mark.slow
def test_a_network_of_the_catalogue_in_a_trainer_leaves_a_bundle_that_verifies_and_no_other_does(
    few_digits: Dataset, tmp_path: Path
) -> None:
    architecture = Architecture("resnet18", {"num_classes": 10})
    settings = replace(SETTINGS, steps=1, shadows=0, feature_noise=0)
    bundle = tmp_path / "bundle"
    plan = planned(bundle, few_digits, taps=None, architecture=architecture, settings=settings)
    fit(plan, tmp_path, few_digits, build(architecture, seed=1), max_steps=2, learning_rate=1e-3)
    weights, evidence = bundle / "model.safetensors", bundle / "evidence.safetensors"
    found = wm.verify(weights, evidence, KEY, control_seed=SEED, permutations=9, controls=1)
    assert found.matched >= 90
    assert found.permutations_as_good == 0
    assert found.controls[0].matched < 70  # a clean model
    wrong = wm.verify(weights, evidence, OTHER_KEY, control_seed=SEED, permutations=0, controls=0)
    assert wrong.matched < 70


def hugging_face_resnet() -> nn.Module:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=10
    )
    with seeded("a network of Hugging Face"):
        return transformers.ResNetForImageClassification(config)


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_a_model_of_hugging_face_itself_carries_a_mark_that_its_owner_verifies(
    precision: str, few_digits: Dataset, tmp_path: Path
) -> None:
    seen = list[nn.Module]()

    def tuning(network: nn.Module) -> torch.Tensor:
        seen.append(network)
        return network(few_digits.train.images[:8], labels=few_digits.train.labels[:8]).loss

    taps = ("resnet.encoder.stages.0", "resnet.encoder.stages.1")
    bundle = tmp_path / "bundle"
    plan = planned(bundle, few_digits, network=None, taps=taps, tuning=tuning)
    model, callback = hugging_face_resnet(), MarkCallback(plan)
    run = trainer(callback, tmp_path, few_digits, model, bf16=precision == "bfloat16", save_strategy="steps",
        save_steps=5)  # fmt: skip
    run.train()
    assert callback.report["matched"] >= 90
    assert len(seen) == SETTINGS.shadows * SETTINGS.shadow_steps
    assert model not in seen
    weights, evidence = bundle / "model.safetensors", bundle / "evidence.safetensors"
    found = wm.verify(
        weights, evidence, KEY, control_seed=SEED, permutations=9, controls=1, builder=hugging_face_resnet
    )
    assert found.matched == callback.report["matched"]
    assert found.controls[0].matched < 70
    with pytest.raises(wm.WatermarkError, match="its owner's own"):
        wm.verify(weights, evidence, KEY, control_seed=SEED)


def test_a_transformer_has_no_taps_and_is_refused_by_name(few_digits: Dataset, tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=32
    )
    model = transformers.ViTForImageClassification(config)
    plan = planned(tmp_path, few_digits, network=None, taps=("vit.layernorm",))
    with pytest.raises(wm.WatermarkError, match="does not answer with channels x height x width"):
        trainer(MarkCallback(plan), tmp_path, few_digits, model).train()


@pytest.fixture(scope="module")
def whole(few_digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MarkCallback]:
    """A training with dropout and without interruption, and a checkpoint of every two steps."""
    directory = tmp_path_factory.mktemp("whole")
    with warnings.catch_warnings(action="ignore"):
        callback = fit(
            planned(directory / "bundle", few_digits), directory, few_digits, small(), save_strategy="steps",
            save_steps=2,
        )  # fmt: skip
    return directory, callback


@pytest.mark.parametrize("step", [2, 6])
def test_a_training_that_is_taken_up_ends_as_one_without_interruption(
    step: int, whole: tuple[Path, MarkCallback], few_digits: Dataset, tmp_path: Path
) -> None:
    directory, callback = whole
    checkpoint = directory / "trainer" / f"checkpoint-{step}"
    resumed = MarkCallback(planned(tmp_path, few_digits), checkpoint=checkpoint)
    with seeded("what a new process has"):
        model = Classifier(SmallNetwork())
    trainer(resumed, tmp_path, few_digits, model).train(resume_from_checkpoint=str(checkpoint))
    assert (directory / "bundle" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert all(map(torch.equal, callback.mark.parameters(), resumed.mark.parameters()))
    assert callback.report == resumed.report


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"watermark_key": OTHER_KEY}, "no such file, though the mark was under way at step 6"),
        ({"seed": 1}, "with another seed"),
        ({"settings": replace(SETTINGS, steps=5)}, "with another first step"),
    ],
)
def test_a_checkpoint_of_another_mark_is_refused(
    more: dict, message: str, whole: tuple[Path, MarkCallback], few_digits: Dataset, tmp_path: Path
) -> None:
    checkpoint = whole[0] / "trainer" / "checkpoint-6"
    callback = MarkCallback(planned(tmp_path, few_digits, **more), checkpoint=checkpoint)
    with pytest.raises(wm.WatermarkError, match=message) as caught:
        trainer(callback, tmp_path, few_digits, Classifier(small())).train(resume_from_checkpoint=str(checkpoint))
    assert caught.value.code == "mismatch"


def test_a_state_of_other_weights_is_refused_and_readable_by_its_owner_alone(
    whole: tuple[Path, MarkCallback], few_digits: Dataset, tmp_path: Path
) -> None:
    checkpoints = whole[0] / "trainer"
    (state,) = (checkpoints / "checkpoint-8").glob("wmreg-mark-*")
    assert state.stat().st_mode & 0o077 == 0
    callback = MarkCallback(planned(tmp_path, few_digits), checkpoint=checkpoints / "checkpoint-8")
    with pytest.raises(wm.WatermarkError, match="with another set of weights"):
        trainer(callback, tmp_path, few_digits, Classifier(small())).train(
            resume_from_checkpoint=str(checkpoints / "checkpoint-6")
        )


def test_logs_and_reporters_are_told_of_the_mark(few_digits: Dataset, tmp_path: Path) -> None:
    class Reporter(transformers.TrainerCallback):
        def __init__(self) -> None:
            self.told = list[dict[str, float]]()

        def on_log(self, *_states: object, logs: dict[str, float], **_others: object) -> None:
            self.told.append(dict(logs))

    callback, reporter = MarkCallback(planned(tmp_path / "bundle", few_digits)), Reporter()
    run = trainer(callback, tmp_path, few_digits, Classifier(small()))
    run.add_callback(reporter)
    run.train()
    for logs in (run.state.log_history, reporter.told):
        marked = [log for log in logs if "watermark_loss" in log]
        assert len(marked) == SETTINGS.steps
        assert {"watermark_matched", "watermark_mark_loss", "watermark_function_loss", "loss"} <= set(marked[-1])
    share = callback.report["matched"] / 100
    assert run.state.log_history[-1] == {"watermark_matched_at_the_end": share, "step": STEPS}


def test_a_mark_that_fails_stops_with_an_error_and_without_files(few_digits: Dataset, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    plan = planned(bundle, few_digits, settings=replace(SETTINGS, head_steps=0, steps=1, shadows=0))
    with pytest.raises(MarkFailedError, match="nothing was written"):
        fit(plan, tmp_path, few_digits, small())
    assert list(bundle.iterdir()) == []


def test_a_training_that_is_stopped_early_leaves_no_mark(few_digits: Dataset, tmp_path: Path) -> None:
    class Stopping(transformers.TrainerCallback):
        def on_step_end(self, *states: object, **_: object) -> None:
            _args, state, control = states
            control.should_training_stop = state.global_step == 4

    run = trainer(MarkCallback(planned(tmp_path / "bundle", few_digits)), tmp_path, few_digits, Classifier(small()))
    run.add_callback(Stopping())
    with pytest.raises(MarkFailedError, match="stopped after 4 of 9 optimiser steps"):
        run.train()
    assert list((tmp_path / "bundle").iterdir()) == []


def test_a_network_that_is_not_there_is_named_before_the_training(few_digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Classifier has no module 'net', the plan's network; it has: network"):
        fit(planned(tmp_path, few_digits, network="net"), tmp_path, few_digits, small())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"torch_compile": True}, "torch_compile=True does not go with a mark: its taps are read by hooks"),
        ({"optim": "galore_adamw_layerwise", "optim_target_modules": ["stem"]}, "steps while gradients come"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2,
             "save_steps": 2},
            "the mark is in the weights of the last step",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_mark_is_refused(more: dict, message: str, few_digits: Dataset, tmp_path: Path) -> None:
    callback = MarkCallback(planned(tmp_path, few_digits))
    state, control = transformers.TrainerState(), transformers.TrainerControl()
    with pytest.raises(ValueError, match=message):
        callback.on_init_end(arguments(tmp_path, **more), state, control)
    callback.on_init_end(arguments(tmp_path), state, control)


@pytest.mark.parametrize("many", ["world_size", "n_gpu"])
def test_several_processes_or_devices_are_refused_when_the_trainer_is_made(
    many: str, few_digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers.TrainingArguments, many, property(lambda _: 2))
    with pytest.raises(ValueError, match="by one process on one device without sharding"):
        trainer(MarkCallback(planned(tmp_path, few_digits)), tmp_path, few_digits, Classifier(small()))


def test_a_search_is_refused(few_digits: Dataset, tmp_path: Path) -> None:
    callback = MarkCallback(planned(tmp_path, few_digits))
    state = transformers.TrainerState(is_hyper_param_search=True, max_steps=STEPS)
    with pytest.raises(ValueError, match="search first"):
        callback.on_train_begin(arguments(tmp_path), state, transformers.TrainerControl(), model=Classifier(small()))
