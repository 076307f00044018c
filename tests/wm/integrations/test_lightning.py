"""Promised: a training by Lightning with the callback is the owner's own loop with `wm.Mark`, and leaves a bundle."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_network import KEY, OTHER_KEY, SEED, SETTINGS, TAPS, SmallNetwork
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wm
from wm.architectures import Architecture, build
from wm.backbone import computing_in
from wm.data import Dataset
from wm.integrations import MarkFailedError, MarkPlan
from wm.randomness import seeded
from wm.training import cosine, set_rate

L = pytest.importorskip("lightning", reason="Lightning's callback is NOT tested: the extra wmreg[lightning] is missing")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from wm.integrations.lightning import MarkCallback  # noqa: E402

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

STEPS, BATCH = 9, 8
EPOCHS = {"max_steps": -1, "max_epochs": 3}  # of three steps; Lightning itself takes up no training by steps so exactly


class Classifier(L.LightningModule):
    """An owner's module: the network is an attribute of it."""

    def __init__(self, network: nn.Module, optimizer: Callable = torch.optim.SGD) -> None:
        super().__init__()
        self.network, self._made = network, optimizer

    def training_step(self, batch: tuple, _number: int) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> dict:
        optimizer = self._made(self.parameters(), lr=0.01)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}


def small(dropout: float = 0.5) -> SmallNetwork:
    with seeded("small network"):
        return SmallNetwork(dropout)


def loader(data: Dataset, *, pictures: int = 40) -> DataLoader:
    return DataLoader(TensorDataset(data.train.images[:pictures], data.train.labels[:pictures]), batch_size=BATCH)


def planned(directory: Path, data: Dataset, **more: object) -> MarkPlan:
    options = {"watermark_key": KEY, "directory": directory, "network": "network", "taps": TAPS}
    options |= {"input_spec": data.input, "settings": SETTINGS, "tuning": data.train}
    return MarkPlan(**(options | more))


def trainer(*callbacks: L.Callback, **more: object) -> L.Trainer:
    options = {"max_steps": STEPS, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    options |= {"enable_progress_bar": False, "enable_model_summary": False}
    return L.Trainer(callbacks=list(callbacks), **(options | more))


def fit(plan: MarkPlan, data: Dataset, network: nn.Module, **more: object) -> MarkCallback:
    callback = MarkCallback(plan)
    with seeded("dropout"):
        trainer(callback, **more).fit(Classifier(network), loader(data))
    return callback


def by_hand(data: Dataset, network: nn.Module, *, gathered: int, clip: float | None, precision: str) -> wm.Mark:
    """The owner's own loop: the joint loss of each step, over so many batches."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    mark, place, done = None, torch.device("cpu"), 0
    while done < STEPS:
        for number, (images, labels) in enumerate(loader(data)):
            with computing_in(precision, place):
                loss = F.cross_entropy(network(images), labels)
            if number % gathered == 0:
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
            (loss / gathered).backward()
            if (number + 1) % gathered and number + 1 < len(loader(data)):
                continue
            if clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            done += 1
            if done == STEPS:
                break
        schedule.step()
    mark.finish(network)
    return mark


@pytest.mark.parametrize(
    ("gathered", "clip", "precision"),
    [pytest.param(1, None, "float32", marks=pytest.mark.slow), (2, 0.2, "float32"), (2, None, "bfloat16")],
)
def test_it_gives_the_bits_of_ones_own_loop(
    gathered: int, clip: float | None, precision: str, few_digits: Dataset, tmp_path: Path
) -> None:
    lightning_precision = {"float32": "32-true", "bfloat16": "bf16-mixed"}[precision]
    ours, theirs = small(), small()
    options = {"accumulate_grad_batches": gathered, "gradient_clip_val": clip, "precision": lightning_precision}
    callback = fit(planned(tmp_path, few_digits), few_digits, theirs, **options)
    with seeded("dropout"):
        mark = by_hand(few_digits, ours, gathered=gathered, clip=clip, precision=precision)
    held = theirs.state_dict()
    assert all(torch.equal(value, held[name]) for name, value in ours.state_dict().items())
    assert all(map(torch.equal, mark.parameters(), callback.mark.parameters()))
    assert callback.report["matched"] == mark.matched(ours) >= 90
    assert callback.mark.steps_done == SETTINGS.steps


@pytest.mark.slow
def test_a_network_of_the_catalogue_leaves_a_bundle_that_verifies_and_no_other_does(
    few_digits: Dataset, tmp_path: Path
) -> None:
    architecture = Architecture("resnet18", {"num_classes": 10})
    settings = replace(SETTINGS, steps=1, shadows=0, feature_noise=0)
    plan = planned(
        tmp_path, few_digits, network=lambda module: module.network, taps=None, architecture=architecture,
        settings=settings,
    )  # fmt: skip
    callback = MarkCallback(plan)
    module = Classifier(build(architecture, seed=1), lambda values, lr: torch.optim.SGD(values, lr=0.1 * lr))
    trainer(callback, max_steps=2).fit(module, loader(few_digits))
    weights, evidence = tmp_path / "model.safetensors", tmp_path / "evidence.safetensors"
    found = wm.verify(weights, evidence, KEY, control_seed=SEED, permutations=9, controls=1)
    assert found.matched >= 95
    assert found.permutations_as_good == 0
    assert found.controls[0].matched <= 70  # a clean model
    wrong = wm.verify(weights, evidence, OTHER_KEY, control_seed=SEED, permutations=0, controls=0)
    assert wrong.matched < 70
    assert evidence.stat().st_mode & 0o077 == 0


@pytest.fixture(scope="module")
def whole(few_digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MarkCallback]:
    """A training without interruption, and a checkpoint of each epoch of three steps."""
    directory = tmp_path_factory.mktemp("whole")
    kept = ModelCheckpoint(directory, filename="{step}", save_on_train_epoch_end=True, save_top_k=-1)
    callback = MarkCallback(planned(directory, few_digits))
    with warnings.catch_warnings(action="ignore"):
        trainer(callback, kept, enable_checkpointing=True, **EPOCHS).fit(
            Classifier(small(dropout=0)), loader(few_digits, pictures=24)
        )
    return directory, callback


@pytest.mark.parametrize("step", [3, 6])
def test_a_training_that_is_taken_up_ends_as_one_without_interruption(
    step: int, whole: tuple[Path, MarkCallback], few_digits: Dataset, tmp_path: Path
) -> None:
    directory, callback = whole
    resumed = MarkCallback(planned(tmp_path, few_digits))
    with seeded("what a new process has"):
        module = Classifier(SmallNetwork(dropout=0))
    path = directory / f"step={step}.ckpt"
    trainer(resumed, **EPOCHS).fit(module, loader(few_digits, pictures=24), ckpt_path=path, weights_only=True)
    assert (directory / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert all(map(torch.equal, callback.mark.parameters(), resumed.mark.parameters()))
    assert callback.report == resumed.report


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"watermark_key": OTHER_KEY}, "holds no state of it"),
        ({"seed": 1}, "with another seed"),
        ({"settings": replace(SETTINGS, steps=5)}, "with another first step"),
        ({"settings": replace(SETTINGS, lambda1=1.0)}, "with another setting lambda1"),
    ],
)
def test_a_checkpoint_of_another_mark_is_refused(
    more: dict, message: str, whole: tuple[Path, MarkCallback], few_digits: Dataset, tmp_path: Path
) -> None:
    other = trainer(MarkCallback(planned(tmp_path, few_digits, **more)), **EPOCHS)
    with pytest.raises(wm.WatermarkError, match=message) as caught:
        other.fit(
            Classifier(small()), loader(few_digits, pictures=24), ckpt_path=whole[0] / "step=6.ckpt", weights_only=True
        )
    assert caught.value.code == "mismatch"


def test_the_trainers_logger_is_told_of_the_mark(few_digits: Dataset, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="log", version=0)
    callback = fit(planned(tmp_path, few_digits), few_digits, small(), logger=logger, log_every_n_steps=1)
    logger.save()
    header, *rows = (tmp_path / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    names = header.split(",")
    assert {"watermark/loss", "watermark/matched", "watermark/mark_loss", "watermark/function_loss"} <= set(names)
    values = [dict(zip(names, row.split(","), strict=True)) for row in rows]
    assert len([row for row in values if row["watermark/loss"]]) == SETTINGS.steps
    last = [float(row["watermark/matched_at_the_end"]) for row in values if row["watermark/matched_at_the_end"]]
    assert last == [callback.report["matched"] / 100]


def test_a_mark_that_fails_stops_with_an_error_and_without_files(few_digits: Dataset, tmp_path: Path) -> None:
    plan = planned(tmp_path / "bundle", few_digits, settings=replace(SETTINGS, head_steps=0, steps=1, shadows=0))
    with pytest.raises(MarkFailedError, match="nothing was written"):
        fit(plan, few_digits, small())
    assert list((tmp_path / "bundle").iterdir()) == []


def test_a_training_that_is_stopped_early_leaves_no_mark(few_digits: Dataset, tmp_path: Path) -> None:
    class Stopping(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_others: object) -> None:
            trainer.should_stop = trainer.global_step == 4

    run = trainer(MarkCallback(planned(tmp_path, few_digits)), Stopping())
    with pytest.raises(MarkFailedError, match="stopped after 4 of 9 optimiser steps"):
        run.fit(Classifier(small()), loader(few_digits))
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_is_not_there_is_named_before_the_training(few_digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Classifier has no module 'net', the plan's network; it has: network"):
        fit(planned(tmp_path, few_digits, network="net"), few_digits, small())


def test_a_training_without_a_number_of_steps_is_refused(few_digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give it a number of steps"):
        fit(planned(tmp_path, few_digits), few_digits, small(), max_steps=-1, max_epochs=-1)


def test_several_processes_are_refused(few_digits: Dataset, tmp_path: Path) -> None:
    callback = MarkCallback(planned(tmp_path, few_digits))
    for devices in (1, 2):
        many = trainer(callback, devices=devices, strategy="ddp")
        with pytest.raises(ValueError, match=f"by one process on one device, not by DDPStrategy on {devices}"):
            callback.setup(many, Classifier(small()), "fit")
        callback.setup(many, Classifier(small()), "validate")


def test_optimisation_by_hand_and_an_optimiser_with_closures_are_refused(few_digits: Dataset, tmp_path: Path) -> None:
    module = Classifier(small())
    module.automatic_optimization = False
    with pytest.raises(ValueError, match=r"Classifier optimises by hand: add wm\.Mark's loss"):
        trainer(MarkCallback(planned(tmp_path, few_digits))).fit(module, loader(few_digits))
    with pytest.raises(ValueError, match="LBFGS reads the loss several times"):
        trainer(MarkCallback(planned(tmp_path, few_digits))).fit(
            Classifier(small(), torch.optim.LBFGS), loader(few_digits)
        )


def test_float16_with_a_loss_scale_marks_as_well(few_digits: Dataset, tmp_path: Path) -> None:
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    plan = planned(tmp_path, few_digits)
    callback = fit(plan, few_digits, small(), plugins=[plugin], gradient_clip_val=0.2)
    assert callback.report["matched"] >= 90
    assert scaler.get_scale() == 2.0**10  # no step was left out
