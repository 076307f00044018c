"""Does MTLSign hold on instance segmentation? `make bench NAME=segmentation`: generated shapes, a small Mask R-CNN.

One seed, two stories. From scratch: somebody trains a network on pictures of shapes and marks it by the usual recipe.
From a base: the trained network, without its mark, is public; somebody else fine-tunes it on pictures of his own and
marks it beside the base; a neighbour fine-tunes it on other pictures again. Of each mark is told how many triggers the
marked network answers, and those that should not, with their channels as they are and aligned; the verdict is that of
nodes with the usual thresholds. Times are of the processor, since others may be at work.

The directory of --keep gets the trained networks and times, and what is there is used again.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copyfile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

import wm
from bench.owners import ORIGIN, Figures, counted, judged, with_random_key
from bench.results import Goal, Row, silent, write
from client.bundle import Bundle
from client.keystore import create_watermark_key, save_watermark_key
from client.marking.measuring import Trial, measure
from registry.policy import Thresholds
from registry.verdict import Outcome, judge
from wm.architectures import Architecture, build
from wm.data import Dataset
from wm.datasets.shapes import CLASSES, shapes
from wm.evidence import SALT_BYTES
from wm.networks.mask_rcnn import arguments_for
from wm.tensorfile import sha256_of
from wm.training import fit, score
from wm.weights import load_transferred, load_weights, save_weights

SIDE = 64
NAME = "maskrcnn_resnet18_fpn"
ARCHITECTURE = Architecture(NAME, {"num_classes": len(CLASSES), **arguments_for(NAME, SIDE)})
PICTURES, EPOCHS, LR = 200, 24, 2e-3
OWN_PICTURES, OWN_EPOCHS, OWN_LR = 100, 8, 1e-4
SEED, OWN_SEED, TEST_SEED, NEIGHBOUR_SEED = 1, 2, 3, 4
TEST = shapes(140, side=SIDE, seed=TEST_SEED).train


def main() -> None:
    """Measure both stories and write bench/results/segmentation.json."""
    parser = argparse.ArgumentParser(prog="bench.segmentation", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        kept = arguments.keep or Path(temporary)
        kept.mkdir(exist_ok=True)
        base = kept / "trained.safetensors"
        figures = {**_from_scratch(base, Path(temporary)), **_from_a_base(kept, base, Path(temporary))}
    write("segmentation", [_row(metric, value) for metric, value in figures.items()])


def _from_scratch(path: Path, temporary: Path) -> Figures:
    data, figures = shapes(PICTURES, side=SIDE, seed=SEED), Figures()
    model = build(ARCHITECTURE, seed=SEED)
    seconds = _trained(path, model, lambda: fit(model, data, epochs=EPOCHS, lr=LR, seed=SEED))
    clean = load_weights(path, ARCHITECTURE)
    figures["from scratch: pictures in training"] = len(data.train)
    figures["test pictures"] = len(TEST)
    figures["from scratch: training, processor seconds"] = seconds
    owner = _marked("from scratch", temporary / "scratch", clean, data, figures)
    figures["from scratch: embedding, share of the training's time"] = (
        figures["from scratch: embedding, processor seconds"] / seconds
    )
    judged("from scratch: marked network", owner.model, owner, figures)
    _suspected("from scratch: before the embedding", path, owner, figures)
    counted("from scratch: marked network, a random key", owner.model, with_random_key(owner, temporary / "r"), figures)
    return figures


def _from_a_base(kept: Path, base_path: Path, temporary: Path) -> Figures:
    data, figures = shapes(OWN_PICTURES, side=SIDE, seed=OWN_SEED), Figures()
    path = kept / "fine-tuned.safetensors"
    _fine_tuned(path, base_path, data, seed=OWN_SEED)
    clean, base = load_weights(path, ARCHITECTURE), load_weights(base_path, ARCHITECTURE)
    figures["from a base: pictures in training"] = len(data.train)
    figures["from a base: mask mAP, base"] = score(base, TEST)
    owner = _marked("from a base", temporary / "based", clean, data, figures, base=base_path, negatives=[base, clean])
    judged("from a base: marked network", owner.model, owner, figures)
    neighbour = kept / "neighbour.safetensors"
    _fine_tuned(neighbour, base_path, shapes(OWN_PICTURES, side=SIDE, seed=NEIGHBOUR_SEED), seed=NEIGHBOUR_SEED)
    for name, suspect in {"base": base_path, "before the embedding": path, "neighbour": neighbour}.items():
        _suspected(f"from a base: {name}", suspect, owner, figures)
    return figures


def _fine_tuned(path: Path, base_path: Path, data: Dataset, *, seed: int) -> None:
    model = load_transferred(base_path, ARCHITECTURE, seed=seed)
    _trained(path, model, lambda: fit(model, data, epochs=OWN_EPOCHS, lr=OWN_LR, seed=seed, keeps_statistics=True))


def _trained(path: Path, model: nn.Module, train: Callable[[], object]) -> float:
    """Train a network and keep it, or find it kept; return the processor seconds that the training took."""
    told, begun_s = path.with_suffix(".json"), time.process_time()
    if not told.exists():
        train()
        seconds = time.process_time() - begun_s
        save_weights(model, path)
        told.write_text(json.dumps(seconds))
    return float(json.loads(told.read_text()))


def _marked(  # noqa: PLR0913 (one story's parts)
    name: str,
    directory: Path,
    clean: nn.Module,
    data: Dataset,
    figures: Figures,
    *,
    base: Path | None = None,
    negatives: Sequence[nn.Module] = (),
) -> Bundle:
    """Embed a mark and write the bundle of it."""
    bundle, key_file = Bundle(directory), create_watermark_key(Ed25519PrivateKey.generate(), origin=ORIGIN)
    key, begun_s = key_file.binding.watermark_key, time.process_time()
    settings = wm.EmbedSettings.usual(data.train, has_base=base is not None)
    made = wm.embed(clean, data, key, architecture=ARCHITECTURE, settings=settings, negatives=negatives, seed=SEED)
    figures[f"{name}: embedding, processor seconds"] = time.process_time() - begun_s
    figures[f"{name}: mask mAP, clean"] = score(clean, TEST)
    figures[f"{name}: mask mAP, marked"] = score(made.model, TEST)
    figures[f"{name}: mask mAP, marked less clean"] = (
        figures[f"{name}: mask mAP, marked"] - figures[f"{name}: mask mAP, clean"]
    )
    figures[f"{name}: ‖ΔW‖ of the tapped layers, %"] = 100 * made.report["weight_change"]
    directory.mkdir()
    base_sha256 = None if base is None else sha256_of(Path(copyfile(base, bundle.base)))
    info = made.info.with_files(model_sha256=save_weights(made.model, bundle.model), base_sha256=base_sha256)
    evidence = wm.EvidenceFile(made.head, info, bytes(SALT_BYTES))
    wm.save_evidence(bundle.evidence, wm.with_reference(evidence, made.model))
    save_watermark_key(bundle.watermark_key, key_file)
    print(f"{name}: {figures}", flush=True)
    return bundle


def _suspected(name: str, suspect: Path, owner: Bundle, figures: Figures) -> None:
    """Count a suspect's triggers with its channels as they are and aligned, and judge it as nodes do."""
    evidence, key = wm.load_evidence(owner.evidence), owner.load_watermark_key().binding.watermark_key
    network, head, info = load_weights(suspect, ARCHITECTURE), evidence.head, evidence.info
    figures[f"{name}: matched of 600, as it is"] = wm.count_matched(network, head, info, key)
    figures[f"{name}: matched of 600, aligned"] = wm.count_matched(
        network, head, info, key, reference=evidence.reference
    )
    found = measure(suspect, owner, Trial(controls=True, device="auto"), silent)
    figures[f"{name}: verdict VERIFIED (1) or not (0)"] = float(judge(found, Thresholds())[0] is Outcome.VERIFIED)


# By the end of a metric's name, as the issue asks for them of every task.
_GOALS = {
    "share of the training's time": Goal(says="≤ 0.3", most=0.3),
    "mask mAP, marked less clean": Goal(says="≥ -0.005", least=-0.005),
    "marked network: matched of 600": Goal(says="≥ 0.99 N", least=594),
    **{
        f"from a base: {name}: {metric}": goal
        for name in ("base", "before the embedding", "neighbour")
        for metric, goal in {
            "matched of 600, as it is": Goal(says="≤ 0.59 N, as nodes ask", most=354),
            "verdict VERIFIED (1) or not (0)": Goal(says="0", most=0),
        }.items()
    },
    "marked network: verdict VERIFIED (1) or not (0)": Goal(says="1", least=1),
}


def _row(metric: str, value: float) -> Row:
    goal = next((goal for name, goal in _GOALS.items() if metric.endswith(name)), None)
    unit = "s" if metric.endswith("seconds") else ""
    met = goal.holds([value]) if goal else None
    return Row(metric=metric, value=round(value, 4), unit=unit, goal=goal.says if goal else None, met=met, repeats=1)


if __name__ == "__main__":
    main()
