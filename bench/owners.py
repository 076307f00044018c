"""What the benches of embeddings share: an owner's bundle, what nodes count in a suspect, a key of somebody else's.

Figures go by name into a dictionary of one seed; `bench.results.summary` sums them up.
"""

import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.results import silent
from client.bundle import Bundle
from client.keystore import create_watermark_key, save_watermark_key
from client.marking.embedding import embed, write_bundle
from client.marking.measuring import Trial, measure
from client.marking.task import MEASURES, Task, measured_by
from registry.policy import Thresholds
from registry.verdict import Outcome, judge

ORIGIN = "bench.example/wmreg"
Figures = dict[str, float]


def embedded(out: Path, task: Task, figures: Figures, *, who: str = "") -> Bundle:
    """Train and embed as `wmreg embed` does; the seconds, the data and the accuracies become figures.

    Args:
        out: the bundle's directory, which is made.
        task: what to train.
        figures: added to.
        who: stands in front of their names.
    """
    prefix, begun_s = f"{who}: " if who else "", time.process_time()
    key_file = create_watermark_key(Ed25519PrivateKey.generate(), origin=ORIGIN)
    marked = embed(task, [key_file], show=silent)
    figures[f"{prefix}training and embedding, processor seconds"] = time.process_time() - begun_s
    out.mkdir()
    report = write_bundle(Bundle(out), marked, [key_file], base_sha256=None, keep_clean=True)
    figures[f"{prefix}training examples"] = report["training_images"]
    measure, scores = measured_by(report)
    for when in ("clean", "marked"):
        figures[f"{prefix}{MEASURES[measure]}, {when}"] = scores[when]
    return Bundle(out)


def judged(name: str, suspect: Path, evidence: Bundle, figures: Figures) -> None:
    """Measure a suspect with all controls, and judge it as nodes with the usual thresholds do."""
    begun_s = time.process_time()
    found = measure(suspect, evidence, Trial(controls=True, device="auto"), silent)
    figures[f"{name}: matched of {found.total}"] = found.matched
    figures[f"{name}: greatest fresh control"] = max(control.matched for control in found.controls)
    figures[f"{name}: permutations as good, of {found.permutations}"] = found.permutations_as_good
    figures[f"{name}: verdict VERIFIED (1) or not (0)"] = float(judge(found, Thresholds())[0] is Outcome.VERIFIED)
    figures[f"{name}: verification with all controls, processor seconds"] = time.process_time() - begun_s


def counted(name: str, suspect: Path, evidence: Bundle, figures: Figures) -> None:
    """Count a suspect's matched triggers, without controls."""
    found = measure(suspect, evidence, Trial(controls=False, device="auto"), silent)
    figures[f"{name}: matched of {found.total}"] = found.matched


def with_random_key(owner: Bundle, directory: Path) -> Bundle:
    """Make a bundle of the owner's evidence with somebody else's watermark key."""
    directory.mkdir()
    forged = Bundle(directory)
    forged.evidence.write_bytes(owner.evidence.read_bytes())
    save_watermark_key(forged.watermark_key, create_watermark_key(Ed25519PrivateKey.generate(), origin=ORIGIN))
    return forged
