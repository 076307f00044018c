"""The node's own keys: three Ed25519 keys, each for one role, and its TLS identity (DESIGN 4.4).

Each private key is a file of its own, PKCS #8 PEM, mode 0600. A key file that others may read is refused: a leaked
cosigner key can put a quorum's weight behind a forged tree.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.config import KeyPaths
from node.durable import sync_directory
from node.errors import ConfigError
from node.raft.certificate import make_certificate
from registry.policy import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The keys of one node, in memory.

    Attributes:
        signing: signs the node's messages.
        note: signs checkpoints under the ledger's origin.
        cosigner: cosigns checkpoints under the node's own name.
        certificate_pem: what its peers see.
    """

    signing: Ed25519PrivateKey
    note: Ed25519PrivateKey
    cosigner: Ed25519PrivateKey
    certificate_pem: str


def make_identity(paths: KeyPaths, *, name: str, now: datetime | None = None) -> Identity:
    """Make fresh keys and write them; the directories exist, the files must not.

    Raises:
        FileExistsError: a key file is there already.
    """
    made = [Ed25519PrivateKey.generate() for _ in range(3)]
    for path, private_key in zip((paths.signing, paths.note, paths.cosigner), made, strict=True):
        _write_private(path, _to_pem(private_key))
    certificate = make_certificate(name, now=now or datetime.now(UTC))
    _write_private(paths.tls_private_key, certificate.private_key_pem.encode())
    paths.tls_certificate.write_text(certificate.certificate_pem, encoding="ascii")
    return Identity(signing=made[0], note=made[1], cosigner=made[2], certificate_pem=certificate.certificate_pem)


def make_next_certificate(paths: KeyPaths, *, name: str, now: datetime | None = None) -> Path:
    """Make the TLS key and certificate that are to replace the present ones, beside them.

    Returns:
        The path of the certificate; its key has the same name with .pem.

    Raises:
        FileExistsError: they are there already.
    """
    certificate = make_certificate(name, now=now or datetime.now(UTC))
    path = paths.tls_certificate.with_name("tls-next.crt")
    _write_private(path.with_suffix(".pem"), certificate.private_key_pem.encode())
    path.write_text(certificate.certificate_pem, encoding="ascii")
    return path


def make_next_keys(paths: KeyPaths) -> tuple[Path, Path]:
    """Make the keys that are to sign checkpoints instead of the present ones, beside them.

    Returns:
        The paths of the note key and of the cosigner key.

    Raises:
        FileExistsError: they are there already.
    """
    made = next_keys(paths)
    for path in made:
        _write_private(path, _to_pem(Ed25519PrivateKey.generate()))
    return made


def next_keys(paths: KeyPaths) -> tuple[Path, Path]:
    """Where `make_next_keys` writes the note key and the cosigner key."""
    return paths.note.with_name("note-next.pem"), paths.cosigner.with_name("cosigner-next.pem")


def load_public(path: Path) -> bytes:
    """The public key, 32 bytes, of a file that holds a private one; raises ConfigError as `load_identity`."""
    return public_bytes(_load_private(path))


def load_identity(paths: KeyPaths) -> Identity:
    """Read the node's keys.

    Raises:
        ConfigError: a file is missing, readable by others, or holds something else; the message names it.
    """
    check_private(paths.tls_private_key)
    try:
        certificate_pem = paths.tls_certificate.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{paths.tls_certificate}: {error}") from error
    return Identity(
        signing=_load_private(paths.signing),
        note=_load_private(paths.note),
        cosigner=_load_private(paths.cosigner),
        certificate_pem=certificate_pem,
    )


def check_identity(identity: Identity, member: Member) -> None:
    """Check that these are the keys that the policy lists for this member.

    Raises:
        ConfigError: naming the first role whose key differs.
    """
    expected = {"signing": member.signing_key, "note": member.note_key, "cosigner": member.cosigner_key}
    for role, public_key in expected.items():
        if public_bytes(getattr(identity, role)) != public_key:
            raise ConfigError(
                f"the {role} key is not the one that the policy lists for {member.name}: in node.toml, `name` is "
                f"another node's, or `[keys] {role}` leads to another node's file"
            )
    if not set(certificate_ders(identity.certificate_pem)) & set(member.tls_certificates):
        raise ConfigError(
            f"the TLS certificate is not one that the policy lists for {member.name}: in node.toml, `name` is another "
            "node's, or `[keys] tls_certificate` leads to another file than the one that the policy lists"
        )


def public_bytes(private_key: Ed25519PrivateKey) -> bytes:
    """The raw public key, 32 bytes."""
    return private_key.public_key().public_bytes_raw()


def certificate_ders(certificate_pem: str) -> tuple[bytes, ...]:
    """The certificates of a PEM text, as DER.

    Raises:
        ConfigError: it holds none, or one that is damaged.
    """
    try:
        certificates = x509.load_pem_x509_certificates(certificate_pem.encode())
    except ValueError as error:
        raise ConfigError(f"the TLS certificate: {error}") from error
    return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in certificates)


def check_private(path: Path) -> None:
    """Check that nobody else may read a private key.

    Raises:
        ConfigError: it is missing, somebody else's, or others may read it.
    """
    _check_mode(path, forbidden=0o077, may="others may read this private key", mend="chmod 600")


def _to_pem(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, pem: bytes) -> None:
    """Create the file with mode 0600 from the start; it never exists with another."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def _load_private(path: Path) -> Ed25519PrivateKey:
    check_private(path)
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key")
    return loaded


def check_directory(path: Path) -> None:
    """Check that nobody else can change what is in a directory.

    Raises:
        ConfigError: it is missing, somebody else's, or others may write to it.
    """
    _check_mode(path, forbidden=0o022, may="others may change what is in it", mend="chmod 700")


def _check_mode(path: Path, *, forbidden: int, may: str, mend: str) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    mode, user = status.st_mode & 0o777, os.geteuid()
    if mode & forbidden:
        raise ConfigError(f"{path}: {may} (mode {mode:03o}); {mend} it")
    if user not in {0, status.st_uid}:  # root may look after the files of the node's user
        raise ConfigError(f"{path}: belongs to user {status.st_uid}, the node runs as {user}; chown it")
