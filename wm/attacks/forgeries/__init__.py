"""Forgeries: evidence for marks that were never embedded, and what a judge makes of it."""

from collections.abc import Mapping
from types import MappingProxyType

from wm.attacks.forgeries.borrowed_key import BORROWED_KEY
from wm.attacks.forgeries.forgery import Forged, Forgery, KeyOf
from wm.attacks.forgeries.posthoc_head import POSTHOC_HEAD
from wm.attacks.forgeries.public_base import PUBLIC_BASE
from wm.attacks.forgeries.random_key import RANDOM_KEY
from wm.attacks.forgeries.universal_head import UNIVERSAL_HEAD

FORGERIES: Mapping[str, Forgery] = MappingProxyType(
    {forgery.name: forgery for forgery in (RANDOM_KEY, BORROWED_KEY, POSTHOC_HEAD, UNIVERSAL_HEAD, PUBLIC_BASE)}
)

__all__ = ["FORGERIES", "Forged", "Forgery", "KeyOf"]
