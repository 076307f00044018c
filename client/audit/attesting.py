"""The cosigned checkpoints of a log as it grew, from which the attested times of its entries follow (DESIGN 2.1).

Every node serves its own note for every size that it signed. The notes of several nodes on one size combine into one,
which counts when the reader's policy vouches for it. It is kept in the mirror, so an interrupted audit is resumed and
an offline one has the times as well; nothing kept is believed, every signature is verified at each audit.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from client.api import Api
from client.audit.mirror import Mirror
from client.evidence import checkpoint_in
from client.transport import UnreachableError
from registry.attestation import Mark, mark_of
from registry.audit import Tree
from registry.checkpoint import Checkpoint
from registry.errors import RefusedError, RegistryError, UntrustedError
from registry.note import Note, verify_signatures
from registry.rules import Ledger
from registry.tiles import TILE_WIDTH
from registry.trust import TrustedCheckpoint, TrustPolicy

_IN_FLIGHT_MAX, _CHUNK = 16, 64
CLAIMS_MAX = 1024  # whose own sizes are asked for, the latest; a mirror that is kept has those of earlier audits
_MISSES_MAX = 3  # a node that cannot be reached so often in a row is asked no more


@dataclass(slots=True)
class Attestations:
    """What is known of the times of a log.

    Attributes:
        marks: by size.
        strays: the first signed checkpoint of another log than the tree's that each node or file showed.
        damaged: files of the mirror that hold no valid checkpoints.
        larger: what to tell of checkpoints in the mirror that are larger than the log that it holds.
        unchecked: files of the mirror with signatures by keys that the policy does not name.
    """

    trust: TrustPolicy
    mirror: Mirror
    tree: Tree
    marks: dict[int, Mark] = field(default_factory=dict)
    strays: dict[str, str] = field(default_factory=dict)
    damaged: list[Path] = field(default_factory=list)
    larger: list[str] = field(default_factory=list)
    unchecked: set[str] = field(default_factory=set)
    _misses: Counter[str] = field(default_factory=Counter)

    def load(self) -> None:
        """Take the checkpoints that the mirror has."""
        for number in range(self.tree.size // TILE_WIDTH + 1):
            path = self.mirror.notes_path(number)
            try:
                for text in self.mirror.notes(number):
                    self._take(str(path), Note.parse(text))
            except RegistryError:
                self.damaged.append(path)

    def add(self, trusted: TrustedCheckpoint) -> None:
        """Take a checkpoint of the tree that was checked already; the first one of a size is kept."""
        cosigners = {witness.key.name for witness in self.trust.witnesses}  # a node with two keys has one clock
        self.marks.setdefault(trusted.checkpoint.size, mark_of(trusted, len(cosigners)))

    async def fetch(self, api: Api, sizes: Iterable[int]) -> None:
        """Fetch the checkpoints of sizes that are not known yet, from all nodes that answer."""
        missing = [size for size in sorted(set(sizes)) if 0 < size <= self.tree.size and size not in self.marks]
        gate = asyncio.Semaphore(_IN_FLIGHT_MAX)
        for begin in range(0, len(missing), _CHUNK):
            chunk = missing[begin : begin + _CHUNK]
            notes = await asyncio.gather(*(self._fetch(api, size, gate) for size in chunk))
            self._keep([note for note in notes if note is not None])

    async def _fetch(self, api: Api, size: int, gate: asyncio.Semaphore) -> Note | None:
        """Combine the nodes' notes of one size; None when the policy does not vouch for the result."""
        texts: dict[str, list[Note]] = {}
        async with gate:
            for url in api.transport.urls:
                note = await self._ask(api, url, size)
                if note is not None and self._is_of_tree(url, note, size):
                    texts.setdefault(note.text, []).append(note)
        return next((note for note in map(self._combine, texts.values()) if note is not None), None)

    def _combine(self, notes: list[Note]) -> Note | None:
        """Join the signatures on one text and take its times; None when they are too few."""
        try:
            self.add(self.trust.check(joined := _join(notes)))
        except UntrustedError:
            return None
        except RefusedError:  # one node's bad cosignature must not hide what the others attest
            sound = [note for note in notes if self._is_sound(note)]
            return self._combine(sound) if 0 < len(sound) < len(notes) else None
        return joined

    def _is_sound(self, note: Note) -> bool:
        try:
            verify_signatures(note, [known.key for known in (*self.trust.logs, *self.trust.witnesses)])
        except RefusedError:
            return False
        return True

    async def _ask(self, api: Api, url: str, size: int) -> Note | None:
        if self._misses[url] >= _MISSES_MAX:
            return None
        answer = await api.own_note(url, size)
        self._misses[url] = self._misses[url] + 1 if isinstance(answer, UnreachableError) else 0
        return answer if isinstance(answer, Note) else None

    def _is_of_tree(self, where: str, note: Note, size: int) -> bool:
        try:
            checkpoint = Checkpoint.parse(note.text)
        except RegistryError:
            return False
        if checkpoint.size != size or size > self.tree.size:
            return False
        if self.tree.root_at(checkpoint.size) != checkpoint.root:
            self.strays.setdefault(where, str(note))
            return False
        return True

    def _take(self, where: str, note: Note) -> None:
        try:
            trusted = self.trust.check(note)
        except UntrustedError:  # kept under another policy; it will be fetched again
            return
        size = trusted.checkpoint.size
        if trusted.unchecked:
            self.unchecked.add(where)
        if size > self.tree.size:
            self.larger.append(f"{where}: a quorum signed {size} entries, and this copy has only {self.tree.size}")
        elif self._is_of_tree(where, note, size):
            self.add(trusted)

    def _keep(self, notes: list[Note]) -> None:
        """Write notes into the mirror, beside those that it has."""
        groups: dict[int, dict[int, str]] = {}
        for note in notes:
            size = Checkpoint.parse(note.text).size
            groups.setdefault(size // TILE_WIDTH, {})[size] = str(note)
        for number, group in groups.items():
            try:
                kept = {checkpoint_in(text).size: text for text in self.mirror.notes(number)} | group
            except RegistryError:  # damaged: written anew
                kept = group
            self.mirror.store_notes(number, [kept[size] for size in sorted(kept)])


def _join(notes: list[Note]) -> Note:
    lines = {(line.name, line.key_id): line for note in notes for line in note.signatures}
    return Note(notes[0].text, tuple(lines.values()))


def sizes_of_interest(ledger: Ledger) -> set[int]:
    """The sizes whose times an audit looks at: the first, every 256th, all behind it, around the latest claims."""
    size = ledger.size
    sizes = {min(size, 1), *range(TILE_WIDTH, size + 1, TILE_WIDTH), *range(size - size % TILE_WIDTH, size + 1)}
    for digest in ledger.claims()[-CLAIMS_MAX:]:
        state = ledger.claim_state(digest)
        if state is not None:
            sizes |= {i + more for i in (state.claim.index, state.publication.index) for more in (0, 1)}
    return sizes
