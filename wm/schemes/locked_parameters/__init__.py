"""Locked parameters: signs and sizes of the key, written into weights that training leaves alone."""

from wm.schemes.locked_parameters.curvature import Sharpness, sharpness
from wm.schemes.locked_parameters.embedding import embed
from wm.schemes.locked_parameters.payload import LockedPayload, agreements, correlation, payload_from
from wm.schemes.locked_parameters.places import Places, lockable, positions
from wm.schemes.locked_parameters.realignment import aligned_agreements, realigned
from wm.schemes.locked_parameters.settings import Settings

NAME = "locked_parameters"

__all__ = [
    "NAME",
    "LockedPayload",
    "Places",
    "Settings",
    "Sharpness",
    "agreements",
    "aligned_agreements",
    "correlation",
    "embed",
    "lockable",
    "payload_from",
    "positions",
    "realigned",
    "sharpness",
]
