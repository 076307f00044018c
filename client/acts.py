"""What an owner does besides publishing and claiming: take a message back, move to another key, object to a claim.

Each message is saved before it is sent and its receipt is kept, in the state directory. The receipts of rotations show
later that what an earlier key published is the present key's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.api import Api, Recorded
from client.errors import InputError, InvalidError
from client.files import check_writable, read_limited, read_text, state_directory, write_atomic
from client.memory import Memory
from client.outbox import submit_saved
from client.publishing import finishing, keep_seen
from registry.entry import Entry
from registry.envelope import ENVELOPE_BYTES_MAX, seal, unseal
from registry.errors import MalformedError, RegistryError
from registry.messages import Challenge, Rotation, Withdrawal
from registry.receipt import RECEIPT_BYTES_MAX, Receipt

Act: TypeAlias = Withdrawal | Rotation | Challenge
_MOVES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Acts:
    """The messages and receipts in one directory."""

    directory: Path

    @classmethod
    def default(cls, origin: str) -> "Acts":
        """Those in one ledger, in $WMREG_HOME or ~/.local/share/wmreg; an origin may hold any character."""
        return cls.within(state_directory(), origin)

    @classmethod
    def within(cls, state: Path, origin: str) -> "Acts":
        """Those in one ledger, in a state directory."""
        return cls(state / "acts" / hashlib.sha256(origin.encode()).hexdigest()[:32])

    def receipt(self, act: Act) -> Path:
        """Where the receipt of a message is kept."""
        return self.directory / f"{_name(act)}.tlog-proof"

    async def submit(self, api: Api, memory: Memory, act: Act, private_keys: Sequence[Ed25519PrivateKey]) -> Recorded:
        """Sign a message, submit it and keep its receipt; one that was sent before is sent again as it is.

        Raises:
            InputError: a field is not what the ledger takes.
            RefusedError: by the ledger's rules.
            QuorumError: the outcome is unknown; doing the same again is safe.
            ConsistencyError: the ledger does not continue what was seen of it before.
            UnfinishedError: it is recorded, but a file could not be written.
        """
        _check_fields(act)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_writable(self.directory)
        path = self.directory / f"{_name(act)}.bin"
        saved = read_limited(path, ENVELOPE_BYTES_MAX) if path.exists() else None
        recorded = await submit_saved(
            api, path, saved=saved, make=lambda: seal(act, origin=api.trust.origin, private_keys=private_keys)
        )
        with finishing(recorded):
            write_atomic(self.receipt(act), recorded.receipt.encode())
            await keep_seen(api, memory, recorded)
        return replace(recorded, receipt_path=self.receipt(act))

    def earlier_keys(self, key: bytes, *, origin: str) -> list[bytes]:
        """The signing keys from which an owner moved to this one, by the receipts of his rotations; the last first.

        Raises:
            InvalidError: a receipt is damaged, or not of a rotation to the key that its name says.
        """
        keys: list[bytes] = []
        while len(keys) < _MOVES_MAX and (path := self.directory / f"{_rotation_name(key)}.tlog-proof").exists():
            key = _read_rotation(path, key, origin).old_key
            keys.append(key)
        return keys

    def later_key(self, key: bytes, *, origin: str) -> bytes | None:
        """The signing key to which an owner moved from this one, by the receipt of the rotation; None if he did not.

        Raises:
            InvalidError: a receipt is damaged, or not of a rotation to the key that its name says.
        """
        for path in sorted(self.directory.glob("rotate-*.tlog-proof"))[:_MOVES_MAX]:
            new_key = bytes.fromhex(path.stem.removeprefix("rotate-"))
            if _read_rotation(path, new_key, origin).old_key == key:
                return new_key
        return None


def _check_fields(act: Act) -> None:
    try:
        type(act).from_body(act.to_body())
    except MalformedError as error:
        raise InputError(str(error)) from error


def _read_rotation(path: Path, new_key: bytes, origin: str) -> Rotation:
    """The rotation in a receipt of one's own. Who vouches for the receipt may have changed since; the nodes know."""
    try:
        entry = Entry.decode(Receipt.parse(read_text(path, RECEIPT_BYTES_MAX)).entry)
        message = unseal(entry.envelope, origin=origin).message
    except RegistryError as error:
        raise InvalidError(f"{path}: {error}", code=error.code) from error
    if not isinstance(message, Rotation) or message.new_key != new_key:
        raise InvalidError(f"{path}: not the receipt of a rotation to this signing key", code="malformed")
    return message


def _name(act: Act) -> str:
    match act:
        case Rotation(new_key=new_key):
            return _rotation_name(new_key)
        case Withdrawal(target=target):
            return f"withdraw-{target.hex()}"
        case Challenge(claim=claim, publication=publication):
            return f"challenge-{claim.hex()[:32]}-{publication.hex()[:32]}"


def _rotation_name(new_key: bytes) -> str:
    return f"rotate-{new_key.hex()}"
