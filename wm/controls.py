"""Controls: would this head convict a model that it has no business with?

A fresh head fits 600 triggers on any frozen backbone, and a head trained over many networks passes on networks it has
never seen. Neither survives two questions (SCHEMES 0 and 4.4):

* S2, is it *these* channels? The head reads the suspect's own features with the channels of each tap permuted. If the
  channels of an unrelated network are exchangeable, the true order is one draw among all orders, so the rank of its
  count is an exact p-value. A head that reads channels alike, whichever they are, loses nothing by a permutation.
* S3, is it *this* model? The same head reads freshly initialised networks of the same architecture, seeded by what
  nobody knew when the head was published, and the base that the owner declared. A paired comparison on the same
  triggers follows from the two discordant counts.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.architectures import build
from wm.backbone import Tap, device_of, evaluating, features_in_evaluation, read_taps
from wm.branch import Branch, agreements, logit_margins
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.randomness import generator
from wm.triggers import make_probes
from wm.weights import load_backbone

_NORMALISATION = nn.modules.batchnorm._NormBase  # noqa: SLF001 (the one base class of all batch normalisations)
CALIBRATION_TRIGGERS = 200


@dataclass(frozen=True, slots=True)
class Control:
    """The head on one control model, beside the suspect on the same triggers.

    Attributes:
        name: "fresh-0", "fresh-1", …, or "base".
        matched: triggers that the control answers as the key demands.
        suspect_only: triggers that only the suspect answers so.
        control_only: triggers that only the control answers so.
    """

    name: str
    matched: int
    suspect_only: int
    control_only: int


@torch.no_grad()
def permutations_as_good(
    branch: Branch, features: Tensor, *, draws: int, seed: bytes, progress: ProgressCallback
) -> int:
    """Count the channel permutations under which the head matches at least as many triggers (S2).

    Each permutes the channels of every tap on its own, all cells of a channel together. The rank is taken over the
    first 200 triggers, for the true order as for the permuted ones: triggers are drawn by a PRG, so any fixed part of
    them is as good a statistic, and a node is done in a third of the time.

    Args:
        branch: the head on the features' device.
        features: the suspect's pooled taps on the triggers, shape (triggers, d).
        draws: permutations to draw.
        seed: decides the permutations.
        progress: called now and then.

    Returns:
        An integer in [0, draws].
    """
    labels = branch.triggers.labels[:CALIBRATION_TRIGGERS].to(features.device)
    features = features[:CALIBRATION_TRIGGERS]
    matched = int(agreements(logit_margins(branch.head, features), labels).sum())
    rows = features.T.contiguous()  # whole rows are gathered much faster than columns
    source = generator("channel permutations", seed)
    as_good = 0
    for draw in range(draws):
        order = _permuted_features(branch.info.taps, branch.info.pooling, source).to(features.device)
        permuted = agreements(logit_margins(branch.head, rows[order].T), labels)
        as_good += int(permuted.sum()) >= matched
        if draw % 100 == 0:
            progress(Progress("permuting channels", draw, draws))
    return as_good


def compare_with_fresh(
    branch: Branch, suspect: Tensor, *, count: int, seed: bytes, progress: ProgressCallback
) -> list[Control]:
    """Run the head on freshly initialised networks (S3), on the head's device.

    Args:
        branch: what the claim reveals.
        suspect: which triggers the suspect matches, bool, shape (triggers,), on the CPU.
        count: number of networks.
        seed: the j-th network is initialised from SHA-256(seed ‖ j as 4 bytes, big-endian).
        progress: called after each network.

    Returns:
        One `Control` for each network.
    """
    device, controls = device_of(branch.head), []
    for number in range(count):
        network = build(branch.info.architecture, seed=hashlib.sha256(seed + number.to_bytes(4, "big")).digest())
        calibrate(network.to(device), branch.info)
        controls.append(_compare(f"fresh-{number}", network, branch, suspect))
        progress(Progress("fresh controls", number + 1, count))
    return controls


def compare_with_base(path: Path, branch: Branch, suspect: Tensor) -> Control:
    """Run the head on the base from which the owner fine-tuned.

    Raises:
        WatermarkError, OSError: as for any weights file.
    """
    return _compare("base", load_backbone(path, branch.info).to(device_of(branch.head)), branch, suspect)


@torch.no_grad()
def calibrate(network: nn.Module, info: Info) -> None:
    """Give a fresh network the batch-normalisation statistics of public probes, as training would have given it some.

    A freshly built network normalises by mean 0 and variance 1, which no trained network does; a head would tell the
    two apart by scale alone. The probes are QR codes of a fixed public key, never the claim's.
    """
    probes = make_probes(info.input).to(device_of(network))
    layers = [module for module in network.modules() if isinstance(module, _NORMALISATION)]
    with evaluating(network):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over the probes
            layer.train()
        read_taps(network, info.modules, probes)


def _compare(name: str, network: nn.Module, branch: Branch, suspect: Tensor) -> Control:
    info, triggers = branch.info, branch.triggers
    read = features_in_evaluation(network, info.modules, triggers.images, pooling=info.pooling)
    with torch.no_grad():
        control = agreements(logit_margins(branch.head, read).cpu(), triggers.labels)
    return Control(name, int(control.sum()), int((suspect & ~control).sum()), int((control & ~suspect).sum()))


def _permuted_features(taps: Sequence[Tap], pooling: int, source: torch.Generator) -> Tensor:
    """Indices that permute the channels of each tap and keep the cells of a channel together, shape (d,)."""
    parts, first = [], 0
    for tap in taps:
        cells = tap.cells(pooling)
        channels = torch.randperm(tap.channels, generator=source)
        parts.append((first + channels[:, None] * cells + torch.arange(cells)).flatten())
        first += tap.channels * cells
    return torch.cat(parts)
