"""What the command line or a program says to watch: hashes, model files, bundles, endpoints, owners."""

from collections.abc import Iterable
from pathlib import Path

from client.bundle import Bundle, stated_model_sha256
from client.digests import hash_of
from client.errors import InputError
from client.files import sha256_file
from client.output import printable
from client.suspects import endpoint_at
from client.watch.events import UNREADABLE
from client.watch.watched import EVENT_KINDS, Watched
from registry.messages import Publication

_CLAIMS_MAX = 4096


def read_watched(
    whats: Iterable[str | bytes | Path],
    owners: Iterable[bytes],
    *,
    kinds: Iterable[str],
    with_policy: bool,
    origin: str,
) -> Watched:
    """Read WHAT; the owners' keys have been read.

    Args:
        whats: each a model's file, a bundle's directory, the URL of an endpoint or a hash as text; bytes are a hash,
            and a `Path` is a path.
        owners: public keys.
        kinds: of events to tell; none for all.
        with_policy: whether changes of the policy are told too.
        origin: of the ledger.

    Raises:
        InputError: something is none of these, or a bundle was not published.
        InvalidError: a bundle's file is damaged, or of another ledger.
        OSError: a file cannot be read.
    """
    hashes: dict[bytes, str] = {}
    publishers: dict[bytes, str] = {}
    for what in whats:
        if isinstance(what, bytes):
            hashes[what] = _short(what.hex())
            continue
        path, label = Path(what), printable(str(what))
        if path.is_dir():
            _read_bundle(Bundle(path), label, hashes, publishers, origin=origin)
        elif path.is_file():
            hashes[sha256_file(path)[0]] = label
        elif isinstance(what, str) and "://" in what:
            hashes[endpoint_at(what).sha256] = label
        else:
            hashes[_hash(what)] = _short(str(what))
    keys = {key: f"owner {_short(key.hex())}" for key in owners}
    told = frozenset(kinds)
    _check_kinds(told)
    return Watched(hashes=hashes, owners=keys, publishers=publishers, kinds=told, with_policy=with_policy)


def _hash(what: str | Path) -> bytes:
    message = (
        f"WHAT {printable(str(what))[:80]!r}: neither a file, a directory that wmreg embed made, an endpoint's URL "
        "nor a hash: 64 hexadecimal digits in lower case; a public key goes with --owner (owners=)"
    )
    if isinstance(what, Path):
        raise InputError(message)
    try:
        return hash_of(what, what="WHAT")
    except InputError as error:
        raise InputError(message) from error


def _check_kinds(kinds: frozenset[str]) -> None:
    known = (*EVENT_KINDS, UNREADABLE)
    if unknown := sorted(kinds - set(known)):
        raise InputError(f"kinds: {printable(unknown[0])[:80]!r} is none of {', '.join(known)}")


def _short(digits: str) -> str:
    return f"{digits[:16]}…"


def _read_bundle(
    bundle: Bundle, label: str, hashes: dict[bytes, str], publishers: dict[bytes, str], *, origin: str
) -> None:
    """Watch a publication, its commitments, its model, the models that were claimed by it, and its publisher's key."""
    signed = bundle.load_publication(origin=origin)
    publication = signed.message
    if not isinstance(publication, Publication):
        raise TypeError("checked by load_publication")
    found = {
        signed.hash: label,
        publication.key_commitment: f"key commitment of {label}",
        publication.head_commitment: f"head commitment of {label}",
        publication.info_commitment: f"info commitment of {label}",
    }
    if publication.further is not None:
        found[publication.further.root] = f"further watermarks of {label}"
    if bundle.model.is_file():
        found[sha256_file(bundle.model)[0]] = f"the model of {label}"
    elif bundle.evidence.is_file() and (stated := stated_model_sha256(bundle.load_evidence())) is not None:
        found[stated] = f"the model of {label}"
    for part in bundle.parts():
        found |= {digest: f"claimed by {label}" for digest in _claimed(part) if digest not in found}
    hashes.update(found)
    publishers[signed.signer] = f"publisher of {label}"


def _claimed(bundle: Bundle) -> list[bytes]:
    """Hashes of the models that were claimed from a bundle, by the names of the messages that it keeps."""
    names = sorted(path.name for path in (bundle.directory / "claims").glob("*.bin"))[:_CLAIMS_MAX]
    digits = [name.partition("-")[0] for name in names]
    return [bytes.fromhex(one) for one in digits if len(one) == 64 and not set(one) - set("0123456789abcdef")]
