"""Comparison of signed checkpoints with the log that was replayed."""

from pathlib import Path

from client.api import Api, SeenCheckpoint
from client.audit.findings import Finding
from client.continuity import contradiction_by_tiles
from client.evidence import EvidenceStore, checkpoint_in, contradiction
from registry.audit import Tree
from registry.equivocation import Equivocation


class Comparison:
    """Compares notes with the largest checkpoint that the audited entries have.

    Args:
        api: the nodes, which can show what the replayed tree cannot; None offline.
        tree: of the replayed entries.
        seen: the checkpoint of the log that is audited.
        store: where evidence is written.
    """

    def __init__(self, api: Api | None, tree: Tree, seen: SeenCheckpoint, store: EvidenceStore) -> None:
        self.api, self.seen = api, seen
        self._tree, self._store = tree, store

    @property
    def is_authoritative(self) -> bool:
        """Whether the replayed entries are those that the checkpoint states."""
        checkpoint = self.seen.trusted.checkpoint
        return self._tree.size == checkpoint.size and self._tree.root_at(checkpoint.size) == checkpoint.root

    async def check(self, code: str, where: str, note: str) -> Finding | None:
        """Compare a signed note; a finding with this code when it is of another log."""
        found = self.check_offline(code, where, note)
        larger = checkpoint_in(note).size > self._tree.size
        if found is None and self.api is not None and (larger or not self.is_authoritative):
            return self._finding(code, where, note, await contradiction_by_tiles(self.api, note, self.seen.note))
        return found

    def check_offline(self, code: str, where: str, note: str) -> Finding | None:
        """The same as far as the replayed tree shows it."""
        tree = self._tree if self.is_authoritative else None
        return self._finding(code, where, note, contradiction(tree, note, self.seen.note))

    def _finding(self, code: str, where: str, note: str, proven: Equivocation | None) -> Finding | None:
        if proven is None:
            return None
        path: Path = self._store.keep(proven)
        size, other = checkpoint_in(note).size, self.seen.size
        what = f"its tree of size {size} is not of the log whose checkpoint of size {other} the nodes show"
        return Finding(code=code, where=where, what=what, evidence=path)
