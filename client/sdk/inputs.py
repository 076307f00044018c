"""What a program may hand to the SDK: a path, a text, or the object itself."""

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.acts import Acts
from client.api import Recorded
from client.bundle import Bundle, open_bundle
from client.digests import HASH, PUBLIC_KEY, hash_of
from client.errors import InputError, InvalidError
from client.files import sha256_file, state_directory
from client.keystore import load_signing_key
from client.policy_file import load_policy, parse_policy
from client.publishing import Owner
from client.suspects import Suspect, endpoint_at
from client.watch.asking import read_watched
from client.watch.watched import Watched
from registry.trust import TrustPolicy

AnyPath: TypeAlias = str | PathLike[str]
AnyPolicy: TypeAlias = TrustPolicy | AnyPath
AnyKey: TypeAlias = Ed25519PrivateKey | AnyPath
AnyBundle: TypeAlias = Bundle | AnyPath
AnyMessage: TypeAlias = Recorded | bytes | str
AnyWatched: TypeAlias = Bundle | Recorded | Suspect | AnyPath | bytes
PAGE_MAX = 100  # entries
_INDEX_MAX = 2**64 - 1


def policy_of(policy: AnyPolicy) -> TrustPolicy:
    """A trust policy: the object, the text of one (which has line ends), or the path of its file.

    Raises:
        InputError: it is no trust policy, naming the line; or not a text file of a policy's size.
        OSError: the file cannot be read.
    """
    if isinstance(policy, TrustPolicy):
        return policy
    if isinstance(policy, str) and "\n" in policy:
        return parse_policy(policy, called="policy")
    return load_policy(Path(policy))


def key_of(key: AnyKey) -> Ed25519PrivateKey:
    """A signing key: the object, or the path of its file; see `client.keystore`."""
    return key if isinstance(key, Ed25519PrivateKey) else load_signing_key(Path(key))


def owner_of(key: Ed25519PrivateKey, acts: Acts, *, origin: str) -> Owner:
    """The owner with a signing key, and from which earlier keys he moved to it.

    Raises:
        InvalidError: code rotated_key, he moved from this key to another.
    """
    public_key = key.public_key().public_bytes_raw()
    later = acts.later_key(public_key, origin=origin)
    if later is not None:
        message = (
            f"the signing key {public_key.hex()} was given up for {later.hex()}; use that one (--signing-key, owner=)"
        )
        raise InvalidError(message, code="rotated_key")
    return Owner(key, tuple(acts.earlier_keys(public_key, origin=origin)))


def bundle_of(bundle: AnyBundle) -> Bundle:
    """An owner's directory: the object, or its path.

    Raises:
        InputError: a file that every bundle has is missing.
    """
    return open_bundle(bundle.directory if isinstance(bundle, Bundle) else Path(bundle))


def digest_of(value: AnyMessage, *, what: str, kind: str = HASH) -> bytes:
    """A hash or public key: what was recorded, 32 bytes, or 64 hexadecimal digits in lower case.

    Args:
        value: the hash, or the key.
        what: names the argument in the error.
        kind: says there which of the two it should be.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, Recorded):
        return value.hash
    if isinstance(value, str):
        return hash_of(value, what=what, kind=kind)
    if len(value) != 32:
        raise InputError(f"{what}: expected {kind}, 32 bytes, got {len(value)}")
    return value


def sought_of(value: bytes | str | PathLike[str], *, is_owner: bool) -> bytes:
    """What is searched for: a hash or a public key; or what a file or the URL of an endpoint stands for.

    Raises:
        InputError: it is none of these, or the URL is of no model that nodes would ask.
        OSError: the file cannot be read.
    """
    if isinstance(value, PathLike) and not is_owner:
        return sha256_file(Path(value))[0]
    if isinstance(value, str) and "://" in value and not is_owner:
        return endpoint_at(value).sha256
    expected = "a public key" if is_owner else "a SHA-256 hash, a file or an endpoint's URL"
    message = f"value (WHAT): expected {expected}; hashes and keys are 64 lower-case hexadecimal digits, or 32 bytes"
    if isinstance(value, PathLike):
        raise InputError(message)
    try:
        return digest_of(value, what="value")
    except InputError as error:
        raise InputError(message) from error


def watched_of(
    what: Iterable[AnyWatched],
    *,
    owners: bytes | str | Iterable[bytes | str],
    kinds: str | Iterable[str],
    with_policy: bool,
    origin: str,
) -> Watched:
    """What is watched; see `client.sdk.reading.Reader.watch`, and `client.watch.asking` for what it raises."""
    keys = [owners] if isinstance(owners, bytes | str) else owners
    return read_watched(
        [_named(one) for one in what],
        [digest_of(key, what="owners", kind=PUBLIC_KEY) for key in keys],
        kinds=[kinds] if isinstance(kinds, str) else kinds,
        with_policy=with_policy,
        origin=origin,
    )


def _named(what: AnyWatched) -> str | bytes | Path:
    """A thing to watch as `client.watch.asking` takes it."""
    if isinstance(what, Bundle):
        return what.directory
    if isinstance(what, Suspect):
        return what.sha256
    if isinstance(what, Recorded | bytes):
        return digest_of(what, what="what")
    return what if isinstance(what, str) else Path(what)


def check_page(start: int, limit: int) -> None:
    """Check where a page of the log begins, and how many entries it may have; raises InputError."""
    check_range(start, 0, _INDEX_MAX, what="start")
    check_range(limit, 1, PAGE_MAX, what="limit")


def state_of(directory: AnyPath | None) -> Path:
    """The state directory: the one that is given, or the command's."""
    return state_directory() if directory is None else Path(directory)


def check_range(value: float, least: float, most: float, *, what: str) -> None:
    """Check a number that a program gave; "not a number" is outside of every range.

    Raises:
        InputError: it is outside.
    """
    if not least <= value <= most:
        raise InputError(f"{what}: {value} is not between {least:g} and {most:g}")
