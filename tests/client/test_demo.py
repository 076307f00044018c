"""`wmreg demo`, all of it: the project's whole purpose on real data with real nodes."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The harder performance: one node is killed when the first claim is made."""
    directory = tmp_path_factory.mktemp("demo") / "report"
    command = [sys.executable, "-m", "client.command", "demo", "--report", str(directory), "--kill-node", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return directory, json.loads((directory / "report.json").read_text())


def test_the_six_claims_end_as_they_must(report):
    _, facts = report
    claims = facts["claims"]
    assert {name: claim["outcome"] for name, claim in claims.items()} == {
        "alice on the stolen model": "VERIFIED",
        "mallory on the stolen model": "VERIFIED",
        "alice on an independent model": "REFUTED",
        "eve with a random key": "REFUTED",
        "alice on an endpoint with her model": "INTACT",
        "alice on an endpoint with the copy": "TAMPERED",
    }
    assert claims["alice on the stolen model"]["superseded_by"] is None
    assert claims["mallory on the stolen model"]["superseded_by"] is not None


def test_every_living_node_votes_on_its_own_with_its_numbers(report):
    _, facts = report
    votes = facts["claims"]["alice on the stolen model"]["votes"]
    assert {vote["member"] for vote in votes} == {"node-1", "node-3"}
    assert all(vote["matched"] >= 420 and len(vote["controls"]) >= 8 for vote in votes)


def test_the_nodes_ask_the_endpoints_themselves(report):
    _, facts = report
    names = ("alice on an endpoint with her model", "alice on an endpoint with the copy")
    intact, changed = (facts["claims"][name]["votes"] for name in names)
    assert {vote["device"] for vote in (*intact, *changed)} == {"endpoint"}
    assert {vote["matched"] for vote in intact} == {100}
    assert all(vote["matched"] < 100 for vote in changed)


def test_the_watermark_costs_the_model_little_and_chance_stays_chance(report):
    _, facts = report
    measured = {name: found["matched"] / found["total"] for name, found in facts["measured"].items()}
    assert measured["marked"] > 0.95
    assert measured["stolen"] >= 0.7
    assert 0.4 < measured["independent"] < 0.6


def test_the_report_is_complete(report):
    directory, _ = report
    names = {path.name for path in directory.iterdir()}
    assert {"transcript.txt", "transcript.svg", "report.json", "matched.png", "node-1.log"} <= names
    transcript = (directory / "transcript.txt").read_text()
    assert "exit code 5" in transcript
    assert "exit code 1" in transcript
