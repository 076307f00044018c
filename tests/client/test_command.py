"""Promises: it starts at once; every error is one line and its exit code; --json is one document, errors too."""

import io
import json
import os
import re
import subprocess
import sys
import time

import click
import pytest

from client.command import VERBS, run
from client.command import wmreg as wmreg_command

START_S_MAX = 1.5  # 0.3 s on an idle machine; this one may be busy
HEAVY = {"torch", "aiohttp", "rich", "matplotlib", "numpy", "msgpack", "cryptography"}


def python(*words, **environment):
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_starts_at_once(option):
    begun_s = time.monotonic()
    done = python("-m", "client.command", option)

    assert done.returncode == 0
    assert time.monotonic() - begun_s < START_S_MAX


def test_help_imports_nothing_heavy():
    code = "import sys; from client.command import run; run(['--help']); print(*sys.modules, file=sys.stderr)"

    loaded = {name.partition(".")[0] for name in python("-c", code).stderr.split()}

    assert not loaded & HEAVY
    assert "node" not in loaded
    assert "wm" not in loaded


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_without_torch(verb):
    code = (
        f"import sys; from client.command import run; run([{verb!r}, '--help']); print(*sys.modules, file=sys.stderr)"
    )

    done = python("-c", code)

    assert done.stdout.startswith(f"Usage: wmreg {verb}")
    assert not {"torch", "aiohttp", "rich"} & {name.partition(".")[0] for name in done.stderr.split()}


def test_no_verb_at_all_shows_the_help_and_ends_with_2(capsys):
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


# A private key on a curve that the cryptography package does not know, in PKCS8.
SM2_KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqBHM9VAYItBG0wawIBAQQgAQEBAQEBAQEBAQEB
AQEBAQEBAQEBAQEBAQEBAQEBAQGhRANCAASSEAkCL5Xz8hZ6Vz6dA9L1y4QoJVxZ
FtqWSTC0oPPqJxk0p3uW1c4JQ9rN5KZJzG4q5Q2wzVQ6i1qk6b8G3d0P
-----END PRIVATE KEY-----
"""

BAD_COMMAND_LINES = [
    (["frobnicate"], 2, "frobnicate"),
    (["keygen", "--frobnicate"], 2, "--frobnicate"),
    (["keygen", "--out", "{tmp}/taken"], 2, "taken"),
    (["verify", "{tmp}/absent", "--policy", "{tmp}/policy"], 2, "absent"),
    (["verify", "{tmp}/taken"], 2, "--policy"),
    (["verify", "{tmp}/taken", "--policy", "{tmp}/absent"], 2, "absent"),
    (["verify", "{tmp}/taken", "--policy", "{tmp}/taken"], 2, "policy.txt that wmreg cluster init"),
    (["publish", "{tmp}/absent", "--policy", "{tmp}/policy"], 2, "absent"),
    (["publish", "{tmp}", "--policy", "{tmp}/policy", "--signing-key", "{tmp}/absent"], 2, "absent"),
    (["publish", "{tmp}", "--policy", "{tmp}/policy", "--signing-key", "{tmp}/taken"], 2, "chmod 600"),
    (["publish", "{tmp}", "--policy", "{tmp}/policy", "--signing-key", "{tmp}/garbled"], 1, "garbled"),
    (["publish", "{tmp}", "--policy", "{tmp}/policy", "--signing-key", "{tmp}/key"], 2, "evidence.safetensors"),
    (["status", "12", "--policy", "{tmp}/policy"], 2, "64 hexadecimal"),
    (["show", "zz" * 32, "--policy", "{tmp}/policy"], 2, "64 hexadecimal"),
    (["log", "--limit", "0", "--policy", "{tmp}/policy"], 2, "--limit"),
    (["audit", "--offline", "--policy", "{tmp}/policy"], 2, "--mirror"),
    (["audit", "--offline", "--mirror", "{tmp}/absent", "--policy", "{tmp}/policy"], 2, "absent"),
    (["audit", "--policy", "{tmp}/silent"], 4, "names no node"),
    (["cluster", "init", "{tmp}", "--origin", "example.org/x"], 2, "not an empty directory"),
    (["cluster", "init", "{tmp}/new", "--origin", "with space"], 2, "origin"),
    (["cluster", "init", "{tmp}/new", "--origin", "example.org/x", "--host", "0.0.0.0"], 2, "policy names it"),
    (["cluster", "init", "{tmp}/new", "--origin", "x", "--host", "a", "--host", "b", "--host", "c"], 2, "ports given"),
    (["cluster", "init", "{tmp}/new", "--origin", "example.org/x", "--api-port", "1", "--raft-port", "2"], 2, "twice"),
    (["node", "run", "{tmp}"], 2, "node.toml"),
    (["node", "new-keys", "{tmp}"], 2, "wmreg cluster init"),
    (["node", "new-certificate", "{tmp}"], 2, "wmreg cluster init"),
    (["node", "member", "propose", "--out", "{tmp}/new", "--policy", "{tmp}/nowhere"], 2, "--remove"),
    (["keygen", "--out", ""], 2, "empty path"),
    (["train", "--out", "{tmp}/new", "--fraction", "nan"], 2, "finite"),
    (["log", "--policy", "{tmp}/policy", "--patience-s", "nan"], 2, "finite"),
    (["audit", "--policy", "{tmp}/nowhere", "--patience-s", "0"], 4, "names no host"),
    (["publish", "{tmp}", "--policy", "{tmp}/policy", "--signing-key", "{tmp}/sm2"], 1, "sm2"),
    (["demo", "--seed", "2147483648"], 2, "--seed"),
    (["demo", "--seed", "2147481649"], 2, "--seed"),
    (["demo", "--report", "{tmp}"], 2, "no demo's report"),
    (["log", "--start", "18446744073709551616", "--policy", "{tmp}/policy"], 2, "--start"),
    (["search", "00" * 32, "--start", "-1", "--policy", "{tmp}/policy"], 2, "--start"),
    (["audit", "--report", "{tmp}/absent/report", "--policy", "{tmp}/policy"], 2, "absent: no such directory"),
    (["audit", "--report", "{tmp}/taken", "--policy", "{tmp}/policy"], 2, "taken: exists"),
    (["audit", "--offline", "--mirror", "{tmp}/absent", "--policy", "{tmp}/policy"], 2, "wmreg audit --mirror"),
    (["log", "--policy", "{tmp}/crlf"], 2, "Windows line ends"),
    (["log", "--policy", "{tmp}/bom"], 2, "byte order mark"),
    (["train", "--data", "{tmp}/text.npz", "--out", "{tmp}/new"], 1, "numpy.savez"),
    (["verify", "{tmp}/large", "--policy", "{tmp}/policy"], 1, "larger than"),
]


@pytest.fixture
def inputs(tmp_path, ledger):
    """Files that are wrong in one way each."""
    from client.keystore import create_signing_key

    policy = ledger.policy_path.read_text()
    (tmp_path / "policy").write_text(policy)
    silent = [" ".join(word for word in line.split() if "://" not in word) for line in policy.splitlines()]
    (tmp_path / "silent").write_text("\n".join(silent) + "\n")
    (tmp_path / "nowhere").write_text(re.sub(r"//127\.0\.0\.1", f"//{'x' * 64}.example", policy))
    (tmp_path / "sm2").write_text(SM2_KEY)
    (tmp_path / "sm2").chmod(0o600)
    (tmp_path / "taken").write_text("not what you think\n")
    (tmp_path / "garbled").write_text("-----BEGIN PRIVATE KEY-----\n")
    (tmp_path / "garbled").chmod(0o600)
    create_signing_key(tmp_path / "key")
    (tmp_path / "crlf").write_bytes(policy.replace("\n", "\r\n").encode())
    (tmp_path / "bom").write_text(policy, encoding="utf-8-sig")
    (tmp_path / "text.npz").write_text("not an archive\n")
    (tmp_path / "large").write_bytes(b"{" + bytes(8 * 2**20))
    return tmp_path


@pytest.mark.parametrize(("words", "code", "needle"), BAD_COMMAND_LINES)
def test_bad_input_is_one_line_and_the_right_exit_code(wmreg, inputs, words, code, needle):
    words = [word.format(tmp=inputs) for word in words]
    before = {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()}

    answer = wmreg(*words)
    as_json = wmreg(*words, "--json")

    assert answer.code == code
    assert answer.out == ""
    assert needle in answer.err
    assert answer.err.count("\n") == 1
    assert as_json.code == code
    assert set(json.loads(as_json.out)["error"]) == {"code", "message"}
    assert {path: path.read_bytes() for path in inputs.rglob("*") if path.is_file()} == before


def test_the_traceback_is_shown_on_demand_only(wmreg, tmp_path, monkeypatch):
    wmreg("keygen", "--out", tmp_path / "key")
    plain = wmreg("keygen", "--out", tmp_path / "key")
    monkeypatch.setenv("WMREG_DEBUG", "1")
    debugged = wmreg("keygen", "--out", tmp_path / "key")

    assert "Traceback" not in plain.err
    assert "Traceback" in debugged.err


def test_a_reader_that_goes_away_ends_the_command_quietly(ledger, tmp_path):
    code = (
        "import os, sys; from client.command import run\n"
        "r, w = os.pipe(); os.dup2(w, 1); os.close(w); os.close(r)\n"
        f"sys.exit(run(['log', '--policy', {str(ledger.policy_path)!r}]))"
    )

    done = python("-c", code, WMREG_HOME=str(tmp_path / "home"))

    assert done.returncode == 141
    assert done.stderr == ""


def test_patience_of_the_environment_is_finite_too(wmreg, inputs, monkeypatch):
    monkeypatch.setenv("WMREG_PATIENCE_S", "nan")

    assert wmreg("log", "--policy", inputs / "policy").code == 2


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_mistake_of_ours_is_one_line_and_an_exit_code_of_its_own(wmreg, tmp_path, monkeypatch, words):
    def fail(_path, **_):
        raise RuntimeError("with\na second line")

    monkeypatch.setattr("client.keystore.create_signing_key", fail)

    answer = wmreg("keygen", "--out", tmp_path / "key", *words)

    told = answer.document["error"]["message"] if words else answer.err
    assert answer.code == 70
    assert "internal error: RuntimeError: with a second line" in told
    assert "Traceback" not in answer.err
    assert (answer.out + answer.err).count("\n") == 1


def test_the_help_says_what_the_exit_codes_mean(wmreg):
    shown = " ".join(wmreg("--help").out.split())

    assert "70 an internal error" in shown
    assert "4 unavailable" in shown


def test_a_result_that_cannot_be_printed_is_no_success(tmp_path):
    code = f"import sys; from client.command import run; sys.exit(run(['keygen', '--out', {str(tmp_path / 'key')!r}]))"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )

    assert done.returncode == 70
    assert done.stderr.count("\n") == 1
    assert "could not be printed" in done.stderr


def test_a_closed_stdout_is_no_success(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", None)

    assert run(["keygen", "--out", str(tmp_path / "key")]) == 70
    assert "could not be printed" in capsys.readouterr().err


def below(command=wmreg_command, words=()):
    """Every verb, and those below verbs, with the words that lead there."""
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        yield (*words, name), found
        if isinstance(found, click.Group):
            yield from below(found, (*words, name))


@pytest.mark.parametrize("words", [words for words, _ in below()], ids=" ".join)
def test_every_verb_shows_an_example_of_itself(wmreg, words):
    assert f"Example: wmreg {' '.join(words)}" in " ".join(wmreg(*words, "--help").out.split()).replace(
        "keygen --out new.pem && wmreg ", ""
    )


@pytest.mark.parametrize(("words", "verb"), [each for each in below() if not isinstance(each[1], click.Group)])
def test_every_verb_has_json(words, verb):
    assert "--json" in [name for parameter in verb.params for name in parameter.opts]


@pytest.mark.parametrize("words", [words for words, verb in below() if isinstance(verb, click.Group)], ids=" ".join)
def test_the_list_of_what_is_below_a_verb_is_not_cut_short(wmreg, words):
    assert "..." not in wmreg(*words, "--help").out.partition("Commands:")[2]


@pytest.fixture
def node(wmreg, tmp_path):
    """The directory of a node that does not run."""
    wmreg("cluster", "init", tmp_path / "ledger", "--nodes", "1", "--origin", "example.org/x")
    return tmp_path / "ledger" / "node-1"


@pytest.mark.parametrize("verb", ["new-keys", "new-certificate"])
def test_what_a_node_changes_to_is_made_once(wmreg, node, verb):
    first, second = wmreg("node", verb, node), wmreg("node", verb, node)

    assert (first.code, second.code) == (0, 2)
    assert "made earlier; use it, or remove" in second.err
    assert second.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"\xa3\xff", b"five words are no certificate\n"])
def test_what_is_no_certificate_is_named_before_the_ledger_is_asked(wmreg, node, tmp_path, content):
    (tmp_path / "next.crt").write_bytes(content)
    words = ["--also-certificate", tmp_path / "next.crt", "--policy", tmp_path / "ledger" / "policy.txt"]

    answer = wmreg("node", "member", "describe", node, *words, "--out", tmp_path / "new.json")

    assert answer.code == 2
    assert f"{tmp_path}/next.crt: no TLS certificate" in answer.err
    assert answer.err.count("\n") == 1


def test_a_node_that_cannot_run_says_so_as_json_too(wmreg, tmp_path):
    (tmp_path / "node.toml").write_text("nothing = 1\n")

    plain, as_json = wmreg("node", "run", tmp_path), wmreg("node", "run", tmp_path, "--json")

    assert (plain.code, plain.out) == (2, "")
    assert as_json.code == 2
    assert "a setting, key or library is wrong" in as_json.document["error"]["message"]


def test_a_closed_stderr_is_no_error(ledger, wmreg, alice, publish, monkeypatch):
    digest = publish(alice, "--json").document["message_hash"]
    from client.progress import is_watched

    for stream in (None, io.StringIO()):
        monkeypatch.setattr("sys.stderr", stream)
        assert not is_watched()
        if stream is not None:
            stream.close()
            assert not is_watched()
    assert wmreg("show", digest, "--policy", ledger.policy_path).code == 0


def test_a_command_that_is_told_to_end_leaves_nothing_half_written(tmp_path):
    code = (
        "import signal, sys; from pathlib import Path\n"
        "from client import command; from client.files import staged_file\n"
        "def work(arguments):\n"
        "    with staged_file(Path(sys.argv[1])):\n"
        "        print('working', flush=True)\n"
        "        signal.pause()\n"
        "command.run = work\n"
        "command.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "working\n"
        assert len(list(tmp_path.iterdir())) == 1

        process.terminate()

        assert (process.wait(30), process.stderr.read()) == (143, "")
    assert list(tmp_path.iterdir()) == []
