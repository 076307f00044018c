"""Label smoothing: fine-tune all layers on labels that say `strength` of the truth evenly of all classes.

Source: Szegedy et al. 2016; as an attack, Lukas et al. 2022.
"""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.tuning import EPOCHS, LR, Tuning, tune
from wm.backbone import device_of
from wm.data import Examples
from wm.progress import ProgressCallback


def _run(stolen: Stolen, smoothing: float, seed: int, progress: ProgressCallback) -> nn.Module:
    def loss(model: nn.Module, batch: Examples) -> Tensor:
        device = device_of(model)
        return F.cross_entropy(model(batch.images.to(device)), batch.labels.to(device), label_smoothing=smoothing)

    return tune(stolen.model, stolen.data.train, Tuning(seed=seed, loss=loss), progress)


LABEL_SMOOTHING = Attack(
    name="label_smoothing",
    summary="fine-tune all layers on smoothed labels",
    scale=Scale(
        unit=f"share of a label spread over all classes, for {EPOCHS} epochs at {LR:g}",
        weakest=0.0,
        strongest=0.99,
        usual=(0.1, 0.3, 0.6, 0.9),
    ),
    run=_run,
    needs_classes=True,
)
