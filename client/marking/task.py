"""What `wmreg train` and `wmreg embed` are asked to train; light, so that the command line can make it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from registry.policy import Thresholds

MEASURES = {"accuracy": "task accuracy", "mask_map": "mask mAP"}  # how well a task is done, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to train on, and what.

    Attributes:
        data: a data set as `wm.datasets` spells it.
        fraction: share of the training set that is used, in (0, 1].
        arch: name in the catalogue.
        weights: safetensors to begin with, of exactly the network; None begins with the base, if any.
        base: public weights to begin with, safetensors of a network that may tell other classes apart; None for none.
            Without both the training is from scratch.
        seed: decides the initial weights, the share and every order.
        epochs: of the plain training; None takes the default of the two schedules.
        lr: its first learning rate, Adam's; None likewise.
        device: torch's word for where to compute, or "auto".
        words: of texts, the word list; None makes one of the training set.
        vectors: of texts, word vectors to begin with; None for random ones.
        freeze_embedding: of texts, whether the word vectors stay as they are.
        precision: of forward and backward, "float32" or "bfloat16".
        image_size: of pictures with masks, the pixels of their sides; None for the data set's usual.
    """

    data: str
    fraction: float
    arch: str
    weights: Path | None
    seed: int
    epochs: int | None
    device: str
    lr: float | None = None
    base: Path | None = None
    words: Path | None = None
    vectors: Path | None = None
    freeze_embedding: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    image_size: int | None = None


def unlearnt(score: float, constant: float | None) -> tuple[str, ...]:
    """Return lines that say so where a network does its task no better than one and the same answer would."""
    if constant is None or score > constant:
        return ()
    return (
        f"THE NETWORK HAS NOT LEARNT ITS TASK: one answer to everything is right in {constant:.2%}.",
        "Train it with another --lr, more --epochs or another --seed, or name your own with --weights.",
    )


def hidden_by_renumbering(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return lines that say so where nodes would not accept a count of aligned channels: fresh networks have it too.

    Args:
        report: of `wmreg embed`.
    """
    marks, triggers = (report, *report["further"]), report["triggers"]
    most = max((count for mark in marks for count in mark.get("embedding", {}).get("fresh_aligned", ())), default=0)
    if most * 1000 <= Thresholds().control_permille * triggers:
        return ()
    return (
        f"RENUMBERED CHANNELS HIDE THIS MARK: once aligned, a fresh network answers {most} of {triggers} as well.",
        "Copies whose channels are in order are known. Embed again with --taps further behind, if there are any.",
    )


def measured_by(report: Mapping[str, Any]) -> tuple[str, Any]:
    """Find in a report how well the task is done.

    Returns:
        The measure, a key of `MEASURES`, and what the report has under "test_" and its name.
    """
    measure = next(name for name in MEASURES if f"test_{name}" in report)
    return measure, report[f"test_{measure}"]
