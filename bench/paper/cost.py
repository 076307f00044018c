"""What a mark costs: an owner beside a training of usual length, and a verifier, who makes triggers for every claim."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from bench.paper.settings import FULL
from bench.paper.subjects import Subject
from bench.paper.units import owner
from wm.triggers import InputSpec, Normalisation, make_triggers

REPEATS = 15
TRIGGERS = 600
SIDES = (32, 224)  # pixels
WHOLE, WHOLE_EPOCHS = "all of MNIST", 2


def triggers(_subject: Subject) -> dict[str, float]:
    """Make trigger sets of two sizes of pictures; milliseconds, the median of some repeats."""
    figures = {}
    for side in SIDES:
        level = Normalisation(mean=("0.5",) * 3, std=("0.5",) * 3)
        spec, taken_ms = InputSpec(channels=3, height=side, width=side, normalisation=level), []
        for number in range(REPEATS):
            begun_s = time.perf_counter()
            make_triggers(number.to_bytes(32, "big"), spec, count=TRIGGERS)
            taken_ms.append(1000 * (time.perf_counter() - begun_s))
        figures[f"{TRIGGERS} triggers of {side} x {side}, ms"] = statistics.median(taken_ms)
    return figures


def whole(subject: Subject) -> dict[str, float]:
    """Train on all 60,000 examples of MNIST and embed; nothing where they are not there."""
    task = replace(FULL.task("MNIST"), epochs=WHOLE_EPOCHS)
    if task.source(subject.data_directory) is None:
        return {}
    figures = owner(replace(subject, task=task, directory=subject.directory.with_name("owner-of-all")))
    return {f"{WHOLE}: {name}": value for name, value in (figures | {"epochs": WHOLE_EPOCHS}).items()}


COST: Mapping[str, Callable[[Subject], dict[str, float]]] = MappingProxyType({"triggers": triggers, "whole": whole})
