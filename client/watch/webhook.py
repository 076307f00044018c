"""Events as signed HTTP requests, as the Standard Webhooks specification has them, so that its libraries check them.

::

    POST URL
    Content-Type: application/json
    webhook-id: <the event's id>                 the same for each try: what was taken before is not taken twice
    webhook-timestamp: <POSIX seconds>           of this try; a receiver refuses what is older than some minutes
    webhook-signature: v1,<base64>               HMAC-SHA256 over id "." timestamp "." body

The key is what stands behind ``whsec_`` in the secret's file, in base64. An answer 2xx within the time says that the
event was taken. Anything else is tried again, redirects too: a receiver that moved is for its owner to tell.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from client.errors import InputError, InvalidError
from client.files import check_private, read_text
from client.output import printable
from client.watch.delivery import HookError
from client.watch.events import Event

if TYPE_CHECKING:
    import aiohttp

PREFIX = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64  # the specification's
TIMEOUT_S = 30.0
URL_CHARACTERS_MAX = 2048
_FILE_BYTES_MAX = 1024
_ANSWER_BYTES_MAX = 64 * 1024
_RETRY_AFTER_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Webhook:
    """One receiver.

    Attributes:
        url: https, or http on this very machine; may hold a secret and is shown to nobody.
        secret: what requests are signed with; see `load_secret`.
        tls: who vouches for the receiver; True for the system's authorities.
    """

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    tls: ssl.SSLContext | bool = True
    timeout_s: float = TIMEOUT_S

    @property
    def name(self) -> str:
        """Names its cursor, without showing the URL."""
        return f"webhook {hashlib.sha256(self.url.encode()).hexdigest()[:16]}"

    @property
    def shown(self) -> str:
        """The host alone: what stands behind it is often a password."""
        return f"webhook {urlsplit(self.url).netloc}"

    async def deliver(self, event: Event) -> None:
        """POST an event; raises HookError when the answer is not 2xx, or there is none."""
        import aiohttp

        from client.transport import CONNECTION_ERRORS

        body, timeout = event.encode(), aiohttp.ClientTimeout(total=self.timeout_s)
        headers = {"User-Agent": "wmreg", "Content-Type": "application/json", **self._signed(event.id, body)}
        connector = aiohttp.TCPConnector(ssl=self.tls)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(self.url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                await _read(response)
        except CONNECTION_ERRORS as error:
            raise HookError(_failure(error)) from error

    def _signed(self, identifier: str, body: bytes) -> dict[str, str]:
        timestamp_s = int(time.time())
        return {
            "webhook-id": identifier,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature(self.secret, identifier, timestamp_s, body),
        }


def signature(secret: bytes, identifier: str, timestamp_s: int, body: bytes) -> str:
    """The value of webhook-signature."""
    signed = b"%s.%d.%s" % (identifier.encode(), timestamp_s, body)
    return f"v1,{base64.b64encode(hmac.digest(secret, signed, 'sha256')).decode()}"


def load_secret(path: Path) -> bytes:
    """Read the secret that requests are signed with, one line.

    Raises:
        InputError: others may read the file.
        InvalidError: it is no such secret.
        OSError: it cannot be read.
    """
    check_private(path)
    text = read_text(path, _FILE_BYTES_MAX).strip()
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not text.startswith(PREFIX) or not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        message = (
            f"{path}: expected one line, {PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64; "
            f'make one with: (umask 077; echo "{PREFIX}$(openssl rand -base64 32)" > {path})'
        )
        raise InvalidError(message, code="malformed")
    return secret


def check_url(url: str) -> str:
    """A URL that events may be sent to.

    Raises:
        InputError: it is none, it names a user, or it is http and leads to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in {"http", "https"} or len(url) > URL_CHARACTERS_MAX or not _is_plain(url):
        raise InputError("--webhook: expected a URL such as https://hooks.example/wmreg, of at most 2048 characters")
    if parts.username is not None or parts.fragment:
        raise InputError(f"--webhook {host}: a user, a password or a # part in the URL; the signature is what counts")
    if parts.scheme == "http" and not is_loopback(host):
        raise InputError(f"--webhook {host}: http leads to another machine in the clear; use https")
    return url


def is_loopback(host: str) -> bool:
    """Whether a host is this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


async def _read(response: "aiohttp.ClientResponse") -> None:
    if 200 <= response.status < 300:
        return
    wait_s = response.headers.get("Retry-After", "")
    retry_after_s = (
        float(wait_s) if wait_s.isascii() and wait_s.isdigit() and len(wait_s) <= _RETRY_AFTER_DIGITS else 0.0
    )
    said = printable((await response.content.read(_ANSWER_BYTES_MAX)).decode(errors="replace"))[:100]
    moved = "; redirects are not followed" if 300 <= response.status < 400 else ""
    raise HookError(f"HTTP status {response.status}{moved}{f': {said}' if said else ''}", retry_after_s=retry_after_s)


def _failure(error: BaseException) -> str:
    import aiohttp

    from client.transport import describe_failure

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", error.certificate_error)
        return f"its certificate is not trusted: {why} (--hook-ca-file names other authorities)"
    return describe_failure(error)
