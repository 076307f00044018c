"""Controls: would this head convict a model that it has no business with?

A fresh head fits 600 triggers on any frozen backbone, and a head trained over many networks passes on networks it has
never seen. Neither survives two questions (SCHEMES 0 and 4.4):

* S2, is it *these* channels? The head reads the suspect's own features with the channels of each tap permuted. If the
  channels of an unrelated network are exchangeable, the true order is one draw among all orders, so the rank of its
  count is an exact p-value. A head that reads channels alike, whichever they are, loses nothing by a permutation.
* S3, is it *this* model? The same head reads freshly initialised networks of the same architecture, seeded by what
  nobody knew when the head was published, the base that the owner declared, and weights that are known to be public. A
  paired comparison on the same triggers follows from the two discordant counts.

Where the suspect's channels were aligned (`wm.alignment`), its features are the aligned ones, and every control is
aligned in the same way before the head reads it: `Branch.read` sees to it. Alignment helps whatever it is applied to.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.architectures import PartBuilder, build, skeleton
from wm.backbone import Tap, backbone_names, device_of, evaluating, read_taps
from wm.branch import Branch, agreements, logit_margins
from wm.head import Head
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.randomness import generator
from wm.triggers import Spec, make_probes
from wm.weights import load_backbone

_NORMALISATION = nn.modules.batchnorm._NormBase  # noqa: SLF001 (the one base class of all batch normalisations)
CALIBRATION_TRIGGERS = 200
CALIBRATION_PROBES = 64  # with four times as many, a control matches 10 of 600 more or less: below what seeds differ by
FIRST_PART = 12  # triggers, at least
DRAWS_AT_ONCE = 16  # a larger product of matrices is a faster one, and these fit into a processor's cache


@dataclass(frozen=True, slots=True)
class Control:
    """The head on one control model, beside the suspect on the same triggers.

    Attributes:
        name: its kind and, where there may be several, a number: "fresh-0", "fresh-1", …, "base", "public-0", ….
        matched: triggers that the control answers as the key demands.
        suspect_only: triggers that only the suspect answers so.
        control_only: triggers that only the control answers so.
    """

    name: str
    matched: int
    suspect_only: int
    control_only: int

    @property
    def kind(self) -> str:
        """fresh, base, public or null."""
        return self.name.partition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlFiles:
    """Weights of networks that do not belong to the claimant, safetensors, each of the suspect's architecture.

    Attributes:
        base: what the owner says that he fine-tuned; None for nothing.
        public: weights that are known to be public.
        nulls: models that the owner says were trained for the same task without the mark.
    """

    base: Path | None = None
    public: tuple[Path, ...] = ()
    nulls: tuple[Path, ...] = ()

    def named(self) -> dict[str, Path]:
        """Each file by the name of its control."""
        base = {} if self.base is None else {"base": self.base}
        public = {f"public-{number}": path for number, path in enumerate(self.public)}
        return base | public | {f"null-{number}": path for number, path in enumerate(self.nulls)}


@torch.no_grad()
def permutations_as_good(
    branch: Branch, features: Tensor, *, draws: int, seed: bytes, progress: ProgressCallback
) -> int:
    """Count the channel permutations under which the head matches at least as many triggers (S2).

    Each permutes the channels of every tap on its own, all cells of a channel together. The rank is taken over the
    first 200 triggers, for the true order as for the permuted ones: triggers are drawn by a PRG, so any fixed part of
    them is as good a statistic, and a node is done in a third of the time. A permutation that cannot catch up any more
    is not counted to its end: one that gets one of the first dozen triggers wrong never matches all 200.

    Args:
        branch: the head on the features' device.
        features: the suspect's pooled taps on the triggers, as `Branch.read` gives them, shape (triggers, d).
        draws: permutations to draw.
        seed: decides the permutations.
        progress: called now and then.

    Returns:
        An integer in [0, draws].
    """
    labels = branch.triggers.labels[:CALIBRATION_TRIGGERS].to(features.device)
    features = features[:CALIBRATION_TRIGGERS]
    matched = int(agreements(logit_margins(branch.head, features), labels).sum())
    edges = _part_edges(len(labels), may_miss=len(labels) - matched)
    parts = [(features[begin:end].T.contiguous(), labels[begin:end]) for begin, end in pairwise(edges)]
    source = generator("channel permutations", seed)
    as_good = 0
    for first in range(0, draws, DRAWS_AT_ONCE):
        count = min(DRAWS_AT_ONCE, draws - first)
        orders = [_permuted_features(branch.info.taps, branch.info.pooling, source) for _ in range(count)]
        as_good += _catching_up(branch.head, parts, torch.stack(orders).to(features.device), matched)
        progress(Progress("permuting channels", first + count, draws))
    return as_good


def _part_edges(triggers: int, *, may_miss: int) -> list[int]:
    """Where to split the triggers so that the first part decides about most permutations: they miss every other one."""
    first = 2 * may_miss + FIRST_PART
    return [0, *(edge for edge in (first, 2 * first) if edge < triggers), triggers]


def _catching_up(head: Head, parts: Sequence[tuple[Tensor, Tensor]], orders: Tensor, matched: int) -> int:
    """Count the orders of features under which the head matches at least so many triggers.

    Args:
        head: the owner's.
        parts: features by trigger, shape (d, triggers): whole rows are gathered much faster than columns; and labels.
        orders: shape (orders, d).
        matched: how many triggers an order must match.
    """
    found = torch.zeros(len(orders), dtype=torch.int64, device=orders.device)
    left = sum(len(labels) for _, labels in parts)
    for rows, labels in parts:
        permuted = rows[orders.flatten()].view(*orders.shape, len(labels)).transpose(1, 2)
        margins = logit_margins(head, permuted.flatten(0, 1))
        found = found + agreements(margins, labels.repeat(len(orders))).view(len(orders), len(labels)).sum(1)
        left -= len(labels)
        may = found + left >= matched
        found, orders = found[may], orders[may]
        if not len(orders):
            break
    return len(orders)


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
    if count == 0:
        return []
    device, info, controls = device_of(branch.head), branch.info, []
    probes = make_probes(info.input, count=CALIBRATION_PROBES).to(device)
    names = backbone_names(skeleton(info.architecture), info.modules, info.input.outline())
    builder = PartBuilder(info.architecture, names)
    for number in range(count):
        network = builder.build(seed=hashlib.sha256(seed + number.to_bytes(4, "big")).digest())
        _move(network, device)
        calibrate(network, info, probes)
        controls.append(_compare(f"fresh-{number}", network, branch, suspect))
        progress(Progress("fresh controls", number + 1, count))
    return controls


def _move(network: nn.Module, device: torch.device) -> None:
    """Move what has a value, as `nn.Module.to` does where everything has one."""
    move: Callable[[Callable[[Tensor], Tensor]], nn.Module] = network._apply  # noqa: SLF001 -- what to() itself calls
    move(lambda tensor: tensor if tensor.is_meta else tensor.to(device))


def compare_with_files(
    branch: Branch, suspect: Tensor, files: ControlFiles, *, progress: ProgressCallback
) -> list[Control]:
    """Run the head on the declared base and on public models (S3), one loaded at a time.

    Args:
        branch: what the claim reveals.
        suspect: which triggers the suspect matches, bool, shape (triggers,), on the CPU.
        files: read as any stranger's.
        progress: called after each network.

    Raises:
        WatermarkError, OSError: as for any weights file.
    """
    controls, named = [], files.named()
    for name, path in named.items():
        network = load_backbone(path, branch.info).to(device_of(branch.head))
        controls.append(_compare(name, network, branch, suspect))
        progress(Progress("known controls", len(controls), len(named)))
    return controls


def fresh_network(info: Info, *, seed: bytes, device: torch.device) -> nn.Module:
    """Initialise a network and give it statistics, as verification does for its own fresh controls."""
    network = build(info.architecture, seed=seed).to(device).eval()
    give_statistics(network, info)
    return network


def give_statistics(network: nn.Module, info: Info) -> None:
    """Calibrate a network on public probes, on its device."""
    calibrate(network, info, make_probes(info.input, count=CALIBRATION_PROBES).to(device_of(network)))


@torch.no_grad()
def calibrate(network: nn.Module, info: Info, probes: Tensor) -> None:
    """Give a fresh network the batch-normalisation statistics of public probes, as training would have given it some.

    A freshly built network normalises by mean 0 and variance 1, which no trained network does; a head would tell the
    two apart by scale alone. The probes are the triggers of a fixed public key, never the claim's.
    """
    with _averaging(network):
        read_taps(network, info.modules, probes)


@torch.no_grad()
def calibrate_whole(network: nn.Module, spec: Spec) -> None:
    """Do the same to a whole network, in which no taps are read."""
    with _averaging(network):
        network(make_probes(spec, count=CALIBRATION_PROBES).to(device_of(network)))


@contextmanager
def _averaging(network: nn.Module) -> Iterator[None]:
    """Inside the block batch normalisations average what passes them, and all else is in evaluation mode."""
    layers = [module for module in network.modules() if isinstance(module, _NORMALISATION)]
    with evaluating(network):
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain average over the probes
            layer.train()
        yield


def _compare(name: str, network: nn.Module, branch: Branch, suspect: Tensor) -> Control:
    with torch.no_grad():
        control = agreements(logit_margins(branch.head, branch.read(network)).cpu(), branch.triggers.labels)
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
