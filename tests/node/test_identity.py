"""Key files: one role each, readable by the node alone, and the ones that the policy lists."""

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.config import KeyPaths
from node.errors import ConfigError
from node.identity import (
    certificate_ders,
    check_identity,
    load_identity,
    load_public,
    make_identity,
    make_next_keys,
    next_keys,
    public_bytes,
)
from registry.policy import Member

PRIVATE = ["signing", "note", "cosigner", "tls_private_key"]


@pytest.fixture
def paths(tmp_path: Path) -> KeyPaths:
    files = {name: tmp_path / f"{name}.pem" for name in [*PRIVATE, "tls_certificate"]}
    return KeyPaths(**files)


def member(paths: KeyPaths) -> Member:
    identity = load_identity(paths)
    return Member(
        name="node-1",
        signing_key=public_bytes(identity.signing),
        note_key=public_bytes(identity.note),
        cosigner_key=public_bytes(identity.cosigner),
        tls_certificates=certificate_ders(identity.certificate_pem),
        raft_host="127.0.0.1",
        raft_port=1,
        api_url="http://127.0.0.1:2",
    )


def test_what_was_made_is_loaded_and_belongs_to_its_member(paths: KeyPaths):
    made = make_identity(paths, name="node-1")
    loaded = load_identity(paths)
    assert [public_bytes(getattr(made, r)) for r in PRIVATE[:3]] == [
        public_bytes(getattr(loaded, r)) for r in PRIVATE[:3]
    ]
    check_identity(loaded, member(paths))


def test_every_role_has_a_key_of_its_own_and_a_file_for_the_owner_only(paths: KeyPaths):
    identity = make_identity(paths, name="node-1")
    assert len({public_bytes(getattr(identity, role)) for role in PRIVATE[:3]}) == 3
    assert {getattr(paths, role).stat().st_mode & 0o777 for role in PRIVATE} == {0o600}


def test_an_existing_key_is_never_overwritten(paths: KeyPaths):
    make_identity(paths, name="node-1")
    before = paths.signing.read_bytes()
    with pytest.raises(FileExistsError):
        make_identity(paths, name="node-1")
    assert paths.signing.read_bytes() == before


def test_next_keys_are_new_private_and_made_once(paths: KeyPaths):
    make_identity(paths, name="node-1")
    made = make_next_keys(paths)
    assert made == next_keys(paths)
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
    present = {load_public(path) for path in (paths.signing, paths.note, paths.cosigner)}
    assert len({load_public(path) for path in made} | present) == 5
    with pytest.raises(FileExistsError):
        make_next_keys(paths)


@pytest.mark.parametrize("role", PRIVATE)
def test_a_private_key_that_others_may_read_is_refused(paths: KeyPaths, role: str):
    make_identity(paths, name="node-1")
    getattr(paths, role).chmod(0o640)
    with pytest.raises(ConfigError, match=rf"{role}\.pem.*640"):
        load_identity(paths)


@pytest.mark.parametrize("role", [*PRIVATE, "tls_certificate"])
def test_a_missing_file_is_named(paths: KeyPaths, role: str):
    make_identity(paths, name="node-1")
    getattr(paths, role).unlink()
    with pytest.raises(ConfigError, match=rf"{role}\.pem"):
        load_identity(paths)


def test_a_key_of_another_kind_is_refused(paths: KeyPaths):
    make_identity(paths, name="node-1")
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths.note.write_bytes(other)
    with pytest.raises(ConfigError, match=r"note\.pem: not an Ed25519 key"):
        load_identity(paths)


def test_a_damaged_key_is_refused(paths: KeyPaths):
    make_identity(paths, name="node-1")
    paths.cosigner.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match=r"cosigner\.pem"):
        load_identity(paths)


@pytest.mark.parametrize("role", ["signing", "note", "cosigner"])
def test_a_key_that_the_genesis_does_not_list_is_refused(paths: KeyPaths, role: str):
    identity = make_identity(paths, name="node-1")
    listed = member(paths)
    stranger = dataclasses.replace(identity, **{role: Ed25519PrivateKey.generate()})
    with pytest.raises(ConfigError, match=role):
        check_identity(stranger, listed)


def test_a_certificate_that_the_genesis_does_not_list_is_refused(paths: KeyPaths):
    identity = make_identity(paths, name="node-1")
    listed = dataclasses.replace(member(paths), tls_certificates=(b"another",))
    with pytest.raises(ConfigError, match="certificate"):
        check_identity(identity, listed)
    with pytest.raises(ConfigError, match="certificate"):
        certificate_ders("no certificate")
