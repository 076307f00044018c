"""Promises: every event reaches every hook at least once, whoever is killed, down or lying; faults are told."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import eventually
from receivers import MailReceiver, WebhookReceiver, mail_receiver, webhook_receiver

from client.watch import delivery
from registry import tiles

pytestmark = pytest.mark.long

SECRET = f"whsec_{base64.b64encode(b's' * 32).decode()}"


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as receiver:
        yield receiver


@pytest.fixture
def mailbox() -> Iterator[MailReceiver]:
    with mail_receiver(MailReceiver()) as receiver:
        yield receiver


@pytest.fixture
def to_receiver(receiver, tmp_path) -> list[str]:
    """The options of a webhook."""
    secret = tmp_path / "webhook.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    return ["--webhook", receiver.url, "--webhook-secret", str(secret)]


@pytest.fixture
def to_mailbox(mailbox) -> list[str]:
    """The options of a mailbox."""
    return ["--email", "me@example.org", "--smtp", f"smtp://127.0.0.1:{mailbox.port}", "--email-from", "w@example.org"]


@pytest.fixture
def watch(wmreg, ledger, monkeypatch):
    """Look once."""
    monkeypatch.setattr(delivery, "PAUSE_FIRST_S", 0.01)
    return lambda *words: wmreg("watch", "--once", *words, "--policy", ledger.policy_path)


def ids(answer) -> list[str]:
    return [json.loads(line)["id"] for line in answer.out.splitlines()]


def test_each_event_is_a_line_once_and_the_next_look_goes_on_behind_it(ledger, watch):
    ledger.grow(2)

    first, again = watch("--from", 0), watch("--from", 0)
    ledger.grow(1)
    later = watch("--json")

    assert (first.code, again.code, later.code) == (0, 0, 0)
    assert [line.split()[0] for line in first.out.splitlines()] == ["0", "1", "2"]
    assert again.out == ""
    assert [json.loads(line)["index"] for line in later.out.splitlines()] == [3]
    assert json.loads(later.out)["format"] == "wmreg-event/1"


def test_who_looks_for_the_first_time_is_told_what_comes_after(ledger, watch):
    ledger.grow(2)

    assert watch().out == ""
    ledger.grow(1)
    assert watch().out.split()[0] == "3"


def test_a_webhook_and_a_mailbox_are_told_what_stdout_is(ledger, watch, receiver, mailbox, to_receiver, to_mailbox):
    ledger.grow(2)

    told = watch("--from", 0, "--json", *to_receiver, *to_mailbox)

    assert receiver.ids == ids(told)
    assert [mail["Wmreg-Event"] for mail in mailbox.mails] == ids(told)
    assert [json.loads(request.body) for request in receiver.requests] == [
        json.loads(line) for line in told.out.splitlines()
    ]


def test_a_hook_that_says_500_is_tried_again(ledger, watch, receiver, to_receiver):
    ledger.grow(1)
    receiver.statuses = [500, 503]

    told = watch("--from", 0, "--json", *to_receiver)

    first, second = ids(told)
    assert (told.code, receiver.ids) == (0, [first, first, first, second])
    assert "HTTP status 500: the receiver says no; the genesis is kept and tried again" in told.err
    assert "took the genesis now" in told.err


def test_a_hook_that_is_down_stops_no_other_and_is_told_everything_later(  # noqa: PLR0917
    ledger, watch, receiver, mailbox, to_receiver, to_mailbox, monkeypatch
):
    monkeypatch.setenv("WMREG_PATIENCE_S", "0.02")
    ledger.grow(2)
    receiver.statuses = [500] * 100

    down = watch("--from", 0, "--json", *to_receiver, *to_mailbox)
    receiver.statuses, receiver.requests = [], []
    up = watch("--json", *to_receiver, *to_mailbox)

    assert (down.code, up.code) == (4, 0)
    assert "HTTP status 500" in down.out.splitlines()[-1]
    assert [mail["Wmreg-Event"] for mail in mailbox.mails] == [json.loads(x)["id"] for x in down.out.splitlines()[:3]]
    assert receiver.ids == [mail["Wmreg-Event"] for mail in mailbox.mails]
    assert up.out == ""


def test_a_new_hook_begins_where_the_others_stand(ledger, watch, receiver, to_receiver):
    ledger.grow(2)
    watch("--from", 0)
    ledger.grow(1)

    told = watch("--json", *to_receiver)

    assert receiver.ids == ids(told)
    assert len(receiver.ids) == 1


def test_a_fork_is_an_alarm_on_stdout_to_every_hook_and_exit_code_5(
    ledger, watch, receiver, mailbox, to_receiver, to_mailbox
):
    ledger.grow(3)
    watch(*to_receiver, *to_mailbox)
    ledger.rewrite(1)
    ledger.grow(1)

    told = watch("--json", *to_receiver, *to_mailbox)

    alarm, error = (json.loads(line) for line in told.out.splitlines())
    assert (told.code, alarm["event"], error["error"]["code"]) == (5, "alarm", alarm["code"])
    assert receiver.ids == [alarm["id"]]
    assert mailbox.mails[0]["Subject"] == "[wmreg] ALARM in test.example/ledger"
    assert "evidence:" in alarm["text"]


def test_an_entry_that_all_nodes_hide_is_an_alarm(ledger, watch, receiver, to_receiver):
    ledger.grow(3)
    watch(*to_receiver)
    ledger.grow(3)
    hidden = [*ledger.raw[:5], ledger.raw[4], ledger.raw[6]]
    for node in ledger.nodes:
        node.answers["/tile/entries/000.p/7"] = tiles.entry_bundle(hidden)

    told = watch(*to_receiver)

    assert (told.code, len(receiver.ids)) == (5, 1)
    assert json.loads(receiver.requests[0].body)["code"] == "entries"


def test_an_entry_that_one_node_hides_is_told_and_the_node_named(ledger, watch):
    ledger.grow(3)
    watch()
    ledger.grow(3)
    hidden = [*ledger.raw[:5], ledger.raw[4], ledger.raw[6]]
    ledger.nodes[0].answers["/tile/entries/000.p/7"] = tiles.entry_bundle(hidden)

    told = watch()

    assert [line.split()[0] for line in told.out.splitlines()] == ["4", "5", "6"]
    assert f"{ledger.nodes[0].url} gives entries that are not the log's" in told.err


def test_nodes_that_do_not_answer_are_exit_code_4(ledger, watch):
    watch()
    for node in ledger.nodes:
        node.down = True

    assert watch().code == 4


@pytest.fixture
def service(ledger, tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command as a service does; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "client.command", "watch", "--interval-s", "0.1", "--json", *words]
        process = subprocess.Popen(
            [*command, "--policy", str(ledger.policy_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "WMREG_HOME": str(tmp_path / "home"), "WMREG_PATIENCE_S": "0.5"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_who_is_killed_between_a_delivery_and_its_cursor_tells_it_again_and_loses_nothing(
    ledger, service, receiver, to_receiver
):
    ledger.grow(2)
    running: list[subprocess.Popen[str]] = []
    kills = [1, 1, 0, 1]  # the first delivery, its repetition, and one in the middle

    async def kill() -> None:
        if kills and kills.pop(0):
            running[-1].send_signal(signal.SIGKILL)

    receiver.before_answer = kill
    while kills:
        running.append(service("--from", "0", *to_receiver))
        if kills:
            running[-1].wait(60)
    running.append(service("--from", "0", *to_receiver))
    eventually(lambda: len(set(receiver.ids)) == 3, timeout_s=60, what="all three events")

    first, second, third = dict.fromkeys(receiver.ids)
    assert receiver.ids[:5] == [first, first, first, second, second]
    assert third == receiver.ids[-1]
    assert [json.loads(request.body)["index"] for request in receiver.requests[-1:]] == [2]


def test_a_service_tells_what_comes_waits_for_nodes_and_ends_when_told_to(ledger, service, receiver, to_receiver):
    running = service(*to_receiver)
    assert "following test.example/ledger from entry 1" in running.stderr.readline()
    for node in ledger.nodes:
        node.down = True
    assert "looking again in 1 s" in running.stderr.readline()
    for node in ledger.nodes:
        node.down = False
    receiver.statuses = [500] * 1000
    ledger.grow(1)
    assert json.loads(running.stdout.readline())["index"] == 1
    eventually(lambda: receiver.requests, timeout_s=30, what="a delivery")

    running.terminate()

    assert running.wait(30) == 0
    receiver.statuses = []
    service("--once", *to_receiver).wait(60)
    assert receiver.requests[-1].headers["webhook-id"] == receiver.ids[0]


def test_two_that_would_move_one_cursor_are_one_too_many(ledger, service, watch):
    running = service()
    running.stderr.readline()

    told = watch()

    assert (told.code, "another wmreg watch" in told.err) == (2, True)


WRONG = [
    (["zz"], "neither a file"),
    (["{tmp}"], "wmreg publish"),
    (["--owner", "12"], "--owner: expected a public key, 64 hexadecimal digits"),
    (["--kind", "nonsense"], "--kind"),
    (["--from", "7"], "(--from) 7: the ledger has 1 entries"),
    (["--from", "-1"], "--from"),
    (["--interval-s", "nan"], "finite"),
    (["--webhook", "https://hooks.example/"], "--webhook-secret: both or neither"),
    (["--webhook-secret", "{tmp}/secret"], "--webhook-secret: both or neither"),
    (["--webhook", "http://hooks.example/", "--webhook-secret", "{tmp}/secret"], "use https"),
    (["--webhook", "https://hooks.example/", "--webhook-secret", "{tmp}/open"], "chmod 600"),
    (["--webhook", "https://hooks.example/", "--webhook-secret", "{tmp}/empty"], "openssl rand"),
    (["--email", "me@example.org"], "--smtp: both or neither"),
    (["--smtp", "smtps://mail.example"], "--smtp: both or neither"),
    (["--email-from", "me@example.org"], "go with --email"),
    (["--email", "x\nBcc: y@z", "--smtp", "smtps://mail.example"], "--email"),
    (["--email", "me@example.org", "--smtp", "smtps://mail.example"], "--email-from"),
    (["--email", "me@example.org", "--smtp", "smtps://me@mail.example"], "--smtp-password"),
    (["--email", "me@example.org", "--smtp", "x", "--hook-ca-file", "{tmp}/empty"], "not a PEM file"),
    ([word for n in range(9) for word in ("--email", f"m{n}@x")], "at most 8 hooks"),
    (["--cursor", "{tmp}/garbled"], "damaged"),
    (["--cursor", "{tmp}/other"], "a cursor in other.example/ledger"),
    (["--cursor", "{tmp}/secret/x"], "secret"),
]


@pytest.mark.parametrize(("words", "needle"), WRONG)
def test_wrong_input_is_one_line_that_says_what_to_do_and_moves_nothing(watch, tmp_path, ledger, words, needle):
    for name, text, mode in (("secret", SECRET, 0o600), ("open", SECRET, 0o644), ("empty", "", 0o600)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)
    (tmp_path / "garbled").write_text("{}")
    from client.watch.cursor import Cursor, open_cursors

    with open_cursors(tmp_path / "other", "other.example/ledger") as cursors:
        cursors.begin(["stdout"], Cursor(origin="other.example/ledger", index=0, edge=()))

    told = watch(*[word.format(tmp=tmp_path) for word in words])

    assert told.code in {1, 2}
    assert needle in told.err
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert not list((tmp_path / "home").rglob("*.json"))


def test_a_policy_that_was_updated_is_read_again(ledger, service):
    text = ledger.policy_path.read_text()
    ledger.policy_path.write_text(text.replace("http://127.0.0.1:", "http://127.0.0.1:1"))
    running = service()
    assert "looking again" in running.stderr.readline()

    ledger.policy_path.write_text(text)

    assert "following test.example/ledger from entry 1" in running.stderr.readline()


def test_the_cursor_is_private_and_holds_neither_secret_nor_path(ledger, watch, receiver, to_receiver, tmp_path):
    watch(*to_receiver)

    (path,) = (tmp_path / "home" / "watch").glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert 'hook"' not in Path(path).read_text()
    assert SECRET not in path.read_text()
