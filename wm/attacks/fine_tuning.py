"""FTLL, FTAL, RTLL, RTAL: train the last layer or all layers further, from its present or from fresh weights.

One family: {fine-tune, re-train} × {last layer, all layers}. Re-training gives the last layer fresh weights first. FTLL
and RTLL change nothing in front of the last layer, batch statistics included. Of a network that finds objects "the last
layer" is all that answer with classes, boxes and masks.

Source: Uchida et al. 2017; Adi et al. 2018, section 5.
"""

from functools import partial

from torch import nn

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.tuning import EPOCHS, Tuning, forget, last_layers, tune
from wm.progress import ProgressCallback

_SCALE = Scale(
    unit=f"Adam's first learning rate, for {EPOCHS} epochs",
    weakest=1e-6,
    strongest=1e-1,
    usual=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
)


def _run(
    stolen: Stolen, lr: float, seed: int, progress: ProgressCallback, *, is_retrained: bool, all_layers: bool
) -> nn.Module:
    model, parameters = stolen.model, None
    if is_retrained or not all_layers:
        layers = last_layers(model, stolen.data)
        if is_retrained:
            forget(layers, seed=seed)
        if not all_layers:
            parameters = tuple(parameter for layer in layers for parameter in layer.parameters())
    return tune(model, stolen.data.train, Tuning(lr=lr, seed=seed, parameters=parameters), progress)


FTLL = Attack(
    name="ftll",
    summary="fine-tune the last layer",
    scale=_SCALE,
    run=partial(_run, is_retrained=False, all_layers=False),
)
FTAL = Attack(
    name="ftal",
    summary="fine-tune all layers",
    scale=_SCALE,
    run=partial(_run, is_retrained=False, all_layers=True),
)
RTLL = Attack(
    name="rtll",
    summary="re-train the last layer from fresh weights",
    scale=_SCALE,
    run=partial(_run, is_retrained=True, all_layers=False),
)
RTAL = Attack(
    name="rtal",
    summary="give the last layer fresh weights and train all layers",
    scale=_SCALE,
    run=partial(_run, is_retrained=True, all_layers=True),
)
