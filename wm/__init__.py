"""Watermarks for PyTorch models: embed one, and measure whether a suspect carries it.

::

    embedding = wm.embed(model, data, watermark_key, architecture=architecture, seed=1)
    evidence = wm.verify(model_path, evidence_path, watermark_key, control_seed=seed)

For a training loop of one's own, and for networks that no catalogue has, there is `wm.Mark`; see docs/training.md.

The library knows nothing of ledgers, claims or the network; what a count is worth in a dispute is judged elsewhere.
"""

from wm.architectures import Architecture, OwnArchitecture
from wm.branch import count_matched
from wm.controls import Control, ControlFiles
from wm.data import Examples
from wm.embedding import Embedding, SchemeEmbedding, embed
from wm.errors import WatermarkError
from wm.evidence import EvidenceFile, load_evidence, save_evidence, with_reference
from wm.progress import Progress
from wm.savepoint import Savepoint
from wm.schemes.mtlsign import EmbedSettings, Mark
from wm.triggers import InputSpec, Normalisation, TextSpec
from wm.verification import Evidence, architecture_in, check_suspect, class_triggers, verify, verify_answers

__all__ = [
    "Architecture",
    "Control",
    "ControlFiles",
    "EmbedSettings",
    "Embedding",
    "Evidence",
    "EvidenceFile",
    "Examples",
    "InputSpec",
    "Mark",
    "Normalisation",
    "OwnArchitecture",
    "Progress",
    "Savepoint",
    "SchemeEmbedding",
    "TextSpec",
    "WatermarkError",
    "architecture_in",
    "check_suspect",
    "class_triggers",
    "count_matched",
    "embed",
    "load_evidence",
    "save_evidence",
    "verify",
    "verify_answers",
    "with_reference",
]
