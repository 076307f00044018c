"""A ledger of three nodes in this process, for tests of the client: the real rules, real signatures, real HTTP.

It keeps one history for all nodes and has no consensus; tests/cluster.py has the real thing. It can fail as real
nodes fail (down, answer lost before or after the write, behind) and lie as they must not (fork, foreign receipt).
"""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import safetensors.numpy
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from loops import in_thread

from client.bundle import Bundle
from client.command import run
from client.files import staged_directory
from client.keystore import WatermarkKeyFile, create_signing_key, create_watermark_key, save_watermark_key
from client.publishing import Owner
from registry import merkle, note, signing, tiles
from registry.audit import Replay
from registry.certificate import Certificate, ProvenEntry
from registry.checkpoint import Checkpoint
from registry.endpoint import endpoint_named
from registry.entry import Entry
from registry.envelope import message_hash, seal, unseal
from registry.errors import RegistryError
from registry.messages import Genesis, Publication, Vote
from registry.policy import Member, Policy
from registry.receipt import Receipt
from registry.rules import Duplicate, Ledger, Refused
from registry.terms import terms_of
from registry.trust import TrustPolicy
from registry.verdict import ControlCounts, ControlKind, Measurement, Outcome, judge
from registry.watermark_key import bind

ORIGIN = "test.example/ledger"
GOOD = Measurement(
    matched=590,
    total=600,
    permutations=999,
    permutations_as_good=0,
    controls=tuple(
        ControlCounts(kind=ControlKind.FRESH, matched=300, suspect_only=295, control_only=5) for _ in range(8)
    ),
)
# Of a mark that is read behind the first layer of a ResNet-18, so that a suspect's file is small.
INFO = {
    "architecture": {"arguments": {"num_classes": 10}, "name": "resnet18"},
    "base_sha256": None,
    "gamma": "0.7",
    "head": {"family": "mlp2", "hidden": 64},
    "input": {"channels": 3, "height": 32, "width": 32},
    "normalisation": {"mean": ["0.5"] * 3, "std": ["0.5"] * 3},
    "pooling": 4,
    "reference": None,
    "scheme": "mtlsign",
    "taps": [{"module": "conv1", "shape": [64, 16, 16]}],
    "trigger_encoder": "qr-1H/1",
    "triggers": 600,
}
POOR = Measurement(matched=301, total=600, permutations=999, permutations_as_good=400, controls=())


@dataclass
class FakeNode:
    """One node: its keys, and how it fails at present."""

    name: str
    signing_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    note_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    cosigner_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    url: str = ""
    down: bool = False
    lose_request: int = 0
    lose_answer: int = 0
    behind: int = 0
    late_s: int = 0
    answers: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)  # status and code by method and path
    hangs_on: str = ""  # a method that it takes and never answers
    redirects_to: str = ""  # where it sends uploads
    requests: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)


class FakeLedger:
    """The one history and its nodes."""

    def __init__(self) -> None:
        self.nodes = [FakeNode(f"node-{number}") for number in (1, 2, 3)]
        self.replay = Replay()
        self.raw: list[bytes] = []
        self.forked_after: int | None = None
        self.signed_s: dict[int, int] = {}  # when the nodes signed a size; now, where nothing is said
        self.voting: tuple[Measurement, int] | None = None  # what how many nodes vote as soon as there is a claim
        self.certificates_late = 0  # how many requests for a certificate come before the nodes have caught up

    def open(self, policy_path: Path) -> None:
        """Write the genesis; needs the nodes' URLs."""
        members = tuple(self._member(node, 7000 + i) for i, node in enumerate(self.nodes))
        genesis = Genesis(time_s=int(time.time()), origin=ORIGIN, policy=Policy(members=members, quorum=2))
        self.policy_path, self.trust = policy_path, TrustPolicy.of(genesis.policy, ORIGIN)
        policy_path.write_text(str(self.trust))
        self.apply(seal(genesis, origin=ORIGIN, private_keys=[node.signing_key for node in self.nodes]))

    def _member(self, node: FakeNode, port: int) -> Member:
        return Member(
            name=node.name,
            signing_key=node.signing_key.public_key().public_bytes_raw(),
            note_key=node.note_key.public_key().public_bytes_raw(),
            cosigner_key=node.cosigner_key.public_key().public_bytes_raw(),
            tls_certificates=(node.name.encode(),),
            raft_host="127.0.0.1",
            raft_port=port,
            api_url=node.url,
        )

    def apply(self, envelope: bytes, *, recorded_s: int | None = None) -> int:
        """Record an envelope that the rules accept."""
        raw = Entry(envelope, self.now_s() if recorded_s is None else recorded_s).encode()
        self.replay.take(raw)
        assert self.replay.refusal is None, self.replay.refusal
        self.raw.append(raw)
        return len(self.raw) - 1

    def force(self, envelope: bytes) -> int:
        """Record an envelope that the rules refuse: what no honest node does."""
        raw = Entry(envelope, self.now_s()).encode()
        self.replay.take(raw)
        self.raw.append(raw)
        return len(self.raw) - 1

    def record(self, recorded_s: int, *, signed_s: int) -> int:
        """Record a publication with these times; return its index."""
        commitment = secrets.token_bytes(32)
        publication = Publication(
            time_s=recorded_s,
            scheme="mtlsign",
            key_commitment=commitment,
            head_commitment=commitment,
            info_commitment=commitment,
        )
        envelope = seal(publication, origin=ORIGIN, private_keys=[Ed25519PrivateKey.generate()])
        index = self.apply(envelope, recorded_s=recorded_s)
        self.signed_s[index + 1] = signed_s
        return index

    def now_s(self) -> int:
        """The ledger's clock."""
        return int(time.time())

    def grow(self, count: int) -> None:
        """Record some publications by nobody in particular."""
        private_key = Ed25519PrivateKey.generate()
        for _ in range(count):
            commitment = secrets.token_bytes(32)
            publication = Publication(
                time_s=self.now_s(),
                scheme="mtlsign",
                key_commitment=commitment,
                head_commitment=commitment,
                info_commitment=commitment,
            )
            self.apply(seal(publication, origin=ORIGIN, private_keys=[private_key]))

    def rewrite(self, index: int) -> None:
        """Replace an entry and everything behind it by as many others: what no honest node can do."""
        count = len(self.raw) - index
        kept, self.raw, self.replay = self.raw[:index], [], Replay()
        for raw in kept:
            self.replay.take(raw)
            self.raw.append(raw)
        self.grow(count)

    def vote(self, claim: bytes, measurement: Measurement, nodes: int = 3) -> None:
        """Let nodes vote on a claim what the numbers say."""
        for node in self.nodes[:nodes]:
            self.vote_of(node, claim, measurement)

    def vote_of(self, node: FakeNode, claim: bytes, measurement: Measurement) -> None:
        """Let one node vote on a claim what the numbers say."""
        outcome, reason = judge(measurement, self.replay.ledger.policy.thresholds)
        vote = Vote(
            time_s=int(time.time()),
            claim=claim,
            policy=self.replay.ledger.claim_state(claim).policy_hash,
            outcome=outcome,
            reason=reason,
            measurement=measurement,
            device="cpu",
            software="test",
        )
        self.apply(seal(vote, origin=ORIGIN, private_keys=[node.signing_key]))

    def checkpoint(self, size: int) -> Checkpoint:
        """The checkpoint of a size; after a fork, one of another history."""
        root = self.replay.root_at(size)
        if self.forked_after is not None and size > self.forked_after:
            root = bytes(32)
        return Checkpoint(origin=ORIGIN, size=size, root=root)

    @property
    def size(self) -> int:
        """Entries in the history."""
        return len(self.raw)

    def note(self, size: int, nodes: list[FakeNode] | None = None, root: bytes | None = None) -> str:
        """A checkpoint signed and cosigned by nodes, all of them if none is named; a forged one if a root is."""
        text = str(self.checkpoint(size) if root is None else Checkpoint(origin=ORIGIN, size=size, root=root))
        lines = []
        for node in nodes or self.nodes:
            lines.append(note.sign(text, name=ORIGIN, private_key=node.note_key))
            name = f"{ORIGIN}/{node.name}"
            time_s = self.signed_s.get(size, self.now_s()) + node.late_s
            lines.append(note.cosign(text, name=name, private_key=node.cosigner_key, timestamp_s=time_s))
        return str(note.Note(text, tuple(lines)))

    def receipt(self, index: int) -> str:
        """The receipt of an entry."""
        proof = merkle.inclusion_proof(index, index + 1, self.replay.read_node)
        receipt = Receipt(entry=self.raw[index], index=index, proof=tuple(proof), checkpoint_note=self.note(index + 1))
        return str(receipt)

    def certificate(self, claim: bytes) -> bytes:
        """The certificate of a claim."""
        state, size = self.replay.ledger.claim_state(claim), len(self.raw)
        indexes = [0, state.publication.index, state.claim.index, *sorted(p.index for p in state.votes.values())]
        entries = tuple(
            ProvenEntry(index=i, entry=self.raw[i], proof=tuple(merkle.inclusion_proof(i, size, self.replay.read_node)))
            for i in indexes
        )
        return Certificate(origin=ORIGIN, checkpoint_note=self.note(size), entries=entries, attestations=()).encode()

    def state_of(self, digest: str) -> dict[str, object]:
        """What honest nodes say of a claim."""
        return claim_document(self.replay.ledger, bytes.fromhex(digest))

    def hash_of(self, index: int) -> str:
        """Name of the message at a place, in hexadecimal."""
        return message_hash(Entry.decode(self.raw[index]).envelope).hex()

    def index_of(self, digest: bytes) -> int | None:
        """Where a message is."""
        hashes = [message_hash(Entry.decode(raw).envelope) for raw in self.raw]
        return hashes.index(digest) if digest in hashes else None


class Handlers:
    """One node's API over the shared history."""

    def __init__(self, ledger: FakeLedger, node: FakeNode) -> None:
        self.ledger, self.node = ledger, node

    @property
    def size(self) -> int:
        return max(0, len(self.ledger.raw) - self.node.behind)

    async def handle(self, request: web.Request) -> web.Response:
        """Fail as the test wants, or route."""
        node = self.node
        node.requests.append(f"{request.method} {request.path}")
        if node.down or node.lose_request > 0:
            node.lose_request -= 1
            request.transport.close()
            return web.Response(status=500)
        response = await self.route(request)
        if node.lose_answer > 0:
            node.lose_answer -= 1
            request.transport.close()
        return response

    async def route(self, request: web.Request) -> web.Response:
        path, words = request.path, request.path.strip("/").split("/")
        if request.method == self.node.hangs_on:
            await asyncio.Event().wait()
        if request.method == "PUT" and self.node.redirects_to:
            return web.Response(status=307, headers={"Location": self.node.redirects_to})
        for place in (f"{request.method} {path}", request.method):
            if place in self.node.refusals:
                return fail(*self.node.refusals[place])
        if path in self.node.answers:
            return web.Response(body=self.node.answers[path])
        if request.method != "GET":
            return await self.change(request, words[-1])
        if words[0] == "v1":
            return self.read(words[1], words[2:], request)
        return self.tile(path) if words[0] == "tile" else web.Response(text=self.ledger.note(self.size))

    async def change(self, request: web.Request, name: str) -> web.Response:
        if request.method == "POST":
            return self.submit(await request.read())
        if request.method == "PUT":
            return await self.put_blob(request, name)
        return web.Response(status=200 if name in self.node.blobs else 404)

    def read(self, what: str, words: list[str], request: web.Request) -> web.Response:
        if what == "events":
            return web.Response(text=self.events(int(request.query["since"])), content_type="text/event-stream")
        whole = {"entries": self.page_of, "search": self.search, "node": self.describe}
        if what in whole and not words:
            return web.json_response(whole[what](request.query))
        if what == "checkpoints":
            size = int(words[0])
            behind = size > self.size
            return fail(404, "not_yet") if behind else web.Response(text=self.ledger.note(size, [self.node]))
        digest = bytes.fromhex(words[0])
        index = self.ledger.index_of(digest)
        if index is None or index >= self.size:
            return fail(404, "not_found")
        return {"receipts": self.receipt, "claims": self.claim, "certificates": self.certificate}[what](digest, index)

    def receipt(self, _digest: bytes, index: int) -> web.Response:
        return web.Response(text=self.ledger.receipt(index))

    def claim(self, digest: bytes, _index: int) -> web.Response:
        return web.json_response(claim_document(self.ledger.replay.ledger, digest))

    def certificate(self, digest: bytes, _index: int) -> web.Response:
        self.ledger.certificates_late -= 1
        if self.ledger.certificates_late >= 0:
            return fail(409, "open")
        outcome = self.ledger.replay.ledger.verdict(digest).outcome
        if outcome is not Outcome.VERIFIED:
            return fail(409, "open" if outcome is None else "not_verified")
        return web.Response(body=self.ledger.certificate(digest), content_type="application/json")

    def describe(self, _query: Mapping[str, str]) -> dict[str, object]:
        return {
            "name": self.node.name,
            "origin": ORIGIN,
            "size": self.size,
            "root": self.ledger.checkpoint(self.size).root.hex(),
            "version": "0",
            "raft": {"state": "leader" if self.node.name == "node-1" else "follower", "term": 1},
            "verifier": {"state": "ready", "device": "cpu", "queue": 0, "unusable_public": {}},
            "claims_open": 0,
        }

    def submit(self, envelope: bytes) -> web.Response:
        ledger = self.ledger
        try:
            unseal(envelope, origin=ORIGIN)
        except RegistryError as error:
            return fail(422, error.code)
        probe = Ledger()
        for raw in ledger.raw:
            probe.apply(raw)
        applied = probe.apply(Entry(envelope, int(time.time())).encode())
        if isinstance(applied, Refused):
            return fail(422, applied.code)
        duplicate = isinstance(applied, Duplicate)
        index = applied.index if duplicate else ledger.apply(envelope)
        if ledger.voting and not duplicate and ledger.replay.ledger.claim_state(message_hash(envelope)):
            ledger.vote(message_hash(envelope), *ledger.voting)
        return web.json_response({"index": index, "duplicate": duplicate, "receipt": ledger.receipt(index)})

    async def put_blob(self, request: web.Request, name: str) -> web.Response:
        content = await request.read()
        signer, signature = (bytes.fromhex(request.headers[h]) for h in ("Wmreg-Signer", "Wmreg-Signature"))
        signed = signing.blob_upload(ORIGIN, bytes.fromhex(name), len(content))
        if not signing.is_signed(signed, signer=signer, signature=signature):
            return fail(422, "bad_signature")
        self.node.blobs[name] = content
        return web.Response(status=201)

    def tile(self, path: str) -> web.Response:
        level, _, place = path.removeprefix("/tile/").partition("/")
        number, width = tiles.parse_tile_path(place)
        first = number * tiles.TILE_WIDTH
        if level == "entries":
            return web.Response(body=tiles.entry_bundle(self.ledger.raw[first : first + width]))
        read = self.ledger.replay.read_node
        return web.Response(body=b"".join(read(8 * int(level), first + i) for i in range(width)))

    def events(self, since: int) -> str:
        """All that there is; a real node would go on."""
        entries = self.page(since, 100)["entries"]
        return ": hello\n\n" + "".join(
            f"id: {entry['index']}\nevent: entry\ndata: {json.dumps(entry)}\n\n" for entry in entries
        )

    def search(self, query: Mapping[str, str]) -> dict[str, object]:
        (value,) = [bytes.fromhex(query[name]) for name in ("hash", "owner") if name in query]
        found = []
        for index, raw in enumerate(self.ledger.raw[: self.size]):
            signed = unseal(Entry.decode(raw).envelope, origin=ORIGIN)
            roles = {term.role for term in terms_of(raw, signed) if term.value == value}
            if index >= int(query["start"]) and (roles & {"signer"} if "owner" in query else roles - {"signer"}):
                found.append({"index": index, "message_hash": signed.hash.hex()})
        limit = int(query["limit"])
        return {"entries": found[:limit], "next": found[limit]["index"] if len(found) > limit else None}

    def page_of(self, query: Mapping[str, str]) -> dict[str, object]:
        return self.page(int(query["start"]), int(query["limit"]))

    def page(self, start: int, limit: int) -> dict[str, object]:
        entries = [
            {"index": i, "message_hash": message_hash(e.envelope).hex(), "kind": "entry", "recorded_s": e.recorded_s}
            for i, e in enumerate(map(Entry.decode, self.ledger.raw[: self.size]))
        ]
        end = start + limit
        return {"entries": entries[start:end], "size": self.size, "next": end if end < self.size else None}


def claim_document(ledger: Ledger, digest: bytes) -> dict[str, object]:
    """What GET /v1/claims/{hash} answers."""
    verdict, state = ledger.verdict(digest), ledger.claim_state(digest)
    rivals = [
        {
            "claim": rival.hex(),
            "publication": ledger.claim_state(rival).publication.signed.hash.hex(),
            "owner": ledger.claim_state(rival).claim.signed.signer.hex(),
            "publication_index": ledger.claim_state(rival).publication.index,
        }
        for rival in verdict.rivals
    ]
    objections = [placed.signed for placed in state.challenges.values()]
    return {
        "claim": digest.hex(),
        "publication": state.publication.signed.hash.hex(),
        "owner": state.claim.signed.signer.hex(),
        "model_sha256": state.claim.signed.message.model_sha256.hex(),
        "endpoint": endpoint_named(state.claim.signed.message.model_pointer),
        "outcome": str(verdict.outcome) if verdict.outcome else None,
        "reason": verdict.reason,
        "members": list(verdict.members),
        "superseded_by": verdict.superseded_by.hex() if verdict.superseded_by else None,
        "superseding": rivals[0] if verdict.superseded_by else None,
        "rivals": rivals,
        "challenges": [{"challenger": o.signer.hex(), "reason": o.message.reason} for o in objections],
        "publication_index": state.publication.index,
        "claim_index": state.claim.index,
        "votes": [vote_document(name, placed.signed.message) for name, placed in state.votes.items()],
    }


def vote_document(name: str, vote: Vote) -> dict[str, object]:
    """One vote of a claim's document."""
    measured = vote.measurement
    return {
        "member": name,
        "outcome": str(vote.outcome),
        "reason": vote.reason,
        "matched": measured.matched,
        "total": measured.total,
        "statistic": str(measured.statistic),
        "chance_ppm": measured.chance_ppm,
        "p_value": measured.p_value,
        "permutations": measured.permutations,
        "permutations_as_good": measured.permutations_as_good,
        "aligned": measured.aligned,
        "matched_unaligned": measured.matched_unaligned,
        "controls": [{"kind": str(c.kind), "matched": c.matched} for c in measured.controls],
        "device": vote.device,
        "software": vote.software,
    }


def weights(words: str) -> bytes:
    """A safetensors file with the only weights in front of INFO's tap, and words that make it another file."""
    import numpy as np

    backbone = {"conv1.weight": np.zeros((64, 3, 7, 7), dtype=np.float32)}
    return safetensors.numpy.save(backbone | {"words": np.frombuffer(words.encode(), dtype=np.uint8)})


def fail(status: int, code: str) -> web.Response:
    """The API's error shape."""
    return web.json_response({"error": {"code": code, "message": f"the test says {code}"}}, status=status)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FakeLedger]:
    """A running ledger with its policy in tmp_path/policy.txt."""
    fake = FakeLedger()

    async def start() -> list[web.AppRunner]:
        runners = []
        for node in fake.nodes:
            app = web.Application(client_max_size=2**26)
            app.router.add_route("*", "/{path:.*}", Handlers(fake, node).handle)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            node.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            runners.append(runner)
        return runners

    async def stop(runners: list[web.AppRunner]) -> None:
        for runner in runners:
            await runner.cleanup()

    with in_thread() as run_in_loop:
        runners = run_in_loop(start())
        try:
            fake.open(tmp_path / "policy.txt")
            yield fake
        finally:
            run_in_loop(stop(runners))


@dataclass(frozen=True)
class Answer:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict:
        """Its JSON document."""
        return json.loads(self.out)


@pytest.fixture
def wmreg(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Run a command line in this process, with its own state directory and little patience."""
    monkeypatch.setenv("WMREG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-configuration"))  # not that of who runs the tests
    monkeypatch.setenv("WMREG_PATIENCE_S", "0.5")

    def invoke(*words: object) -> Answer:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return invoke


@dataclass(frozen=True)
class Party:
    """Somebody with a signing key and a bundle."""

    key: Path
    directory: Path
    model: Path

    @property
    def bundle(self) -> Bundle:
        """The bundle in the directory."""
        return Bundle(self.directory)


@pytest.fixture
def make_party(tmp_path: Path) -> Callable[[str], Party]:
    """Make an owner with a bundle whose files fit each other; of a network the model has the first layer."""
    import numpy as np

    def make(name: str) -> Party:
        key_path, bundle = tmp_path / f"{name}.pem", Bundle(tmp_path / name)
        private_key = create_signing_key(key_path)
        bundle.directory.mkdir()
        bundle.model.write_bytes(weights(f"the model of {name}"))
        binding = bind(private_key, origin=ORIGIN, nonce=name.encode().ljust(16)[:16])
        save_watermark_key(bundle.watermark_key, WatermarkKeyFile(origin=ORIGIN, binding=binding))
        model_sha256 = hashlib.sha256(bundle.model.read_bytes()).hexdigest()
        info = json.dumps(INFO | {"model_sha256": model_sha256}, sort_keys=True, separators=(",", ":"))
        metadata = {"format": "wmreg-evidence/1", "salt": "11" * 32, "info": info}
        head = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
        bundle.evidence.write_bytes(safetensors.numpy.save(head, metadata=metadata))
        return Party(key_path, bundle.directory, bundle.model)

    return make


@pytest.fixture
def stolen(tmp_path: Path) -> Path:
    """A model file that somebody found."""
    path = tmp_path / "stolen.safetensors"
    path.write_bytes(weights("a stolen model"))
    return path


@pytest.fixture
def publish(wmreg: Callable[..., Answer], ledger: FakeLedger) -> Callable[..., Answer]:
    """Publish a party's bundle."""

    def invoke(party: Party, *more: object) -> Answer:
        return wmreg("publish", party.directory, "--signing-key", party.key, "--policy", ledger.policy_path, *more)

    return invoke


@pytest.fixture
def claim(wmreg: Callable[..., Answer], ledger: FakeLedger) -> Callable[..., Answer]:
    """Claim a model from a party's bundle."""

    def invoke(party: Party, model: object, *more: object) -> Answer:
        who = ["--evidence", party.directory, "--signing-key", party.key]
        return wmreg("claim", model, *who, "--policy", ledger.policy_path, *more)

    return invoke


@pytest.fixture
def alice(make_party: Callable[[str], Party]) -> Party:
    """An owner."""
    return make_party("alice")


@pytest.fixture
def bob(make_party: Callable[[str], Party]) -> Party:
    """Another owner, who may be a pirate."""
    return make_party("bob")


@pytest.fixture
def good() -> Measurement:
    """Numbers that verify."""
    return GOOD


@pytest.fixture
def poor() -> Measurement:
    """Numbers that refute."""
    return POOR


@pytest.fixture(scope="session")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Owner]:
    """A bundle of a real network, with a mark that was only just embedded; and the owner who made it."""
    from client.marking.embedding import embed, write_bundle
    from client.marking.task import Task
    from wm import EmbedSettings

    place = tmp_path_factory.mktemp("marked")
    private_key = create_signing_key(place / "key.pem")
    task = Task(data="digits", fraction=0.06, arch="resnet18", weights=None, seed=1, epochs=1, device="cpu")
    # 600, as owners take: of 100, the nodes' control models match too many by chance once in many runs.
    quick = EmbedSettings(triggers=600, pooling=2, hidden=64, shadows=0, steps=1, head_steps=200, feature_noise=0)
    key_file = create_watermark_key(private_key, origin=ORIGIN)
    made = embed(task, [key_file], settings=quick, show=lambda *_progress: None)
    with staged_directory(place / "bundle") as staging:
        write_bundle(Bundle(staging), made, [key_file], base_sha256=None, keep_clean=True)
    return Bundle(place / "bundle"), Owner(private_key)
