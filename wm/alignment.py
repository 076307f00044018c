"""Alignment: a suspect's channels, put back into the order and size of the model that was published.

Renumbering the channels of a network, scaling them, turning them over, splitting them and adding ones that nothing
reads costs a thief nothing, and moves what a head reads (`wm.attacks`). An evidence file therefore holds a *reference*:
what each tapped channel of the marked model answers to public probes, QR codes or texts of a fixed key. H(cWM) is over
all tensors of the file, so the publication commits to the reference as well. The suspect's channels are matched with
the reference's by what both answer (`wm.matching`), and features are read through the match. Pooling averages within a
channel, so it makes no difference that it comes first. The taps of a Bi-LSTM's layer show the same hidden units and are
matched as one.

Tuning does something else: what moves most by far is the mean answer of a channel's cell, the same for every trigger
and by more than what tells one trigger from another (docs/attacks.md). So a reference also holds the mean answer to the
probes on the head's own grid, and a suspect's, of the same probes, is moved there: the features are *centred*.

What an aligned count is worth. The match is chosen from answers to probes that everybody knows, in ignorance of the
key; but the head knows the key, and what it reads has been brought near the features that it was taught on. Behind the
usual stages of a network what another one says of a trigger stays unlike them, and its count is Binomial(N, 1/2) (S1).
The first layers of all networks are much alike, and there a stranger's count rises far above chance, by the centre
most: `Mark.finish` tries fresh networks and takes the centre out of such marks. A verifier looks twice, unaligned and
aligned, and pays for it with one bit of significance. Permuting aligned channels (S2) still unmasks a head that reads
all channels alike. But alignment also brings relatives closer, and a reference may be crafted: so an aligned count
convicts only beside controls that went through the same alignment (S3). One factor for each channel is the most that is
fitted: a free linear map between all channels could manufacture agreement out of an independent network. A crafted
reference goes part of that way: one made of the probes' pixels carries a head to first layers that it has never seen,
on any grid, and only aligned controls tell (tests/wm/attacks/test_crafted_reference.py). So it matters what the
controls are: a head that was trained to fail on fresh networks and to pass on trained ones needs controls that are
trained ones.

Source: SCHEMES 4.5; neuron alignment: Li, Wang, Zhu, arXiv 2112.14108.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.architectures import text_classifiers
from wm.backbone import Tap, feature_count, taps_in_evaluation, taps_on_grids
from wm.errors import WatermarkError
from wm.info import PROBING_POOLING_MAX, Info, Probing
from wm.matching import Array, ChannelMap, match_channels, match_units
from wm.triggers import PROBES, make_probes

RESPONSES, SCALE, CENTRE = "reference.responses", "reference.scale", "reference.centre"
REFERENCE_BYTES_MAX = 2 << 20
CHANNELS_MAX = 4096  # of one tap: the assignment takes their cube
PROBES_LEAST = 64  # below it the grid is made coarser first


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the marked model's tapped channels answer to the public probes.

    Attributes:
        responses: float16, shape (probes, d), lined up as `wm.backbone.pooled` does; in units of `scale`.
        scale: float32, shape (taps,), the largest answer of each tap: half precision ends at 65504.
        centre: float32, shape (d,) on the head's grid, the mean answer to the probes; None where nothing is centred.
    """

    responses: Tensor
    scale: Tensor
    centre: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as the evidence file holds them."""
        tensors = {RESPONSES: self.responses, SCALE: self.scale}
        return tensors if self.centre is None else tensors | {CENTRE: self.centre}


def probing_for(taps: Sequence[Tap], *, pooling: int, centred: bool) -> Probing | None:
    """Choose how a reference is read so that it stays below 2 MiB; it follows from the taps alone.

    Args:
        taps: of the head.
        pooling: the head's cells per side.
        centred: whether a suspect's mean answers are moved to the reference's.

    Returns:
        As many probes as fit, at most 256, on a grid of 2 x 2 cells or of one; None where a tap has too many channels.
    """
    if max(tap.channels for tap in taps) > CHANNELS_MAX:
        return None
    for grid in range(min(pooling, PROBING_POOLING_MAX), 0, -1):
        probes = REFERENCE_BYTES_MAX // (2 * feature_count(taps, pooling=grid))
        if probes >= PROBES_LEAST or grid == 1:
            break
    return Probing(probes=min(PROBES, probes), pooling=grid, centred=centred)


def make_reference(model: nn.Module, info: Info) -> Reference:
    """Read a marked model's answers to the probes.

    Args:
        model: in any mode, which is restored; read in evaluation mode.
        info: says in `reference` how.

    Returns:
        The reference, on the CPU.

    Raises:
        WatermarkError: `malformed`, an answer is not finite.
        ValueError: the info asks for none.
    """
    answers = _answers(model, info)
    if not all(bool(torch.isfinite(part).all()) for part in (*answers.coarse, *answers.fine)):
        raise WatermarkError("malformed", "the model answers the probes with a value that is not finite")
    scale = [part.abs().max().clamp_min(torch.finfo(torch.float32).tiny) for part in answers.coarse]
    rows = [(part / largest).flatten(1).half() for part, largest in zip(answers.coarse, scale, strict=True)]
    centre = _mean(answers.fine).cpu() if answers.fine else None
    responses, largest = torch.cat(rows, dim=1).cpu().contiguous(), torch.stack(scale).float().cpu()
    return Reference(responses, largest, centre)


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
    if info.reference.centred:
        _check(tensors, CENTRE, torch.float32, (feature_count(info.taps, pooling=info.pooling),))
    names = [RESPONSES, SCALE, *([CENTRE] if info.reference.centred else [])]
    if set(tensors) != set(names):
        raise WatermarkError("mismatch", f"this reference has the tensors {names}, not {sorted(tensors)}")
    if not bool((tensors[SCALE] > 0).all()):
        raise WatermarkError("malformed", f"reference tensor {SCALE!r} holds a value that is not positive")
    return Reference(tensors[RESPONSES], tensors[SCALE], tensors.get(CENTRE))


def channel_maps(network: nn.Module, info: Info, reference: Reference) -> list[ChannelMap]:
    """Align a network's taps to a reference, tap by tap.

    Args:
        network: its taps may have more or fewer channels than the info says.
        info: of the evidence that holds the reference.
        reference: what to align to.

    Raises:
        WatermarkError: `malformed`, the network answers with a value that is not finite.
    """
    return _maps(_answers(network, info), info, reference)


def _maps(answers: "_Answers", info: Info, reference: Reference) -> list[ChannelMap]:
    found, wanted = [_by_channel(part.cpu()) for part in answers.coarse], _wanted(reference, info)
    if info.architecture.name not in text_classifiers():
        return [match_channels(part, given) for part, given in zip(wanted, found, strict=True)]
    maps: dict[int, ChannelMap] = {}
    for taps in _taps_by_layer(info):
        matched = match_units([wanted[tap] for tap in taps], [found[tap] for tap in taps])
        maps.update(zip(taps, matched, strict=True))
    return [maps[tap] for tap in range(len(wanted))]


def _taps_by_layer(info: Info) -> list[list[int]]:
    """Numbers of the taps that show the hidden units of one layer, layer by layer."""
    layers: dict[str, list[int]] = {}
    for number, tap in enumerate(info.taps):
        layers.setdefault(tap.module.rpartition(".")[0], []).append(number)
    return list(layers.values())


def read_aligned(network: nn.Module, info: Info, images: Tensor, reference: Reference) -> Tensor:
    """Read and pool a network's taps as the published model's, shape (n, d), on the network's device.

    Raises:
        WatermarkError: `malformed`, the network answers the probes with a value that is not finite.
    """
    answers = _answers(network, info)
    maps = _maps(answers, info, reference)
    read = _mapped(maps, taps_in_evaluation(network, info.modules, images, pooling=info.pooling))
    if reference.centre is None:
        return read
    probed = _mean([it.apply(part) for it, part in zip(maps, answers.fine, strict=True)])
    return read + (reference.centre.to(read.device) - probed)


def _mapped(maps: Sequence[ChannelMap], parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([it.apply(part).flatten(1) for it, part in zip(maps, parts, strict=True)], dim=1)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    """Mean over the probes, shape (d,), summed in double precision."""
    return torch.cat([part.flatten(1) for part in parts], dim=1).double().mean(0).float()


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """What a network answers to the probes, on its device.

    Attributes:
        coarse: per tap, shape (probes, channels, cells) on the reference's grid.
        fine: the same on the head's grid; empty where nothing is centred.
    """

    coarse: list[Tensor]
    fine: list[Tensor]


def _answers(network: nn.Module, info: Info) -> _Answers:
    probing = info.reference
    if probing is None:
        raise ValueError("the info asks for no reference")
    probes = make_probes(info.input, count=probing.probes)
    poolings = (probing.pooling, info.pooling) if probing.centred else (probing.pooling,)
    coarse, *fine = taps_on_grids(network, info.modules, probes, poolings=poolings)
    return _Answers(coarse, fine[0] if fine else [])


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


def _check(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
        found = None if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
        raise WatermarkError("mismatch", f"reference tensor {name!r} is {found}, expected {dtype} {shape}")
    if not bool(torch.isfinite(tensor).all()):
        raise WatermarkError("malformed", f"reference tensor {name!r} holds a value that is not finite")
