"""The watermark branch f_WM: a backbone's pooled taps, read by a head.

Source: Li et al. 2022, Algorithm 1, lines 1 to 3: build the branch, make D_WM, count.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm.alignment import Reference, read_aligned
from wm.backbone import taps_in_evaluation
from wm.errors import WatermarkError
from wm.head import Head
from wm.info import Info
from wm.triggers import Triggers, make_triggers


@dataclass(frozen=True, slots=True)
class Branch:
    """What a key and an evidence file make, before any model is looked at.

    Attributes:
        head: the owner's.
        info: how it connects.
        triggers: D_WM.
        reference: what every network is aligned to before it is read, the suspect as any control; None for nothing.
    """

    head: Head
    info: Info
    triggers: Triggers
    reference: Reference | None = None

    def read(self, network: nn.Module) -> Tensor:
        """Read and pool a network's taps on the triggers, as the head wants them.

        Args:
            network: in any mode; its mode is restored.

        Returns:
            Shape (triggers, d), on the network's device.

        Raises:
            WatermarkError: `mismatch`, nothing is aligned and a tap has another number of channels than the head reads;
                `malformed`, the network answers the probes of an alignment with a value that is not finite.
        """
        info, images = self.info, self.triggers.images
        if self.reference is not None:
            return read_aligned(network, info, images, self.reference)
        parts = taps_in_evaluation(network, info.modules, images, pooling=info.pooling)
        for tap, part in zip(info.taps, parts, strict=True):
            if part.shape[1] != tap.channels:
                raise WatermarkError(
                    "mismatch", f"tap {tap.module!r} has {part.shape[1]} channels, the head reads {tap.channels}"
                )
        return torch.cat([part.flatten(1) for part in parts], dim=1)


def logit_margins(head: Head, features: Tensor) -> Tensor:
    """Return the branch's answer as one number per trigger: logit of label 1 minus logit of label 0.

    Args:
        head: in any mode; nothing in it depends on the mode.
        features: shape (n, d), on the head's device.

    Returns:
        Shape (n,).
    """
    logits: Tensor = head(features)
    return logits[:, 1] - logits[:, 0]


def agreements(margins: Tensor, labels: Tensor) -> Tensor:
    """Compare the branch's answers with the labels that the key demands.

    Args:
        margins: float, shape (triggers,); only the sign is read, and 0 reads as label 0.
        labels: bool, shape (triggers,), on the same device.

    Returns:
        True where they agree, shape (triggers,).

    Raises:
        WatermarkError: `malformed`, a margin is not finite, as numbers that are too large make it, in the suspect or in
            the head: NaN > 0 is False and would pass for a 0.
        ValueError: the shapes differ.
    """
    if margins.shape != labels.shape:
        raise ValueError(f"{tuple(margins.shape)} answers for {tuple(labels.shape)} labels")
    if not bool(torch.isfinite(margins).all()):
        raise WatermarkError(
            "malformed", "the branch answers with a value that is not finite: the weights or the head are too large"
        )
    return (margins > 0) == labels


@torch.no_grad()
def count_matched(
    model: nn.Module, head: Head, info: Info, watermark_key: bytes, *, reference: Reference | None = None
) -> int:
    """Count the triggers that a model answers as a key demands, without any control.

    Args:
        model: of the architecture in `info`, in any mode; its mode is restored.
        head: the owner's.
        info: how the head connects.
        watermark_key: 32 bytes.
        reference: aligns the model's channels first; by default they are read as they are.

    Returns:
        An integer in [0, info.triggers].

    Raises:
        WatermarkError: `malformed`, a value that is not finite.
        ValueError: the key's length.
    """
    triggers = make_triggers(watermark_key, info.input, count=info.triggers)
    read = Branch(head, info, triggers, reference).read(model)
    margins = logit_margins(head.to(read.device), read)
    return int(agreements(margins, triggers.labels.to(read.device)).sum())
