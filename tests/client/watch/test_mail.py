"""Promises: an e-mail arrives whole; what strangers write reaches no header; no secret goes where it can be read."""

import asyncio
import re
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from receivers import MailReceiver, mail_receiver

from client.errors import InputError, InvalidError
from client.watch.delivery import HookError
from client.watch.events import Event
from client.watch.mail import Mail, MailServer, check_address, compose, mail_server

EVENT = Event(
    id="ab" * 32,
    kind="challenge",
    index=7,
    recorded_s=1_800_000_000,
    text="1234… objects: the model is mine ?",
    details={"origin": "test.example/ledger", "message_hash": "cd" * 32},
)
RECEIVER = "owner@example.org"


@pytest.fixture
def server():
    with mail_receiver(MailReceiver()) as receiver:
        yield receiver


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca.pem")


@pytest.fixture
def certified(tmp_path: Path, authority: Authority) -> ssl.SSLContext:
    """The certificate of an SMTP server."""
    authority.issue(tmp_path / "crt.pem", tmp_path / "key.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt.pem", tmp_path / "key.pem")
    return context


def local(server: MailReceiver, **more: object) -> MailServer:
    settings = {"is_smtps": False, "demands_starttls": False, "timeout_s": 5} | more
    return MailServer(host="127.0.0.1", port=server.port, **settings)


def deliver(server: MailServer, event: Event = EVENT) -> None:
    asyncio.run(Mail(RECEIVER, "wmreg@example.org", server).deliver(event))


def test_an_e_mail_says_what_where_and_since_when(server):
    deliver(local(server))

    (mail,) = server.mails
    assert (mail["From"], mail["To"]) == ("wmreg@example.org", RECEIVER)
    assert mail["Subject"] == "[wmreg] challenge, entry 7 in test.example/ledger"
    assert mail["Message-ID"] == f"<{EVENT.id}@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert EVENT.text in mail.get_content()
    assert f"wmreg show {'cd' * 32}" in mail.get_content()
    assert server.recipients == [f"<{RECEIVER}>"]


@pytest.mark.parametrize("farewell", ["221 bye", "421 too busy to say goodbye", "garbage"])
def test_what_was_taken_is_not_sent_again_however_the_server_takes_its_leave(server, farewell):
    server.farewell = farewell

    deliver(local(server))

    assert len(server.mails) == 1


def test_what_is_refused_was_not_taken(server):
    server.refusals = ["451 later\x1b[2J"]

    with pytest.raises(HookError, match=r"127\.0\.0\.1: refused: 451 later\?\[2J"):
        deliver(local(server))
    deliver(local(server))

    assert len(server.mails) == 1


def test_a_server_that_is_not_there_has_not_taken_it():
    server = MailServer(host="127.0.0.1", port=9, is_smtps=False, demands_starttls=False)

    with pytest.raises(HookError, match="refused"):
        deliver(server)


INJECTIONS = [
    "x\r\nBcc: everybody@example.org",
    "x\nBcc: everybody@example.org",
    "x\r\n\r\nbody",
    "x\r\n.\r\nQUIT",
    "x\x00y",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_strangers_write_reaches_no_header(server, text):
    event = replace(EVENT, text=text, details=EVENT.details | {"origin": f"a{text}"})

    deliver(local(server), event)

    (mail,) = server.mails
    assert sorted(mail.keys()) == sorted(compose(EVENT, sender="a@b.c", recipient="d@e.f").keys())
    assert mail["Bcc"] is None
    assert server.recipients == [f"<{RECEIVER}>"]
    assert [line.split(" ")[0].upper() for line in server.lines] == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]


@pytest.mark.parametrize(
    "address",
    [*INJECTIONS, "", "me", "me@", "@x", "me@x y", "me@é.example", "a@b@c", "me@x..y", "<me@x>", "m" * 255 + "@x"],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(address):
    with pytest.raises(InputError, match="--email"):
        check_address(address, option="--email")


@pytest.mark.parametrize("address", ["me@example.org", "a.b+c@mail.example.org", "root@localhost"])
def test_what_is_an_address_is_taken(address):
    assert check_address(address, option="--email") == address


def test_smtps_speaks_tls_with_a_server_that_somebody_vouches_for(certified, authority):
    with mail_receiver(MailReceiver(user="me", password="word"), smtps=certified) as server:
        trusted = local(server, is_smtps=True, user="me", password="word")
        deliver(replace(trusted, tls=ssl.create_default_context(cafile=authority.path)))
        with pytest.raises(HookError, match=r"not trusted.*--hook-ca-file"):
            deliver(trusted)
        with pytest.raises(HookError, match="535 no"):
            deliver(replace(trusted, password="wrong", tls=ssl.create_default_context(cafile=authority.path)))
        assert len(server.mails) == 1


def test_starttls_comes_before_the_password_and_the_e_mail(certified, authority):
    with mail_receiver(MailReceiver(tls=certified, user="me", password="word")) as server:
        tls = ssl.create_default_context(cafile=authority.path)
        deliver(local(server, demands_starttls=True, user="me", password="word", tls=tls))

        words = [line.split(" ")[0].upper() for line in server.lines]
        assert words[: words.index("(TLS)") + 1] == ["EHLO", "STARTTLS", "(TLS)"]
        assert len(server.mails) == 1


def test_a_server_without_starttls_gets_neither_password_nor_e_mail(server):
    server.user = "me"

    with pytest.raises(HookError, match="no STARTTLS"):
        deliver(local(server, demands_starttls=True, user="me", password="word"))

    assert {line.split(" ")[0].upper() for line in server.lines} <= {"EHLO", "QUIT"}


@pytest.mark.parametrize(
    ("url", "port", "is_smtps", "demands_starttls"),
    [
        ("smtps://mail.example", 465, True, False),
        ("smtps://mail.example:2465", 2465, True, False),
        ("smtp://mail.example", 587, False, True),
        ("smtp://10.0.0.1:25", 25, False, True),
        ("smtp://localhost:25", 25, False, False),
        ("smtp://127.0.0.1", 587, False, False),
    ],
)
def test_starttls_is_demanded_of_every_server_but_this_machines(url, port, is_smtps, demands_starttls):
    read = mail_server(url, password_path=None, tls=None)

    assert (read.port, read.is_smtps, read.demands_starttls) == (port, is_smtps, demands_starttls)


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_user_and_password_are_read(tmp_path):
    read = mail_server(
        "smtps://me%40example.org@mail.example", password_path=secret(tmp_path / "p", "a word\n"), tls=None
    )

    assert (read.user, read.password) == ("me@example.org", "a word")
    assert "a word" not in repr(read)


@pytest.mark.parametrize(
    ("url", "password", "why"),
    [
        ("https://mail.example", None, "smtps://"),
        ("smtps://", None, "smtps://"),
        ("smtps://mail.example/path", None, "smtps://"),
        ("smtps://mail.example:0x", None, "smtps://"),
        ("smtps://me:hunter2@mail.example", None, "--smtp-password FILE"),
        ("smtps://me@mail.example", None, "--smtp-password"),
        ("smtps://mail.example", "word", "--smtp-password"),
        ("smtps://m%0d%0ae@mail.example", "word", "characters"),
        ("smtps://me@mail.example", "", "one line"),
        ("smtps://me@mail.example", "two\nlines", "one line"),
    ],
)
def test_a_wrong_server_or_password_is_told_and_no_secret_with_it(tmp_path, url, password, why):
    path = None if password is None else secret(tmp_path / "p", password)

    with pytest.raises((InputError, InvalidError), match=re.escape(why)) as refused:
        mail_server(url, password_path=path, tls=None)
    assert "hunter2" not in str(refused.value)


def test_a_password_that_others_may_read_is_refused(tmp_path):
    path = secret(tmp_path / "p", "word")
    path.chmod(0o644)

    with pytest.raises(InputError, match="chmod 600"):
        mail_server("smtps://me@mail.example", password_path=path, tls=None)
