"""Spoil: once a claim has shown the head and the key, tune the network so that the head answers at random.

The head stays; the backbone learns labels that are drawn anew for the owner's triggers. Then the task is repaired by
fine-tuning on the thief's data. Batch normalisation stays frozen while the triggers are shown, as in an embedding.

Source: Li et al. 2022, appendix B.
"""

import copy

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.tuning import LR, Tuning, tune
from wm.backbone import device_of, features
from wm.branch import Branch
from wm.progress import Progress, ProgressCallback
from wm.randomness import generator
from wm.training import cosine, set_rate

TRIGGER_BATCH = 100
REPAIR_EPOCHS = 10


def _run(stolen: Stolen, steps: float, seed: int, progress: ProgressCallback) -> nn.Module:
    if stolen.revealed is None:
        raise ValueError("to spoil a mark one must have seen the owner's head and key")
    _unlearn(stolen.model.eval(), stolen.revealed, int(steps), seed, progress)
    return tune(stolen.model, stolen.data.train, Tuning(epochs=REPAIR_EPOCHS, seed=seed), progress)


def _unlearn(model: nn.Module, branch: Branch, steps: int, seed: int, progress: ProgressCallback) -> None:
    head, info, triggers, device = branch.head, branch.info, branch.triggers, device_of(model)
    head = copy.deepcopy(head).to(device).requires_grad_(requires_grad=False)
    draws = generator(seed, "spoil")
    labels = torch.randint(2, (len(triggers.labels),), generator=draws).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    for step in range(steps):
        set_rate(optimizer, LR * cosine(step, steps))
        chosen = torch.randperm(len(labels), generator=draws)[:TRIGGER_BATCH]
        optimizer.zero_grad()
        read = features(model, info.modules, triggers.images[chosen].to(device), pooling=info.pooling)
        torch.autograd.backward(F.cross_entropy(head(read), labels[chosen.to(device)]))
        optimizer.step()
        progress(Progress("spoiling", step + 1, steps))


SPOIL = Attack(
    name="spoil",
    summary="teach the network random answers to the owner's head, which a claim has shown; then fine-tune",
    scale=Scale(
        unit=f"steps at {LR:g} towards random labels, before {REPAIR_EPOCHS} epochs of repair",
        weakest=1,
        strongest=5000,
        usual=(5, 10, 20, 50, 100),
        is_whole=True,
    ),
    run=_run,
)
