"""Promises: a passphrase comes from a private file or from a terminal, and every verb that signs takes it."""

import pytest

from client import passphrase
from client.errors import InputError


@pytest.fixture
def secret(tmp_path):
    """A file with a passphrase in its first line."""
    path = tmp_path / "passphrase"
    path.write_text("correct horse\nwhat else is there\n")
    path.chmod(0o600)
    return path


def test_the_first_line_is_the_passphrase(secret):
    assert passphrase.read(secret) == b"correct horse"


def test_windows_line_ends_are_no_part_of_it(secret):
    secret.write_bytes(b"correct horse\r\n")

    assert passphrase.read(secret) == b"correct horse"


@pytest.mark.parametrize("content", [b"", b"\nsecond\n", b"\xff\xfe"])
def test_a_file_without_a_passphrase_is_refused(secret, content):
    secret.write_bytes(content)

    with pytest.raises(InputError, match="passphrase"):
        passphrase.read(secret)


def test_a_passphrase_that_no_key_can_be_encrypted_with_is_refused_before_there_is_a_key(wmreg, secret, tmp_path):
    secret.write_bytes(b"x" * passphrase.PASSPHRASE_BYTES_MAX + b"\n")
    assert wmreg("keygen", "--out", tmp_path / "longest.pem", "--passphrase-file", secret).code == 0

    secret.write_bytes(b"x" * (passphrase.PASSPHRASE_BYTES_MAX + 1) + b"\n")
    refused = wmreg("keygen", "--out", tmp_path / "key.pem", "--passphrase-file", secret)

    assert refused.code == 2
    assert "at most 1023" in refused.err
    assert not (tmp_path / "key.pem").exists()


def test_a_passphrase_that_others_may_read_is_refused(secret):
    secret.chmod(0o644)

    with pytest.raises(InputError, match="chmod 600"):
        passphrase.read(secret)


def test_without_a_file_or_a_terminal_it_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="--passphrase-file"):
        passphrase.find(tmp_path / "key.pem", None)


def test_on_a_terminal_it_is_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("client.passphrase._check_terminal", lambda _key: None)
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda words: asked.append(words) or "typed")

    assert passphrase.find(tmp_path / "key.pem", None) == b"typed"
    assert passphrase.choose(tmp_path / "key.pem", None) == b"typed"
    assert ["key.pem" in words for words in asked] == [True, True, False]
    assert "Repeat" in asked[2]


def test_a_key_with_a_passphrase_publishes(ledger, wmreg, make_party, secret, monkeypatch):
    wmreg("keygen", "--out", secret.with_name("dora.pem"), "--passphrase-file", secret)
    made = wmreg("keygen", "--watermark-key", secret.with_name("dora"), *who(ledger, secret))
    alice = make_party("alice")
    directory = secret.with_name("dora")
    (directory / "evidence.safetensors").write_bytes(alice.bundle.evidence.read_bytes())

    without = wmreg("publish", directory, *who(ledger, secret)[:4])
    wrong = secret.with_name("wrong")
    wrong.write_text("incorrect horse\n")
    wrong.chmod(0o600)
    other = wmreg("publish", directory, *who(ledger, wrong))
    monkeypatch.setenv("WMREG_PASSPHRASE_FILE", str(secret))
    published = wmreg("publish", directory, *who(ledger, secret)[:4])
    wmreg("keygen", "--out", secret.with_name("next.pem"))
    moved = wmreg("rotate", secret.with_name("next.pem"), *who(ledger, secret)[:4])

    assert made.code == 0, made.err
    assert (without.code, without.err.count("\n")) == (2, 1)
    assert "--passphrase-file" in without.err
    assert (other.code, other.err.count("\n")) == (1, 1)
    assert "dora.pem: wrong passphrase" in other.err
    assert published.code == 0, published.err
    assert moved.code == 0, moved.err
    assert b"ENCRYPTED" in secret.with_name("next.pem").read_bytes()


def test_a_key_with_another_passphrase_is_moved_to(ledger, wmreg, secret):
    other = secret.with_name("other")
    other.write_text("incorrect horse\n")
    other.chmod(0o600)
    wmreg("keygen", "--out", secret.with_name("dora.pem"), "--passphrase-file", secret)
    wmreg("keygen", "--out", secret.with_name("next.pem"), "--passphrase-file", other)

    with_one = wmreg("rotate", secret.with_name("next.pem"), *who(ledger, secret))
    with_both = wmreg("rotate", secret.with_name("next.pem"), *who(ledger, secret), "--new-passphrase-file", other)

    assert with_one.code == 1
    assert "next.pem: wrong passphrase" in with_one.err
    assert with_both.code == 0, with_both.err


def who(ledger, secret):
    """The options of the owner with the passphrase."""
    key = ["--policy", ledger.policy_path, "--signing-key", secret.with_name("dora.pem")]
    return [*key, "--passphrase-file", secret]


def test_keygen_asks_only_where_it_can_and_never_over_a_key(wmreg, tmp_path, secret):
    refused = wmreg("keygen", "--out", tmp_path / "new.pem", "--passphrase")
    assert refused.code == 2
    assert "--passphrase-file" in refused.err
    assert not (tmp_path / "new.pem").exists()

    made = wmreg("keygen", "--out", tmp_path / "new.pem", "--passphrase-file", secret, "--json")
    assert made.document["encrypted"] is True
    again = wmreg("keygen", "--out", tmp_path / "new.pem", "--passphrase")
    assert again.code == 2
    assert "not overwritten" in again.err


def test_a_key_without_a_passphrase_says_that_it_has_none(wmreg, tmp_path):
    assert wmreg("keygen", "--out", tmp_path / "new.pem", "--json").document["encrypted"] is False
