"""Adversarial frontier stitching."""

from wm.schemes.frontier_stitching.key_set import KeySet, class_triggers, clean_triggers, payload_from
from wm.schemes.frontier_stitching.settings import Settings
from wm.schemes.frontier_stitching.statistic import NullCount, calibrated_chance, counted, theta
from wm.schemes.frontier_stitching.stitching import NAME, embed

__all__ = [
    "NAME",
    "KeySet",
    "NullCount",
    "Settings",
    "calibrated_chance",
    "class_triggers",
    "clean_triggers",
    "counted",
    "embed",
    "payload_from",
    "theta",
]
