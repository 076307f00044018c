"""The vocabulary of the forgeries: evidence that a forger makes for a mark that he never embedded.

A forger accuses a model of carrying his mark. He has a signing key of his own, and draws as many watermark keys as he
likes, each bound to it. What he hands in is a head, an info and the number of a key; what he may know is the model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.alignment import Reference
from wm.attacks.attack import Scale, Stolen
from wm.branch import Branch
from wm.head import Head
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.schemes.mtlsign import NAME, EmbedSettings
from wm.tap_shapes import taps_of

KeyOf = Callable[[int], bytes]  # the forger's own watermark keys, by number from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forged:
    """What a forger hands in.

    Attributes:
        accused: the model that he says carries his mark.
        head, info: his evidence.
        key_number: which of his watermark keys; None where he shows the owner's.
        reference: to what suspects are aligned; None where the forger lets nothing be aligned.
        base: the public model that the accused one descends from, as a judge would know it; None where there is none.
    """

    accused: nn.Module
    head: Head
    info: Info
    key_number: int | None
    base: nn.Module | None = None
    reference: Reference | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """One way to make evidence without having embedded anything.

    Attributes:
        name: as the command and the reports call it.
        summary: one line for people.
        scale: what its strength means.
        forge: takes the victim's model, a strength, a seed, the forger's keys and a progress callback.
    """

    name: str
    summary: str
    scale: Scale
    forge: Callable[[Stolen, float, int, KeyOf, ProgressCallback], Forged]


def revealed_by(stolen: Stolen) -> Branch:
    """Return what a claim of the owner has shown.

    Raises:
        ValueError: there was none, and the forgery lives on it.
    """
    if stolen.revealed is None:
        raise ValueError("this forgery needs the evidence of a claim that the owner made")
    return stolen.revealed


def info_for(stolen: Stolen, *, pooling: int | None = None) -> Info:
    """Describe a branch as any owner would, that reads as the stolen model's owner does where a claim has shown it.

    Args:
        stolen: what the forger knows.
        pooling: of a forger who reads in a way of his own; by default the owner's, or the usual one.

    Raises:
        WatermarkError: as `Stolen.modules`.
    """
    usual, shown = EmbedSettings(), stolen.revealed.info if stolen.revealed is not None else None
    spec, model = stolen.data.input, stolen.model
    return Info(
        scheme=NAME,
        architecture=stolen.architecture,
        taps=shown.taps if shown is not None else tuple(taps_of(model, stolen.modules, spec)),
        pooling=pooling or (shown or usual).pooling,
        hidden=(shown or usual).hidden,
        triggers=usual.triggers,
        gamma=usual.gamma,
        input=spec,
    )


def fit_head(head: Head, read: Tensor, labels: Tensor, *, steps: int, progress: ProgressCallback) -> Head:
    """Train a head alone on features that do not change, in place.

    Args:
        head: on the features' device.
        read: shape (n, d).
        labels: bool, shape (n,).
        steps: of Adam at 1e-3 on all features at once.
        progress: called after every step.
    """
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    wanted = labels.long().to(read.device)
    for step in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(read), wanted))
        optimizer.step()
        progress(Progress("forging a head", step + 1, steps))
    return head.eval()
