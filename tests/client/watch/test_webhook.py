"""Promises: a request is signed as Standard Webhooks say, 2xx alone is taken, and nothing of the URL is shown."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from receivers import WebhookReceiver, webhook_receiver

from client.errors import InputError, InvalidError
from client.watch.delivery import HookError
from client.watch.events import Event, alarm_event
from client.watch.webhook import Webhook, check_url, load_secret, signature

SECRET = b"k" * 32
EVENT = alarm_event("test.example/ledger", "fork", "two trees")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def receiver():
    with webhook_receiver() as receiver:
        yield receiver


def deliver(url: str, event: Event = EVENT, **settings: object) -> None:
    asyncio.run(Webhook(url, SECRET, **settings).deliver(event))


def test_a_request_holds_the_event_its_id_and_a_signature_over_both(receiver: WebhookReceiver):
    deliver(receiver.url)

    (request,) = receiver.requests
    signed = f"{EVENT.id}.{request.headers['webhook-timestamp']}.".encode() + request.body
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == EVENT.document()
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60


def test_the_signature_is_that_of_the_specifications_libraries():
    """The vector of the Standard Webhooks libraries' own tests."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")

    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')

    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_takes_it(receiver, status):
    receiver.statuses = [status]

    deliver(receiver.url)

    (request,) = receiver.requests
    sent_s = int(request.headers["webhook-timestamp"])
    assert request.body == EVENT.encode()
    assert request.headers["webhook-signature"] == signature(SECRET, EVENT.id, sent_s, request.body)


@pytest.mark.parametrize("status", [302, 307, 400, 404, 410, 429, 500, 503])
def test_any_other_answer_does_not_and_no_redirect_is_followed(receiver, status):
    receiver.statuses, receiver.headers = [status], {"Location": receiver.url, "Retry-After": "7"}

    with pytest.raises(HookError, match=f"HTTP status {status}") as refused:
        deliver(receiver.url)

    assert refused.value.retry_after_s == 7
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("said", ["-1", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 40, "٣"])
def test_a_strange_retry_after_is_none(receiver, said):
    receiver.statuses, receiver.headers = [503], {"Retry-After": said}

    with pytest.raises(HookError) as refused:
        deliver(receiver.url)

    assert refused.value.retry_after_s == 0


def test_a_receiver_that_is_not_there_or_does_not_answer_has_not_taken_it(receiver):
    async def wait() -> None:
        await asyncio.sleep(30)

    receiver.before_answer = wait
    with pytest.raises(HookError, match="no answer in time"):
        deliver(receiver.url, timeout_s=0.05)
    with pytest.raises(HookError, match="cannot connect"):
        deliver("http://127.0.0.1:9/hook")


def test_a_receiver_needs_a_certificate_that_somebody_vouches_for(tmp_path: Path):
    authority = Authority(tmp_path / "ca.pem")
    authority.issue(tmp_path / "crt.pem", tmp_path / "key.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "crt.pem", tmp_path / "key.pem")
    with webhook_receiver(tls) as receiver:
        deliver(receiver.url, tls=ssl.create_default_context(cafile=authority.path))
        with pytest.raises(HookError, match=r"not trusted.*--hook-ca-file"):
            deliver(receiver.url)
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://hooks.example/", "expected a URL"),
        ("hooks.example", "expected a URL"),
        ("https://", "expected a URL"),
        ("https://hooks.example:99999/", "expected a URL"),
        ("https://hooks.example/a b", "expected a URL"),
        ("https://hooks.example/a\nb", "expected a URL"),
        (f"https://hooks.example/{'x' * 2048}", "expected a URL"),
        ("https://me:hunter2@hooks.example/", "a user"),
        ("https://hooks.example/#part", "# part"),
        ("http://hooks.example/", "in the clear"),
        ("http://10.0.0.1/", "in the clear"),
    ],
)
def test_a_url_that_nothing_is_sent_to(url, why):
    with pytest.raises(InputError, match=why) as refused:
        check_url(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://hooks.example/x?y=z", "http://localhost:8000/", "http://[::1]/", "http://127.9.9.9/"]
)
def test_a_url_that_something_is_sent_to(url):
    assert check_url(url) == url


def test_neither_the_cursors_name_nor_what_is_shown_holds_the_path_of_the_url():
    hook = Webhook("https://hooks.example/secret-token?key=1", SECRET)

    assert "secret" not in hook.name + hook.shown
    assert hook.name != replace(hook, url="https://hooks.example/other").name


def test_neither_the_url_nor_the_secret_is_shown_where_the_hook_is():
    assert "secret" not in repr(Webhook("https://hooks.example/secret-token", b"secret" * 4)).lower()


@pytest.mark.parametrize(
    "answer", ["garbage\r\n\r\n", "HTTP/1.1 9999 \r\n\r\n", f"HTTP/1.1 200 ok\r\nX: {'x' * 20_000}\r\n\r\n"]
)
def test_an_answer_that_is_no_http_shows_nothing_of_the_url_either(answer):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            await Webhook(f"http://127.0.0.1:{port}/secret-token", SECRET).deliver(EVENT)

    with pytest.raises(HookError) as refused:
        asyncio.run(run())
    assert "answer" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


GOOD = f"whsec_{base64.b64encode(SECRET).decode()}"


@pytest.mark.parametrize("text", [GOOD, f"{GOOD}\n", f"{GOOD}\r\n"])
def test_a_secret_is_read(tmp_path, text):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)

    assert load_secret(path) == SECRET


@pytest.mark.parametrize(
    "text", ["", "hunter2", GOOD.removeprefix("whsec_"), "whsec_", f"{GOOD}!", "whsec_c2hvcnQ=", f"whsec_{'QUFB' * 30}"]
)
def test_what_is_no_secret_says_how_to_make_one(tmp_path, text):
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(InvalidError, match="openssl rand -base64 32") as refused:
        load_secret(path)
    assert "hunter2" not in str(refused.value)


def test_a_secret_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "secret"
    path.write_text(GOOD)
    path.chmod(0o640)

    with pytest.raises(InputError, match="chmod 600"):
        load_secret(path)


def documented_verifier() -> str:
    """The ten lines of the page that tell a receiver's author how to check a request."""
    page = (ROOT / "docs" / "watch.md").read_text()
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def verify" in block]
    return block


def test_the_verifier_of_the_docs_takes_what_is_sent_and_nothing_else(receiver: WebhookReceiver):
    scope: dict = {}
    exec(documented_verifier(), scope)  # noqa: S102 -- our own page
    deliver(receiver.url)
    (request,) = receiver.requests

    assert scope["verify"](GOOD, request.headers, request.body)
    forged = [
        (GOOD, request.headers, request.body + b" "),
        (f"whsec_{base64.b64encode(b'x' * 32).decode()}", request.headers, request.body),
        (GOOD, request.headers | {"webhook-id": "other"}, request.body),
        (GOOD, request.headers | {"webhook-timestamp": str(int(time.time()) - 3600)}, request.body),
        (GOOD, request.headers | {"webhook-signature": "v1,"}, request.body),
    ]
    assert [scope["verify"](*one) for one in forged] == [False] * 5
