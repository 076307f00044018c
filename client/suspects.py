"""The model that a claim is on: where the nodes fetch it or ask it, and what can be known of it beforehand.

A claim reveals the watermark key for good. A file that is no model, or a pointer that no node follows (node.fetch),
would spend the key on a verdict UNVERIFIABLE, so both are refused here.
"""

import string
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from yarl import URL

from client.digests import hash_of
from client.errors import InputError, InvalidError
from client.outline import read_outline
from client.uploads import Blob, blob_of
from registry.endpoint import endpoint_pointer, endpoint_sha256, is_endpoint_url

POINTER_CHARACTERS_MAX = 2048  # registry.messages
_BLOB_PREFIX = "blob:sha256:"
_USUAL_PORTS = {"http": 80, "https": 443}
_LOOPBACK = frozenset({"localhost", "127.0.0.1"})
_URL_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """The model that is claimed: where the nodes fetch it, and what it must hash to.

    Attributes:
        blob: the file to upload, None when it is somewhere already.
        endpoint: the URL at which nodes ask it, None for a file.
    """

    pointer: str
    sha256: bytes
    blob: Blob | None = None
    endpoint: str | None = None


def suspect_of(model: str, *, sha256: str | None) -> Suspect:
    """Read the command's word for a model: a file, an https URL or a blob.

    Args:
        model: the word.
        sha256: the hash that the file must have, lower-case hexadecimal; needed for a URL.

    Raises:
        InputError: a URL without a hash, a hash that is none, a pointer that nodes do not follow.
        InvalidError: the file has another hash, or is no safetensors file.
        OSError: the file cannot be read.
    """
    expected = None if sha256 is None else hash_of(sha256, what="--sha256")
    if model.startswith(_BLOB_PREFIX):
        suspect = Suspect(pointer=model, sha256=hash_of(model.removeprefix(_BLOB_PREFIX), what=model))
    elif "://" in model:
        _check_url(model)
        if expected is None:
            raise InputError(f"{model}: a URL needs --sha256, the hash of the file that you mean")
        suspect = Suspect(pointer=model, sha256=expected)
    else:
        check_model_file(Path(model))
        blob = blob_of(Path(model))
        suspect = Suspect(pointer=blob.pointer, sha256=blob.sha256, blob=blob)
    if expected is not None and suspect.sha256 != expected:
        raise InvalidError(f"{model}: its SHA-256 is {suspect.sha256.hex()}, not {sha256}", code="hash_mismatch")
    return suspect


def endpoint_at(url: str) -> Suspect:
    """Read the URL of a prediction endpoint, in any spelling; what a claim says has one (docs/endpoint.md).

    Raises:
        InputError: it is no URL of a model that nodes would ask.
    """
    hint = "nodes ask https://host/v2/models/NAME, without user, query or percent signs; see docs/endpoint.md"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"{url[:80]}: no URL: {error}; {hint}") from error
    scheme = parts.scheme.lower()
    place = host if port in (None, _USUAL_PORTS.get(scheme)) else f"{host}:{port}"
    spelt = f"{scheme}://{place}{parts.path.rstrip('/')}"
    if is_endpoint_url(of_model := spelt.removesuffix("/infer")):  # not of a model that is named so
        spelt = of_model
    if parts.query or parts.fragment or parts.username is not None or not is_endpoint_url(spelt):
        raise InputError(f"{url[:80]}: not the URL of a model's endpoint; {hint}")
    if scheme != "https" and host not in _LOOPBACK:
        raise InputError(f"{url[:80]}: http is for endpoints on this machine, which only nodes of a demo ask; {hint}")
    return Suspect(pointer=endpoint_pointer(spelt), sha256=endpoint_sha256(spelt), endpoint=spelt)


def check_model_file(path: Path) -> None:
    """Check the outline of a safetensors file, from its header alone: names, shapes and places of the tensors.

    Whether it holds the network that the evidence names is looked at later; see `client.marking.fitting`.

    Raises:
        InvalidError: no such file, with the reason.
        OSError: it cannot be read.
    """
    try:
        read_outline(path)
    except ValueError as error:
        message = f"{path}: not a safetensors file of weights, no node could verify a claim on it: {error}"
        raise InvalidError(message, code="malformed") from error


def _check_url(url: str) -> None:
    """The rules by which a node follows a pointer, as far as they can be applied without looking anything up."""
    try:
        parsed = URL(url)
        usable = parsed.scheme == "https" and bool(parsed.host) and parsed.user is None and parsed.password is None
    except (ValueError, UnicodeError):
        usable = False
    if not usable:
        raise InputError(f"{url}: nodes fetch from https://host/path only, without a user; or give a file to upload")
    if len(url) > POINTER_CHARACTERS_MAX or set(url) - _URL_CHARACTERS:
        message = f"{url[:80]}…: a URL has at most {POINTER_CHARACTERS_MAX} characters, all of them printable ASCII"
        raise InputError(message)
