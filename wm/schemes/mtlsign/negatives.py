"""Negative controls in training: networks that must not carry the mark, although the head reads them well.

A head that is trained on one model alone answers for that model's relatives too: for the public base it was fine-tuned
from, and so for everybody who fine-tuned that base. What such a network answers is therefore trained as well, towards
labels drawn at random for it, and the backbone learns to differ from it. Random labels, not the flattest answer: a
flat answer still has a sign, which may be the key's for every trigger.

Nodes read a control as it is, and with its channels aligned to the marked model's (`wm.alignment`). Alignment takes
back most of what sets the marked model apart from its relatives, so both readings are trained. The aligned one is made
anew now and then, since the model that it is aligned to moves.

Source: SCHEMES 5, "negative controls in training"; the random labels are its first form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.alignment import make_reference, read_aligned
from wm.backbone import device_of, features_in_evaluation
from wm.branch import agreements, logit_margins
from wm.controls import fresh_network
from wm.head import Head
from wm.randomness import generator, key_of
from wm.schemes.mtlsign.shadows import Shadowing, shadow_of


@dataclass(frozen=True, slots=True)
class Negative:
    """One network, as the head sees it.

    Attributes:
        name: for the report: "given-0", "given-0 tuned-0", …, "fresh-0".
        network: in evaluation mode, if it is read again.
        reads: its pooled taps on the triggers, shape (triggers, d): as it is, and once it was aligned, aligned.
        labels: what it is taught to answer, int64, shape (triggers,).
    """

    name: str
    network: nn.Module
    reads: tuple[Tensor, ...]
    labels: Tensor


def make_negatives(given: Sequence[nn.Module], shadowing: Shadowing) -> list[Negative]:
    """Gather the given networks, tuned copies of them, and fresh networks.

    Args:
        given: of the marked model's architecture in front of the last tap, each on the marked model's device.
        shadowing: how copies are tuned; its seed decides every label.

    Returns:
        An empty list when nothing is given: a mark in a model that began from nothing has no relatives.
    """
    if not given:
        return []
    settings, networks = shadowing.settings, dict[str, nn.Module]()
    for number, network in enumerate(given):
        networks[f"given-{number}"] = network
        for sibling in range(settings.siblings):  # numbered apart from the marked model's own shadows
            tuned = shadow_of(network, shadowing, number=settings.shadows + number * settings.siblings + sibling)
            networks[f"given-{number} tuned-{sibling}"] = tuned
    for number in range(settings.fresh_negatives):
        seed = key_of(shadowing.seed, "fresh negative", number)
        networks[f"fresh-{number}"] = fresh_network(shadowing.info, seed=seed, device=device_of(given[0]))
    return [_negative(name, network, shadowing) for name, network in networks.items()]


def aligned(negatives: Sequence[Negative], model: nn.Module, shadowing: Shadowing) -> list[Negative]:
    """Read all negative controls aligned to the marked model as it is now, in place of an earlier aligned reading.

    Args:
        negatives: of `make_negatives`.
        model: the one that is being marked, on the same device.
        shadowing: what they were made with.

    Returns:
        The negative controls; unchanged where a tap has too many channels to be aligned.

    Raises:
        WatermarkError: `malformed`, a network answers the probes with a value that is not finite.
    """
    info = shadowing.info
    if info.reference is None:
        return list(negatives)
    reference, images = make_reference(model, info), shadowing.triggers.images
    return [
        replace(it, reads=(it.reads[0], read_aligned(it.network, info, images, reference).to(it.reads[0].device)))
        for it in negatives
    ]


def negative_loss(
    head: Head, negatives: Sequence[Negative], chosen: Tensor, *, noisy: Callable[[Tensor], Tensor]
) -> Tensor:
    """Mean cross-entropy of the head on all negative controls, towards their random labels; a scalar with a graph.

    Args:
        head: being trained.
        negatives: at least one.
        chosen: which triggers, int64.
        noisy: adds the training's noise to features.
    """
    read = torch.cat([read[chosen] for negative in negatives for read in negative.reads])
    labels = torch.cat([negative.labels[chosen] for negative in negatives for _ in negative.reads])
    return F.cross_entropy(head(noisy(read)), labels)


@torch.no_grad()
def matched_by(head: Head, negatives: Sequence[Negative], labels: Tensor) -> dict[str, int]:
    """Count for each negative control the triggers that it answers as the key demands; labels: bool, (triggers,).

    Of its readings the one counts that matches more, as nodes let the greater count stand.
    """
    counted = {it.name: [agreements(logit_margins(head, read), labels).sum() for read in it.reads] for it in negatives}
    return {name: int(max(counts)) for name, counts in counted.items()}


def _negative(name: str, network: nn.Module, shadowing: Shadowing) -> Negative:
    info = shadowing.info
    read = features_in_evaluation(network, info.modules, shadowing.triggers.images, pooling=info.pooling)
    labels = torch.randint(2, (len(read),), generator=generator(shadowing.seed, "labels of a negative", name))
    return Negative(name, network, (read,), labels.to(read.device))
