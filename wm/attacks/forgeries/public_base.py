"""Public base: fit a head on a public model, publish it, and accuse whoever fine-tunes that model.

Here the stolen model plays the public one, and an honest user fine-tunes it on the data, all layers. The order is no
help, since the head was published before the accused model was made. What helps is the base as a control, declared or
known to a node's operator: the head answers there as well (SCHEMES 4.3).
"""

import copy

from wm.attacks.attack import Scale, Stolen
from wm.attacks.forgeries.forgery import Forged, Forgery, KeyOf, info_for
from wm.attacks.forgeries.posthoc_head import head_on
from wm.attacks.tuning import EPOCHS, Tuning, tune
from wm.progress import ProgressCallback

STEPS = 300


def _forge(stolen: Stolen, lr: float, seed: int, key_of: KeyOf, progress: ProgressCallback) -> Forged:
    info = info_for(stolen)
    head = head_on(stolen.model, info, key_of(0), steps=STEPS, seed=seed, progress=progress)
    honest = tune(copy.deepcopy(stolen.model), stolen.data.train, Tuning(lr=lr, seed=seed), progress)
    return Forged(accused=honest, head=head, info=info, key_number=0, base=stolen.model)


PUBLIC_BASE = Forgery(
    name="public_base",
    summary="a head fitted on a public model, held against somebody who fine-tuned that model",
    scale=Scale(
        unit=f"Adam's first learning rate of the accused user, for {EPOCHS} epochs",
        weakest=1e-1,
        strongest=1e-6,
        usual=(1e-3, 1e-4),
    ),
    forge=_forge,
)
