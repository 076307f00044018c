"""Alignment: a suspect's channels, put back into the order and size of the model that was published.

Renumbering the channels of a network, scaling them, splitting them and adding ones that nothing reads costs a thief
nothing, and moves what a head reads (`wm.attacks`). An evidence file therefore holds a *reference*: what each tapped
channel of the marked model answers to public probes, QR codes of a fixed key. H(cWM) is over all tensors of the file,
so the publication commits to the reference as well. For each tap of a suspect

    alike  = the correlation of every channel of the reference with every channel of the suspect, over probes and cells
    match  = the assignment with the largest sum of them, each channel used once (Hungarian); surplus channels of the
             suspect, such as dummies and halves of split ones, are left over
    slope  = <a, b> / <b, b> of a matched pair, above 0: the factor that a ReLU lets through

are found, and features are read through the match. Pooling averages within a channel, so it makes no difference that
it comes first. At a tap in front of the ReLU, told by a negative answer in the reference, a normalisation behind may
take back any sign and offset: there the correlation counts by its size, and the pair gets its least-squares line. A
channel that answers alike to all probes, or has no partner, reads as the mean of the reference.

What an aligned count is worth. The match is chosen from answers to probes that everybody knows, in ignorance of the
key: its labels stay independent of what is read, so the count of a model that knows nothing of the key is
Binomial(N, 1/2) as before (S1). A verifier looks twice, unaligned and aligned, and pays for it with one bit of
significance. Permuting aligned channels (S2) still unmasks a head that reads all channels alike. But alignment also
brings relatives closer, and a reference may be crafted: an aligned count convicts only beside controls that went
through the same alignment (S3). One factor for each channel is all that is fitted: a free linear map between all
channels could manufacture agreement out of an independent network. A crafted reference goes part of that way: one made
of the probes' pixels carries a head to first layers that it has never seen, on any grid, and only aligned controls tell
(tests/wm/attacks/test_crafted_reference.py). So it matters what the controls are: a head that was trained to fail on
fresh networks and to pass on trained ones needs controls that are trained ones.

Source: SCHEMES 4.5; neuron alignment: Li, Wang, Zhu, arXiv 2112.14108.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]  # its stubs do not list it
from torch import Tensor, nn

from wm.backbone import Tap, feature_count, taps_in_evaluation
from wm.errors import WatermarkError
from wm.info import PROBING_POOLING_MAX, Info, Probing
from wm.triggers import PROBES, make_probes

RESPONSES, SCALE = "reference.responses", "reference.scale"
REFERENCE_BYTES_MAX = 2 << 20
CHANNELS_MAX = 4096  # of one tap: the assignment takes their cube
PROBES_LEAST = 64  # below it the grid is made coarser first
DEAD = 1e-6  # deviation of a channel that does not answer, as a share of its largest answer

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the marked model's tapped channels answer to the public probes.

    Attributes:
        responses: float16, shape (probes, d), lined up as `wm.backbone.pooled` does; in units of `scale`.
        scale: float32, shape (taps,), the largest answer of each tap: half precision ends at 65504.
    """

    responses: Tensor
    scale: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as the evidence file holds them."""
        return {RESPONSES: self.responses, SCALE: self.scale}


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMap:
    """Which channel of a suspect stands for each of the reference's, and how large it is there.

    Attributes:
        source: int64, shape (channels,), the suspect's channel; 0, with slope 0, where there is none.
        slope, offset: shape (channels,).
    """

    source: NDArray[np.int64]
    slope: Array
    offset: Array

    def apply(self, read: Tensor) -> Tensor:
        """Map a tap's features of shape (n, the suspect's channels, cells) to (n, the reference's channels, cells)."""
        source, slope, offset = (
            torch.from_numpy(part).to(device=read.device, dtype=kind)
            for part, kind in ((self.source, torch.int64), (self.slope, read.dtype), (self.offset, read.dtype))
        )
        return read.index_select(1, source) * slope[:, None] + offset[:, None]


def probing_for(taps: Sequence[Tap], *, pooling: int) -> Probing | None:
    """Choose how a reference is read so that it stays below 2 MiB; it follows from the taps alone.

    Args:
        taps: of the head.
        pooling: the head's cells per side.

    Returns:
        As many probes as fit, at most 256, on a grid of 2 x 2 cells or of one; None where a tap has too many channels.
    """
    if max(tap.channels for tap in taps) > CHANNELS_MAX:
        return None
    for grid in range(min(pooling, PROBING_POOLING_MAX), 0, -1):
        probes = REFERENCE_BYTES_MAX // (2 * feature_count(taps, pooling=grid))
        if probes >= PROBES_LEAST or grid == 1:
            break
    return Probing(probes=min(PROBES, probes), pooling=grid)


def make_reference(model: nn.Module, info: Info) -> Reference:
    """Read a marked model's answers to the probes.

    Args:
        model: in any mode, which is restored; read in evaluation mode.
        info: says in `reference` how.

    Returns:
        The reference, on the CPU.

    Raises:
        ValueError: the info asks for none, or an answer is not finite.
    """
    answers = _answers(model, info)
    if not all(bool(torch.isfinite(part).all()) for part in answers):
        raise ValueError("the model answers the probes with a value that is not finite")
    scale = [part.abs().max().clamp_min(torch.finfo(torch.float32).tiny) for part in answers]
    rows = [(part / largest).flatten(1).half() for part, largest in zip(answers, scale, strict=True)]
    return Reference(torch.cat(rows, dim=1).contiguous(), torch.stack(scale).float())


def reference_from_tensors(tensors: Mapping[str, Tensor], info: Info) -> Reference | None:
    """Rebuild a reference from those tensors of an evidence file that are not the head's.

    Raises:
        WatermarkError: `mismatch` for a missing, surplus or misshapen tensor; `too_large` for a tap of too many
            channels; `malformed` for one that is not finite, or a scale that is not positive.
    """
    if info.reference is None:
        if tensors:
            raise WatermarkError("mismatch", f"the info asks for no reference, so there are no {sorted(tensors)}")
        return None
    if max(tap.channels for tap in info.taps) > CHANNELS_MAX:
        raise WatermarkError("too_large", f"taps of more than {CHANNELS_MAX} channels have no reference")
    width = feature_count(info.taps, pooling=info.reference.pooling)
    _check(tensors, RESPONSES, torch.float16, (info.reference.probes, width))
    _check(tensors, SCALE, torch.float32, (len(info.taps),))
    if set(tensors) != {RESPONSES, SCALE}:
        raise WatermarkError("mismatch", f"a reference has the tensors {RESPONSES} and {SCALE}, not {sorted(tensors)}")
    if not bool((tensors[SCALE] > 0).all()):
        raise WatermarkError("malformed", f"reference tensor {SCALE!r} holds a value that is not positive")
    return Reference(tensors[RESPONSES], tensors[SCALE])


def channel_maps(network: nn.Module, info: Info, reference: Reference) -> list[ChannelMap]:
    """Align a network's taps to a reference, tap by tap.

    Args:
        network: its taps may have more or fewer channels than the info says.
        info: of the evidence that holds the reference.
        reference: what to align to.

    Raises:
        ValueError: the network answers with a value that is not finite.
    """
    found = [_by_channel(part) for part in _answers(network, info)]
    return [match_channels(wanted, given) for wanted, given in zip(_wanted(reference, info), found, strict=True)]


def match_channels(reference: Array, suspect: Array) -> ChannelMap:
    """Align the channels of one tap.

    Args:
        reference: shape (channels, answers).
        suspect: shape (the suspect's channels, answers), to the same probes on the same grid.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(suspect).all():
        raise ValueError("the network answers the probes with a value that is not finite")
    is_signed = bool((reference < 0).any())
    alike = _standardised(reference) @ _standardised(suspect).T / reference.shape[1]
    rows, columns = linear_sum_assignment(np.abs(alike) if is_signed else alike, maximize=True)
    source, slope = np.zeros(len(reference), np.int64), np.zeros(len(reference))
    offset = reference.mean(1)
    for row, column in zip(rows, columns, strict=True):
        if alike[row, column] > 0 or (is_signed and alike[row, column] < 0):
            source[row] = column
            slope[row], offset[row] = _line(reference[row], suspect[column], has_offset=is_signed)
    return ChannelMap(source, slope, offset)


def read_aligned(network: nn.Module, info: Info, images: Tensor, reference: Reference) -> Tensor:
    """Read and pool a network's taps as the published model's, shape (n, d), on the network's device.

    Raises:
        ValueError: the network answers the probes with a value that is not finite.
    """
    maps = channel_maps(network, info, reference)
    parts = taps_in_evaluation(network, info.modules, images, pooling=info.pooling)
    return torch.cat([it.apply(part).flatten(1) for it, part in zip(maps, parts, strict=True)], dim=1)


def _answers(network: nn.Module, info: Info) -> list[Tensor]:
    """Per tap, shape (probes, channels, cells), on the CPU."""
    if info.reference is None:
        raise ValueError("the info asks for no reference")
    probes = make_probes(info.input, count=info.reference.probes)
    return [part.cpu() for part in taps_in_evaluation(network, info.modules, probes, pooling=info.reference.pooling)]


def _wanted(reference: Reference, info: Info) -> list[Array]:
    if info.reference is None:
        raise ValueError("the info asks for no reference")
    grid = info.reference.pooling
    widths = [feature_count([tap], pooling=grid) for tap in info.taps]
    parts = zip(torch.split(reference.responses.double(), widths, dim=1), reference.scale.double(), strict=True)
    return [
        _by_channel((part * scale).view(len(part), tap.channels, -1))
        for (part, scale), tap in zip(parts, info.taps, strict=True)
    ]


def _by_channel(part: Tensor) -> Array:
    """Turn (probes, channels, cells) into float64 of shape (channels, probes · cells)."""
    by_channel: Array = part.double().transpose(0, 1).flatten(1).numpy()
    return by_channel


def _standardised(answers: Array) -> Array:
    """Centre each channel and give it deviation 1; one that does not answer becomes 0."""
    largest = np.abs(answers).max(1, keepdims=True)
    scaled = answers / np.where(largest > 0, largest, 1)  # first of all, so that no square over- or underflows
    centred = scaled - scaled.mean(1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(1, keepdims=True))
    return np.where(deviation > DEAD, centred / np.where(deviation > DEAD, deviation, 1), 0)


def _line(wanted: Array, found: Array, *, has_offset: bool) -> tuple[float, float]:
    """Fit wanted = slope · found, or slope · found + offset, by least squares; `found` is not constant."""
    largest = np.abs(found).max()
    unit = found / largest
    if not has_offset:
        return float(wanted @ unit / (unit @ unit) / largest), 0.0
    centred = unit - unit.mean()
    slope = wanted @ centred / (centred @ centred)
    return float(slope / largest), float(wanted.mean() - slope * unit.mean())


def _check(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
        found = None if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
        raise WatermarkError("mismatch", f"reference tensor {name!r} is {found}, expected {dtype} {shape}")
    if not bool(torch.isfinite(tensor).all()):
        raise WatermarkError("malformed", f"reference tensor {name!r} holds a value that is not finite")
