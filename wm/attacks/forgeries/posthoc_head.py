"""Post-hoc head: fit a fresh head to one's own triggers on the victim's frozen features.

600 triggers are far fewer than a head has parameters, so it fits on any network, marked or not. The head does read
these channels of this model, and fails on others: no statistic tells it from an honest one. It is the order that does:
such a head cannot have been published before the model was there to fit it on (SCHEMES 0, item 2).
"""

from torch import nn

from wm.attacks.attack import Scale, Stolen
from wm.attacks.forgeries.forgery import Forged, Forgery, KeyOf, fit_head, info_for
from wm.backbone import features_in_evaluation
from wm.head import Head, initial_head
from wm.info import Info
from wm.progress import ProgressCallback
from wm.triggers import make_triggers


def head_on(
    model: nn.Module, info: Info, watermark_key: bytes, *, steps: int, seed: int, progress: ProgressCallback
) -> Head:
    """Fit a head to a key's triggers on a frozen model, which is left untouched."""
    triggers = make_triggers(watermark_key, info.input, count=info.triggers)
    read = features_in_evaluation(model, info.modules, triggers.images, pooling=info.pooling)
    head = initial_head(read, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed)
    return fit_head(head, read, triggers.labels, steps=steps, progress=progress)


def _forge(stolen: Stolen, steps: float, seed: int, key_of: KeyOf, progress: ProgressCallback) -> Forged:
    info = info_for(stolen)
    head = head_on(stolen.model, info, key_of(0), steps=int(steps), seed=seed, progress=progress)
    return Forged(accused=stolen.model, head=head, info=info, key_number=0)


POSTHOC_HEAD = Forgery(
    name="posthoc_head",
    summary="a fresh head, fitted on the victim's frozen features",
    scale=Scale(unit="steps of fitting", weakest=1, strongest=10_000, usual=(5, 300), is_whole=True),
    forge=_forge,
)
