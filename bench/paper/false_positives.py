"""Who is convicted although he carries no mark: independent models, siblings of one base, and forged evidence.

Beside what the ledger's engine says stands what the paper's bare statistic would have said: its Algorithm 1 convicts
whoever answers γN triggers, whatever the controls answer.

The many models are small ones, ShuffleNets of 0.35 million parameters, tapped behind the stem and the first two stages.
The forged heads are held against the ResNets of the other rows.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import nn

import wm
from bench.paper.settings import SMALL_NET, SMALL_TAPS
from bench.paper.subjects import Subject, examined, examined_file, is_verified, key_file, per_cent, write_evidence
from client.bundle import Bundle
from client.keystore import save_watermark_key
from client.marking.models import device_of, saved_weights
from registry.policy import Thresholds
from registry.verdict import Measurement
from wm.architectures import Architecture, build
from wm.attacks.forgeries import FORGERIES
from wm.data import Dataset, fraction_of
from wm.evidence import EvidenceFile, save_evidence
from wm.progress import silent as nothing
from wm.randomness import key_of
from wm.schemes.mtlsign import EmbedSettings
from wm.training import fit

Figures = dict[str, float]
SIBLING_EPOCHS, SIBLING_LR = 5, 1e-4
POSTHOC_STEPS = 100


def independent(subject: Subject) -> Figures:
    """One owner's head on models that others trained for the same task, from their own beginnings."""
    small = _small(subject)
    model = _trained(small, subject.data, seed=subject.seed, epochs=subject.setting.independent_epochs)
    bundle = _embedded(subject, model, "independent", EmbedSettings(taps=SMALL_TAPS))
    setting, found = subject.setting, []
    for number in range(setting.independent):
        other = _trained(small, _few(subject), seed=1000 * subject.seed + number, epochs=setting.independent_epochs)
        found.append(examined(other, bundle, bundle.directory))
    owners = examined_file(bundle.model, bundle)
    return {
        "independent models: the owner's own VERIFIED": float(is_verified(owners)),
        "independent models: task accuracy of the last": subject.task_accuracy(other),
        **_told("independent models", found),
    }


def siblings(subject: Subject) -> Figures:
    """Honest users of the base that the owner fine-tuned: with the usual recipe, and with the one beside a base."""
    small = _small(subject)
    base = _trained(small, subject.data, seed=100 + subject.seed, epochs=subject.setting.independent_epochs)
    users = [_tuned(base, subject, seed=200 + number) for number in range(subject.setting.siblings)]
    owner = _tuned(base, subject, seed=subject.seed)
    beside = replace(EmbedSettings.beside_a_base(), taps=SMALL_TAPS)
    figures: Figures = {}
    for recipe, settings, negatives in (
        ("the usual recipe", EmbedSettings(taps=SMALL_TAPS), ()),
        ("beside a base", beside, (base, owner)),
    ):
        bundle = _embedded(subject, owner, recipe, settings, negatives=negatives)
        path = bundle.directory / "public.safetensors"
        saved_weights(base, path)
        for known, public in (("base unknown to the nodes", ()), ("base among the controls", (path,))):
            name = f"siblings, {recipe}, {known}"
            found = [examined(user, bundle, bundle.directory, public=public) for user in users]
            marked = examined_file(bundle.model, bundle, public=public)
            figures |= {f"{name}: the owner's own VERIFIED": float(is_verified(marked)), **_told(name, found)}
    return figures


def forged_heads(subject: Subject) -> Figures:
    """A head fitted after the fact, on the model and on another; and one for all networks, trained before any."""
    figures: Figures = {}
    victim, other = subject.stolen.model, _other(subject)
    for called, name, strength in (
        ("post-hoc head", "posthoc_head", POSTHOC_STEPS),
        ("universal head", "universal_head", subject.setting.universal_networks),
    ):
        bundle = _forged(subject, name, strength)
        for whose, model in (("the model that it was made against", victim), ("an independent model", other)):
            figures |= _told(f"{called}, on {whose}", [examined(model, bundle, bundle.directory)])
    return figures


UNITS: Mapping[str, Callable[[Subject], Figures]] = MappingProxyType(
    {"independent": independent, "siblings": siblings, "forged heads": forged_heads}
)


def _told(name: str, found: list[Measurement]) -> Figures:
    """How many there were, the bare statistic's convictions and the engine's, and the greatest count."""
    gamma = Thresholds().gamma_permille
    return {
        f"{name}: models": len(found),
        f"{name}: bare statistic convicts": sum(1000 * it.matched >= gamma * it.total for it in found),
        f"{name}: VERIFIED by the engine": sum(is_verified(it) for it in found),
        f"{name}: greatest count": max(per_cent(it) for it in found),
    }


def _small(subject: Subject) -> Architecture:
    return Architecture(SMALL_NET, {"num_classes": subject.data.classes})


def _trained(architecture: Architecture, data: Dataset, *, seed: int, epochs: int) -> nn.Module:
    model = build(architecture, seed=seed).to(device_of("auto"))
    fit(model, data, epochs=epochs, lr=1e-3, seed=seed)
    return model


def _few(subject: Subject) -> Dataset:
    """What an independent model is trained on."""
    wanted, data = subject.setting.independent_examples, subject.data
    if wanted is None or wanted >= len(data.train):
        return data
    return replace(data, train=fraction_of(data.train, wanted / len(data.train), seed=subject.seed))


def _tuned(base: nn.Module, subject: Subject, *, seed: int) -> nn.Module:
    model = copy.deepcopy(base)
    fit(model, subject.data, epochs=SIBLING_EPOCHS, lr=SIBLING_LR, seed=seed, fraction=0.5)
    return model


def _embedded(
    subject: Subject, model: nn.Module, called: str, settings: EmbedSettings, *, negatives: tuple[nn.Module, ...] = ()
) -> Bundle:
    """Embed into a small net; its bundle lies in a directory below the subject's."""
    key, architecture = key_file(subject.seed, called), _small(subject)
    embedding = wm.embed(
        model,
        subject.data,
        key.binding.watermark_key,
        architecture=architecture,
        settings=settings,
        negatives=negatives,
        seed=subject.seed,
    )
    bundle = _bundle(subject, called)
    write_evidence(bundle, embedding, saved_weights(embedding.model, bundle.model), key)
    return bundle


def _forged(subject: Subject, name: str, strength: float) -> Bundle:
    """Make a forger's evidence against the subject's model."""
    key = key_file(subject.seed, name)
    forged = FORGERIES[name].forge(
        subject.stolen, strength, subject.seed, lambda _number: key.binding.watermark_key, nothing
    )
    bundle = _bundle(subject, name)
    sha256 = saved_weights(forged.accused, bundle.model)
    info = forged.info.with_files(model_sha256=sha256, base_sha256=None)
    save_evidence(
        bundle.evidence, EvidenceFile(forged.head.cpu(), info, key_of(subject.seed, "salt"), forged.reference)
    )
    bundle.watermark_key.unlink(missing_ok=True)
    save_watermark_key(bundle.watermark_key, key)
    return bundle


def _bundle(subject: Subject, called: str) -> Bundle:
    directory = subject.directory / called.replace(" ", "-")
    directory.mkdir(parents=True, exist_ok=True)
    return Bundle(directory)


def _other(subject: Subject) -> nn.Module:
    """A model that somebody else trained for the same task."""
    model = subject.fresh_model(seed=subject.seed + 1000)
    fit(model, subject.data, epochs=subject.task.epochs, lr=1e-3, seed=subject.seed + 1000)
    return model
