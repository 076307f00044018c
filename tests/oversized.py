"""Requests in which something is too large, with the status and code that each is to be refused with."""

from registry.tiles import TILE_WIDTH

_HOST = b"Host: n\r\nConnection: close\r\n"
_HASH, _DIGITS = "ab" * 32, "9" * 4000
_LONG = "a" * 3000


def _get(path: str, headers: bytes = b"") -> bytes:
    return f"GET {path} HTTP/1.1\r\n".encode() + _HOST + headers + b"\r\n"


def _send(path: str, body: bytes, *, headers: bytes = b"", announced: int | None = None, method: str = "POST") -> bytes:
    length = b"Content-Length: %d\r\n" % (len(body) if announced is None else announced)
    return f"{method} {path} HTTP/1.1\r\n".encode() + _HOST + length + headers + b"\r\n" + body


def _chunked(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\n".encode() + _HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body


def _upload(digits: int, *, announced: int = 3) -> bytes:
    signed = b"Wmreg-Signer: " + b"a" * digits + b"\r\nWmreg-Signature: " + b"a" * 2 * digits + b"\r\n"
    return _send(f"/v1/blobs/{_HASH}", b"abc", headers=signed, announced=announced, method="PUT")


def _batch(count: int, envelope: bytes) -> bytes:
    return (len(envelope).to_bytes(2, "big") + envelope) * count


_MALFORMED, _TOO_LARGE = (400, "malformed"), (413, "too_large")
_URI, _HEADERS = (414, "uri_too_long"), (431, "headers_too_large")
OVERSIZED: dict[str, tuple[bytes, tuple[int, str]]] = {
    "a path": (_get("/" + "a" * 5000), _URI),
    "a path of a megabyte": (_get("/" + "a" * 2**20), _URI),
    "a path that is another's beginning": (_get("/v1/entries/" + "ab" * 3000), _URI),
    "a query": (_get("/v1/entries?start=" + "9" * 5000), _URI),
    "a method": (b"A" * 9000 + b" / HTTP/1.1\r\n" + _HOST + b"\r\n", _MALFORMED),
    "a header": (_get("/healthz", b"X: " + b"a" * 9000 + b"\r\n"), _HEADERS),
    "a header of a megabyte": (_get("/healthz", b"X: /" + b"a" * 2**20 + b"\r\n"), _HEADERS),
    "a header's name": (_get("/healthz", b"X" * 9000 + b": a\r\n"), _HEADERS),
    "many headers": (_get("/healthz", b"X: a\r\n" * 70), _HEADERS),
    "a megabyte of headers": (_get("/healthz", b"X: a\r\n" * 200_000), _HEADERS),
    "several large headers": (_get("/healthz", (b"X: " + b"a" * 8000 + b"\r\n") * 6), _HEADERS),
    "headers without an end": (_get("/healthz", (b"X: " + b"a" * 1000 + b"\r\n") * 60)[:-2], _HEADERS),
    "a body": (_send("/v1/entries", b"a" * 62_000), _TOO_LARGE),
    "an announced body": (_send("/v1/entries", b"a" * 2**21, announced=100 * 2**20), _TOO_LARGE),
    "a length": (_send("/v1/entries", b"abc", announced=10**30), _MALFORMED),
    "chunks": (_chunked("/v1/entries", (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 40 + b"0\r\n\r\n"), _TOO_LARGE),
    "a chunk's length": (_chunked("/v1/entries", b"f" * 2**16), _MALFORMED),
    "trailers": (_chunked("/v1/entries", b"1\r\na\r\n0\r\n" + b"X: a\r\n" * 20_000 + b"\r\n"), _HEADERS),
    "a batch": (_send("/v1/batches", _batch(TILE_WIDTH + 1, b"abc")), _TOO_LARGE),
    "a batch's body": (_send("/v1/batches", _batch(35, b"a" * 60_000)), _TOO_LARGE),
    "nested arrays": (_send("/v1/entries", b"\x91" * 50_000), _MALFORMED),
    "nested maps": (_send("/v1/entries", b"\x81\xa1a" * 15_000 + b"\x01"), _MALFORMED),
    "an announced array": (_send("/v1/entries", b"\xdd\xff\xff\xff\xff"), _MALFORMED),
    "an announced map": (_send("/v1/entries", b"\xdf\xff\xff\xff\xff"), _MALFORMED),
    "announced bytes": (_send("/v1/entries", b"\xc6\xff\xff\xff\xffab"), _MALFORMED),
    "an announced text": (_send("/v1/entries", b"\xdb\xff\xff\xff\xffab"), _MALFORMED),
    "an announced extension": (_send("/v1/entries", b"\xc9\xff\xff\xff\xff\x01ab"), _MALFORMED),
    "a start": (_get(f"/v1/entries?start={_DIGITS}"), _MALFORMED),
    "a start beyond 64 bits": (_get(f"/v1/entries?start={2**64}"), _MALFORMED),
    "a limit": (_get(f"/v1/entries?limit={_DIGITS}"), _MALFORMED),
    "a wait": (_get(f"/v1/claims/{_HASH}?wait_s={_DIGITS}"), _MALFORMED),
    "a search's hash": (_get(f"/v1/search?hash={_LONG}"), _MALFORMED),
    "a search's owner": (_get(f"/v1/search?owner={_LONG}"), _MALFORMED),
    "a search's start": (_get(f"/v1/search?hash={_HASH}&start={_DIGITS}"), _MALFORMED),
    "since": (_get(f"/v1/events?since={_DIGITS}"), _MALFORMED),
    "the last event's ID": (_get("/v1/events", b"Last-Event-ID: " + b"9" * 8000 + b"\r\n"), _MALFORMED),
    "an entry's hash": (_get(f"/v1/entries/{_LONG}"), _MALFORMED),
    "a receipt's hash": (_get(f"/v1/receipts/{_LONG}"), _MALFORMED),
    "a certificate's hash": (_get(f"/v1/certificates/{_LONG}"), _MALFORMED),
    "a blob's hash": (_get(f"/v1/blobs/{_LONG}"), _MALFORMED),
    "a member's name": (_get(f"/v1/cosignatures/{_LONG}"), _MALFORMED),
    "a policy's hash": (_get(f"/v1/policies?after={_LONG}"), _MALFORMED),
    "a checkpoint's size": (_get(f"/v1/checkpoints/{_DIGITS}"), _MALFORMED),
    "a tile's path": (_get("/tile/0/" + "x999/" * 500 + "999"), _MALFORMED),
    "a tile's level": (_get(f"/tile/{_DIGITS}/000"), _MALFORMED),
    "a log's name": (_get(f"/{_LONG}/checkpoint"), (404, "not_found")),
    "a signer": (_upload(4000), _MALFORMED),
    "an upload": (_upload(64, announced=10**15), _TOO_LARGE),
    "a checkpoint to cosign": (_send("/add-checkpoint", b"old 0\n" + b"a" * 200_000), _TOO_LARGE),
    "a proof": (_send("/add-checkpoint", b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\nx\n"), _MALFORMED),
    "an old size": (_send("/add-checkpoint", b"old " + b"9" * 4000 + b"\n\nx\n\n"), _MALFORMED),
}
