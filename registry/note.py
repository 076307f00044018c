"""Signed notes and their keys (C2SP signed-note), and timestamped cosignatures (C2SP tlog-cosignature, v1).

A note is a text that ends in a newline, an empty line, and signature lines
``— <key name> <base64(key ID ‖ payload)>``. A known key whose signature fails rejects the whole note; signatures
of unknown keys say nothing and are passed over.

An Ed25519 cosignature (type 0x04) covers the text. An ML-DSA-44 one (type 0x06) covers what the checkpoint in the text
says, and the cosigner's name; it can stand only on a checkpoint of exactly three lines, since it would not cover more.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from registry import signing
from registry.checkpoint import Checkpoint
from registry.curve import is_public_key
from registry.errors import MalformedError, RefusedError, shown
from registry.spelling import decode_base64, encode_base64, is_key_name

# 31 members with three lines each, an Ed25519 signature and both kinds of cosignature, all under names of 255 bytes,
# need 131,236 bytes.
NOTE_BYTES_MAX = 132 * 1024
SIGNATURES_MAX = 96
TIMESTAMP_MAX_S = 2**63 - 1
_DASH = "— "
_CONTROL_CHARACTER = re.compile(r"[\x00-\x09\x0b-\x1f]")
TIMESTAMP_BYTES = 8  # of a cosignature, before the signature itself
_KEY_ID_BYTES, _ML_DSA_NAME_BYTES_MAX = 4, 255

CosignerKey: TypeAlias = Ed25519PrivateKey | MLDSA44PrivateKey


class KeyType(IntEnum):
    """What a note key signs; the byte is part of the key ID."""

    ED25519 = 0x01
    COSIGNATURE = 0x04
    ML_DSA_COSIGNATURE = 0x06

    @property
    def public_key_bytes(self) -> int:
        """Length of a public key: 32 for Ed25519, 1312 for ML-DSA-44 (FIPS 204 table 2)."""
        return 1312 if self is KeyType.ML_DSA_COSIGNATURE else 32

    @property
    def signature_bytes(self) -> int:
        """Length of a signature: 64 for Ed25519, 2420 for ML-DSA-44 (FIPS 204 table 2)."""
        return 2420 if self is KeyType.ML_DSA_COSIGNATURE else 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public note key: its text form is ``name+hex(key ID)+base64(type ‖ public key)``."""

    name: str
    type: KeyType
    public_key: bytes

    def __post_init__(self) -> None:
        """Refuse names that a signature line or the signed message cannot carry, and keys that are nobody's own."""
        if not is_key_name(self.name):
            raise MalformedError(f"note key name {shown(self.name)} is empty or has a space or a plus")
        if self.type is KeyType.ML_DSA_COSIGNATURE and len(self.name.encode()) > _ML_DSA_NAME_BYTES_MAX:
            raise MalformedError(f"the name of an ML-DSA cosigner has at most {_ML_DSA_NAME_BYTES_MAX} bytes")
        if len(self.public_key) != self.type.public_key_bytes:
            raise MalformedError(f"a public key of type {self.type:#04x} has {self.type.public_key_bytes} bytes")
        if self.type is not KeyType.ML_DSA_COSIGNATURE and not is_public_key(self.public_key):
            raise MalformedError(f"the public key of {self.name} has not the full order: anybody could sign for it")

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
        if not typed or typed[0] not in set(KeyType):
            raise MalformedError(f"note key {shown(name)}: not a key of type 0x01, 0x04 or 0x06")
        key = cls(name=name, type=KeyType(typed[0]), public_key=typed[1:])
        if key_id != key.key_id.hex():
            raise MalformedError(f"note key {shown(name)}: key ID {shown(key_id)} does not belong to this key")
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
        try:
            note_bytes = len(raw.encode())
        except UnicodeEncodeError as error:
            raise MalformedError("a note has a character that UTF-8 cannot spell") from error
        if note_bytes > NOTE_BYTES_MAX:
            raise MalformedError(f"a note of more than {NOTE_BYTES_MAX} bytes", code="too_large")
        if _CONTROL_CHARACTER.search(raw):
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
    """A signature that holds. timestamp_s is POSIX seconds, None where the signature states no time."""

    key: VerifierKey
    timestamp_s: int | None


class LogSigner:
    """A plain Ed25519 note key (type 0x01) and its name.

    Args:
        name: the log's origin.
        private_key: signs.

    Attributes:
        key: what checks its signatures.

    Raises:
        MalformedError: no key may have this name.
    """

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.key = VerifierKey(name=name, type=KeyType.ED25519, public_key=private_key.public_key().public_bytes_raw())
        self._key_id, self._private_key = self.key.key_id, private_key

    def sign(self, text: str) -> SignatureLine:
        """Sign a note's text, its final newline included."""
        return SignatureLine(self.key.name, self._key_id, self._private_key.sign(text.encode()))


class Cosigner:
    """A cosigner's key and name.

    Args:
        name: the cosigner's.
        private_key: Ed25519 makes a cosignature/v1 (type 0x04), ML-DSA-44 a subtree/v1 of the whole tree (type 0x06).

    Attributes:
        key: what checks its cosignatures.

    Raises:
        MalformedError: no key may have this name.
    """

    def __init__(self, name: str, private_key: CosignerKey) -> None:
        is_ml_dsa = isinstance(private_key, MLDSA44PrivateKey)
        key_type = KeyType.ML_DSA_COSIGNATURE if is_ml_dsa else KeyType.COSIGNATURE
        self.key = VerifierKey(name=name, type=key_type, public_key=private_key.public_key().public_bytes_raw())
        self._key_id, self._private_key = self.key.key_id, private_key

    def cosign(self, text: str, *, timestamp_s: int) -> SignatureLine:
        """Cosign a checkpoint's text at a time.

        Args:
            text: the checkpoint, its final newline included.
            timestamp_s: POSIX seconds; 0 in an ML-DSA cosignature states no time.

        Raises:
            ValueError: the time is negative or does not fit 63 bits.
            RefusedError: code not_cosignable, ML-DSA only: the text is not the three lines of a checkpoint, or its
                origin has more than 255 bytes.
        """
        if not 0 <= timestamp_s <= TIMESTAMP_MAX_S:
            raise ValueError(f"timestamp {timestamp_s} is not in [0, 2^63)")
        signature = self._private_key.sign(_signed_bytes(text, self.key, timestamp_s))
        payload = timestamp_s.to_bytes(TIMESTAMP_BYTES, "big") + signature
        return SignatureLine(self.key.name, self._key_id, payload)


def sign(text: str, *, name: str, private_key: Ed25519PrivateKey) -> SignatureLine:
    """Sign one note; see `LogSigner`."""
    return LogSigner(name, private_key).sign(text)


def cosign(text: str, *, name: str, private_key: CosignerKey, timestamp_s: int) -> SignatureLine:
    """Cosign one checkpoint; see `Cosigner`."""
    return Cosigner(name, private_key).cosign(text, timestamp_s=timestamp_s)


def verify_signatures(note: Note, keys: Iterable[VerifierKey]) -> list[VerifiedSignature]:
    """Check every signature of the note that one of the keys could have made.

    Returns:
        The signatures that hold, one for each key; signatures by unknown keys are left out.

    Raises:
        RefusedError: code bad_signature, a known key's signature fails; duplicate_signature, one key signed twice;
            not_cosignable, an ML-DSA cosignature stands on something else than the three lines of a checkpoint.
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


@lru_cache(maxsize=4096)  # a cosignature is looked at in every receipt and certificate that shows it
def _verify_line(text: str, line: SignatureLine, key: VerifierKey) -> int | None:
    """Check one signature; return the time that it states."""
    time_bytes = 0 if key.type is KeyType.ED25519 else TIMESTAMP_BYTES
    timestamp_s, signature = int.from_bytes(line.payload[:time_bytes], "big"), line.payload[time_bytes:]
    if len(signature) != key.type.signature_bytes or timestamp_s > TIMESTAMP_MAX_S:
        raise RefusedError(f"the signature of {key.name} has a wrong length or time", code="bad_signature")
    signed = _signed_bytes(text, key, timestamp_s)
    if not _holds(key, signed, signature):
        raise RefusedError(f"the signature of {key.name} does not hold", code="bad_signature")
    is_untimed = key.type is KeyType.ED25519 or (key.type is KeyType.ML_DSA_COSIGNATURE and timestamp_s == 0)
    return None if is_untimed else timestamp_s


def _holds(key: VerifierKey, signed: bytes, signature: bytes) -> bool:
    if key.type is not KeyType.ML_DSA_COSIGNATURE:
        return signing.is_signed(signed, signer=key.public_key, signature=signature)
    try:
        MLDSA44PublicKey.from_public_bytes(key.public_key).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_bytes(text: str, key: VerifierKey, timestamp_s: int) -> bytes:
    """What a key of this type signs; the time is not looked at for a plain signature."""
    if key.type is KeyType.ED25519:
        return text.encode()
    if key.type is KeyType.COSIGNATURE:
        return f"cosignature/v1\ntime {timestamp_s}\n{text}".encode()
    return _subtree_message(text, key.name, timestamp_s)


def _subtree_message(text: str, name: str, timestamp_s: int) -> bytes:
    """The cosigned_message of C2SP tlog-cosignature for the whole tree: the subtree from 0 to its size."""
    try:
        checkpoint = Checkpoint.parse(text)
    except MalformedError as error:
        raise RefusedError(f"{name} cannot cosign this with ML-DSA: {error}", code="not_cosignable") from error
    origin = checkpoint.origin.encode()
    if len(origin) > _ML_DSA_NAME_BYTES_MAX:
        raise RefusedError(f"{name} cannot cosign an origin of more than 255 bytes", code="not_cosignable")
    parts = [
        b"subtree/v1\n\0",
        _counted(name.encode()),
        timestamp_s.to_bytes(TIMESTAMP_BYTES, "big"),
        _counted(origin),
        (0).to_bytes(8, "big"),
        checkpoint.size.to_bytes(8, "big"),
        checkpoint.root,
    ]
    return b"".join(parts)


def _counted(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw
