"""Overwriting: embed a second mark, with the thief's own key and head, by the scheme's own means.

The thief wants a mark that stays, so he embeds as an owner would; he has no need of the owner's key. His recipe leaves
out the tuned copies that harden a mark, and the pull back to the weights that he began with.

Source: Li et al. 2022, section 4.3, table 3.
"""

from dataclasses import replace

from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.embedding import embed
from wm.progress import ProgressCallback
from wm.randomness import key_of
from wm.schemes.mtlsign import EmbedSettings

LR = 3e-4  # ten times the owner's


def _run(stolen: Stolen, epochs: float, seed: int, progress: ProgressCallback) -> nn.Module:
    usual = EmbedSettings.usual(stolen.data.train, has_base=False)
    settings = replace(
        usual,
        taps=stolen.modules,
        tuning_regularizer="none",
        lambda1=0.0,
        steps=int(epochs) * usual.triggers // usual.trigger_batch,
        backbone_lr=LR,
    )
    return embed(
        stolen.model,
        stolen.data,
        key_of(seed, "thief's watermark key"),
        architecture=stolen.architecture,
        settings=settings,
        seed=seed,
        progress=progress,
    ).model


OVERWRITING = Attack(
    name="overwriting",
    summary="embed another mark, with the thief's own key",
    scale=Scale(
        unit=f"epochs on the thief's own triggers, at {LR:g}",
        weakest=1,
        strongest=1000,
        usual=(10, 50, 150, 250, 350),
        is_whole=True,
    ),
    run=_run,
)
