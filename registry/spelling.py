"""What the text formats are spelled with: base64 (RFC 4648 section 4), key names (C2SP signed-note) and URLs.

One value has one spelling; every other one is refused.
"""

import binascii
import re

from registry.errors import MalformedError

API_URL_CHARACTERS_MAX = 512
# RFC 3986, ASCII, without what a caller cannot put a path behind (query, fragment) or must not publish (user).
_API_URL = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9._~!$&'()*+,;=:%/-]*)?"
)
# Half of a UTF-16 pair is a character that JSON can spell and UTF-8 cannot; \s is what str.isspace says.
_NOT_IN_KEY_NAME = re.compile(r"[\s\x00-\x1f+\ud800-\udfff]")


def is_key_name(name: str) -> bool:
    """Whether a note key may have this name: UTF-8, not empty, no Unicode space, no plus, no control character."""
    return bool(name) and _NOT_IN_KEY_NAME.search(name) is None


def is_api_url(url: str) -> bool:
    """Whether this is where an HTTP API can be: http or https, a host, perhaps a port and a path; nothing else."""
    matched = _API_URL.fullmatch(url) if len(url) <= API_URL_CHARACTERS_MAX else None
    return matched is not None and 0 < int(matched["port"] or 1) <= 65535


def encode_base64(raw: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return binascii.b2a_base64(raw, newline=False).decode()


def decode_base64(encoded: str) -> bytes:
    """Read standard base64; the one spelling only (padding, zero padding bits, no other characters)."""
    try:
        raw = binascii.a2b_base64(encoded, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"not base64: {error}") from error
    if encode_base64(raw) != encoded:
        raise MalformedError("not base64: the same bytes have another spelling")
    return raw
