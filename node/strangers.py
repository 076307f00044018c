"""Connections to servers that strangers name: where they may lead, and what they keep.

A pointer is written by a stranger, and a node that follows it is a machine inside somebody's network. So: https only,
and no private, loopback or link-local address even if a name resolves to one or a redirect leads to one. http is for
endpoints on loopback alone, and only where the settings allow private addresses at all, which is for tests and demos.
"""

import ipaddress
import re
import socket
import ssl
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from node.download import FetchError

CONNECT_TIMEOUT_S = 10
STALL_TIMEOUT_S = 60
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(net)
    for net in (
        "64:ff9b::/96",
        "fec0::/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "3fff::/20",
        "168.63.129.16/32",
    )  # the last: Azure's own, of any guest
)
_NUMBERS = re.compile(r"(?:(?:[0-9]+|0[xX][0-9a-fA-F]*)(?:\.|$))+")  # what the C library reads as an IPv4 address


class PrivateAddressError(aiohttp.ClientError):
    """A stranger's pointer leads into a private network."""


class Strangers:
    """Connects to strangers' servers, if they are where it may; to be made where an event loop runs.

    Args:
        allow_private_addresses: whether loopback, private and link-local addresses are connected to as well.
        tls: whose certificates are believed; the system's authorities by default.
    """

    def __init__(self, *, allow_private_addresses: bool, tls: ssl.SSLContext | None = None) -> None:
        self._allow_private_addresses = allow_private_addresses
        resolver = ThreadedResolver()
        public = resolver if allow_private_addresses else PublicResolver(resolver)
        self.session = closed_session(aiohttp.TCPConnector(resolver=public, ssl=tls or True))

    async def close(self) -> None:
        """Close the connections."""
        await self.session.close()

    def checked_url(self, pointer: str) -> URL:
        """Read an https URL that may be connected to; a name is looked at again when it is resolved.

        Raises:
            FetchError: unsupported_pointer.
        """
        url, host = _parsed(pointer)
        if url.scheme != "https" or not host or url.user is not None or url.password is not None:
            raise FetchError("unsupported_pointer", "a pointer is blob:sha256:<hex> or https://host/path")
        if not self._allow_private_addresses:
            _check_literal(host)
        return url

    def checked_endpoint(self, pointer: str) -> URL:
        """Read the URL of an endpoint that may be asked: as any other, or http on loopback where that is allowed.

        Raises:
            FetchError: unsupported_pointer.
        """
        url, host = _parsed(pointer)
        if url.scheme == "http" and self._allow_private_addresses and host in _LOOPBACK:
            return url
        return self.checked_url(pointer)


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses; a name with any other address is refused as a whole.

    The connection is made to the addresses that were checked, so a name that answers differently the second time
    (DNS rebinding) gains nothing.
    """

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a name; raises PrivateAddressError or OSError."""
        found = await self._resolver.resolve(host, port, family)
        for result in found:
            if not is_public(result["host"]):
                raise PrivateAddressError(f"{host} leads to an address that is not public")
        return found

    async def close(self) -> None:
        """Close the resolver behind this one."""
        await self._resolver.close()


def closed_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """Connections that keep nothing of one claim for the next, and unpack nothing."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=STALL_TIMEOUT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def is_public(address: str) -> bool:
    """Whether an IP literal is a globally routable unicast address, also when wrapped in an IPv6 one."""
    parsed: Any = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    if getattr(parsed, "teredo", None) or any(
        address in net for address in (parsed, inner or parsed) for net in _NOT_PUBLIC
    ):
        return False
    parsed = inner or parsed
    return bool(parsed.is_global and not parsed.is_multicast and not parsed.is_reserved)


def _parsed(pointer: str) -> tuple[URL, str | None]:
    """A URL and its host."""
    try:
        url = URL(pointer)
        host = url.host
        (url.raw_host or "").encode("idna")  # what a name server would be asked; labels have 1 to 63 characters
    except ValueError as error:
        raise FetchError("unsupported_pointer", str(error)) from error
    return url, host


def _check_literal(host: str) -> None:
    """Refuse an IP literal that is not public; names are checked when they are resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if _NUMBERS.fullmatch(host):  # 127.1, 2130706433, 0x7f.1: never a name, and never needed
            raise FetchError("unsupported_pointer", f"{host} is not an address as one writes it") from None
        return
    if not is_public(host):
        raise FetchError("unsupported_pointer", f"{host} is not a public address")
