"""The owner's two secrets on disk, each in a file that only its owner may read.

* The signing key: Ed25519, PKCS8 PEM as every tool reads it, without a passphrase or encrypted with one (PBES2). The
  encryption is what the cryptography package makes: PBKDF2 with few rounds, so the passphrase itself must be long.
* The watermark key file: JSON with the origin, the nonce and the owner's signature over them. The watermark key is a
  hash of that signature (registry.watermark_key), so whoever reads this file can make the triggers.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from client.errors import InputError, InvalidError
from client.files import check_private, read_limited, write_atomic
from registry.watermark_key import NONCE_BYTES, KeyBinding, bind

KEY_FILE_BYTES_MAX = 16 * 1024
WATERMARK_KEY_FORMAT = "wmreg-watermark-key/1"
PRIVATE_MODE = 0o600
_FIELDS = {"format", "origin", "nonce", "signature"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkKeyFile:
    """A binding and the ledger that it is for."""

    origin: str
    binding: KeyBinding


def create_signing_key(path: Path, *, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """Make a signing key and write it with mode 0600, encrypted if there is a passphrase.

    Raises:
        InputError: the file exists; a key that published something must never be lost to a second one.
        ValueError: the passphrase is empty or longer than 1023 bytes.
        OSError: the directory cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    private_key = Ed25519PrivateKey.generate()
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    pem = private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    try:
        write_atomic(path, pem, mode=PRIVATE_MODE, replace=False)
    except FileExistsError:
        check_absent(path)
        raise
    return private_key


def check_absent(path: Path) -> None:
    """Check that a new signing key can have this name, before a passphrase is asked for; raises InputError."""
    if path.exists() or path.is_symlink():
        message = f"{path}: exists and is not overwritten; move it away or choose another --out"
        raise InputError(message, code="exists")


def load_signing_key(path: Path, *, passphrase: Callable[[], bytes] | None = None) -> Ed25519PrivateKey:
    """Read a signing key.

    Args:
        path: the file.
        passphrase: finds the passphrase; it is asked only if the key is encrypted.

    Raises:
        InputError: others may read the file; it is encrypted and there is nobody to ask for the passphrase.
        InvalidError: not an Ed25519 key in PEM; code passphrase, the passphrase is wrong.
        OSError: it cannot be read.
    """
    check_private(path)
    pem = read_limited(path, KEY_FILE_BYTES_MAX)
    try:
        private_key = load_pem_private_key(pem, password=None)
    except TypeError:  # the package's way to say that it is encrypted
        private_key = _decrypted(path, pem, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidError(f"{path}: not a private key in PEM", code="malformed") from error
    if not isinstance(private_key, Ed25519PrivateKey):
        raise InvalidError(f"{path}: not an Ed25519 key; make one with wmreg keygen", code="malformed")
    return private_key


def _decrypted(path: Path, pem: bytes, passphrase: Callable[[], bytes] | None) -> PrivateKeyTypes:
    if passphrase is None:
        message = f"{path}: encrypted with a passphrase; load it by load_signing_key(path, passphrase=...)"
        raise InputError(message, code="passphrase")
    try:
        return load_pem_private_key(pem, password=passphrase())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidError(f"{path}: wrong passphrase, or the file is damaged", code="passphrase") from error


def create_watermark_key(private_key: Ed25519PrivateKey, *, origin: str) -> WatermarkKeyFile:
    """Draw a fresh watermark key that is bound to the owner and the ledger."""
    return WatermarkKeyFile(
        origin=origin, binding=bind(private_key, origin=origin, nonce=secrets.token_bytes(NONCE_BYTES))
    )


def save_watermark_key(path: Path, key_file: WatermarkKeyFile) -> None:
    """Write a watermark key file with mode 0600; an existing one is not overwritten.

    Raises:
        OSError: it exists, or the directory cannot be written.
    """
    content = {
        "format": WATERMARK_KEY_FORMAT,
        "origin": key_file.origin,
        "nonce": key_file.binding.nonce.hex(),
        "signature": key_file.binding.signature.hex(),
    }
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode(), mode=PRIVATE_MODE, replace=False)


def load_watermark_key(path: Path) -> WatermarkKeyFile:
    """Read a watermark key file; whether its signature holds is the ledger's rule, not this function's.

    Raises:
        InputError: others may read the file.
        InvalidError: not a watermark key file.
        OSError: it cannot be read.
    """
    check_private(path)
    try:
        return _read_watermark_key(json.loads(read_limited(path, KEY_FILE_BYTES_MAX)))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidError(f"{path}: not a watermark key file: {error}", code="malformed") from error


def _read_watermark_key(content: object) -> WatermarkKeyFile:
    if not isinstance(content, dict) or set(content) != _FIELDS or content["format"] != WATERMARK_KEY_FORMAT:
        raise ValueError(f"expected the fields {', '.join(sorted(_FIELDS))} and the format {WATERMARK_KEY_FORMAT}")
    if not isinstance(content["origin"], str):
        raise TypeError("the origin is not a text")
    binding = KeyBinding(nonce=_octets(content["nonce"], NONCE_BYTES), signature=_octets(content["signature"], 64))
    return WatermarkKeyFile(origin=content["origin"], binding=binding)


def _octets(digits: object, count: int) -> bytes:
    if not isinstance(digits, str) or len(octets := bytes.fromhex(digits)) != count:
        raise ValueError(f"expected {count} bytes in hexadecimal")
    return octets
