"""Attacks on watermarked models: what a thief would try, each with one strength, deterministic by its seed.

::

    stolen = Stolen(model=marked, architecture=architecture, data=data)
    for strength, model in sweep(ATTACKS["ftal"], stolen, seed=1):
        ...  # measure, and stop when the mark is gone

What a measurement is worth is judged elsewhere, as for any suspect.
"""

from wm.attacks.attack import Attack, Scale, Stolen
from wm.attacks.runner import ATTACKS, attack_of, attacked, sweep

__all__ = ["ATTACKS", "Attack", "Scale", "Stolen", "attack_of", "attacked", "sweep"]
