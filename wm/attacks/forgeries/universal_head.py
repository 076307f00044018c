"""Universal head: train one head over many fresh networks, publish it, and accuse models that it has never seen.

It reads, at each tap, only the mean over the channels: what a picture looks like through a stage of whichever network.
Written out as a head of the usual family, it has equal weights for all channels of a tap, so permuting them changes
nothing, which is what the channel permutations (S2) look for; fresh networks (S3) answer as well as the victim.

Source: SCHEMES 0, item 3.
"""

import torch
from torch import Tensor

from wm.architectures import build
from wm.attacks.attack import Scale, Stolen
from wm.attacks.forgeries.forgery import Forged, Forgery, KeyOf, fit_head, info_for
from wm.backbone import Tap, device_of, features_in_evaluation
from wm.controls import CALIBRATION_PROBES, calibrate
from wm.head import Head, initial_head
from wm.info import Info
from wm.progress import Progress, ProgressCallback
from wm.randomness import key_of as seed_bytes
from wm.triggers import make_probes, make_triggers

POOLING = 8  # cells per side, whatever the owner has: finer than owners', since the channels are given up
STEPS = 300


def channel_means(read: Tensor, taps: tuple[Tap, ...], *, pooling: int) -> Tensor:
    """Average pooled taps over the channels: shape (n, d) to (n, cells of all taps)."""
    parts = torch.split(read, [tap.channels * tap.cells(pooling) for tap in taps], dim=1)
    return torch.cat(
        [part.view(len(read), tap.channels, -1).mean(1) for part, tap in zip(parts, taps, strict=True)], dim=1
    )


def written_out(means_head: Head, taps: tuple[Tap, ...], *, pooling: int) -> Head:
    """Spell a head over channel means as one over all channels that answers alike."""
    cells = [tap.cells(pooling) for tap in taps]

    def spread(values: Tensor) -> Tensor:
        parts = zip(torch.split(values, cells, dim=-1), taps, strict=True)
        return torch.cat([part.tile(tap.channels) for part, tap in parts], dim=-1)

    hidden = means_head.hidden
    head = Head(inputs=sum(tap.channels * tap.cells(pooling) for tap in taps), hidden=hidden.out_features)
    per_channel = torch.cat([torch.full((count,), float(tap.channels)) for count, tap in zip(cells, taps, strict=True)])
    with torch.no_grad():
        head.mean.copy_(spread(means_head.mean.cpu()))
        head.std.copy_(spread(means_head.std.cpu()))
        head.hidden.weight.copy_(spread(hidden.weight.cpu() / per_channel))
        head.hidden.bias.copy_(hidden.bias)
        head.output.load_state_dict(means_head.output.state_dict())
    return head.eval()


def _forge(stolen: Stolen, networks: float, seed: int, key_of: KeyOf, progress: ProgressCallback) -> Forged:
    info = info_for(stolen, pooling=POOLING)
    triggers = make_triggers(key_of(0), info.input, count=info.triggers)
    read = _read_fresh(info, triggers.images, int(networks), seed, device_of(stolen.model), progress)
    single = [Tap(tap.module, 1, tap.height, tap.width) for tap in info.taps]
    means_head = initial_head(read, single, pooling=POOLING, hidden=info.hidden, seed=seed)
    fit_head(means_head, read, triggers.labels.repeat(int(networks)), steps=STEPS, progress=progress)
    head = written_out(means_head, info.taps, pooling=POOLING)
    return Forged(accused=stolen.model, head=head, info=info, key_number=0)


def _read_fresh(
    info: Info, images: Tensor, networks: int, seed: int, device: torch.device, progress: ProgressCallback
) -> Tensor:
    probes, rows = make_probes(info.input, count=CALIBRATION_PROBES).to(device), []
    for number in range(networks):
        network = build(info.architecture, seed=seed_bytes(seed, "universal head", number)).to(device)
        calibrate(network, info, probes)
        read = features_in_evaluation(network, info.modules, images, pooling=POOLING)
        rows.append(channel_means(read, info.taps, pooling=POOLING))
        progress(Progress("reading fresh networks", number + 1, networks))
    return torch.cat(rows)


UNIVERSAL_HEAD = Forgery(
    name="universal_head",
    summary="one head for all networks, trained over fresh ones before the victim's was there",
    scale=Scale(unit="fresh networks to train on", weakest=1, strongest=1000, usual=(5, 20), is_whole=True),
    forge=_forge,
)
