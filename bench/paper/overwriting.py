"""Overwriting as in the authors' code: a second head and key, no primary task, held near the weights it began with.

The attack of `wm.attacks` with that name is a harder thief: he keeps the primary task, nothing holds him back, and his
rate is the tenfold of the owner's. Table 3 of the paper tells of this one, whose model is looked at on the way.

Source: Li et al. 2022, section 4.3; the authors' fashion.py for the rate and the weight. Theirs lets the batch
statistics follow the triggers; here they are frozen, as in every embedding of this library.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.attacks import Stolen
from wm.backbone import device_of, evaluating, features, features_in_evaluation
from wm.branch import Branch, agreements, logit_margins
from wm.head import Head, initial_head
from wm.info import Info
from wm.randomness import generator, key_of
from wm.triggers import Triggers, make_triggers

LR = 5e-4
ANCHOR = 1.0  # of ||W - W0||^2
BATCH = 100


def overwritten(stolen: Stolen, *, epochs: Sequence[int], seed: int) -> Iterator[tuple[int, nn.Module, float]]:
    """Embed a second mark, and stop at some epochs.

    Args:
        stolen: left untouched; a claim has shown how the owner's head connects.
        epochs: passes over the thief's triggers, rising.
        seed: decides his key, his head and the order.

    Yields:
        The epoch, the model (the same object each time), and the share of his own triggers that it matches.

    Raises:
        ValueError: there was no claim.
    """
    if stolen.revealed is None:
        raise ValueError("overwriting begins with the taps that the owner's claim has shown")
    info, model = stolen.revealed.info, copy.deepcopy(stolen.model).eval()
    triggers = make_triggers(key_of(seed, "thief's watermark key"), info.input, count=info.triggers)
    read = features_in_evaluation(model, info.modules, triggers.images, pooling=info.pooling)
    head = initial_head(read, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed).to(device_of(model))
    tuned = [value for value in model.parameters() if value.requires_grad]
    start = [value.detach().clone() for value in tuned]
    optimizer = torch.optim.Adam([*tuned, *head.parameters()], lr=LR, fused=True)
    order = generator(seed, "overwriting order")
    for epoch in range(1, max(epochs) + 1):
        for chosen in torch.split(torch.randperm(info.triggers, generator=order), BATCH):
            optimizer.zero_grad()
            torch.autograd.backward(_mark_loss(model, head, info, triggers, chosen))
            _pull_back(tuned, start)
            optimizer.step()
        if epoch in epochs:
            yield epoch, model, _share(model, Branch(head, info, triggers))


def _mark_loss(model: nn.Module, head: Head, info: Info, triggers: Triggers, chosen: Tensor) -> Tensor:
    device = device_of(model)
    with evaluating(model):
        read = features(model, info.modules, triggers.images[chosen].to(device), pooling=info.pooling)
    return F.cross_entropy(head(read), triggers.labels[chosen].long().to(device))


@torch.no_grad()
def _pull_back(now: Sequence[Tensor], then: Sequence[Tensor]) -> None:
    """Add the gradients of the distance; behind the last tap nothing moves, so that there it has none."""
    for value, start in zip(now, then, strict=True):
        if value.grad is not None:
            value.grad.add_(value - start, alpha=2 * ANCHOR)


@torch.no_grad()
def _share(model: nn.Module, branch: Branch) -> float:
    margins = logit_margins(branch.head, branch.read(model))
    return float(agreements(margins.cpu(), branch.triggers.labels).float().mean())
