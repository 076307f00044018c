"""Events as e-mails, one each, through an SMTP server that is somebody's: the standard library's client in a thread.

``smtps://user@host:port`` speaks TLS from the start (465), ``smtp://`` begins with STARTTLS (587) and sends nothing to
a server that has none, unless that is on this very machine. Nothing that a stranger wrote stands in a header: subject
and addresses are made of the kind of event, the index, the ledger's name and the command line. The body is plain text,
and what strangers wrote is in one line of it.
"""

import asyncio
import re
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote, urlsplit

from client.errors import InputError, InvalidError
from client.files import check_private, read_text
from client.output import printable, utc
from client.watch.delivery import HookError
from client.watch.events import Event
from client.watch.webhook import is_loopback

TIMEOUT_S = 30.0  # for each answer of the server
_PASSWORD_BYTES_MAX = 1024
_ADDRESS_CHARACTERS_MAX = 254
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"[A-Za-z0-9.!#$%&'*+/=?^_`{{|}}~-]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_USUAL_PORTS = {"smtps": 465, "smtp": 587}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Who takes e-mails; read from the command line by `mail_server`.

    Attributes:
        is_smtps: whether it speaks TLS from the start.
        demands_starttls: whether nothing is sent to it before STARTTLS; else it is on this very machine.
        user, password: None for a server that asks for neither.
        tls: who vouches for it.
    """

    host: str
    port: int
    is_smtps: bool
    demands_starttls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    timeout_s: float = TIMEOUT_S

    @contextmanager
    def session(self) -> Iterator[smtplib.SMTP]:
        """A session, logged in where there is a user; raises what smtplib does.

        However the server takes its leave, what it took it has: smtplib's own context manager would raise for that.
        """
        session = self._connected()
        try:
            if self.user is not None:
                session.login(self.user, self.password or "")
            yield session
            with suppress(smtplib.SMTPException, OSError):
                session.quit()
        finally:
            session.close()

    def _connected(self) -> smtplib.SMTP:
        if self.is_smtps:
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout_s, context=self.tls)
        session = smtplib.SMTP(self.host, self.port, timeout=self.timeout_s)
        try:
            session.ehlo()
            if self.demands_starttls:
                session.starttls(context=self.tls)  # raises for a server that has none
                session.ehlo()
        except BaseException:
            session.close()
            raise
        return session


@dataclass(frozen=True, slots=True)
class Mail:
    """One address, and the server that takes e-mails for it."""

    address: str
    sender: str
    server: MailServer

    @property
    def name(self) -> str:
        """Names its cursor."""
        return f"email {self.address}"

    @property
    def shown(self) -> str:
        """Names it for people."""
        return f"e-mail to {self.address}"

    async def deliver(self, event: Event) -> None:
        """Hand an e-mail to the server; raises HookError when it does not take it."""
        message = compose(event, sender=self.sender, recipient=self.address)
        try:
            await asyncio.to_thread(self._send, message.as_bytes(policy=policy.SMTP))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise HookError(f"{self.server.host}: {_failure(error)}") from error

    def _send(self, raw: bytes) -> None:
        with self.server.session() as session:
            session.sendmail(self.sender, [self.address], raw)


def compose(event: Event, *, sender: str, recipient: str) -> EmailMessage:
    """The e-mail of an event; its Message-ID is the same each time, so mailboxes can leave out what they have."""
    origin = printable(str(event.details["origin"]))
    place = "" if event.index is None else f", entry {event.index}"
    message = EmailMessage(policy=policy.SMTP)
    message["From"], message["To"] = sender, recipient
    message["Subject"] = f"[wmreg] {event.kind.upper() if event.index is None else event.kind}{place} in {origin}"
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{event.id}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message["Wmreg-Event"] = event.id
    message.set_content(_body(event, origin), cte="quoted-printable")
    return message


def _body(event: Event, origin: str) -> str:
    lines = [printable(event.text), "", f"ledger    {origin}"]
    if event.index is not None and event.recorded_s is not None:
        lines += [f"entry     {event.index}", f"recorded  {utc(event.recorded_s)}"]
    if (digest := event.details.get("message_hash", event.details.get("claim"))) is not None:
        lines += [f"message   {digest}", "", f"More: wmreg show {digest}"]
    return "\n".join([*lines, "", f"Event {event.id}", ""])


def mail_server(
    url: str, *, password_path: Path | None, tls: ssl.SSLContext | None, timeout_s: float = TIMEOUT_S
) -> MailServer:
    """Read --smtp and its password.

    Raises:
        InputError: the URL is none of such a server, or it holds the password; or others may read the password's file.
        OSError: the password cannot be read.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme not in _USUAL_PORTS or parts.path.strip("/") or parts.query or parts.fragment:
        raise InputError("--smtp: expected smtps://[USER@]HOST[:PORT], or smtp:// for a server with STARTTLS")
    if parts.password is not None:
        raise InputError("--smtp: a password in the URL, where other users see it; give a file: --smtp-password FILE")
    user = None if parts.username is None else unquote(parts.username)
    if (user is None) != (password_path is None):
        raise InputError(
            "--smtp-password: it goes with a user in --smtp, such as smtps://me%40example.org@mail.example"
        )
    if user is not None and not (user.isascii() and user.isprintable()):
        raise InputError("--smtp: the user has characters that SMTP has not")
    return MailServer(
        host=host,
        port=port or _USUAL_PORTS[parts.scheme],
        is_smtps=parts.scheme == "smtps",
        demands_starttls=parts.scheme == "smtp" and not is_loopback(host),
        user=user,
        password=None if password_path is None else _load_password(password_path),
        tls=tls or ssl.create_default_context(),
        timeout_s=timeout_s,
    )


def check_address(address: str, *, option: str) -> str:
    """An address that e-mails may go to or come from; raises InputError for anything else."""
    if len(address) > _ADDRESS_CHARACTERS_MAX or not _ADDRESS.fullmatch(address):
        raise InputError(f"{option} {printable(address)[:80]!r}: expected an address such as me@example.org, in ASCII")
    return address


def _load_password(path: Path) -> str:
    check_private(path)
    password = read_text(path, _PASSWORD_BYTES_MAX).rstrip("\r\n")
    if not password or not (password.isascii() and password.isprintable()):
        raise InvalidError(f"{path}: expected one line of printable ASCII, the password", code="malformed")
    return password


def _failure(error: Exception) -> str:
    """Why an e-mail was not taken, in few words and one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (--hook-ca-file names other authorities)"
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return "the server has no STARTTLS, or no login"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        refused = next(iter(error.recipients.values()), (0, b""))
        return f"the address is refused: {refused[0]} {_said(refused[1])}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"refused: {error.smtp_code} {_said(error.smtp_error)}"
    return printable(getattr(error, "strerror", None) or " ".join(str(error).split()))[:200]


def _said(answer: bytes | str) -> str:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    return printable(" ".join(text.split()))[:200]
