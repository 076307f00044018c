"""Who is told: a real HTTP server for webhooks and a real SMTP server, each in a thread of its own.

The SMTP server knows as much of RFC 5321, STARTTLS and AUTH PLAIN as a client needs to hand over an e-mail, and keeps
every line that it was sent. It is of the standard library: the usual package for it has had no release since 2024.
"""

import asyncio
import base64
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiohttp import web
from loops import in_thread


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookReceiver:
    """Answers what `statuses` say, and then 204; may run something before it answers."""

    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    before_answer: Callable[[], Awaitable[None]] | None = None
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(headers, await request.read()))
        if self.before_answer is not None:
            await self.before_answer()
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers=self.headers, text="" if status == 204 else "the receiver says no")

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@dataclass
class MailReceiver:
    """Takes e-mails; refuses as it is told.

    Attributes:
        refusals: answers to the next DATA, such as "451 later", instead of taking it.
        tls: offers STARTTLS with this certificate.
        user, password: wanted before any e-mail.
        farewell: the answer to QUIT.
        lines: every line that was sent outside of an e-mail.
    """

    refusals: list[str] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str = ""
    farewell: str = "221 bye"
    lines: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(raw, policy=policy.default) for raw in self.raw]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _Session(self, reader, writer).run()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class _Session:
    def __init__(self, server: MailReceiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.is_known = server.user is None

    async def run(self) -> None:
        await self.say("220 mail.test ESMTP")
        while line := (await self.reader.readline()).decode().rstrip("\r\n"):
            self.server.lines.append(line)
            word = line.split(" ")[0].upper()
            if word == "QUIT":
                await self.say(self.server.farewell)
                return
            await self.say(await self.answer(word, line))
            if word == "STARTTLS" and self.server.tls is not None:
                await self.writer.start_tls(self.server.tls)
                self.server.lines.append("(TLS)")

    async def say(self, text: str) -> None:
        self.writer.write(f"{text}\r\n".encode())
        await self.writer.drain()

    async def answer(self, word: str, line: str) -> str:
        if word == "EHLO":
            return "\r\n".join(["250-mail.test", *(["250-STARTTLS"] if self.server.tls else []), "250 AUTH PLAIN"])
        if word == "STARTTLS":
            return "220 go ahead" if self.server.tls else "502 no"
        if word == "AUTH":
            return self.login(line)
        if word in {"MAIL", "RCPT"}:
            self.server.recipients += [line.partition(":")[2].strip()] if word == "RCPT" else []
            return "250 ok" if self.is_known else "530 who are you"
        return await self.take() if word == "DATA" else "250 ok"

    def login(self, line: str) -> str:
        _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
        self.is_known = (user, password) == (self.server.user, self.server.password)
        return "235 welcome" if self.is_known else "535 no"

    async def take(self) -> str:
        if self.server.refusals:
            return self.server.refusals.pop(0)
        await self.say("354 go ahead")
        lines = []
        while (line := await self.reader.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        self.server.raw.append(b"".join(lines))
        return "250 taken"


@contextmanager
def webhook_receiver(tls: ssl.SSLContext | None = None) -> Iterator[WebhookReceiver]:
    """A running receiver, on http or with a certificate on https."""
    receiver = WebhookReceiver()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{path:.*}", receiver.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}/hook"
        return runner

    with in_thread() as run:
        runner = run(start())
        try:
            yield receiver
        finally:
            run(runner.cleanup())


@contextmanager
def mail_receiver(receiver: MailReceiver, *, smtps: ssl.SSLContext | None = None) -> Iterator[MailReceiver]:
    """A running SMTP server; with smtps one that speaks TLS from the start."""

    async def start() -> asyncio.Server:
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=smtps)
        receiver.port = server.sockets[0].getsockname()[1]
        return server

    async def stop(server: asyncio.Server) -> None:
        server.close()

    with in_thread() as run:
        server = run(start())
        try:
            yield receiver
        finally:
            run(stop(server))
