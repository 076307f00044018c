"""What the text formats are spelled with: base64 (RFC 4648 section 4) and key names (C2SP signed-note).

One value has one spelling; every other one is refused.
"""

import base64
import binascii

from registry.errors import MalformedError


def is_key_name(name: str) -> bool:
    """Whether a note key may have this name: UTF-8, not empty, no Unicode space, no plus, no control character."""
    return bool(name) and "+" not in name and not any(c.isspace() or ord(c) < 0x20 or _is_surrogate(c) for c in name)


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


def _is_surrogate(character: str) -> bool:
    """Half of a UTF-16 pair: JSON can spell it, UTF-8 cannot."""
    return "\ud800" <= character <= "\udfff"
