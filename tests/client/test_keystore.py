"""Promises: secrets are readable by their owner only, never overwritten, and read strictly."""

import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from client.errors import InputError, InvalidError
from client.keystore import (
    create_signing_key,
    create_watermark_key,
    load_signing_key,
    load_watermark_key,
    save_watermark_key,
)
from registry.errors import RefusedError
from registry.watermark_key import verify_binding

ORIGIN = "test.example/ledger"


@pytest.fixture
def open_umask():
    """Whatever the user's umask lets others do."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_secret_files_are_their_owners_alone(tmp_path):
    private_key = create_signing_key(tmp_path / "deep" / "key.pem")
    save_watermark_key(tmp_path / "wm.json", create_watermark_key(private_key, origin=ORIGIN))

    assert (tmp_path / "deep" / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "wm.json").stat().st_mode & 0o777 == 0o600


def test_a_signing_key_is_read_back(tmp_path):
    created = create_signing_key(tmp_path / "key.pem")

    loaded = load_signing_key(tmp_path / "key.pem")

    assert loaded.public_key().public_bytes_raw() == created.public_key().public_bytes_raw()


def test_a_signing_key_is_never_overwritten(tmp_path):
    create_signing_key(tmp_path / "key.pem")
    before = (tmp_path / "key.pem").read_bytes()

    with pytest.raises(InputError, match="not overwritten"):
        create_signing_key(tmp_path / "key.pem")

    assert (tmp_path / "key.pem").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["key.pem"]


def test_a_watermark_key_is_read_back_and_bound_to_its_owner_and_ledger(tmp_path):
    private_key = create_signing_key(tmp_path / "key.pem")
    owner = private_key.public_key().public_bytes_raw()
    save_watermark_key(tmp_path / "wm.json", create_watermark_key(private_key, origin=ORIGIN))

    loaded = load_watermark_key(tmp_path / "wm.json")

    verify_binding(loaded.binding, origin=ORIGIN, owner=owner)
    with pytest.raises(RefusedError):
        verify_binding(loaded.binding, origin="another.example/ledger", owner=owner)


def test_two_watermark_keys_of_one_owner_differ():
    private_key = Ed25519PrivateKey.generate()

    first, second = (create_watermark_key(private_key, origin=ORIGIN) for _ in range(2))

    assert first.binding.watermark_key != second.binding.watermark_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_secret_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "key.pem"
    create_signing_key(path)
    path.chmod(mode)

    with pytest.raises(InputError, match="chmod 600"):
        load_signing_key(path)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"garbage",
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
)
def test_what_is_no_ed25519_key_is_refused(tmp_path, pem):
    path = tmp_path / "key.pem"
    path.write_bytes(pem)
    path.chmod(0o600)

    with pytest.raises(InvalidError, match=r"key\.pem"):
        load_signing_key(path)


def test_a_key_with_a_passphrase_is_read_back_with_it_and_worth_nothing_without(tmp_path):
    path = tmp_path / "key.pem"
    created = create_signing_key(path, passphrase=b"five words")

    loaded = load_signing_key(path, passphrase=lambda: b"five words")

    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert path.stat().st_mode & 0o777 == 0o600
    assert loaded.public_key().public_bytes_raw() == created.public_key().public_bytes_raw()
    with pytest.raises(InvalidError, match=r"key\.pem: wrong passphrase"):
        load_signing_key(path, passphrase=lambda: b"four words")
    with pytest.raises(InputError, match=r"key\.pem: encrypted"):
        load_signing_key(path)


def test_a_plain_key_needs_no_passphrase_and_nobody_is_asked(tmp_path):
    created = create_signing_key(tmp_path / "key.pem")

    loaded = load_signing_key(tmp_path / "key.pem", passphrase=lambda: pytest.fail("asked"))

    assert loaded.private_bytes_raw() == created.private_bytes_raw()


def test_an_encrypted_key_of_another_kind_is_refused(tmp_path):
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "key.pem").chmod(0o600)

    with pytest.raises(InvalidError, match="not an Ed25519 key"):
        load_signing_key(tmp_path / "key.pem", passphrase=lambda: b"passphrase")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "wmreg-watermark-key/2"},
        {"nonce": "00"},
        {"nonce": 5},
        {"signature": "zz"},
        {"origin": None},
        {"surplus": 1},
    ],
)
def test_a_watermark_key_file_with_a_wrong_field_is_refused(tmp_path, change):
    path = tmp_path / "wm.json"
    save_watermark_key(path, create_watermark_key(Ed25519PrivateKey.generate(), origin=ORIGIN))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(InvalidError, match=r"wm\.json"):
        load_watermark_key(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 10_000])
def test_what_is_no_watermark_key_file_is_refused(tmp_path, content):
    path = tmp_path / "wm.json"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(InvalidError, match=r"wm\.json"):
        load_watermark_key(path)
