"""Random bytes on both ports of running nodes, and clients that never finish: nothing ends, nothing answers 500."""

import asyncio
import contextlib
import json
import random
import re
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from cluster import Cluster, NodeProcess, eventually, http
from mutations import mutated
from oversized import OVERSIZED
from prometheus_client.parser import text_string_to_metric_families
from torture.load import fresh_publication, load, publication

from node.config import load_config
from node.init import ClusterOptions
from node.raft.tls import PROTOCOL
from node.raft.wire import WireError, decode, encode
from registry.envelope import ENVELOPE_BYTES_MAX, unseal
from registry.tiles import entry_bundle

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
Answered = TypeVar("Answered")
REQUESTS = 3000
DAMAGED, BATCH, OCTETS = 100_000, 200, {"Content-Type": "application/octet-stream"}
STRANGERS, FRAMES = 80_000, 20_000  # on the Raft port; each of the latter takes a whole handshake
THREADS, SHARES = 16, 10
ANSWER_S = 0.5  # what was understood is answered sooner
AT_ONCE = 40
GROWTH_BYTES_MAX = 100 * 2**20
DIGEST = "ab" * 32
SOUND = [
    b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n",
    b"GET /v1/entries?start=0&limit=5 HTTP/1.1\r\nHost: n\r\n\r\n",
    f"GET /v1/entries/{DIGEST} HTTP/1.1\r\nHost: n\r\n\r\n".encode(),
    f"GET /v1/claims/{DIGEST}?wait_s=0 HTTP/1.1\r\nHost: n\r\nAccept: application/json\r\n\r\n".encode(),
    f"GET /v1/certificates/{DIGEST} HTTP/1.1\r\nHost: n\r\n\r\n".encode(),
    f"GET /v1/search?hash={DIGEST} HTTP/1.1\r\nHost: n\r\n\r\n".encode(),
    b"GET /v1/checkpoints/1 HTTP/1.1\r\nHost: n\r\n\r\n",
    b"GET /tile/entries/x001/000.p/7 HTTP/1.1\r\nHost: n\r\n\r\n",
    b'GET /tile/0/000.p/1 HTTP/1.1\r\nHost: n\r\nIf-None-Match: "x"\r\n\r\n',
    b"GET /v1/node HTTP/1.1\r\nHost: n\r\nRange: bytes=0-1\r\n\r\n",
    b"POST /v1/entries HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\n\x93\x01\xa1x\xc4\x04abc",
    b"POST /v1/entries HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    f"PUT /v1/blobs/{DIGEST} HTTP/1.1\r\nHost: n\r\nWmreg-Signer: {DIGEST}\r\nWmreg-Signature: {DIGEST * 2}\r\n"
    "Content-Length: 3\r\n\r\nabc".encode(),
]
MESSAGES = [
    {"type": "ping"},
    {"type": "forward", "request_id": 1, "commands": [b"x" * 200]},
    {"type": "stale_term", "term": 5},
    {"type": "request_vote", "term": 5, "last_log_index": 3, "last_log_term": 2},
    {"type": "append_entries", "term": 5, "commit_index": 3, "prevLogIdx": 3, "prevLogTerm": 2, "sequence": 9}
    | {"entries": [(b"\x00a", 4, 2)]},
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    options = ClusterOptions(submissions_per_s=0, submit_timeout_s=3)
    with Cluster.make(tmp_path_factory.mktemp("hostile") / "ledger", options=options) as cluster:
        yield cluster


@pytest.fixture
def unharmed(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster that must be the same afterwards: every process, its memory, no fault in its log, entries accepted."""
    with unchanged(cluster.nodes):
        yield cluster
        cluster.wait_until_healthy()
    with load(cluster, seed=1) as running:
        running.wait_for_more(5, timeout_s=60)


@contextlib.contextmanager
def unchanged(nodes: list[NodeProcess]) -> Iterator[None]:
    """Nodes that must be the same processes afterwards, hardly larger, and without a fault in their logs."""
    before = {node.name: (node.process.pid, memory_bytes(node), len(node.log())) for node in nodes}
    yield
    for node in nodes:
        pid, bytes_before, log_before = before[node.name]
        assert (node.process.pid, node.process.poll()) == (pid, None)
        assert memory_bytes(node) - bytes_before < GROWTH_BYTES_MAX
        assert '"traceback"' not in node.log()[log_before:], node.log()[log_before:][-3000:]


def memory_bytes(node: NodeProcess) -> int:
    lines = Path(f"/proc/{node.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def api_of(node: NodeProcess) -> tuple[str, int]:
    api = load_config(node.directory / "node.toml").api
    return api.host, api.port


def raft_of(node: NodeProcess) -> tuple[str, int]:
    policy = unseal((node.directory / "genesis").read_bytes(), origin=None).message.policy
    member = next(member for member in policy.members if member.name == node.name)
    return member.raft_host, member.raft_port


async def answer_to(address: tuple[str, int], data: bytes, *, wait_s: float = ANSWER_S) -> bytes:
    """What comes back before the other side, or we, have had enough."""
    answer = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(5 + wait_s):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(data)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(wait_s):
                    answer = await reader.read(65536)
            writer.transport.abort()
    return answer


async def answers_to(address: tuple[str, int], requests: list[bytes]) -> list[bytes]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(request: bytes) -> bytes:
        async with gate:
            return await answer_to(address, request)

    return await asyncio.gather(*(ask(request) for request in requests))


def test_damaged_requests_are_refused_or_answered_and_never_a_fault(unharmed: Cluster):
    draw = random.Random(1)
    requests = [mutated(draw.choice(SOUND), draw, others=SOUND) for _ in range(REQUESTS)]
    answers = asyncio.run(answers_to(api_of(unharmed.nodes[0]), requests))
    faults = [
        (request, answer)
        for request, answer in zip(requests, answers, strict=True)
        if answer.startswith(b"HTTP/1.1 500")
    ]
    assert faults == []
    statuses = {answer[9:12] for answer in answers if answer.startswith(b"HTTP/1.")}
    assert {b"200", b"400", b"404"} <= statuses


def test_a_hundred_thousand_damaged_messages_are_each_refused_with_a_code(unharmed: Cluster):
    draw, sound = random.Random(4), [publication(10**6 + number) for number in range(8)]
    codes: Counter[str] = Counter()
    for _ in range(DAMAGED // BATCH):
        damaged = [mutated(draw.choice(sound), draw, others=sound)[:ENVELOPE_BYTES_MAX] for _ in range(BATCH)]
        damaged = [one for one in damaged if one not in sound]
        answer = http("POST", f"{unharmed.nodes[0].url}/v1/batches", entry_bundle(damaged), headers=OCTETS)
        assert answer.status == 200, answer.body
        results = answer.json["results"]
        assert {result["status"] for result in results} <= {400, 422}
        codes.update(result["error"]["code"] for result in results)
    assert codes.total() > 0.9 * DAMAGED
    assert "internal" not in codes
    assert len(codes) >= 2, codes


@pytest.mark.parametrize("what", OVERSIZED)
def test_what_is_too_large_is_refused_with_its_code(unharmed: Cluster, what: str):
    request, (status, code) = OVERSIZED[what]
    answer = asyncio.run(answer_to(api_of(unharmed.nodes[0]), request, wait_s=30))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] %d " % status, head), answer[:200]
    assert json.loads(body)["error"]["code"] == code


def test_many_clients_that_never_finish_a_request_take_the_node_from_nobody(unharmed: Cluster):
    address = api_of(unharmed.nodes[0])
    with contextlib.ExitStack() as stack:
        slow = []
        for number in range(300):
            connection = stack.enter_context(socket.create_connection(address, 10))
            connection.sendall(SOUND[number % len(SOUND)][: 5 + number % 20])
            slow.append(connection)
        begun_s = time.monotonic()
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.sendall(b"X")
            if time.monotonic() - begun_s > 10:
                break
        assert unharmed.nodes[0].get("/healthz", timeout_s=10).status == 200


def test_random_bytes_on_the_raft_port_come_from_nobody(unharmed: Cluster):
    hello, addresses = client_hello(), [raft_of(node) for node in unharmed.nodes]

    def first_byte_of_answer(number: int) -> bytes:
        draw = random.Random(f"stranger {number}")
        noise = draw.randbytes(draw.choice((1, 5, 300, 5000)))
        data = mutated(hello, draw, others=[hello]) if number % 2 else noise
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(addresses[number % len(addresses)], 10) as stranger:
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            while some := stranger.recv(1 << 16):
                answer += some
        return answer[:1]

    answers = Counter(at_once(first_byte_of_answer, STRANGERS, served=unharmed.nodes))
    # A TLS alert or the server's part of a handshake, or nothing: never a word of the protocol within.
    assert answers.keys() <= {b"", b"\x15", b"\x16"}
    assert answers[b"\x15"] > STRANGERS // 10


def at_once(what: Callable[[int], Answered], count: int, *, served: list[NodeProcess]) -> list[Answered]:
    """Do it for each number below count, by several threads; meanwhile these nodes take an entry each, SHARES times."""
    answers: list[Answered] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for share in range(SHARES):
            answering = pool.map(what, range(count * share // SHARES, count * (share + 1) // SHARES))
            for node in served:
                submitted = node.submit(fresh_publication())
                assert submitted.status == 200, submitted.body
            answers += answering
    return answers


def client_hello() -> bytes:
    """The first bytes of a TLS connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([PROTOCOL])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_an_insiders_damaged_frames_are_refused_one_connection_each(cluster: Cluster):
    insider, victims = cluster.nodes[2], cluster.nodes[:2]  # the node with the greater name dials
    assert insider.stop() == 0
    context, frames = context_of(insider), [encode(message) for message in MESSAGES]
    addresses, before = [raft_of(node) for node in victims], [rejected(node) for node in victims]

    def is_closed_on(number: int) -> bool:
        draw = random.Random(f"insider {number}")
        body = mutated(draw.choice(frames), draw, others=frames)
        while is_message(body):
            body = mutated(draw.choice(frames), draw, others=frames)
        with socket.create_connection(addresses[number % len(addresses)], 60) as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                with context.wrap_socket(raw) as connection:
                    connection.sendall(struct.pack(">I", len(body)) + body)
                    while connection.recv(1 << 16):  # until the node closes it
                        pass
            except (ssl.SSLError, ConnectionError):
                pass
        return True

    with unchanged(victims):
        assert sum(at_once(is_closed_on, FRAMES, served=victims)) == FRAMES
    assert sum(rejected(node) for node in victims) - sum(before) >= 0.9 * FRAMES
    insider.start()
    cluster.wait_until_healthy()
    eventually(lambda: len(victims[0].state()["raft"]["connected"]) == 2, timeout_s=60, what="the insider is back")


def context_of(node: NodeProcess) -> ssl.SSLContext:
    """TLS with a member's own certificate."""
    keys = load_config(node.directory / "node.toml").keys
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([PROTOCOL])
    context.load_cert_chain(keys.tls_certificate, keys.tls_private_key)
    return context


def rejected(node: NodeProcess) -> float:
    """Connections to its Raft port that a node has rejected since its start."""
    families = text_string_to_metric_families(node.get("/metrics").body.decode())
    return sum(family.samples[0].value for family in families if family.name == "wmreg_raft_rejected_connections")


def is_message(body: bytes) -> bool:
    try:
        decode(body, command_bytes_max=63 * 1024)
    except WireError:
        return False
    return True
