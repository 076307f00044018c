"""What tuning moves, and what centring brings back: `make bench NAME=centring`, MNIST, three seeds.

The owner's network and data are those of the small setting of `bench.paper`, and so are the thief's: a tenth of the
data. Each attacked network is read in three ways: as it is, aligned, and aligned and centred. Of its features there is
told how far their mean over the triggers has moved, in units of what tells one trigger from another: the root mean
square over all features of the move, over that of the owner's deviations. Strangers are read as well: an independent
network of the same task and a fresh one. Data as of `bench.paper`; test data are used for task accuracies only.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

import wm
from bench.paper.overwriting import overwritten
from bench.paper.settings import FIRST_OVERWRITING_EPOCHS, SMALL, THIEFS_RATES
from bench.paper.subjects import Subject
from bench.results import Goal, Row, summary, write
from wm.attacks import ATTACKS, Stolen, attacked
from wm.branch import Branch, agreements, logit_margins
from wm.evidence import SALT_BYTES
from wm.training import fit
from wm.triggers import make_triggers

TASKS, SEEDS = ("MNIST",), (1, 2, 3)  # of the tasks in bench.paper.settings
STRANGERS_SEED = 1000  # of the independent and the fresh network, added to the owner's
AFTER_TUNING = Goal(says="≥ 90 %", least=90)
AFTER_PRUNING = Goal(says="≥ 85 %", least=85)
_DATA = Path(os.environ.get("WMREG_BENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
_Figures = dict[str, tuple[float, str]]


def main() -> None:
    """Measure every task and seed and write bench/results/centring.json."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for task in TASKS:
        for seed in SEEDS:
            figures = _measured(task, seed)
            print(f"{task}, seed {seed}: {figures}", flush=True)
            for metric, (value, unit) in figures.items():
                found[f"{task}: {metric}", unit].append(value)
    write("centring", [_row(metric, unit, values) for (metric, unit), values in found.items()])


def _row(metric: str, unit: str, values: list[float]) -> Row:
    is_goal = metric.endswith("aligned and centred")
    goal = AFTER_TUNING if is_goal and "fine-tuning" in metric else None
    goal = AFTER_PRUNING if is_goal and "fine-pruning" in metric else goal
    return summary(metric, values, unit=unit, goal=goal)


def _measured(task: str, seed: int) -> _Figures:
    """Play one owner's story; figures by name."""
    subject = Subject(SMALL, SMALL.task(task), seed, _DATA, Path())  # its directory is not used
    clean, stranger = (subject.fresh_model(seed=seed + added) for added in (0, STRANGERS_SEED))
    for model, added in ((clean, 0), (stranger, STRANGERS_SEED)):
        fit(model, subject.data, epochs=subject.task.epochs, lr=1e-3, seed=seed + added)
    key = subject.key_file.binding.watermark_key
    made = wm.embed(clean, subject.data, key, architecture=subject.architecture, seed=seed)
    figures: _Figures = {}
    evidence = wm.with_reference(wm.EvidenceFile(made.head, made.info, bytes(SALT_BYTES)), made.model)
    branch = Branch(
        evidence.head,
        evidence.info,
        make_triggers(key, evidence.info.input, count=evidence.info.triggers),
        evidence.reference,
    )
    own = replace(branch, reference=None).read(made.model)
    stolen = Stolen(model=made.model, architecture=subject.architecture, data=subject.thiefs_data, revealed=branch)
    others = {"independent": stranger, "fresh": subject.fresh_model(seed=seed + 2 * STRANGERS_SEED)}
    before = {"clean": clean, "marked": made.model}
    # One at a time: the overwritten ones are one network at several moments.
    for name, model in chain(before.items(), _attacked(stolen, seed), others.items()):
        figures |= {f"{name}: {what}": figure for what, figure in _read(branch, model, own).items()}
        figures[f"{name}: task accuracy"] = (subject.task_accuracy(model), "%")
    return figures


def _attacked(stolen: Stolen, seed: int) -> Iterator[tuple[str, nn.Module]]:
    for rate in THIEFS_RATES:
        yield f"fine-tuning at {rate:g}", attacked(ATTACKS["ftal"], stolen, strength=rate, seed=seed)
    share = SMALL.pruned_share
    yield f"fine-pruning of {100 * share:g} %", attacked(ATTACKS["fine_pruning"], stolen, strength=share, seed=seed)
    for epoch, model, _ in overwritten(stolen, epochs=FIRST_OVERWRITING_EPOCHS, seed=seed):
        yield f"overwriting, {epoch} epochs", model
    renumbered = attacked(ATTACKS["permutation"], stolen, strength=1.0, seed=seed)
    tuned = attacked(ATTACKS["ftal"], replace(stolen, model=renumbered), strength=3e-4, seed=seed)
    yield "permutation, then tuning at 0.0003", tuned


def _read(branch: Branch, model: nn.Module, own: Tensor) -> _Figures:
    """Count in three ways, and say how far the mean has moved."""
    reference = branch.reference
    if reference is None:
        raise ValueError("the taps are too wide to be aligned")
    ways = {"as it is": None, "aligned": replace(reference, centre=None), "aligned and centred": reference}
    read = {way: replace(branch, reference=it).read(model) for way, it in ways.items()}
    figures = {way: (_matched(branch, it), "%") for way, it in read.items()}
    move = (read["as it is"].mean(0) - own.mean(0)).square().mean().sqrt()
    return figures | {"move of the mean": (float(move / own.var(0).mean().sqrt()), "deviations")}


@torch.no_grad()
def _matched(branch: Branch, read: Tensor) -> float:
    margins = logit_margins(branch.head.to(read.device), read)
    return 100 * float(agreements(margins, branch.triggers.labels.to(read.device)).float().mean())


if __name__ == "__main__":
    main()
