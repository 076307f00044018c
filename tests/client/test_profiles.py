"""Promises: a profile stands behind command line and environment, before the defaults; mistakes name file and key."""

import json

import pytest

from client.profiles import config_path


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Write the configuration file, in a directory of its own."""
    path = tmp_path / "config" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setenv("WMREG_CONFIG", str(path))

    def write(text):
        path.write_text(text)
        return path

    return write


@pytest.fixture
def home(ledger, config):
    """A profile whose policy is named by a path relative to the file."""
    path = config('default = "home"\n[ledger.home]\npolicy = "policy.txt"\npatience_s = 0\n')
    (path.parent / "policy.txt").write_text(ledger.policy_path.read_text())
    return path


def test_the_default_profile_is_taken_where_none_is_named(home, wmreg):
    assert home.exists()
    assert wmreg("log").code == 0


def test_without_a_default_or_a_name_no_profile_is_meant(config, wmreg):
    path = config('[ledger.home]\npolicy = "policy.txt"\n')

    answer = wmreg("log")

    assert answer.code == 2
    assert "Missing option '--policy'" in answer.err
    assert f"--ledger NAME, a profile of {path}, which has home" in answer.err


def test_without_a_configuration_file_a_missing_policy_says_where_one_would_be(config, wmreg, tmp_path, monkeypatch):
    monkeypatch.delenv("WMREG_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))

    answer = wmreg("log")

    assert answer.code == 2
    assert "Missing option '--policy'" in answer.err
    assert f"--ledger NAME, a profile of {tmp_path / 'none' / 'wmreg' / 'config.toml'}, which has none" in answer.err


def test_a_profile_is_named_by_option_or_environment(ledger, config, wmreg, monkeypatch):
    config(f'[ledger.home]\npolicy = "{ledger.policy_path}"\n')

    assert wmreg("log", "--ledger", "home").code == 0
    monkeypatch.setenv("WMREG_LEDGER", "home")
    assert wmreg("log").code == 0
    assert wmreg("log", "--ledger", "away").code == 2


def test_the_command_line_goes_first_then_the_environment_then_the_profile(ledger, config, wmreg, monkeypatch):
    path = config('[ledger.home]\npolicy = "bad.txt"\n')
    (path.parent / "bad.txt").write_text("no policy\n")
    worse = path.parent / "worse.txt"
    worse.write_text("no policy either\n")

    of_profile = wmreg("log", "--ledger", "home")
    monkeypatch.setenv("WMREG_POLICY", str(worse))
    of_environment = wmreg("log", "--ledger", "home")
    of_command_line = wmreg("log", "--ledger", "home", "--policy", ledger.policy_path)

    assert "bad.txt: policy file" in of_profile.err
    assert "worse.txt: policy file" in of_environment.err
    assert "note: WMREG_POLICY is set and goes before --ledger home" in of_environment.err
    assert of_command_line.code == 0
    assert "note" not in of_command_line.err


def test_every_key_reaches_its_option(ledger, config, wmreg, alice, monkeypatch):
    monkeypatch.delenv("WMREG_PATIENCE_S", raising=False)
    secret = alice.key.with_name("secret")
    secret.write_text("a passphrase\n")
    secret.chmod(0o600)
    config(
        f'[ledger.home]\npolicy = "{ledger.policy_path}"\nsigning_key = "{alice.key.with_name("fresh.pem")}"\n'
        f'passphrase_file = "{secret}"\nca_file = "{alice.key}"\npatience_s = 0.5\n'
    )

    made = wmreg("keygen", "--ledger", "home", "--json")
    refused = wmreg("log", "--ledger", "home")

    assert made.document["path"] == str(alice.key.with_name("fresh.pem"))
    assert made.document["encrypted"] is True
    assert "alice.pem" in refused.err  # a key vouches for no certificates


def test_a_signing_key_of_the_profile_signs(ledger, config, wmreg, alice):
    config(f'[ledger.home]\npolicy = "{ledger.policy_path}"\nsigning_key = "{alice.key}"\n')

    assert wmreg("publish", alice.directory, "--ledger", "home").code == 0


MISTAKES = [
    ("default = ", "not TOML"),
    ("defualt = 'home'\n", "defualt: no such key; there are default, ledger"),
    ("default = 'away'\n[ledger.home]\n", "default: 'away' is no ledger of this file; it has home"),
    ("default = 3\n", "default: 3 is no ledger"),
    ("ledger = 3\n", "ledger: expected a table"),
    ("[ledger]\nhome = 3\n", "ledger.home: expected a table"),
    ("[ledger.home]\npolcy = 'x'\n", "[ledger.home] polcy: no such key"),
    ("[ledger.home]\npolicy = 3\n", "[ledger.home] policy: expected the path"),
    ("[ledger.home]\npolicy = ''\n", "[ledger.home] policy: expected the path"),
    ("[ledger.home]\npolicy = 'absent.txt'\n", "[ledger.home] policy: "),
    ("[ledger.home]\npolicy = '~no-such-user/policy.txt'\n", "[ledger.home] policy: ~no-such-user/policy.txt: nobody"),
    ("[ledger.home]\npatience_s = 'long'\n", "[ledger.home] patience_s: expected a number"),
    ("[ledger.home]\npatience_s = true\n", "[ledger.home] patience_s: expected a number"),
    ("[ledger.home]\npatience_s = nan\n", "[ledger.home] patience_s: expected from 0 to 86400 seconds"),
    ("[ledger.home]\npatience_s = 86401\n", "[ledger.home] patience_s: expected from 0 to 86400 seconds"),
    ("[ledger.away]\n", "no profile [ledger.home]; it has away"),
    ("", "no profile [ledger.home]; it has none"),
    ("# \xe9", "not a text file"),
    ("a = " + "[" * 2000 + "]" * 2000, "nested too deeply"),
    ("a." * 2500 + "b = 1", "line 1 has more than 4096 characters"),
    ("\n" * 64 * 1024 + "a = 1", "larger than the 65536 bytes"),
    ("a = " + "9" * 4090, "a: no such key"),
    ("[ledger.home]\npatience_s = " + "9" * 4000, "[ledger.home] patience_s: expected from 0 to 86400 seconds"),
    ("[ledger.home]\npatience_s = 0x" + "f" * 4000, "[ledger.home] patience_s: expected from 0 to 86400 seconds"),
    ("[ledger.home]\npolicy = '~nobody.of.this.name/x'\n", "[ledger.home] policy: ~nobody.of.this.name/x: "),
    ('[ledger.home]\npolicy = "a\\u0000b"\n', "[ledger.home] policy: expected the path"),
]


@pytest.mark.parametrize(("text", "needle"), MISTAKES)
def test_a_mistake_is_one_line_that_names_file_and_key(config, wmreg, text, needle):
    path = config("")
    path.write_bytes(text.encode("latin-1"))

    answer = wmreg("log", "--ledger", "home")
    as_json = wmreg("log", "--ledger", "home", "--json")

    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert f"{path}: " in answer.err
    assert needle in answer.err
    assert json.loads(as_json.out)["error"]["message"] in answer.err


def test_a_file_that_the_environment_names_must_be_there(config, wmreg, monkeypatch):
    monkeypatch.setenv("WMREG_CONFIG", str(config("").with_name("absent.toml")))

    answer = wmreg("log")

    assert answer.code == 2
    assert "absent.toml" in answer.err


def test_a_profile_of_a_file_that_is_not_there_is_told_as_that(wmreg, tmp_path, monkeypatch):
    monkeypatch.delenv("WMREG_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    answer = wmreg("log", "--ledger", "home")

    assert answer.code == 2
    assert f"{tmp_path}/wmreg/config.toml: no profile [ledger.home]; there is no such file yet" in answer.err


def test_where_the_file_is(monkeypatch, tmp_path):
    monkeypatch.delenv("WMREG_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_path() == (tmp_path / ".config" / "wmreg" / "config.toml", False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert config_path() == (tmp_path / "xdg" / "wmreg" / "config.toml", False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert config_path() == (tmp_path / ".config" / "wmreg" / "config.toml", False)
    monkeypatch.setenv("WMREG_CONFIG", "named.toml")
    assert str(config_path()[0]) == "named.toml"


def test_a_path_may_begin_at_home(ledger, config, wmreg, monkeypatch):
    monkeypatch.setenv("HOME", str(ledger.policy_path.parent))
    config('[ledger.home]\npolicy = "~/policy.txt"\n')

    assert wmreg("log", "--ledger", "home").code == 0


def test_two_ledgers_remember_nothing_of_each_other():
    from client.acts import Acts
    from client.memory import Memory

    one, other = "one.example/log", "other.example/log"
    assert Memory.default().path(one) != Memory.default().path(other)
    assert Acts.default(one).directory != Acts.default(other).directory
