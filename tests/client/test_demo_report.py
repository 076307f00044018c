"""The demo's report says what the demo found, also when it did not come to its end."""

import json
import os
import signal

import pytest
from rich.console import Console

from client.demo.play import Play, counted, described, expect_verdict, flip_byte, is_ready, largest_file
from client.demo.report import check_report, matched_triggers, write_report
from client.demo.shell import DemoError, Line, Shell
from client.errors import ClientError, InputError
from client.verbs.demo import _perform, _stoppable

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


def test_a_demo_that_failed_half_way_draws_what_was_measured(shell, tmp_path):
    unmeasured = {"matched": None, "total": None}
    facts = {
        "measured": {"marked": {"matched": 600, "total": 600}},
        "claims": {"eve with a random key": {"votes": [unmeasured]}, "alice on the stolen model": {}},
    }
    write_report(tmp_path / "report", shell, facts)
    assert matched_triggers(facts) == {"marked": (600, 600)}
    assert (tmp_path / "report" / "matched.png").read_bytes().startswith(b"\x89PNG")


def test_a_vote_that_has_numbers_is_picked(shell):
    votes = [{"matched": None, "total": None}, {"matched": 290, "total": 600}]
    assert matched_triggers({"claims": {"eve with a random key": {"votes": votes}}}) == {"random key": (290, 600)}
    assert counted({"votes": votes}) == "290 of 600 triggers"
    with pytest.raises(DemoError, match="no vote"):
        counted({"votes": votes[:1]})


class FailingPlay(Play):
    """A performance whose fifth act fails."""

    def perform(self):
        self.facts["measured"] = {"marked": {"matched": 600, "total": 600}}
        raise DemoError("the fifth act")


def test_a_failure_is_told_and_so_is_where_the_transcript_is(shell, tmp_path):
    with pytest.raises(ClientError, match="the fifth act; the transcript is in"):
        _perform(FailingPlay(shell, seed=1), shell, tmp_path / "report")
    assert "the fifth act" in (tmp_path / "report" / "transcript.txt").read_text()
    assert "8/8" not in shell.text()


def test_a_report_that_cannot_be_written_does_not_hide_why_the_demo_failed(shell, tmp_path):
    (tmp_path / "report").write_text("no directory")
    with pytest.raises(ClientError, match="the fifth act; its report could not be written"):
        _perform(FailingPlay(shell, seed=1), shell, tmp_path / "report")


def test_a_report_replaces_an_earlier_one_and_nothing_else(shell, tmp_path):
    check_report(tmp_path / "report")
    write_report(tmp_path / "report", shell, FACTS)
    (tmp_path / "report" / "node-7.log").touch()
    check_report(tmp_path / "report")
    write_report(tmp_path / "report", shell, {})
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.json",
        "transcript.svg",
        "transcript.txt",
    }
    (tmp_path / "report" / "thesis.tex").touch()
    with pytest.raises(InputError, match="thesis"):
        check_report(tmp_path / "report")


@pytest.mark.parametrize(
    ("outcome", "reason", "by"),
    [
        ("VERIFIED", "matched", "aa"),
        ("REFUTED", "matched", None),
        ("INCONCLUSIVE", "no_quorum", None),
        ("VERIFIED", "x", None),
        (None, "open", None),
    ],
)
def test_a_verdict_other_than_the_storys_stops_the_demo(outcome, reason, by):
    superseding = {"publication": by} if by else None
    with pytest.raises(DemoError):
        expect_verdict(
            {"outcome": outcome, "reason": reason, "superseding": superseding}, "VERIFIED", superseded_by=None
        )


def test_the_storys_verdicts_are_let_pass():
    won = {"outcome": "VERIFIED", "reason": "matched", "superseding": None}
    expect_verdict(won, "VERIFIED", superseded_by=None)
    expect_verdict(won | {"superseding": {"publication": "aa"}}, "VERIFIED", superseded_by="aa")
    with pytest.raises(DemoError):
        expect_verdict(won, "VERIFIED", superseded_by="aa")
    with pytest.raises(DemoError):
        expect_verdict(
            {"outcome": "REFUTED", "reason": "head_mismatch", "superseding": None}, "REFUTED", superseded_by=None
        )


@pytest.mark.parametrize(("matched", "words"), [(420, "carries"), (419, "not enough"), (359, "no more than chance")])
def test_what_is_said_of_a_count_is_read_from_it(matched, words):
    assert words in described({"matched": matched, "total": 600})


def test_a_question_whose_command_fails_is_an_error(shell):
    words = ["node", "run", "absent"]
    with pytest.raises(DemoError, match="ended with 2"):
        shell.ask(words)
    assert shell.ask(words, expect=(0, 2))["error"]["code"] == "usage"


def test_a_command_that_does_not_end_is_an_error(shell):
    shell.timeout_s = 0.01
    with pytest.raises(DemoError, match="did not end"):
        shell.run(["--help"])


def test_the_callers_own_settings_do_not_reach_the_demo(shell, monkeypatch):
    monkeypatch.setenv("WMREG_DEBUG", "1")
    monkeypatch.setenv("WMREG_SIGNING_KEY", "/elsewhere")
    shell.run(["no-such-verb"], expect=2)
    assert "Traceback" not in shell.text()
    assert {name for name in shell._environment() if name.startswith("WMREG_")} == {"WMREG_HOME", "WMREG_POLICY"}


def test_sigterm_ends_the_demo_as_an_interrupt_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
