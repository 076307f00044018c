"""The demo's act behind a URL: a reference server for each claim, which ends with it, and verdicts that must come."""

import subprocess
import sys

import pytest
from rich.console import Console

from client.demo.play import Play, served_url
from client.demo.shell import DemoError, Shell

SERVING = "import time; print('serving http://127.0.0.1:{port}/v2/models/digits', flush=True); time.sleep(60)"
OUTCOMES = {
    "INTACT": {"outcome": "INTACT", "reason": "matched", "votes": [{"matched": 100, "total": 100}]},
    "TAMPERED": {"outcome": "TAMPERED", "reason": "changed", "votes": [{"matched": 31, "total": 100}]},
}


class Told(Shell):
    """Keeps what it is told, records a claim for each that is made, and serves nothing but a URL."""

    def __init__(self, directory, outcomes, script=SERVING):
        super().__init__(directory, Console(quiet=True))
        self.commands, self.claimed, self.servers = [], [], []
        self.outcomes, self.script = list(outcomes), script

    def run(self, arguments, *, expect=0):
        self.commands.append((arguments, expect))
        if arguments[0] == "claim":
            assert [server.poll() for server in self.servers[:-1]] == [-15] * (len(self.servers) - 1)
            assert self.servers[-1].poll() is None, "the endpoint is up while it is claimed"
            self.claimed.append(f"{len(self.claimed):064x}")
        return ""

    def ask(self, arguments, *, expect=(0,)):  # noqa: ARG002 -- the shell's own signature
        if arguments[0] == "log":
            return {"entries": [{"kind": "claim", "message_hash": claim} for claim in self.claimed]}
        return {"superseding": None, **OUTCOMES[self.outcomes[self.claimed.index(arguments[1])]]}

    def start(self, arguments, *, log):
        self.commands.append((arguments, None))
        script = self.script.format(port=9000 + len(self.servers))
        with log.open("wb") as output:
            self.servers.append(subprocess.Popen([sys.executable, "-c", script], stdout=output, stderr=output))
        return self.servers[-1]


def test_the_nodes_ask_an_endpoint_with_her_model_and_one_with_a_changed_copy(tmp_path):
    shell = Told(tmp_path, ["INTACT", "TAMPERED"])
    play = Play(shell, seed=1)

    play.ask()

    served = [words[1] for words, _ in shell.commands if words[0] == "serve-model"]
    claims = [(words[1], words[2], expect) for words, expect in shell.commands if words[0] == "claim"]
    assert served == ["alice/model.safetensors", "mallory/model.safetensors"]
    assert claims == [
        ("http://127.0.0.1:9000/v2/models/digits", "--endpoint", 0),
        ("http://127.0.0.1:9001/v2/models/digits", "--endpoint", 1),
    ]
    assert [claim["outcome"] for claim in play.facts["claims"].values()] == ["INTACT", "TAMPERED"]
    assert "31 of 100 triggers are answered as she published them" in shell.text()
    assert [server.poll() for server in shell.servers] == [-15, -15]


@pytest.mark.parametrize("outcomes", [["TAMPERED"], ["INTACT", "INTACT"]])
def test_a_verdict_other_than_the_storys_stops_the_act(tmp_path, outcomes):
    with pytest.raises(DemoError, match="ended with"):
        Play(Told(tmp_path, outcomes), seed=1).ask()


def test_a_server_that_does_not_start_is_an_error_with_its_words(tmp_path):
    shell = Told(tmp_path, ["INTACT"], script="print('no such device')")
    with pytest.raises(DemoError, match="no such device"):
        Play(shell, seed=1).ask()


def test_a_url_is_read_when_the_whole_of_it_was_told():
    assert served_url("") is None
    assert served_url("serving http://127.0.0.1:80") is None
    assert served_url("a warning\nserving http://127.0.0.1:8080/v2/models/m\n") == "http://127.0.0.1:8080/v2/models/m"
