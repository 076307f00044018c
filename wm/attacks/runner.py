"""Runs the attacks: one at a time, at one strength or at several.

The catalogue of attacks is here as well, since a name means nothing but the attack that runs under it.
"""

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from torch import nn

from wm.attacks.adversarial_training import ADVERSARIAL_TRAINING
from wm.attacks.attack import Attack, Stolen
from wm.attacks.distillation import DISTILLATION, EXTRACTION_HARD, EXTRACTION_SOFT
from wm.attacks.dummy_neurons import DUMMY_NEURONS
from wm.attacks.fine_pruning import FINE_PRUNING
from wm.attacks.fine_tuning import FTAL, FTLL, RTAL, RTLL
from wm.attacks.label_smoothing import LABEL_SMOOTHING
from wm.attacks.magnitude_pruning import MAGNITUDE_PRUNING
from wm.attacks.neuron_pruning import NEURON_PRUNING
from wm.attacks.overwriting import OVERWRITING
from wm.attacks.permutation import PERMUTATION
from wm.attacks.quantisation import QUANTISATION
from wm.attacks.scaling import SCALING
from wm.attacks.sign_flip import SIGN_FLIP
from wm.attacks.spoil import SPOIL
from wm.attacks.weight_shift import WEIGHT_SHIFT
from wm.progress import ProgressCallback, silent

ATTACKS: Mapping[str, Attack] = MappingProxyType(
    {
        attack.name: attack
        for attack in (
            FTLL,
            FTAL,
            RTLL,
            RTAL,
            MAGNITUDE_PRUNING,
            NEURON_PRUNING,
            FINE_PRUNING,
            WEIGHT_SHIFT,
            QUANTISATION,
            LABEL_SMOOTHING,
            ADVERSARIAL_TRAINING,
            DISTILLATION,
            EXTRACTION_SOFT,
            EXTRACTION_HARD,
            OVERWRITING,
            SPOIL,
            PERMUTATION,
            SCALING,
            SIGN_FLIP,
            DUMMY_NEURONS,
        )
    }
)


def attack_of(name: str) -> Attack:
    """Find an attack by its name.

    Raises:
        ValueError: there is none, naming those that are meant perhaps.
    """
    if name not in ATTACKS:
        near = difflib.get_close_matches(name, ATTACKS, n=3)
        raise ValueError(f"no attack {name!r}; " + (f"do you mean {', '.join(near)}?" if near else _all_names()))
    return ATTACKS[name]


def attacked(
    attack: Attack, stolen: Stolen, *, strength: float, seed: int, progress: ProgressCallback = silent
) -> nn.Module:
    """Attack a copy of a model.

    Args:
        attack: from `ATTACKS`.
        stolen: its model is left untouched.
        strength: on the attack's scale.
        seed: with one seed and one thread count the result is bit-identical on one machine.
        progress: called now and then.

    Returns:
        The attacked model, in evaluation mode.

    Raises:
        ValueError: the strength is not on the scale, or the attack needs what the thief does not have.
        WatermarkError: `unknown_architecture`, the attack does not know what to do with such a network.
    """
    attack.scale.check(strength)
    attack.check(stolen.data)
    own = replace(stolen, model=copy.deepcopy(stolen.model).eval())
    return attack.run(own, strength, seed, progress).eval()


def sweep(
    attack: Attack, stolen: Stolen, *, strengths: Iterable[float] = (), seed: int, progress: ProgressCallback = silent
) -> Iterator[tuple[float, nn.Module]]:
    """Attack with rising strength, each time from the stolen model, until the caller has seen enough.

    Args:
        attack: from `ATTACKS`.
        stolen: left untouched.
        strengths: by default the usual ones.
        seed: one for all strengths.
        progress: called now and then.

    Returns:
        Strengths and the models attacked with them, made one after the other when they are asked for.

    Raises:
        ValueError, WatermarkError: as `attacked`; a strength that is not on the scale, or data that the attack cannot
            use, before any work is done.
    """
    attack.check(stolen.data)
    chosen = tuple(strengths) or attack.scale.usual
    for strength in chosen:
        attack.scale.check(strength)
    return (
        (strength, attacked(attack, stolen, strength=strength, seed=seed, progress=progress)) for strength in chosen
    )


def _all_names() -> str:
    return f"there are {', '.join(ATTACKS)}"
