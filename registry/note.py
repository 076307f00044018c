"""Signed notes and their keys (C2SP signed-note), and timestamped cosignatures (C2SP tlog-cosignature, v1).

A note is a text that ends in a newline, an empty line, and signature lines
``— <key name> <base64(key ID ‖ payload)>``. A known key whose signature fails rejects the whole note; signatures
of unknown keys say nothing and are passed over.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.errors import MalformedError, RefusedError

NOTE_BYTES_MAX = 64 * 1024
SIGNATURES_MAX = 64
TIMESTAMP_MAX_S = 2**63 - 1
_DASH = "— "
_KEY_ID_BYTES, _TIMESTAMP_BYTES, _SIGNATURE_BYTES = 4, 8, 64


class KeyType(IntEnum):
    """What a note key signs; the byte is part of the key ID."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public note key: its text form is ``name+hex(key ID)+base64(type ‖ public key)``."""

    name: str
    type: KeyType
    public_key: bytes

    def __post_init__(self) -> None:
        """Refuse names that a signature line cannot carry."""
        if not is_key_name(self.name):
            raise MalformedError(f"note key name {self.name!r} is empty or has a space or a plus")
        if len(self.public_key) != 32:
            raise MalformedError("an Ed25519 public key has 32 bytes")

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name ‖ LF ‖ type ‖ public key)."""
        typed = self.name.encode() + b"\n" + bytes([self.type]) + self.public_key
        return hashlib.sha256(typed).digest()[:_KEY_ID_BYTES]

    @classmethod
    def parse(cls, line: str) -> "VerifierKey":
        """Read a vkey; the stated key ID must be the computed one.

        Raises:
            MalformedError: it is not a vkey of a type that is known here.
        """
        name, _, rest = line.partition("+")
        key_id, _, encoded = rest.partition("+")
        typed = decode_base64(encoded)
        if len(typed) != 33 or typed[0] not in set(KeyType):
            raise MalformedError(f"note key {name!r}: not an Ed25519 or cosignature key")
        key = cls(name=name, type=KeyType(typed[0]), public_key=typed[1:])
        if key_id != key.key_id.hex():
            raise MalformedError(f"note key {name!r}: key ID {key_id!r} does not belong to this key")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public_key)}"


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature of a note: who, which key, and the signature itself (with its time, if it has one)."""

    name: str
    key_id: bytes
    payload: bytes

    @classmethod
    def parse(cls, line: str) -> "SignatureLine":
        """Read ``— name base64``, without the newline."""
        if not line.startswith(_DASH):
            raise MalformedError("a signature line does not begin with an em dash and a space")
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        blob = decode_base64(encoded)
        if not is_key_name(name) or len(blob) <= _KEY_ID_BYTES:
            raise MalformedError("a signature line has no valid key name or no signature")
        return cls(name, blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:])

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.payload)}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and the signatures on it."""

    text: str
    signatures: tuple[SignatureLine, ...]

    @classmethod
    def parse(cls, raw: str) -> "Note":
        """Split and read a note. Nothing is verified.

        Raises:
            MalformedError: not a note, too long, or more than SIGNATURES_MAX signatures.
        """
        if len(raw.encode(errors="surrogatepass")) > NOTE_BYTES_MAX:
            raise MalformedError(f"a note of more than {NOTE_BYTES_MAX} bytes", code="too_large")
        if any(ord(character) < 0x20 and character != "\n" for character in raw):
            raise MalformedError("a note has a control character")
        head, separator, tail = raw.rpartition("\n\n")
        if not separator or not head or not tail.endswith("\n"):
            raise MalformedError("a note is a text, an empty line and signature lines, each ended by a newline")
        lines = tail[:-1].split("\n")
        if len(lines) > SIGNATURES_MAX:
            raise MalformedError(f"a note with more than {SIGNATURES_MAX} signatures")
        return cls(head + "\n", tuple(SignatureLine.parse(line) for line in lines))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"{line}\n" for line in self.signatures)


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A signature that holds. timestamp_s is POSIX seconds, None for a plain signature."""

    key: VerifierKey
    timestamp_s: int | None


def sign(text: str, *, name: str, private_key: Ed25519PrivateKey) -> SignatureLine:
    """Sign a note's text with a plain Ed25519 note key (type 0x01)."""
    key = VerifierKey(name=name, type=KeyType.ED25519, public_key=private_key.public_key().public_bytes_raw())
    return SignatureLine(name, key.key_id, private_key.sign(text.encode()))


def cosign(text: str, *, name: str, private_key: Ed25519PrivateKey, timestamp_s: int) -> SignatureLine:
    """Cosign a checkpoint's text at a time (type 0x04, cosignature/v1).

    Raises:
        ValueError: the time is negative or does not fit 63 bits.
    """
    if not 0 <= timestamp_s <= TIMESTAMP_MAX_S:
        raise ValueError(f"timestamp {timestamp_s} is not in [0, 2^63)")
    public_key = private_key.public_key().public_bytes_raw()
    key = VerifierKey(name=name, type=KeyType.COSIGNATURE, public_key=public_key)
    signature = private_key.sign(_cosigned_bytes(text, timestamp_s))
    return SignatureLine(name, key.key_id, timestamp_s.to_bytes(_TIMESTAMP_BYTES, "big") + signature)


def verify_signatures(note: Note, keys: Iterable[VerifierKey]) -> list[VerifiedSignature]:
    """Check every signature of the note that one of the keys could have made.

    Returns:
        The signatures that hold, one for each key; signatures by unknown keys are left out.

    Raises:
        RefusedError: a known key's signature fails, or one key signed twice.
    """
    known = {(key.name, key.key_id): key for key in keys}
    verified: dict[tuple[str, bytes], VerifiedSignature] = {}
    for line in note.signatures:
        identity = (line.name, line.key_id)
        key = known.get(identity)
        if key is None:
            continue
        if identity in verified:
            raise RefusedError(f"{line.name} signed the note twice", code="duplicate_signature")
        verified[identity] = VerifiedSignature(key, _verify_line(note.text, line, key))
    return list(verified.values())


def is_key_name(name: str) -> bool:
    """Whether a note key may have this name: not empty, no Unicode space, no plus, no control character."""
    return bool(name) and "+" not in name and not any(c.isspace() or ord(c) < 0x20 for c in name)


def encode_base64(raw: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(raw).decode()


def decode_base64(encoded: str) -> bytes:
    """Read standard base64; the one spelling only (padding, zero padding bits, no other characters)."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"not base64: {error}") from error
    if encode_base64(raw) != encoded:
        raise MalformedError("not base64: the same bytes have another spelling")
    return raw


def _verify_line(text: str, line: SignatureLine, key: VerifierKey) -> int | None:
    timestamp_s, signed, signature = None, text.encode(), line.payload
    if key.type is KeyType.COSIGNATURE:
        timestamp_s = int.from_bytes(line.payload[:_TIMESTAMP_BYTES], "big")
        signed, signature = _cosigned_bytes(text, timestamp_s), line.payload[_TIMESTAMP_BYTES:]
    if len(signature) != _SIGNATURE_BYTES or (timestamp_s or 0) > TIMESTAMP_MAX_S:
        raise RefusedError(f"the signature of {key.name} has a wrong length or time", code="bad_signature")
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise RefusedError(f"the signature of {key.name} does not hold", code="bad_signature") from error
    return timestamp_s


def _cosigned_bytes(text: str, timestamp_s: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp_s}\n{text}".encode()
