"""Where a mark reads a network of the catalogue, if its owner does not say.

The residual networks have the paper's taps, and networks for texts their own (`wm.architectures.default_taps`). Of
every other classifier three modules are chosen by the sizes of their answers, which are those of a residual network's
stages: a quarter of the input's side, an eighth and a sixteenth, or what is nearest. Blocks go before their parts, but
where a block is narrow, as between the inverted residuals of the MobileNets, the widest part is taken. The rule is the
owner's alone: a node reads the taps that the evidence names.
"""

import math
from collections.abc import Sequence

from wm.architectures import Architecture, classifiers, default_taps, skeleton
from wm.backbone import Tap
from wm.errors import WatermarkError
from wm.tap_shapes import possible_taps
from wm.triggers import InputSpec, Spec

COUNT = 3
_LEAST_HALVINGS = 2  # as a residual network's first stage
_NARROW = 64  # channels of a residual network's first stage


def taps_for(architecture: Architecture, spec: Spec) -> tuple[str, ...]:
    """Choose the modules at which a mark reads this architecture, for such an input.

    Raises:
        WatermarkError: `unknown_architecture` where nothing can be chosen and the owner must; `mismatch` for an input
            that the network does not take.
    """
    try:
        return default_taps(architecture)
    except WatermarkError:
        if architecture.name not in classifiers() or not isinstance(spec, InputSpec):
            raise
        network = skeleton(architecture)
        found = possible_taps(network, channels=spec.channels, height=spec.height, width=spec.width)
        if not (chosen := chosen_of(found, spec)):
            raise
        return chosen


def chosen_of(found: Sequence[Tap], spec: InputSpec) -> tuple[str, ...]:
    """Choose among possible taps one for each halving of the input's side, from the second on.

    Where that gives fewer than three, larger outputs are taken as well. A single cell says nothing of where something
    is in a picture, and is taken only beside one other tap, or alone.

    Args:
        found: in the order in which they answer.
        spec: the input.
    """
    large = _each_size([tap for tap in found if tap.height * tap.width > 1], spec)
    each = large if len(large) > 1 else large | _each_size([tap for tap in found if tap.height * tap.width == 1], spec)
    halvings = sorted(each)
    later = [it for it in halvings if it >= _LEAST_HALVINGS][:COUNT]
    earlier = [it for it in halvings if it < _LEAST_HALVINGS]
    missing = min(COUNT - len(later), len(earlier))
    return tuple(each[it].module for it in [*earlier[len(earlier) - missing :], *later])


def _each_size(found: Sequence[Tap], spec: InputSpec) -> dict[int, Tap]:
    """For each number of halvings the last of the outermost modules; where that is narrow, the widest of all."""
    sizes: dict[int, list[Tap]] = {}
    for tap in found:
        halvings = _halvings(spec.height, tap.height)
        # The tables of an attention have other proportions; a classifier's pooling makes one size of whatever comes.
        if _is_picture(tap, spec) and halvings >= max(sizes, default=0):
            sizes.setdefault(halvings, []).append(tap)
    return {halvings: _best(taps) for halvings, taps in sizes.items()}


def _best(taps: Sequence[Tap]) -> Tap:
    block = min(reversed(taps), key=_depth)
    return block if block.channels >= _NARROW else max(reversed(taps), key=lambda tap: (tap.channels, -_depth(tap)))


def _is_picture(tap: Tap, spec: InputSpec) -> bool:
    """Whether it has the input's proportions, but for less than a cell."""
    return abs(tap.height * spec.width - tap.width * spec.height) < max(spec.height, spec.width)


def _halvings(whole: int, part: int) -> int:
    return round(math.log2(whole / part))


def _depth(tap: Tap) -> int:
    return tap.module.count(".")
