"""What this reader has seen of a ledger: the last checkpoint of each origin, as the signed note that it came in.

Should the ledger ever show another past, the two notes together are the evidence against its nodes, and become a file
that convinces others (`client.continuity`). Nodes change their keys: a policy that was followed to the next one leaves
its keys here, so that what was remembered in its time is known to be theirs afterwards.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from client.api import SeenCheckpoint
from client.errors import InvalidError
from client.evidence import EvidenceStore, checkpoint_in
from client.files import read_text, state_directory, write_atomic
from registry.checkpoint import Checkpoint
from registry.errors import RegistryError
from registry.note import NOTE_BYTES_MAX, Note, VerifierKey, verify_signatures
from registry.trust import TrustPolicy

EARLIER_KEYS_MAX = 1024
_KEYS_BYTES_MAX = EARLIER_KEYS_MAX * 4096
UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Memory:
    """The remembered checkpoints of all ledgers, one file each, in the state directory."""

    directory: Path

    @classmethod
    def default(cls) -> "Memory":
        """The memory in $WMREG_HOME or ~/.local/share/wmreg."""
        return cls.within(state_directory())

    @classmethod
    def within(cls, state: Path) -> "Memory":
        """The memory in a state directory."""
        return cls(state / "ledgers")

    def path(self, origin: str) -> Path:
        """The file that remembers a ledger; the name is a hash, since an origin may hold any character."""
        return self.directory / f"{hashlib.sha256(origin.encode()).hexdigest()[:32]}.note"

    def recall(self, trust: TrustPolicy) -> Checkpoint | None:
        """The last checkpoint that was seen; None for a ledger that is new to this reader.

        Raises:
            InvalidError: the file was damaged. What no node has signed accuses no node.
        """
        note, path = self.recall_note(trust.origin), self.path(trust.origin)
        if note is None:
            return None
        keys = {*_keys_in(trust), *self._earlier_keys(trust.origin)}
        try:
            checkpoint = checkpoint_in(note)
            is_signed = bool(verify_signatures(Note.parse(note), keys))
        except RegistryError as error:
            raise InvalidError(f"{path}: damaged ({error}); remove it to begin afresh", code="malformed") from error
        if checkpoint.origin != trust.origin:
            raise InvalidError(f"{path}: remembers {checkpoint.origin}, not {trust.origin}", code="malformed")
        if not is_signed:
            raise InvalidError(
                f"{path}: damaged (no node that the policy names has signed it); have the nodes changed their keys "
                "since, update the earlier policy file (wmreg policy update); else remove it to begin afresh",
                code=UNSIGNED,
            )
        return checkpoint

    def keep_keys(self, earlier: TrustPolicy) -> None:
        """Keep the keys of a policy that the ledger has changed since, as its nodes have proven."""
        kept = self._earlier_keys(earlier.origin)
        if set(new := _keys_in(earlier)) <= set(kept):
            return
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines = [f"{key}\n" for key in dict.fromkeys([*kept, *new])][-EARLIER_KEYS_MAX:]
        write_atomic(self._keys_path(earlier.origin), "".join(lines).encode())

    def _earlier_keys(self, origin: str) -> list[VerifierKey]:
        path = self._keys_path(origin)
        if not path.exists():
            return []
        try:
            return [VerifierKey.parse(line) for line in read_text(path, _KEYS_BYTES_MAX).splitlines()]
        except RegistryError as error:
            message = f"{path}: damaged ({error}); remove it, and {self.path(origin)} if that is refused then"
            raise InvalidError(message, code="malformed") from error

    def _keys_path(self, origin: str) -> Path:
        return self.path(origin).with_suffix(".keys")

    def recall_note(self, origin: str) -> str | None:
        """The signed note of the last checkpoint, as it was kept; nothing of it is checked."""
        path = self.path(origin)
        return read_text(path, NOTE_BYTES_MAX) if path.exists() else None

    @property
    def evidence(self) -> EvidenceStore:
        """Where evidence against the nodes is kept, beside what was remembered."""
        return EvidenceStore(self.directory)

    def remember(self, seen: SeenCheckpoint) -> None:
        """Keep a checkpoint whose continuity was checked."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self.path(seen.trusted.checkpoint.origin), seen.note.encode())


def _keys_in(trust: TrustPolicy) -> list[VerifierKey]:
    return [trusted.key for trusted in (*trust.logs, *trust.witnesses)]
