"""The demo's report says what the demo found, also when it did not come to its end."""

import json

import pytest
from rich.console import Console

from client.demo.play import flip_byte, is_ready, largest_file
from client.demo.report import matched_triggers, write_report
from client.demo.shell import DemoError, Line, Shell

FACTS = {
    "measured": {
        name: {"matched": matched, "total": 600}
        for name, matched in {"marked": 600, "clean": 400, "stolen": 550, "independent": 301}.items()
    },
    "claims": {"eve with a random key": {"votes": [{"matched": 290, "total": 600}]}},
}


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "home").mkdir()
    return Shell(tmp_path, Console(quiet=True))


def test_the_plot_shows_every_model_under_its_key():
    assert matched_triggers(FACTS) == {
        "marked": (600, 600),
        "clean": (400, 600),
        "stolen": (550, 600),
        "independent": (301, 600),
        "random key": (290, 600),
    }


def test_a_report_has_transcript_numbers_and_plot(shell, tmp_path):
    shell.transcript += [Line("heading", "1/7"), Line("command", "wmreg keygen"), Line("output", "<made> & done")]
    write_report(tmp_path / "report", shell, FACTS)
    written = tmp_path / "report"
    assert (written / "transcript.txt").read_text() == "1/7\n$ wmreg keygen\n<made> & done\n"
    assert "&lt;made&gt;" in (written / "transcript.svg").read_text()
    assert "http" not in (written / "transcript.svg").read_text().replace("http://www.w3.org/2000/svg", "")
    assert json.loads((written / "report.json").read_text())["measured"] == FACTS["measured"]
    assert (written / "matched.png").read_bytes().startswith(b"\x89PNG")


def test_a_demo_that_failed_early_still_reports_what_there_is(shell, tmp_path):
    shell.remark("a node ended")
    (tmp_path / "node-1.log").write_text("its last words")
    write_report(tmp_path / "report", shell, {"seed": 1})
    assert (tmp_path / "report" / "node-1.log").read_text() == "its last words"
    assert not (tmp_path / "report" / "matched.png").exists()


def test_a_command_that_ends_as_expected_is_told_and_another_end_is_an_error(shell):
    assert "Usage" in shell.run(["--help"])
    with pytest.raises(DemoError, match="ended with 2, not 0"):
        shell.run(["no-such-verb"])
    assert "no-such-verb" in shell.run(["no-such-verb"], expect=2) + shell.text()


def test_a_question_whose_answer_is_no_json_is_an_error(shell):
    with pytest.raises(DemoError, match="no JSON"):
        shell.ask(["keygen", "--help"])


def test_the_nodes_are_ready_when_all_answer_and_one_leads():
    node = {"reachable": True, "raft": {"state": "follower"}}
    leader = {"reachable": True, "raft": {"state": "leader"}}
    assert is_ready({"nodes": [leader, node, node]})
    assert not is_ready({"nodes": [node, node, node]})
    assert not is_ready({"nodes": [leader, node]})
    assert not is_ready({"nodes": [leader, node, {"reachable": False}]})
    assert not is_ready({"error": {"code": "quorum"}})


def test_one_bit_is_flipped_in_the_copy_and_not_in_the_original(tmp_path):
    original, copy = tmp_path / "a", tmp_path / "b"
    original.write_bytes(b"\0" * 9)
    flip_byte(original, copy=copy)
    assert original.read_bytes() == b"\0" * 9
    assert copy.read_bytes() == b"\0" * 4 + b"\1" + b"\0" * 4
    flip_byte(original)
    assert original.read_bytes() == copy.read_bytes()


def test_the_largest_file_of_a_mirror_is_found(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "checkpoint").write_bytes(b"1")
    (tmp_path / "deep" / "entries").write_bytes(b"12")
    assert largest_file(tmp_path) == tmp_path / "deep" / "entries"
