"""What the triggers cost: a verifier makes them anew for every claim."""

import statistics
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from bench.paper.subjects import Subject
from wm.triggers import InputSpec, Normalisation, make_triggers

REPEATS = 15
TRIGGERS = 600
SIDES = (32, 224)  # pixels


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


COST: Mapping[str, Callable[[Subject], dict[str, float]]] = MappingProxyType({"triggers": triggers})
