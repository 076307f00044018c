"""Claims on a prediction endpoint: how a claim's pointer names one, and what stands in the place of a file's hash.

The pointer is "endpoint+" and the URL of a model in the Open Inference Protocol, in one spelling. Nobody can know the
file behind it, so the hash is of the URL: claims on one endpoint meet as claims on one file do, and no file has it.

The rules of the ledger take such a claim as any other, so that programs of all releases take the same ones. Whether
pointer and hash belong together is looked at by who votes; what does not, is never verified.
"""

import hashlib
import re

from registry.errors import MalformedError, shown

POINTER_PREFIX = "endpoint+"
URL_CHARACTERS_MAX = 2048 - len(POINTER_PREFIX)  # of a claim's pointer
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_SEGMENT = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+"
_URL = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[1-9][0-9]{{0,4}}))?"
    rf"(?:/{_SEGMENT})*/v2/models/{_SEGMENT}(?:/versions/{_SEGMENT})?"
)
_USUAL_PORTS = {"http": "80", "https": "443"}
_HOST_CHARACTERS_MAX = 253
_DOMAIN = b"wmreg/v1/endpoint\0"


def is_endpoint_url(url: str) -> bool:
    """Whether this is the one spelling of a model's URL: nothing in it could be left out or be written otherwise."""
    matched = _URL.fullmatch(url) if len(url) <= URL_CHARACTERS_MAX else None
    if matched is None or len(matched["host"]) > _HOST_CHARACTERS_MAX:
        return False
    return matched["port"] is None or (
        matched["port"] != _USUAL_PORTS[matched["scheme"]] and int(matched["port"]) <= 65535
    )


def endpoint_pointer(url: str) -> str:
    """The pointer of a claim on an endpoint.

    Raises:
        ValueError: the URL is not in its one spelling.
    """
    if not is_endpoint_url(url):
        raise ValueError(f"{shown(url)} is not the spelling of a model's URL")
    return POINTER_PREFIX + url


def endpoint_sha256(url: str) -> bytes:
    """What a claim on an endpoint has in the place of the file's hash: SHA-256(domain ‖ URL)."""
    return hashlib.sha256(_DOMAIN + url.encode()).digest()


def is_endpoint_pointer(pointer: str) -> bool:
    """Whether a claim's pointer means an endpoint, well spelled or not."""
    return pointer.startswith(POINTER_PREFIX)


def endpoint_named(pointer: str) -> str | None:
    """The URL that a claim's pointer names, in whatever spelling; None for a file. For texts: nothing is checked."""
    return pointer.removeprefix(POINTER_PREFIX) if is_endpoint_pointer(pointer) else None


def endpoint_of(pointer: str, sha256: bytes) -> str | None:
    """The URL of the endpoint that a claim is on; None for a claim on a file.

    Args:
        pointer: the claim's, to the model.
        sha256: the claim's, of the model.

    Raises:
        MalformedError: the URL has another spelling; code hash_mismatch, the hash is not that of the URL.
    """
    if not is_endpoint_pointer(pointer):
        return None
    url = pointer.removeprefix(POINTER_PREFIX)
    if not is_endpoint_url(url):
        raise MalformedError(f"pointer {shown(pointer)}: not the one spelling of a model's URL")
    if endpoint_sha256(url) != sha256:
        raise MalformedError("the hash of a claim on an endpoint is not that of its URL", code="hash_mismatch")
    return url
