"""Promises: a shell completes verbs, options and ledgers, and imports no verb to list them."""

import os
import subprocess
import sys

import pytest

from client.command import VERBS


def complete(*words, **environment):
    """What bash is told for words of which the last is being typed."""
    asked = {"_WMREG_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = (
        "import sys; from client.command import main; sys.argv = ['wmreg']\ntry: main()\nfinally: print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | asked | environment,
    )
    *told, modules = done.stdout.splitlines()
    return [line.partition(",")[2] for line in told if line], set(modules.split())


def test_all_verbs_are_completed_and_none_is_imported():
    told, modules = complete("wmreg", "")

    assert told == list(VERBS)
    assert not [name for name in modules if name.startswith("client.verbs")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["wmreg", "pub"], ["publish"]),
        (["wmreg", "nothing"], []),
        (["wmreg", "node", "member", "pro"], ["propose"]),
        (["wmreg", "publish", "--sign"], ["--signing-key"]),
        (["wmreg", "embed", "--scheme", "mar"], ["margin"]),
        (["wmreg", "bench", "led"], ["ledger"]),
    ],
)
def test_verbs_options_and_values_are_completed_without_torch(words, expected):
    told, modules = complete(*words)

    assert told == expected
    assert not modules & {"torch", "aiohttp", "rich", "numpy"}


def test_ledgers_are_completed_from_the_configuration_file(tmp_path):
    (tmp_path / "config.toml").write_text("[ledger.home]\n[ledger.away]\n[ledger.house]\n")

    told, _ = complete("wmreg", "log", "--ledger", "ho", WMREG_CONFIG=str(tmp_path / "config.toml"))

    assert told == ["home", "house"]


def test_a_configuration_file_with_a_mistake_does_not_disturb_the_shell(tmp_path):
    (tmp_path / "config.toml").write_text("default = ")

    assert complete("wmreg", "log", "--ledger", "", WMREG_CONFIG=str(tmp_path / "config.toml"))[0] == []


@pytest.mark.parametrize(
    ("shell", "needle"), [("bash", "complete -o nosort"), ("zsh", "#compdef"), ("fish", "complete ")]
)
def test_each_shell_gets_its_script(shell, needle):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from client.command import main; sys.argv = ['wmreg']; main()"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"_WMREG_COMPLETE": f"{shell}_source"},
    )

    assert needle in done.stdout
    assert "wmreg" in done.stdout
