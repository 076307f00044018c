"""Do strangers stay at chance once they are aligned? `make bench NAME=specificity`: networks of the catalogue, 2 seeds.

Of each network's usual taps, and of a ResNet-18's first layer alone: a head is finished on a fresh network, and counts
what other fresh networks, with statistics as a verifier gives them, answer of its 600 triggers: as they are, aligned,
and aligned and centred. Nothing is trained but heads, so of trained networks this tells the direction only. The last
figure says whether `Mark.finish` leaves the centre where it is.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

import wm
from bench.pages import cell, put
from bench.results import RESULTS, summary, write
from wm.architectures import Architecture, build
from wm.branch import Branch
from wm.controls import compare_with_fresh
from wm.progress import silent
from wm.triggers import InputSpec, Normalisation, make_triggers

KEY = bytes(range(32))
SEEDS, OTHERS = (1, 2), 4
PAGE = RESULTS.parents[1] / "docs" / "attacks.md"
WAYS: dict[str, bool | None] = {"as it is": None, "aligned": False, "aligned and centred": True}
SIDE = 32
SPEC = InputSpec(3, SIDE, SIDE, Normalisation(("0.5",) * 3, ("0.5",) * 3))
# Name of the row -> name in the catalogue, its arguments, taps; None for the usual ones.
NETWORKS: dict[str, tuple[str, dict[str, int], tuple[str, ...] | None]] = {
    **{
        name: (name, {}, None)
        for name in ("resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0")
    },
    "convnext_tiny": ("convnext_tiny", {}, None),
    "vit_b_16": ("vit_b_16", {"image_size": SIDE}, None),
    "resnet18, its first layer alone": ("resnet18", {}, ("relu",)),
}


def main() -> None:
    """Measure every network with every seed, write bench/results/specificity.json and fill the table of the page."""
    found: dict[str, list[float]] = defaultdict(list)
    for name in NETWORKS:
        for seed in SEEDS:
            for metric, value in _measured(name, seed):
                found[f"{name}: {metric}"].append(value)
        print(name, {metric: values for metric, values in found.items() if metric.startswith(f"{name}:")}, flush=True)
    write("specificity", [summary(metric, values) for metric, values in found.items()])
    PAGE.write_text(page(PAGE.read_text(), json.loads((RESULTS / "specificity.json").read_text())))


def page(text: str, content: Mapping[str, Any]) -> str:
    """Fill the table of docs/attacks.md from a result."""
    rows = {row["metric"]: row for row in content["rows"]}
    lines = [f"| network | {' | '.join(WAYS)} | keeps its centre |", "|---" * (len(WAYS) + 2) + "|"]
    for name in NETWORKS:
        cells = [cell(rows[f"{name}: greatest of {OTHERS} fresh networks, {how}"]) for how in WAYS]
        least, most = rows[f"{name}: keeps its centre"]["spread"]
        lines.append(f"| {name} | {' | '.join(cells)} | {'yes' if least else 'some' if most else 'no'} |")
    return put(
        text, "specificity", "\n".join(lines) + f"\n\n`bench/results/specificity.json`, commit {content['commit']}."
    )


def _measured(name: str, seed: int) -> Iterator[tuple[str, float]]:
    catalogued, arguments, taps = NETWORKS[name]
    architecture = Architecture(catalogued, {"num_classes": 10, **arguments})
    model = build(architecture, seed=seed).eval()
    settings = wm.EmbedSettings(shadows=0)
    mark = wm.Mark(model, KEY, taps=taps, input_spec=SPEC, architecture=architecture, settings=settings, seed=seed)
    kept = mark.info.reference
    if kept is None:
        raise ValueError(f"{name} has taps that are too wide")
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(1.00001)  # what has not moved carries no mark, and is refused
    mark.finish(model)
    yield "own", mark.matched(model)
    triggers = make_triggers(KEY, SPEC, count=mark.info.triggers)
    for how, centred in WAYS.items():
        probing = None if centred is None else replace(kept, centred=centred)
        evidence = wm.EvidenceFile(mark.head, replace(mark.info, reference=probing), bytes(32))
        made = evidence if probing is None else wm.with_reference(evidence, model)
        branch = Branch(mark.head, made.info, triggers, made.reference)
        matches = torch.ones(len(triggers.labels), dtype=torch.bool)
        others = compare_with_fresh(branch, matches, count=OTHERS, seed=bytes([seed]) * 32, progress=silent)
        yield f"greatest of {OTHERS} fresh networks, {how}", max(other.matched for other in others)
    settled = mark.info.reference
    yield "keeps its centre", float(settled is not None and settled.centred)


if __name__ == "__main__":
    main()
