"""Watermarks for PyTorch models: embed one, and measure whether a suspect carries it.

::

    embedding = wm.embed(model, data, watermark_key, architecture=architecture, seed=1)
    evidence = wm.verify(model_path, evidence_path, watermark_key, control_seed=seed)

The library knows nothing of ledgers, claims or the network; what a count is worth in a dispute is judged elsewhere.
"""

from wm.architectures import Architecture
from wm.branch import count_matched
from wm.controls import Control, ControlFiles
from wm.embedding import Embedding, embed
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, load_evidence, save_evidence, with_reference
from wm.progress import Progress
from wm.schemes.mtlsign import EmbedSettings
from wm.verification import Evidence, verify

__all__ = [
    "Architecture",
    "Control",
    "ControlFiles",
    "EmbedSettings",
    "Embedding",
    "Evidence",
    "EvidenceFile",
    "Progress",
    "WatermarkError",
    "count_matched",
    "embed",
    "load_evidence",
    "save_evidence",
    "verify",
    "with_reference",
]
