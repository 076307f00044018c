"""Marks in other people's trainers: a callback for Lightning, one for Hugging Face's Trainer, and what both share.

`wm.integrations.lightning` and `wm.integrations.transformers` need the extra of their name; this module needs neither.
"""

from wm.integrations.plan import MarkPlan
from wm.integrations.run import MarkFailedError

__all__ = ["MarkFailedError", "MarkPlan"]
