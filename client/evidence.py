"""Files that prove to others that a log was shown with two pasts; see `registry.equivocation`."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from client.files import write_atomic
from registry import merkle
from registry.audit import Tree
from registry.checkpoint import Checkpoint
from registry.equivocation import Equivocation
from registry.note import Note


@dataclass(frozen=True, slots=True)
class EvidenceStore:
    """The directory that such files are written to; their names follow from what they hold."""

    directory: Path

    def keep(self, evidence: Equivocation) -> Path:
        """Write a file; raises OSError when the directory cannot be written."""
        raw = evidence.encode()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.directory / f"equivocation-{hashlib.sha256(raw).hexdigest()[:16]}.json"
        write_atomic(path, raw)
        return path


def checkpoint_in(note: str) -> Checkpoint:
    """The checkpoint of a signed note; raises MalformedError."""
    return Checkpoint.parse(Note.parse(note).text)


def contradiction(tree: Tree | None, one: str, other: str) -> Equivocation | None:
    """Evidence that two signed checkpoints contradict each other; None when they do not, or it cannot be shown.

    Args:
        tree: of the log that the larger of them is of; None when only equal sizes can be compared.
        one: a signed note.
        other: another one.
    """
    smaller, larger = sorted((checkpoint_in(one), checkpoint_in(other)), key=lambda checkpoint: checkpoint.size)
    if smaller.size == larger.size:
        return Equivocation.of(one, other) if smaller.root != larger.root else None
    if tree is None or not 0 < smaller.size < larger.size <= tree.size or tree.root_at(larger.size) != larger.root:
        return None
    root = tree.root_at(smaller.size)
    if root == smaller.root:
        return None
    proof = merkle.consistency_proof(smaller.size, larger.size, tree.read_node)
    return Equivocation.of(one, other, root=root, proof=tuple(proof))
