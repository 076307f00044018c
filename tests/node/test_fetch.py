"""A stranger's pointer leads to a public https server or a peer's blob, and to nothing that lacks the hash."""

import asyncio
import errno
import gzip
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from descriptors import no_free_descriptor
from endpoints import serving

from node import bodies
from node import strangers as strangers_module
from node.blobs import BlobLimits
from node.cache import FileCache
from node.config import FetchSettings
from node.download import RESUMES_MAX, FetchError
from node.fetch import Fetcher
from node.strangers import PrivateAddressError, PublicResolver, is_public

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).digest()
POINTER = f"blob:sha256:{SHA256.hex()}"


def settings(*, private: bool = True, timeout_s: int = 30, directory: object = "") -> FetchSettings:
    return FetchSettings(
        allow_private_addresses=private, file_directory=str(directory), timeout_s=timeout_s, unreachable_retry_s=1
    )


def store(path: Path) -> FileCache:
    return FileCache(path, BlobLimits(blob_bytes_max=100_000, total_bytes_max=200_000))


@asynccontextmanager
async def fetcher(tmp_path: Path, **options: object) -> AsyncIterator[Fetcher]:
    known: dict[str, object] = {"peer_urls": [], "settings": settings(), "cache": store(tmp_path / "cache")}
    made = Fetcher(store(tmp_path / "blobs"), **{**known, **options})
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="session")
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """TLS of a server called localhost, with a certificate that is its own authority."""
    directory, private_key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, year = datetime.now(UTC).replace(tzinfo=None), timedelta(days=365)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(1)
        .not_valid_before(now - year)
        .not_valid_after(now + year)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    context.wmreg_authority = directory / "certificate.pem"
    return context


def files_app(content: bytes = CONTENT) -> web.Application:
    async def good(_: web.Request) -> web.Response:
        return web.Response(body=content)

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(100):
            await answer.write(bytes(10_000))
        return answer

    async def stalls(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(content[:10])
        await asyncio.sleep(30)
        return answer

    async def drips(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with suppress(ConnectionError):
            while True:
                await answer.write(b"x")
                await asyncio.sleep(0.02)
        return answer

    async def moved(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": request.query.get("to", str(request.url))})

    async def packed(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=gzip.compress(content), headers={"Content-Encoding": "gzip"})

    async def cookie(request: web.Request) -> web.Response:
        assert "Cookie" not in request.headers
        return web.Response(body=content, headers={"Set-Cookie": "claim=1; Path=/"})

    app = web.Application()
    app.add_routes(
        [
            web.get("/good", good),
            web.get("/endless", endless),
            web.get("/stalls", stalls),
            web.get("/moved", moved),
            web.get("/moved/without/end", moved),
            web.get("/packed", packed),
            web.get("/cookie", cookie),
            web.get("/drips", drips),
            web.get(f"/v1/blobs/{SHA256.hex()}", good),
        ]
    )
    return app


def client_tls(server_tls: ssl.SSLContext) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server_tls.wmreg_authority)


async def test_an_https_pointer_is_fetched_and_kept(tmp_path: Path, server_tls: ssl.SSLContext):
    async with (
        serving(files_app(), server_tls) as port,
        fetcher(tmp_path, tls=client_tls(server_tls)) as fetching,
    ):
        path = await fetching.fetch(f"https://localhost:{port}/good", SHA256, bytes_max=10_000)
        assert path.read_bytes() == CONTENT
    async with fetcher(tmp_path) as offline:
        assert await offline.fetch(f"https://localhost:{port}/good", SHA256, bytes_max=10_000) == path
        offline.discard(SHA256)
        assert not path.exists()


@pytest.mark.parametrize(
    ("path", "bytes_max", "reason"),
    [
        ("/moved/without/end", 10_000, "unreachable"),
        ("/moved?to=http://localhost/good", 10_000, "unsupported_pointer"),
        ("/moved?to=file:///etc/passwd", 10_000, "unsupported_pointer"),
        ("/moved?to=https://user@localhost/good", 10_000, "unsupported_pointer"),
        ("/moved?to=", 10_000, "unreachable"),
        ("/packed", 10_000, "unreachable"),
        ("/absent", 10_000, "unreachable"),
        ("/good", 6_999, "too_large"),
        ("/endless", 10_000, "too_large"),
        ("/endless", 10_000_000, "too_large"),
        ("/stalls", 10_000, "timeout"),
    ],
)
async def test_a_bad_answer_has_its_reason_and_leaves_nothing(
    tmp_path: Path, server_tls: ssl.SSLContext, path: str, bytes_max: int, reason: str
):
    tls = client_tls(server_tls)
    async with (
        serving(files_app(), server_tls) as port,
        fetcher(tmp_path, tls=tls, settings=settings(timeout_s=1 if path == "/stalls" else 30)) as fetching,
    ):
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(f"https://localhost:{port}{path}", SHA256, bytes_max=bytes_max)
    assert failed.value.reason == reason
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


@pytest.mark.parametrize("hops", [1, 5])
async def test_redirects_are_followed_as_far_as_they_may_lead(tmp_path: Path, server_tls: ssl.SSLContext, hops: int):
    async def hop(request: web.Request) -> web.Response:
        left = int(request.match_info["left"])
        return (
            web.Response(body=CONTENT) if left == 0 else web.Response(status=307, headers={"Location": str(left - 1)})
        )

    app = web.Application()
    app.add_routes([web.get("/hop/{left}", hop)])
    tls = client_tls(server_tls)
    async with serving(app, server_tls) as port, fetcher(tmp_path, tls=tls) as fetching:
        url = f"https://localhost:{port}/hop"
        with pytest.raises(FetchError, match="redirects"):
            await fetching.fetch(f"{url}/6", SHA256, bytes_max=10_000)
        assert await fetching.fetch(f"{url}/{hops}", SHA256, bytes_max=10_000)


@pytest.mark.parametrize(
    "target", ["https://169.254.169.254/latest", "https://10.0.0.1/m", "https://[::ffff:7f00:1]/m"]
)
async def test_a_redirect_into_a_private_network_is_not_followed(
    tmp_path: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, target: str
):
    monkeypatch.setattr(strangers_module, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(strangers_module, "ThreadedResolver", lambda: FixedResolver("127.0.0.1"))
    tls = client_tls(server_tls)
    async with (
        serving(files_app(), server_tls) as port,
        fetcher(tmp_path, tls=tls, settings=settings(private=False)) as fetching,
    ):
        assert await fetching.fetch(f"https://localhost:{port}/good", SHA256, bytes_max=10_000)
        fetching.discard(SHA256)
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(f"https://localhost:{port}/moved?to={target}", SHA256, bytes_max=10_000)
    assert (failed.value.reason, failed.value.may_pass) == ("unsupported_pointer", True)


async def test_no_cookie_is_carried_from_one_claim_to_the_next(tmp_path: Path, server_tls: ssl.SSLContext):
    tls = client_tls(server_tls)
    async with serving(files_app(), server_tls) as port, fetcher(tmp_path, tls=tls) as fetching:
        for _ in range(2):
            assert await fetching.fetch(f"https://localhost:{port}/cookie", SHA256, bytes_max=10_000)
            fetching.discard(SHA256)


class Breaking:
    """A server that breaks off after some bytes of each answer.

    Attributes:
        ranges: the Range header of each request.
    """

    def __init__(
        self, *, step: int = 3_000, tag: str | None = '"v1"', later_tag: str | None = None, honours_ranges: bool = True,
        shift: int = 0, total: int | None = None,
    ) -> None:  # fmt: skip
        self._step, self._tag, self._later_tag, self._honours = step, tag, later_tag or tag, honours_ranges
        self._shift, self._total = shift, total or len(CONTENT)
        self.ranges: list[str | None] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Range")
        tag = self._later_tag if self.ranges else self._tag
        self.ranges.append(asked)
        start = 0
        if asked and self._honours and request.headers["If-Range"] == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": tag} if tag else {}
        if start:
            headers["Content-Range"] = f"bytes {start + self._shift}-{len(CONTENT) - 1}/{self._total}"
        answer = web.StreamResponse(status=206 if start else 200, headers=headers)
        answer.content_length = len(CONTENT) - start
        await answer.prepare(request)
        await answer.write(CONTENT[start : start + self._step])
        if start + self._step < len(CONTENT):
            request.transport.close()
        return answer


async def fetch_from(server: Breaking, tmp_path: Path, server_tls: ssl.SSLContext) -> bytes:
    app = web.Application()
    app.add_routes([web.get("/m", server.serve)])
    async with serving(app, server_tls) as port, fetcher(tmp_path, tls=client_tls(server_tls)) as fetching:
        path = await fetching.fetch(f"https://localhost:{port}/m", SHA256, bytes_max=10_000)
        return path.read_bytes()


async def test_a_download_that_breaks_is_taken_up_where_it_ended(tmp_path: Path, server_tls: ssl.SSLContext):
    server = Breaking()
    assert await fetch_from(server, tmp_path, server_tls) == CONTENT
    assert server.ranges == [None, "bytes=3000-", "bytes=6000-"]


async def test_a_download_that_breaks_all_the_time_is_given_up(tmp_path: Path, server_tls: ssl.SSLContext):
    server = Breaking(step=10)
    with pytest.raises(FetchError) as failed:
        await fetch_from(server, tmp_path, server_tls)
    assert (failed.value.reason, failed.value.may_pass) == ("unreachable", True)
    assert len(server.ranges) == RESUMES_MAX + 1


@pytest.mark.parametrize(
    ("server", "requests"),
    [
        (Breaking(tag=None), 1),
        (Breaking(tag='W/"v1"'), 1),
        (Breaking(step=0), 1),
        (Breaking(later_tag='"v2"'), 2),
        (Breaking(honours_ranges=False), 2),
        (Breaking(shift=1), 2),
        (Breaking(total=8_000), 2),
    ],
)
async def test_what_may_be_another_file_by_now_is_not_put_together(
    tmp_path: Path, server_tls: ssl.SSLContext, server: Breaking, requests: int
):
    server.ranges.clear()
    with pytest.raises(FetchError) as failed:
        await fetch_from(server, tmp_path, server_tls)
    assert (failed.value.reason, failed.value.may_pass) == ("unreachable", True)
    assert len(server.ranges) == requests
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []


async def test_a_file_of_the_allowed_directory_is_copied_and_hashed(tmp_path: Path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "m").write_bytes(CONTENT)
    (models / "other").write_bytes(b"other")
    async with fetcher(tmp_path, settings=settings(directory=models)) as fetching:
        for name, reason in (("other", "hash_mismatch"), ("absent", "unreachable"), ("../x", "unreachable")):
            with pytest.raises(FetchError) as failed:
                await fetching.fetch(f"file://{models}/{name}", SHA256, bytes_max=10_000)
            assert failed.value.reason == reason
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(f"file://{models}/m", SHA256, bytes_max=100)
        assert failed.value.reason == "too_large"
        path = await fetching.fetch(f"file://{models}/m", SHA256, bytes_max=10_000)
        (models / "m").write_bytes(b"changed")
        assert (path.read_bytes(), path.is_relative_to(tmp_path / "cache")) == (CONTENT, True)


async def test_another_file_than_the_claimed_one_is_a_hash_mismatch(tmp_path: Path, server_tls: ssl.SSLContext):
    tls = client_tls(server_tls)
    async with serving(files_app(b"other"), server_tls) as port, fetcher(tmp_path, tls=tls) as fetching:
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(f"https://localhost:{port}/good", SHA256, bytes_max=10_000)
    assert (failed.value.reason, failed.value.may_pass) == ("hash_mismatch", True)


async def test_a_file_that_drips_is_given_up_although_it_never_stalls(
    tmp_path: Path, server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bodies, "GRACE_S", 0.3)
    tls = client_tls(server_tls)
    async with (
        serving(files_app(), server_tls) as port,
        fetcher(tmp_path, tls=tls, settings=settings(timeout_s=60)) as fetching,
    ):
        async with asyncio.timeout(20):
            with pytest.raises(FetchError) as failed:
                await fetching.fetch(f"https://localhost:{port}/drips", SHA256, bytes_max=10_000)
    assert (failed.value.reason, failed.value.may_pass) == ("timeout", True)


async def test_a_cache_without_room_is_this_nodes_trouble_and_no_reason_for_a_vote(
    tmp_path: Path, server_tls: ssl.SSLContext
):
    for path, bytes_max in (("/good", 10_000), ("/endless", 10_000_000)):
        small = FileCache(tmp_path / "small", BlobLimits(blob_bytes_max=5_000, total_bytes_max=5_000))
        tls = client_tls(server_tls)
        async with serving(files_app(), server_tls) as port, fetcher(tmp_path, tls=tls, cache=small) as fetching:
            with pytest.raises(OSError, match="full") as failed:
                await fetching.fetch(f"https://localhost:{port}{path}", SHA256, bytes_max=bytes_max)
        assert failed.value.errno == errno.EDQUOT


async def test_a_cache_that_cannot_be_written_is_this_nodes_trouble(tmp_path: Path, server_tls: ssl.SSLContext):
    tls = client_tls(server_tls)
    async with serving(files_app(), server_tls) as port, fetcher(tmp_path, tls=tls) as fetching:
        (tmp_path / "cache/incoming").rmdir()
        with pytest.raises(FileNotFoundError):
            await fetching.fetch(f"https://localhost:{port}/good", SHA256, bytes_max=10_000)


async def test_no_free_descriptor_is_this_nodes_trouble(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pointer = f"https://127.0.0.1:{listening.getsockname()[1]}/m"
        async with fetcher(tmp_path) as fetching:
            with no_free_descriptor(), pytest.raises(OSError, match=r"(?i)too many open files"):
                await fetching.fetch(pointer, SHA256, bytes_max=10_000)


async def test_a_server_with_an_unknown_certificate_is_unreachable(tmp_path: Path, server_tls: ssl.SSLContext):
    async with serving(files_app(), server_tls) as port, fetcher(tmp_path) as fetching:
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(f"https://localhost:{port}/good", SHA256, bytes_max=10_000)
    assert failed.value.reason == "unreachable"


async def test_a_blob_comes_from_the_own_store_first(tmp_path: Path):
    blobs = store(tmp_path / "blobs")

    async def whole() -> AsyncIterator[bytes]:
        yield CONTENT

    path = await blobs.add(SHA256, whole(), bytes_max=10_000)
    async with fetcher(tmp_path) as fetching:
        assert await fetching.fetch(POINTER, SHA256, bytes_max=10_000) == path
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(POINTER, SHA256, bytes_max=100)
    assert failed.value.reason == "too_large"


async def test_a_blob_comes_from_any_peer_that_has_it_genuine(tmp_path: Path):
    async with serving(web.Application()) as lacks, serving(files_app(b"forged")) as lies, serving(files_app()) as has:
        urls = [f"http://127.0.0.1:{port}" for port in (1, lacks, lies, has)]
        async with fetcher(tmp_path, peer_urls=urls, settings=settings(private=False)) as fetching:
            path = await fetching.fetch(POINTER, SHA256, bytes_max=10_000)
            assert path.read_bytes() == CONTENT


async def test_a_blob_that_nobody_has_is_unreachable(tmp_path: Path):
    async with fetcher(tmp_path) as fetching:
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(POINTER, SHA256, bytes_max=10_000)
    assert failed.value.reason == "unreachable"


@pytest.mark.parametrize("fault", ["another file", "far too much", "nothing more", "an error"])
async def test_whatever_a_peer_does_says_nothing_of_the_claim(tmp_path: Path, fault: str):
    async def serve(request: web.Request) -> web.StreamResponse:
        if fault == "an error":
            return web.Response(status=500)
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(bytes(50_000) if fault == "far too much" else b"forged")
        if fault == "nothing more":
            await asyncio.sleep(30)
        return answer

    app = web.Application()
    app.add_routes([web.get(f"/v1/blobs/{SHA256.hex()}", serve)])
    async with (
        serving(app) as port,
        fetcher(tmp_path, peer_urls=[_url(port)], settings=settings(timeout_s=1)) as fetching,
    ):
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(POINTER, SHA256, bytes_max=10_000)
    assert (failed.value.reason, failed.value.may_pass) == ("unreachable", True)


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


async def test_a_peer_that_announces_more_than_there_is_room_for_does_not_hide_the_next_peer(tmp_path: Path):
    async def announce(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "9000"})
        await answer.prepare(request)
        await answer.write(bytes(9000))
        return answer

    app = web.Application()
    app.add_routes([web.get(f"/v1/blobs/{SHA256.hex()}", announce)])
    small = FileCache(tmp_path / "small", BlobLimits(blob_bytes_max=8_000, total_bytes_max=8_000))
    async with serving(app) as lies, serving(files_app()) as has:
        urls = ["http://a..b", _url(lies), _url(has)]
        async with fetcher(tmp_path, peer_urls=urls, cache=small) as fetching:
            path = await fetching.fetch(POINTER, SHA256, bytes_max=10_000)
            assert path.read_bytes() == CONTENT
        async with fetcher(tmp_path, peer_urls=urls[:2], cache=store(tmp_path / "empty")) as fetching:
            with pytest.raises(FetchError):
                await fetching.fetch(POINTER, SHA256, bytes_max=10_000)


async def test_a_blob_pointer_must_name_the_claimed_hash(tmp_path: Path):
    async with fetcher(tmp_path) as fetching:
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(f"blob:sha256:{'00' * 32}", SHA256, bytes_max=10_000)
    assert (failed.value.reason, failed.value.may_pass) == ("hash_mismatch", False)


@pytest.mark.parametrize(
    "pointer",
    [
        "http://example.com/m",
        "file:///etc/passwd",
        "ftp://example.com/m",
        "data:text/plain,x",
        "/etc/passwd",
        "",
        "https://",
        "https:///m",
        "https://user:password@example.com/m",
        "https://[::1",
        "https://a..b/m",
        "https://.a/m",
        "https://.../m",
        "https://xn--/m",
        "https://xn--a/m",
        "https://a:99999/m",
        f"https://{'a' * 64}.example/m",
        f"blob:sha256:{SHA256.hex().upper()}",
        "blob:sha256:00",
        f"blob:sha512:{SHA256.hex()}",
    ],
)
async def test_other_pointers_are_unsupported(tmp_path: Path, pointer: str):
    async with fetcher(tmp_path) as fetching:
        with pytest.raises(FetchError) as failed:
            await fetching.fetch(pointer, SHA256, bytes_max=10_000)
    assert (failed.value.reason, failed.value.may_pass) == ("unsupported_pointer", False)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "[::1]", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]", "[fec0::1]", "192.88.99.1", "[2002:c058:6301::]",
        "192.0.0.8", "[3fff::1]",
        "localhost", "127.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.01", "127.0.0.1.", "0x7f.1", "0",
        "168.63.129.16",
    ],
)  # fmt: skip
async def test_a_pointer_into_a_private_network_is_refused_without_a_connection(tmp_path: Path, host: str):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        async with fetcher(tmp_path, settings=settings(private=False, timeout_s=30)) as fetching:
            with pytest.raises(FetchError) as failed:
                await fetching.fetch(f"https://{host}:{port}/m", SHA256, bytes_max=10_000)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert failed.value.reason == "unsupported_pointer"


class FixedResolver(AbstractResolver):
    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=a, port=port, family=family, proto=0, flags=0) for a in self._addresses
        ]

    async def close(self) -> None:
        pass


async def test_a_name_with_one_private_address_is_refused_as_a_whole():
    assert await PublicResolver(FixedResolver("93.184.216.34")).resolve("example.com", 443)
    with pytest.raises(PrivateAddressError):
        await PublicResolver(FixedResolver("93.184.216.34", "10.0.0.1")).resolve("rebinding.example", 443)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_public(address: str):
    assert is_public(address)
