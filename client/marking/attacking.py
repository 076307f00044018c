"""Attacking one's own marked model, and judging what is left of the mark as nodes would.

The attacks are the library's (`wm.attacks`); here each attacked model is written to a file, measured as any suspect is,
and judged by the ledger's own engine. Forged evidence goes the same way, after the check of the key's binding that the
ledger makes before anything is measured.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from client.bundle import Bundle
from client.errors import InputError, InvalidError
from client.keystore import WatermarkKeyFile, save_watermark_key
from client.marking.measuring import Trial, measure
from client.marking.models import Show, device_of, load_data, reporting, saved_weights, task_score, watermark_errors
from client.marking.task import Task
from registry.errors import RefusedError
from registry.policy import Thresholds
from registry.verdict import WON, Measurement, Outcome, judge
from registry.watermark_key import NONCE_BYTES, bind, verify_binding
from wm.attacks import ATTACKS, Attack, Stolen, sweep
from wm.attacks.forgeries import FORGERIES, Forged, Forgery
from wm.attacks.spoil import SPOIL
from wm.branch import Branch
from wm.data import Dataset
from wm.datasets import has_masks
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, load_evidence, save_evidence
from wm.progress import ProgressCallback
from wm.randomness import key_of
from wm.schemes import mtlsign
from wm.schemes.evidence import SchemeEvidence, load_scheme_evidence, scheme_named_in
from wm.training import measure_of
from wm.triggers import make_triggers
from wm.weights import load_weights

ALL = "all"
REFUSED = "REFUSED"  # by the rules, before any node measures anything
_REASONS = {"mismatch": "wrong_architecture", "diverged": "malformed"}  # as nodes call what they meet then
_FORGED_SALT = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do.

    Attributes:
        bundle: the owner's files, the model among them.
        methods: attacks and forgeries, in order.
        strengths: for each of them; empty for each one's usual ones.
        task: the thief's data (data, fraction), the seed and the device; the rest of it is not used.
        goes_on: whether stronger attacks follow when the mark has failed.
        models: where to keep the attacked models; None for nowhere.
    """

    bundle: Bundle
    methods: tuple[Attack | Forgery, ...]
    strengths: tuple[float, ...]
    task: Task
    goes_on: bool
    models: Path | None


def methods_of(names: Sequence[str], strengths: Sequence[float]) -> tuple[Attack | Forgery, ...]:
    """Find attacks and forgeries by name; "all" is all of them.

    Raises:
        InputError: there is no such name, or one of them knows no such strength.
    """
    known: dict[str, Attack | Forgery] = {**ATTACKS, **FORGERIES}
    chosen: dict[str, Attack | Forgery] = {}
    for name in names:
        if name == ALL:
            chosen |= known
        elif name in known:
            chosen[name] = known[name]
        else:
            raise InputError(f"--attack {name}: no such attack; there are {ALL}, {', '.join(known)}")
    for method in chosen.values():
        for strength in strengths:
            try:
                method.scale.check(strength)
            except ValueError as error:
                raise InputError(f"--strength, {method.name}: {error}") from error
    return tuple(chosen.values())


def run(plan: Plan, show: Show) -> dict[str, Any]:
    """Run all attacks and forgeries of a plan; return the report, JSON-able.

    Those that the network or the data refuse are told in it with the reason, under `refused`, and the others are done.

    Raises:
        InputError: the bundle has no model, or the data are not of its kind, or of none that any attack knows.
        InvalidError: a file is malformed, or none of the attacks knows what to do with the architecture.
        OSError: a file cannot be read, or a temporary one not be written.
    """
    with tempfile.TemporaryDirectory(prefix="wmreg-attack-") as directory:
        work = _Work(plan, Path(directory), show)
        return work.report()


class _Work:
    """One run under way, with a directory for temporary files."""

    def __init__(self, plan: Plan, directory: Path, show: Show) -> None:
        self._plan, self._directory, self._show = plan, directory, show
        with watermark_errors(plan.bundle.evidence):
            is_branch = scheme_named_in(plan.bundle.evidence) == mtlsign.NAME
            load = load_evidence if is_branch else load_scheme_evidence
            evidence = load(plan.bundle.evidence)
        # Pictures with masks have the size that the network was built for.
        side = evidence.info.architecture.arguments.get("min_size") if has_masks(plan.task.data) else None
        self._data = load_data(replace(plan.task, image_size=side))
        self._left_out = _beginning_with_a_head(plan.methods) if isinstance(evidence, SchemeEvidence) else ()
        if len(self._left_out) == len(plan.methods):
            names = ", ".join(method.name for method in self._left_out)
            raise InputError(f"--attack: {names} begin with a head, and a {evidence.info.scheme} mark has none")
        self._refused = _refused_by(self._data, plan.methods)
        if not self._methods():
            error = next(iter(self._refused.values()))
            known = ", ".join([*(name for name, each in ATTACKS.items() if not each.needs_classes), *FORGERIES])
            raise InputError(f"--attack: {error}; there are {known}", code=error.code) from error
        self._key_file = plan.bundle.load_watermark_key()
        self._stolen = self._steal(evidence)

    def report(self) -> dict[str, Any]:
        """Do everything that can be done; raises InvalidError where that is nothing."""
        plan = self._plan
        found: dict[str, list[dict[str, Any]]] = {"attacks": [], "forgeries": []}
        marked = self._examined(self._stolen.model, plan.bundle, keep_as=None)
        methods = self._methods()
        for number, method in enumerate(methods):
            self._show("attacks", number, len(methods), method.name)
            if isinstance(method, Attack):
                found["attacks"] += self._attack(method)
            else:
                found["forgeries"] += self._forge(method)
        self._show("attacks", len(methods), len(methods), "")
        if not any(found.values()):
            raise _nothing_done(self._refused)
        return {
            "measure": measure_of(self._data.test),
            "model": str(plan.bundle.model),
            "data": plan.task.data,
            "fraction": plan.task.fraction,
            "seed": plan.task.seed,
            "training_images": len(self._data.train),
            "test_images": len(self._data.test),
            "marked": marked,
            **found,
            "left_out": [method.name for method in self._left_out],
            "refused": [
                {"name": name, "code": error.code, "reason": str(error)} for name, error in self._refused.items()
            ],
        }

    def _methods(self) -> list[Attack | Forgery]:
        """What is neither left out nor refused yet."""
        out = {*self._refused, *(method.name for method in self._left_out)}
        return [method for method in self._plan.methods if method.name not in out]

    @contextmanager
    def _telling_refusals(self, method: Attack | Forgery) -> Iterator[None]:
        """Keep for the report why this network or these data refuse an attack or a forgery; the others go on."""
        try:
            yield
        except WatermarkError as error:
            self._refused[method.name] = error

    def _steal(self, evidence: EvidenceFile | SchemeEvidence) -> Stolen:
        """The model with what a claim reveals; raises InputError where the data are of another kind."""
        plan, info = self._plan, evidence.info
        if not plan.bundle.model.is_file():
            raise InputError(f"{plan.bundle.model}: no such file; the marked model is what is attacked")
        classes = info.architecture.arguments.get("num_classes")
        if self._data.input != info.input or self._data.classes != classes:
            message = (
                f"--data {plan.task.data}: not what {plan.bundle.directory} was marked for: other sizes or classes"
            )
            raise InputError(message)
        with watermark_errors(plan.bundle.model):
            model = load_weights(plan.bundle.model, info.architecture).to(device_of(plan.task.device))
        return Stolen(model=model, architecture=info.architecture, data=self._data, revealed=self._revealed(evidence))

    def _revealed(self, evidence: EvidenceFile | SchemeEvidence) -> Branch | None:
        """What a claim shows of a branch; the attacks that begin with it are for MTLSign."""
        if isinstance(evidence, SchemeEvidence):
            return None
        info = evidence.info
        triggers = make_triggers(self._key_file.binding.watermark_key, info.input, count=info.triggers)
        return Branch(evidence.head, info, triggers, evidence.reference)

    def _attack(self, attack: Attack) -> list[dict[str, Any]]:
        """What is told of an attack: one entry, or none where it is refused at once."""
        points: list[dict[str, Any]] = []
        with watermark_errors(), self._telling_refusals(attack):
            for point in self._attack_points(attack):
                points.append(point)
                if point["outcome"] not in WON and not self._plan.goes_on:
                    break
        if not points:
            return []
        failed = next((point for point in points if point["outcome"] not in WON), None)
        told = {
            "name": attack.name,
            "summary": attack.summary,
            "strength": attack.scale.unit,
            "preserves_function": attack.preserves_function,
            "fails_at": failed["strength"] if failed else None,
            "task_accuracy_at_failure": failed["task_accuracy"] if failed else None,
            "points": points,
        }
        return [told]

    def _attack_points(self, attack: Attack) -> Iterator[dict[str, Any]]:
        plan, strengths = self._plan, self._strengths(attack)
        progress = self._reporting(attack.name)
        begun_s = time.monotonic()
        for strength, model in sweep(attack, self._stolen, strengths=strengths, seed=plan.task.seed, progress=progress):
            seconds = round(time.monotonic() - begun_s, 1)
            point = self._examined(model, plan.bundle, keep_as=f"{attack.name}-{strength:g}")
            yield {"strength": strength, **point, "attack_seconds": seconds}
            begun_s = time.monotonic()

    def _forge(self, forgery: Forgery) -> list[dict[str, Any]]:
        """What is told of a forgery, as of an attack."""
        points: list[dict[str, Any]] = []
        with watermark_errors(), self._telling_refusals(forgery):
            for strength in self._strengths(forgery):
                points.append(self._forged_point(forgery, strength))  # noqa: PERF401 -- those before a refusal stay
        if not points:
            return []
        passed = [point["strength"] for point in points if point["outcome"] == Outcome.VERIFIED]
        told = {
            "name": forgery.name,
            "summary": forgery.summary,
            "strength": forgery.scale.unit,
            "passes_at": passed,
            "points": points,
        }
        return [told]

    def _forged_point(self, forgery: Forgery, strength: float) -> dict[str, Any]:
        forger = _Forger(self._key_file, seed=self._plan.task.seed)
        forged = forgery.forge(
            self._stolen, strength, self._plan.task.seed, forger.watermark_key, self._reporting(forgery.name)
        )
        bundle = self._forged_bundle(forged, forger)
        point = {"strength": strength, **self._examined(forged.accused, bundle, keep_as=None)}
        if forged.base is not None:
            public = self._directory / "public.safetensors"
            saved_weights(forged.base, public)
            point["with_base_as_control"] = self._examined(forged.accused, bundle, keep_as=None, public=(public,))
        try:
            binding = forger.key_file(forged.key_number).binding
            verify_binding(binding, origin=self._key_file.origin, owner=forger.public_key)
        except RefusedError as error:
            point |= {"outcome": REFUSED, "reason": error.code}
        return point

    def _forged_bundle(self, forged: Forged, forger: "_Forger") -> Bundle:
        bundle = Bundle(Path(tempfile.mkdtemp(dir=self._directory)))
        model_sha256 = saved_weights(forged.accused, bundle.model)
        info = forged.info.with_files(model_sha256=model_sha256, base_sha256=None)
        save_evidence(bundle.evidence, EvidenceFile(forged.head, info, _FORGED_SALT, forged.reference))
        save_watermark_key(bundle.watermark_key, forger.key_file(forged.key_number))
        bundle.model.unlink()
        return bundle

    def _examined(
        self, model: nn.Module, bundle: Bundle, *, keep_as: str | None, public: tuple[Path, ...] = ()
    ) -> dict[str, Any]:
        """Measure and judge a model; without the controls where they could not change the verdict any more."""
        point: dict[str, Any] = {"task_accuracy": round(task_score(model, self._data), 4)}
        suspect = self._directory / "suspect.safetensors"
        try:
            saved_weights(model, suspect)
            measurement, outcome, reason = self._judged(suspect, bundle, public)
        except InvalidError as error:  # nodes could not verify such a file either
            unknown = dict.fromkeys(("matched", "total", "p_value", "aligned", "matched_unaligned"))
            reason = _REASONS.get(error.code, error.code)
            return point | unknown | {"outcome": str(Outcome.UNVERIFIABLE), "reason": reason}
        finally:
            self._keep(suspect, keep_as)
        counts = {
            "matched": measurement.matched,
            "total": measurement.total,
            "p_value": measurement.p_value,
            "aligned": measurement.aligned,
            "matched_unaligned": measurement.matched_unaligned,
        }
        return point | counts | {"outcome": str(outcome), "reason": reason}

    def _judged(self, suspect: Path, bundle: Bundle, public: tuple[Path, ...]) -> tuple[Measurement, Outcome, str]:
        device = self._plan.task.device
        counted = measure(suspect, bundle, Trial(controls=False, device=device), self._show)
        outcome, reason = judge(counted, Thresholds())
        if reason != "too_few_controls":
            return counted, outcome, reason
        found = measure(suspect, bundle, Trial(controls=True, device=device, public=public), self._show)
        return found, *judge(found, Thresholds())

    def _keep(self, suspect: Path, name: str | None) -> None:
        if self._plan.models is not None and name is not None and suspect.exists():
            (self._plan.models / f"{name}.safetensors").write_bytes(suspect.read_bytes())
        suspect.unlink(missing_ok=True)

    def _strengths(self, method: Attack | Forgery) -> tuple[float, ...]:
        return self._plan.strengths or method.scale.usual

    def _reporting(self, name: str) -> ProgressCallback:
        return reporting(lambda phase, done, total, detail: self._show(f"{name}: {phase}", done, total, detail))


def _refused_by(data: Dataset, methods: Sequence[Attack | Forgery]) -> dict[str, WatermarkError]:
    """Which of them cannot be done with such data whatever the network is, by name, known before any work."""
    refused: dict[str, WatermarkError] = {}
    for method in methods:
        if isinstance(method, Attack):
            try:
                method.check(data)
            except WatermarkError as error:
                refused[method.name] = error
    return refused


def _nothing_done(refused: Mapping[str, WatermarkError]) -> InvalidError:
    """Of one the reason, of several each one's."""
    first = next(iter(refused.values()))
    reasons = [f"{name}: {error}" for name, error in refused.items()]
    return InvalidError("; ".join(reasons) if len(reasons) > 1 else str(first), code=first.code)


def _beginning_with_a_head(methods: Sequence[Attack | Forgery]) -> tuple[Attack | Forgery, ...]:
    """Those that only a mark with a head can be the victim of."""
    return tuple(method for method in methods if isinstance(method, Forgery) or method.name == SPOIL.name)


class _Forger:
    """Somebody else's signing key, and the watermark keys that are bound to it; they follow from the seed."""

    def __init__(self, owners: WatermarkKeyFile, *, seed: int) -> None:
        self._owners, self._seed = owners, seed
        self._private_key = Ed25519PrivateKey.from_private_bytes(key_of(seed, "forger's signing key"))

    @property
    def public_key(self) -> bytes:
        """With which he would sign the claim."""
        return self._private_key.public_key().public_bytes_raw()

    def watermark_key(self, number: int) -> bytes:
        """One of his own keys."""
        return self.key_file(number).binding.watermark_key

    def key_file(self, number: int | None) -> WatermarkKeyFile:
        """One of his own, or for None the owner's."""
        if number is None:
            return self._owners
        nonce = key_of(self._seed, "forger's nonce", number)[:NONCE_BYTES]
        origin = self._owners.origin
        return WatermarkKeyFile(origin=origin, binding=bind(self._private_key, origin=origin, nonce=nonce))
