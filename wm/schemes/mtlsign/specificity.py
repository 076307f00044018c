"""Does a head answer for its own model alone, once strangers are aligned to it?

Aligned and centred, a network's first layers look much alike whoever trained them: each holds what the pixels of a cell
say, and the match and the slope of each channel put it where the marked model had it. A head on nothing but such taps
then reads the trigger more than the model, and answers for fresh networks as well, far above chance. As they are, they
stay at chance; but nodes judge an aligned count beside fresh networks that are aligned alike, and refute it where these
do not stay behind (`not_specific`). Centring is the larger part of it. So a finished mark is tried on fresh networks,
and where they answer more than chance explains, its reference is read without the centre.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from wm.alignment import make_reference
from wm.architectures import OwnArchitecture
from wm.backbone import backbone_names, device_of
from wm.branch import Branch, agreements, logit_margins
from wm.controls import fresh_network, give_statistics
from wm.head import Head
from wm.info import Info
from wm.randomness import key_of, seeded
from wm.statistics import least_matched
from wm.triggers import Triggers

FRESH_NETWORKS = 3
LOG10_ALPHA = -4.0  # of what they answer together, by chance: with 600 triggers each, 980 of 1,800 are more


def settled(
    model: nn.Module, head: Head, info: Info, triggers: Triggers, *, seed: int, keeps_centre: bool
) -> tuple[Info, tuple[int, ...]]:
    """Keep the centre only where fresh networks stay at chance with it.

    Args:
        model: marked, as it will be released.
        head: finished.
        info: how the head connects.
        triggers: of the key.
        seed: decides the fresh networks.
        keeps_centre: whatever they answer.

    Returns:
        The info; and what each fresh network answers of the triggers, aligned as that info says: none where nothing is
        aligned, or where no fresh network can be made.

    Raises:
        WatermarkError: `malformed`, a network answers with a value that is not finite.
    """
    if info.reference is None:
        return info, ()
    counts = _counts(model, head, info, triggers, seed)
    if keeps_centre or not (counts and info.reference.centred):
        return info, counts
    if sum(counts) >= least_matched(len(counts) * info.triggers, log10_alpha=LOG10_ALPHA):
        info = replace(info, reference=replace(info.reference, centred=False))
        counts = _counts(model, head, info, triggers, seed)
    return info, counts


@torch.no_grad()
def _counts(model: nn.Module, head: Head, info: Info, triggers: Triggers, seed: int) -> tuple[int, ...]:
    branch = Branch(head, info, triggers, make_reference(model, info))
    labels = triggers.labels.to(device_of(model))
    fresh = _fresh_networks(model, info, seed)  # one at a time: they are as large as the model
    return tuple(int(agreements(logit_margins(head, branch.read(it)), labels).sum()) for it in fresh)


def _fresh_networks(model: nn.Module, info: Info, seed: int) -> Iterator[nn.Module]:
    architecture = info.architecture
    for number in range(FRESH_NETWORKS):
        drawn = key_of(seed, "fresh network", number)
        if isinstance(architecture, OwnArchitecture) and architecture.builder is None:
            network = _begun_anew(model, info, drawn)
            if network is not None:
                yield network
        else:
            yield fresh_network(info, seed=drawn, device=device_of(model))


def _begun_anew(model: nn.Module, info: Info, seed: bytes) -> nn.Module | None:
    """A copy whose weights in front of the taps are initialised again; None where a module does not know how."""
    network = copy.deepcopy(model).cpu().eval()
    read = set(backbone_names(network, info.modules, info.input.outline()))
    with seeded(seed):
        for path, module in network.named_modules():
            if read.isdisjoint(name for name, _ in module.named_parameters(path, recurse=False)):
                continue
            reset = getattr(module, "reset_parameters", None)
            if reset is None:
                return None
            reset()
    network.to(device_of(model))
    give_statistics(network, info)
    return network
