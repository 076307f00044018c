"""Fragile."""

from wm.schemes.fragile.marking import embed
from wm.schemes.fragile.payload import FragilePayload, class_triggers, payload_from
from wm.schemes.fragile.settings import Settings

NAME = "fragile"
__all__ = ["NAME", "FragilePayload", "Settings", "class_triggers", "embed", "payload_from"]
