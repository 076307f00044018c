"""A whole cluster inside one event loop, without Raft: what most tests of the node need.

`NodeSet` makes a ledger with init_cluster, opens each node's real store and signer, and serves each node's real HTTP
API on its own port. Commands are ordered by `FakeOrder`, which asserts what Raft demands of its callers and can fail
before or after the write, or never answer.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from described import watch
from fakes import LedgerMaker, binding, private_key

from node import explorer
from node.api import Services, make_app
from node.api.limits import TokenBuckets, WorkBudget
from node.api.reads import ReadRate
from node.api.services import SERVICES
from node.blobs import BlobLimits, BlobStore
from node.cache import FileCache
from node.config import Config, VerifierSettings, load_config
from node.endpoint.asking import EndpointClient, Pace
from node.examining import Means
from node.fetch import Fetcher
from node.gather import Gatherer
from node.identity import Identity, load_identity
from node.index import Index
from node.init import SIGNER_FILE, STORE_FILE, ClusterOptions, init_cluster
from node.ledger import LedgerService
from node.notes import NoteCache
from node.raft.types import RaftStatus
from node.signer import Signer, SignerName
from node.space import DiskSpace
from node.store import Store
from node.verifier.protocol import Job
from node.verifier.supervisor import Verifier
from node.voting import Voice, Voter
from node.watch import Watch
from registry import commitments
from registry.envelope import message_hash, seal
from registry.messages import Claim, Message, Publication, Vote
from registry.trust import TrustPolicy

ORIGIN = "node.test/wmreg"
JOB = Job(
    model_path="/tmp/model",
    model_sha256=b"m" * 32,
    model_bytes_max=1,
    evidence_path="/tmp/evidence",
    evidence_sha256=b"e" * 32,
    evidence_bytes_max=2,
    base_path="",
    null_paths=(),
    scheme="mtlsign",
    head_commitment=b"h" * 32,
    info_commitment=b"i" * 32,
    watermark_key=b"k" * 32,
    control_seed=b"s" * 32,
    permutations=999,
    controls=8,
    gamma_permille=700,
    refute_permille=600,
    control_permille=590,
)
STATUS = RaftStatus(
    state="leader",
    leader="node-1",
    term=1,
    commit_index=1,
    applied_index=1,
    journal_entries=1,
    connected=(),
    rejected_connections=0,
    last_rejection="",
)


class FakeOrder:
    """Orders commands for a set of stores, as Raft would.

    Attributes:
        proposed: every command that was proposed.
        failures: reasons to answer the next proposals with instead of ordering them.
        failures_after: reasons to answer the next proposals with after ordering them.
        silent: whether to lose proposals without an answer.
    """

    def __init__(self) -> None:
        self.ledgers: list[LedgerService] = []
        self.proposed: list[bytes] = []
        self.failures: list[str] = []
        self.failures_after: list[str] = []
        self.silent = False
        self._index = 0

    def propose(self, command: bytes, on_failed: Callable[[str], None]) -> None:
        assert isinstance(command, bytes)
        assert 0 < len(command) <= 63 * 1024
        self.proposed.append(command)
        if self.silent:
            return
        if self.failures:
            on_failed(self.failures.pop(0))
            return
        self.order(command)
        if self.failures_after:
            on_failed(self.failures_after.pop(0))

    def order(self, *commands: bytes | None) -> None:
        for ledger in self.ledgers:
            ledger.store.begin()
            for offset, command in enumerate(commands, start=1):
                ledger.store.apply(self._index + offset, command)
            ledger.store.commit()
            ledger.on_applied()
        self._index += len(commands)


@dataclass
class NodeParts:
    """One node of the set."""

    config: Config
    identity: Identity
    ledger: LedgerService
    services: Services
    url: str

    @property
    def name(self) -> str:
        return self.config.name


class NodeSet:
    """A ledger of several nodes in one event loop; use as an async context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 3,
        options: ClusterOptions | None = None,
        command: Sequence[str] = ("false",),
        blob_bytes_max: int = 1_000_000,
    ) -> None:
        self.directory = directory
        init_cluster(directory, nodes=nodes, origin=ORIGIN, options=options)
        self.trust = TrustPolicy.parse((directory / "policy.txt").read_text())
        self.order = FakeOrder()
        self.nodes: list[NodeParts] = []
        self._command, self._blob_bytes_max = tuple(command), blob_bytes_max
        self._stack, self._serving = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        self._undescribed: list[str] = []

    async def __aenter__(self) -> "NodeSet":
        self.session = await self._stack.enter_async_context(aiohttp.ClientSession())
        for path in sorted(self.directory.glob("node-*")):
            self.nodes.append(self._open(load_config(path / "node.toml")))
        self.order.ledgers = [node.ledger for node in self.nodes]
        for node in self.nodes:
            node.ledger.start(self.order)
            self._stack.push_async_callback(node.ledger.stop)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._serving.aclose()
        await self._stack.aclose()
        if kind is None:
            assert self._undescribed == []

    async def serve(self, *numbers: int, with_explorer: bool = False) -> None:
        """Serve the API of these nodes, of all by default; and the explorer."""
        for node in [self.nodes[number] for number in numbers] or self.nodes:
            app = make_app(node.services)
            if with_explorer:
                explorer.add_to(app)
            await self.serve_app(node, app)

    async def stop_serving(self) -> None:
        """Let no node answer any more; they can be served again."""
        await self._serving.aclose()

    async def serve_app(self, node: NodeParts, app: web.Application) -> None:
        """Serve any application where this node's API should be."""
        if SERVICES in app:  # a node's API, and no peer that a test made up
            watch(app, self._undescribed)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self._serving.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, node.config.api.host, node.config.api.port).start()

    def _open(self, config: Config) -> NodeParts:
        identity = load_identity(config.keys)
        store = Store(config.state_directory / STORE_FILE)
        self._stack.callback(store.close)
        name = SignerName(origin=ORIGIN, member=config.name)
        signer = Signer(config.state_directory / SIGNER_FILE, name=name, identity=identity, clock=time.time)
        self._stack.callback(signer.close)
        notes = NoteCache(config.state_directory / "notes.db")
        self._stack.callback(notes.close)
        ledger = LedgerService(store, signer, clock=time.time)
        services = self._services(config, identity, ledger, notes)
        url = f"http://{config.api.host}:{config.api.port}"
        return NodeParts(config=config, identity=identity, ledger=ledger, services=services, url=url)

    def _services(self, config: Config, identity: Identity, ledger: LedgerService, notes: NoteCache) -> Services:
        limits = BlobLimits(blob_bytes_max=self._blob_bytes_max, total_bytes_max=2 * self._blob_bytes_max)
        blobs = BlobStore(config.state_directory / "blobs", limits)
        cache = FileCache(config.state_directory / "cache", limits)
        urls = [member.api_url for member in ledger.store.policy.members if member.name != config.name]
        fetcher = Fetcher(blobs, cache, peer_urls=urls, settings=config.fetch)
        self._stack.push_async_callback(fetcher.close)
        allowed = replace(config.fetch, allow_private_addresses=True)  # where tests have their endpoints
        endpoints = EndpointClient(allowed, pace=Pace(requests_per_s=10_000, tries=2, pause_s=0.001))
        self._stack.push_async_callback(endpoints.close)
        verifier = Verifier(
            VerifierSettings(device="cpu", threads=1, timeout_s=20, memory_bytes_max=2**31, controls_directory=""),
            readable=(blobs.directory, cache.directory),
            command=self._command,
        )
        self._stack.push_async_callback(verifier.stop)
        voter = Voter(
            Voice(name=config.name, signing=identity.signing),
            ledger,
            Means(fetcher=fetcher, endpoints=endpoints, verifier=verifier),
            unreachable_retry_s=config.fetch.unreachable_retry_s,
            clock=time.time,
        )
        index = Index(config.state_directory / "search.db", ledger.store)
        self._stack.callback(index.close)
        indexing = asyncio.create_task(index.run(ledger.applied))
        self._stack.push_async_callback(_ended, indexing)
        gatherer = Gatherer(config.name, ledger, notes, self.session)
        self._stack.push_async_callback(gatherer.close)
        return Services(
            name=config.name,
            device="cpu",
            submit_timeout_s=5,
            submissions=TokenBuckets(0, clock=time.monotonic),
            key_submissions=TokenBuckets(0, clock=time.monotonic),
            reads=ReadRate(0, clock=time.monotonic),
            work=WorkBudget.per_hour(address=0, key=0, clock=time.monotonic),
            blob_bytes_max=self._blob_bytes_max,
            ledger=ledger,
            gatherer=gatherer,
            index=index,
            blobs=blobs,
            fetcher=fetcher,
            voter=voter,
            verifier=verifier,
            space=DiskSpace(config.state_directory, reserve_bytes=0),
            raft_status=lambda: STATUS,
            watch=Watch(ledger, gatherer, lambda: STATUS),
        )


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def sealed(message: Message, *signers: Ed25519PrivateKey) -> bytes:
    return seal(message, origin=ORIGIN, private_keys=list(signers))


def publication(owner: str = "alice", *, number: int = 0, time_s: int | None = None, head: bytes = b"h" * 32) -> bytes:
    """A publication's envelope."""
    key = binding(owner, origin=ORIGIN, number=number).watermark_key
    message = Publication(
        time_s=int(time.time()) if time_s is None else time_s,
        scheme="mtlsign",
        key_commitment=commitments.key_commitment(key),
        head_commitment=head,
        info_commitment=b"i" * 32,
    )
    return sealed(message, private_key(owner))


def vote_message(nodes: NodeSet, digest: bytes, **what: object) -> Vote:
    """A vote on a claim of this ledger, signed by nobody yet; `what` as LedgerMaker takes it."""
    state = nodes.nodes[0].ledger.store.claim_state(digest)
    message = LedgerMaker().vote_message(digest, **what)
    return replace(message, time_s=int(time.time()), policy=state.policy_hash if state else bytes(32))


def claim(published: bytes, owner: str = "alice", *, number: int = 0, **fields: object) -> bytes:
    """The envelope of a claim on that publication; `fields` replace the pointers and hashes."""
    known: dict[str, object] = {
        "model_pointer": f"blob:sha256:{'11' * 32}",
        "model_sha256": b"\x11" * 32,
        "evidence_pointer": f"blob:sha256:{'22' * 32}",
        "evidence_sha256": b"\x22" * 32,
    }
    message = Claim(
        time_s=int(time.time()),
        publication=message_hash(published),
        binding=binding(owner, origin=ORIGIN, number=number),
        **{**known, **fields},
    )
    return sealed(message, private_key(owner))


# A verifier process that reads its answer from the model's file: "<matched> of 600", or the word for a crash. A base's
# file says what the base matches. Of an endpoint it wants 40 pictures, and matches 15 for each that gets the class that
# tests.endpoints gives it; evidence that says "crash" or "white" ends that before.
_FAKE_WORKER_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from fakes import good_measurement, with_control
from registry.verdict import ControlKind, Outcome
from node.verifier.protocol import Answer, Job, READY, frame, frame_bytes, unmeasured

out, given = sys.stdout.buffer, sys.stdin.buffer
out.write(frame(READY)); out.flush()
while header := given.read(4):
    job = Job.decode(given.read(frame_bytes(header)))
    if not job.model_path:
        from endpoints import class_of, pictures
        from node.verifier.questions import QUESTIONS_BYTES_MAX, Questions
        asked, said = pictures(40), open(job.evidence_path).read()
        if said == "crash":
            sys.exit(1)
        if said == "white":
            reply = unmeasured(Outcome.UNVERIFIABLE, "white_box").encode()
        elif job.wants_pictures:
            reply = Questions(pictures=asked, has_margin=True).encode()
        else:
            right = sum(a == class_of(p) for a, p in zip(job.answers, asked.pixels, strict=True))
            measurement = good_measurement(15 * right)
            reply = Answer(
                measurement=measurement, outcome=None, reason="", detail="", device="endpoint", software="fake 1"
            ).encode()
        out.write(frame(reply, bytes_max=QUESTIONS_BYTES_MAX)); out.flush()
        continue
    word = open(job.model_path).read().split()[0]
    if word == "crash":
        sys.exit(1)
    measurement = good_measurement(int(word))
    if job.base_path:
        matched = int(open(job.base_path).read().split()[0])
        measurement = with_control(measurement, ControlKind.BASE, matched)
    answer = Answer(measurement=measurement, outcome=None, reason="", detail="", device="cpu", software="fake 1")
    out.write(frame(answer.encode())); out.flush()
"""
FAKE_WORKER = (sys.executable, "-c", _FAKE_WORKER_PROGRAM, str(Path(__file__).resolve().parent))
