"""The rows of one task and seed: the owner's embedding, what nodes make of it, and what each attack leaves of it.

A unit is a function from a subject to figures by name. `owner` comes first, since the others read its files. What an
attack leaves is the greater of two counts, as it is and aligned, per cent of the triggers; nodes stop at the first that
convicts.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

import wm
from bench.paper.overwriting import overwritten
from bench.paper.settings import FIRST_OVERWRITING_EPOCHS, PAPER_OVERWRITING_EPOCHS, THIEFS_RATES
from bench.paper.subjects import (
    Subject,
    counted,
    examined,
    examined_file,
    is_verified,
    key_file,
    per_cent,
    write_bundle,
)
from wm.attacks import ATTACKS, attacked
from wm.branch import count_matched
from wm.evidence import SALT_BYTES
from wm.schemes.mtlsign import EmbedSettings
from wm.training import fit
from wm.weights import load_weights

Figures = dict[str, float]
Unit = Callable[[Subject], Figures]
GAMMA_PER_CENT = 70.0
PERMUTED, SCALED, TURNED = 1.0, 10.0, 0.5  # all channels; factors up to 10; half of the hidden units
ABLATED_RATE = 3e-4
ABLATED = MappingProxyType(
    {
        "no R_DA": EmbedSettings(tuning_regularizer="none"),
        "R_DA fomaml": EmbedSettings(tuning_regularizer="fomaml"),
        "R_DA delta": EmbedSettings(tuning_regularizer="delta"),
        "the paper's loss": EmbedSettings.paper(),
    }
)


def owner(subject: Subject) -> Figures:
    """Train, embed, write the bundle."""
    model = subject.fresh_model(seed=subject.seed)
    begun_s = _clock_s()
    fit(model, subject.data, epochs=subject.task.epochs, lr=1e-3, seed=subject.seed)
    trained_s = _clock_s()
    embedding = _embedded(subject, model, EmbedSettings())
    embedded_s = _clock_s()
    before, after = subject.task_accuracy(model), subject.task_accuracy(embedding.model)
    write_bundle(subject, model, embedding)
    return {
        "training examples": len(subject.data.train),
        "task accuracy, clean": before,
        "task accuracy, marked": after,
        "task accuracy lost to the mark": before - after,
        "matched, marked": _matched(subject, embedding, embedding.model),
        "matched, clean": _matched(subject, embedding, model),
        "matched, marked, another key": _matched(subject, embedding, embedding.model, "another"),
        "‖ΔW‖ of the tapped layers": 100 * embedding.report["weight_change"],
        "mean |Δw| of all weights": _mean_change(model, embedding.model),
        "training, seconds": trained_s - begun_s,
        "embedding, seconds": embedded_s - trained_s,
        "embedding, of the training's time": 100 * (embedded_s - trained_s) / (trained_s - begun_s),
    }


def verdict(subject: Subject) -> Figures:
    """What nodes vote on the marked model, with all controls."""
    begun_s = _clock_s()
    found = examined_file(subject.bundle.model, subject.bundle)
    return {
        "marked model VERIFIED": float(is_verified(found)),
        "greatest fresh control": 100 * max(control.matched for control in found.controls) / found.total,
        "verification with all controls, seconds": _clock_s() - begun_s,
    }


def ftal(subject: Subject) -> Figures:
    """Fine-tune all layers on a tenth of the data, at three rates."""
    figures: Figures = {}
    for rate in THIEFS_RATES:
        model = attacked(ATTACKS["ftal"], subject.stolen, strength=rate, seed=subject.seed)
        figures |= _after(subject, model, f"fine-tuning at {rate:g}")
    return figures


def fine_pruning(subject: Subject) -> Figures:
    """Cut off the filters that the thief's data use least, and fine-tune."""
    share = subject.setting.pruned_share
    model = attacked(ATTACKS["fine_pruning"], subject.stolen, strength=share, seed=subject.seed)
    return _after(subject, model, f"fine-pruning of {100 * share:g} %")


def overwriting(subject: Subject) -> Figures:
    """Embed the thief's mark as in the authors' code, and look at the owner's on the way."""
    figures: Figures = {}
    before = _left(subject, subject.stolen.model)
    epochs = (*FIRST_OVERWRITING_EPOCHS, *PAPER_OVERWRITING_EPOCHS)
    for epoch, model, own in overwritten(subject.stolen, epochs=epochs, seed=subject.seed):
        name = f"overwriting, {epoch} epochs"
        figures[f"{name}: lost"] = before - _left(subject, model)
        figures[f"{name}: thief's own matched"] = 100 * own
        figures[f"{name}: task accuracy"] = subject.task_accuracy(model)
    return figures


def pruning(subject: Subject) -> Figures:
    """Cut off ever more weights or filters until the mark fails; what is left of the task then."""
    names = ("magnitude_pruning", "neuron_pruning") if subject.task.vectors is None else ("magnitude_pruning",)
    figures: Figures = {}
    for name in names:
        figures |= _until_it_fails(subject, name, ATTACKS[name].scale.usual)
    return figures


def spoil(subject: Subject) -> Figures:
    """Teach the network random answers to the owner's head until the mark fails; what is left of the task then."""
    return _until_it_fails(subject, "spoil", subject.setting.spoil_steps)


def equivalence(subject: Subject) -> Figures:
    """Renumber and scale channels, which costs the thief nothing, before and after alignment.

    Nodes align where the plain count does not convict; here it is counted both ways, whatever nodes would do. No factor
    passes the gates of an LSTM.
    """
    figures: Figures = {}
    is_text = subject.task.vectors is not None
    for name, strength in (("permutation", PERMUTED), ("sign flip", TURNED) if is_text else ("scaling", SCALED)):
        attack = ATTACKS[name.replace(" ", "_")]
        model = attacked(attack, subject.stolen, strength=strength, seed=subject.seed)
        found = examined(model, subject.bundle, subject.directory)
        figures[f"matched after {name}, as it is"] = _matched_by(subject, model, aligned=False)
        figures[f"matched after {name}, aligned"] = _matched_by(subject, model, aligned=True)
        figures[f"VERIFIED after {name}"] = float(is_verified(found))
    return figures


def ablation(subject: Subject, *, name: str) -> Figures:
    """Embed into the owner's clean model by another loss, and fine-tune what comes of it; the default is `owner`'s."""
    clean = load_weights(subject.bundle.clean, subject.architecture).to(_device(subject))
    embedding = _embedded(subject, clean, ABLATED[name])
    stolen = replace(subject.stolen, model=embedding.model)
    tuned = attacked(ATTACKS["ftal"], stolen, strength=ABLATED_RATE, seed=subject.seed)
    return {
        "task accuracy, clean": subject.task_accuracy(clean),
        "task accuracy, marked": subject.task_accuracy(embedding.model),
        "matched, marked": _matched(subject, embedding, embedding.model),
        "‖ΔW‖ of the tapped layers": 100 * embedding.report["weight_change"],
        f"matched after fine-tuning at {ABLATED_RATE:g}": _matched_or_aligned(subject, embedding, tuned),
        f"task accuracy after fine-tuning at {ABLATED_RATE:g}": subject.task_accuracy(tuned),
    }


PICTURES: Mapping[str, Unit] = MappingProxyType(
    {
        "owner": owner,
        "verdict": verdict,
        "ftal": ftal,
        "equivalence": equivalence,
        "overwriting": overwriting,
        "fine-pruning": fine_pruning,
        "pruning": pruning,
        "spoil": spoil,
    }
)
# Those that cut filters off know convolutions, and refuse networks for texts.
TEXTS: Mapping[str, Unit] = MappingProxyType({name: it for name, it in PICTURES.items() if name != "fine-pruning"})
ABLATIONS: Mapping[str, Unit] = MappingProxyType({name: partial(ablation, name=name) for name in ABLATED})


def _clock_s() -> float:
    """Time of this process, since others may share the processor; of the wall where a GPU does the work."""
    return time.monotonic() if torch.cuda.is_available() else time.process_time()


def _embedded(subject: Subject, model: nn.Module, settings: EmbedSettings) -> wm.Embedding:
    key = subject.key_file.binding.watermark_key
    return wm.embed(model, subject.data, key, architecture=subject.architecture, settings=settings, seed=subject.seed)


def _matched(subject: Subject, embedding: wm.Embedding, model: nn.Module, *other_key: str) -> float:
    """As it is, per cent; with the owner's key, or another one of his."""
    key = key_file(subject.seed, subject.task.name, *other_key).binding.watermark_key
    return 100 * count_matched(model, embedding.head, embedding.info, key) / embedding.info.triggers


def _matched_by(subject: Subject, model: nn.Module, *, aligned: bool) -> float:
    """Count by the owner's evidence, per cent."""
    evidence, key = wm.load_evidence(subject.bundle.evidence), subject.key_file.binding.watermark_key
    reference = evidence.reference if aligned else None
    matched = wm.count_matched(model, evidence.head, evidence.info, key, reference=reference)
    return 100 * matched / evidence.info.triggers


def _matched_or_aligned(subject: Subject, embedding: wm.Embedding, model: nn.Module) -> float:
    """As it is or aligned, whichever is more."""
    plain = _matched(subject, embedding, model)
    evidence = wm.with_reference(wm.EvidenceFile(embedding.head, embedding.info, bytes(SALT_BYTES)), embedding.model)
    key = subject.key_file.binding.watermark_key
    aligned = count_matched(model, evidence.head, evidence.info, key, reference=evidence.reference)
    return max(plain, 100 * aligned / evidence.info.triggers)


def _after(subject: Subject, model: nn.Module, what: str) -> Figures:
    return {f"matched after {what}": _left(subject, model), f"task accuracy after {what}": subject.task_accuracy(model)}


def _left(subject: Subject, model: nn.Module) -> float:
    """What an attack leaves of the mark: as nodes count, or aligned where that is more."""
    found = per_cent(counted(model, subject.bundle, subject.directory))
    return max(found, _matched_by(subject, model, aligned=True))


def _until_it_fails(subject: Subject, name: str, strengths: tuple[float, ...]) -> Figures:
    """Attack with rising strength; the figures lack `lost` where the mark held to the end."""
    attack, strength = ATTACKS[name], 0.0
    called = name.replace("_", " ")
    for strength in strengths:
        model = attacked(attack, subject.stolen, strength=strength, seed=subject.seed)
        found = counted(model, subject.bundle, subject.directory)
        if per_cent(found) < GAMMA_PER_CENT:
            before, after = subject.task_accuracy(subject.stolen.model), subject.task_accuracy(model)
            return {
                f"{called}: mark fails at": strength,
                f"{called}: matched then": per_cent(found),
                f"{called}: task accuracy lost then": before - after,
            }
    return {f"{called}: mark held to": strength}


@torch.no_grad()
def _mean_change(before: nn.Module, after: nn.Module) -> float:
    pairs = [(a.cpu(), b.cpu()) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    total = sum(float((a - b).abs().sum()) for a, b in pairs)
    return total / sum(a.numel() for a, _ in pairs)


def _device(subject: Subject) -> torch.device:
    return next(subject.stolen.model.parameters()).device
