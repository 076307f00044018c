"""The HTTP API, against real nodes without Raft: what it answers, and how it says no."""

import asyncio
import base64
import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from damage import with_flipped_bit
from fakes import good_measurement, private_key, public_key, replayed
from nodeset import ORIGIN, STATUS, NodeSet, claim, publication, sealed, vote_message

from node.receipts import VerifiedReceipts
from node.watch import Watch
from registry import merkle, signing
from registry.certificate import verify_certificate
from registry.envelope import message_hash
from registry.errors import ConsistencyError, UntrustedError
from registry.note import Note
from registry.receipt import Receipt, verify_receipt
from registry.tiles import entry_bundle, parse_entry_bundle
from registry.trust import TrustPolicy

BLOB = b"weights" * 1000
SHA256 = hashlib.sha256(BLOB).digest()


class Api:
    """Talks to one node of the set."""

    def __init__(self, nodes: NodeSet, number: int = 0) -> None:
        self._nodes, self._url = nodes, nodes.nodes[number].url

    async def call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        async with self._nodes.session.request(method, self._url + path, data=body, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers

    async def get(self, path: str) -> tuple[int, bytes]:
        status, body, _ = await self.call("GET", path)
        return status, body

    async def json(self, path: str, *, status: int = 200) -> Any:
        found, body = await self.get(path)
        assert found == status, body
        return json.loads(body)

    async def submit(self, envelope: bytes, *, status: int = 200) -> Any:
        found, body, _ = await self.call("POST", "/v1/entries", envelope)
        assert found == status, body
        return json.loads(body)

    async def error(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer, _ = await self.call(method, path, body, spelled)
        (shape,) = json.loads(answer).items()
        assert shape[0] == "error"
        assert set(shape[1]) == {"code", "message"}
        return status, shape[1]["code"]


async def vote(nodes: NodeSet, digest: bytes, *numbers: int) -> None:
    message = vote_message(nodes, digest, measurement=good_measurement())
    for number in numbers:
        envelope = sealed(message, nodes.nodes[number].identity.signing)
        await nodes.nodes[0].ledger.submit(envelope, timeout_s=5)


def signed_upload(content: bytes, *, owner: str = "alice", sha256: bytes | None = None) -> dict[str, str]:
    digest = hashlib.sha256(content).digest() if sha256 is None else sha256
    signature = signing.sign(private_key(owner), signing.blob_upload(ORIGIN, digest, len(content)))
    return {"Wmreg-Signer": public_key(owner).hex(), "Wmreg-Signature": signature.hex()}


async def test_a_submission_is_answered_with_a_receipt_that_verifies_offline(tmp_path: Path):
    envelope = publication()
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        answer = await Api(nodes, 1).submit(envelope)
        assert (answer["index"], answer["message_hash"], answer["duplicate"]) == (
            1,
            message_hash(envelope).hex(),
            False,
        )
        verified = verify_receipt(Receipt.parse(answer["receipt"]), nodes.trust)
        assert verified.recorded_s == answer["recorded_s"]
        again = await Api(nodes, 2).submit(envelope)
        assert (again["index"], again["duplicate"], again["recorded_s"]) == (1, True, answer["recorded_s"])
        status, body = await Api(nodes).get(f"/v1/receipts/{answer['message_hash']}")
        assert status == 200
        assert verify_receipt(Receipt.parse(body.decode()), nodes.trust).index == 1


async def test_of_a_batch_each_message_is_recorded_or_refused_by_itself(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes)
        known = publication(number=0)
        await api.submit(known)
        sent = publication(number=3)
        forged = with_flipped_bit(sent)
        lost = claim(publication(number=9), number=9)
        batch = entry_bundle([publication(number=1), known, forged, lost, publication(number=2)])
        status, raw, _ = await api.call("POST", "/v1/batches", batch)
        assert status == 200
        new, again, bad, unknown, last = json.loads(raw)["results"]
        assert (new["duplicate"], again["duplicate"], again["index"]) == (False, True, 1)
        assert (bad["status"], bad["error"]["code"]) == (400, "malformed")
        assert (unknown["status"], unknown["error"]["code"]) == (422, "unknown_publication")
        for answer, number in ((new, 1), (again, 0), (last, 2)):
            verified = verify_receipt(Receipt.parse(answer["receipt"]), nodes.trust)
            assert verified.signed.hash == message_hash(
                publication(number=number, time_s=verified.signed.message.time_s)
            )
            assert verified.index == answer["index"]
        assert nodes.nodes[0].ledger.store.size == 4


NO_BATCHES = [
    (b"", (400, "malformed")),
    (b"\x00", (400, "malformed")),
    (b"\x00\x05abc", (400, "malformed")),
    (entry_bundle([b"x"] * 256) + b"\x00\x01x", (413, "too_large")),
]


@pytest.mark.parametrize(("batch", "expected"), NO_BATCHES)
async def test_what_is_not_a_batch_is_refused_and_nothing_of_it_is_taken(
    tmp_path: Path, batch: bytes, expected: tuple[int, str]
):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        assert await Api(nodes).error("POST", "/v1/batches", batch) == expected
        assert nodes.order.proposed == []


async def test_a_batch_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("node.api.entries.BATCH_BYTES_MAX", 100_000)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        batch = entry_bundle([bytes(60_000)] * 2)
        assert await Api(nodes).error("POST", "/v1/batches", batch) == (413, "too_large")


async def test_an_entry_is_shown_with_its_bytes_and_its_message(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes)
        digest = (await api.submit(publication()))["message_hash"]
        shown = await api.json(f"/v1/entries/{digest}")
        assert base64.b64decode(shown["entry"]) == nodes.nodes[0].ledger.store.entry(1)
        assert (shown["kind"], shown["signers"]) == ("publish", [public_key("alice").hex()])
        assert shown["body"]["head_commitment"] == (b"h" * 32).hex()
        assert shown["body"]["model_commitment"] is None


async def test_the_log_is_paged(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api = Api(nodes)
        for number in range(4):
            await api.submit(publication(number=number))
        first = await api.json("/v1/entries?limit=3")
        assert ([e["index"] for e in first["entries"]], first["size"], first["next"]) == ([0, 1, 2], 5, 3)
        assert first["entries"][0]["body"]["policy"]["members"][0]["name"] == "node-1"
        last = await api.json("/v1/entries?start=3&limit=1000")
        assert ([e["index"] for e in last["entries"]], last["next"]) == ([3, 4], None)
        assert (await api.json("/v1/entries?start=99"))["entries"] == []


async def test_a_claim_shows_its_votes_and_becomes_a_certificate(tmp_path: Path):
    published = publication()
    envelope = claim(published)
    digest = message_hash(envelope)
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes)
        await api.submit(published)
        await api.submit(envelope)
        opened = await api.json(f"/v1/claims/{digest.hex()}?wait_s=0")
        assert (opened["outcome"], opened["votes"], opened["members"]) == (None, [], [])
        assert await api.error("GET", f"/v1/certificates/{digest.hex()}") == (409, "open")
        await vote(nodes, digest, 0, 2)
        decided = await api.json(f"/v1/claims/{digest.hex()}?wait_s=5")
        assert (decided["outcome"], decided["reason"], decided["members"]) == (
            "VERIFIED",
            "matched",
            ["node-1", "node-3"],
        )
        assert decided["votes"][0]["matched"] == 600
        assert decided["votes"][0]["p_value"] == "2.41e-181"
        assert decided["votes"][0]["controls"][0] == {
            "kind": "fresh",
            "matched": 300,
            "suspect_only": 300,
            "control_only": 0,
        }
        status, raw, headers = await api.call("GET", f"/v1/certificates/{digest.hex()}")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert verify_certificate(raw, nodes.trust).claim_hash == digest


async def test_a_superseded_claim_names_the_earlier_publication(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes)
        hashes = {}
        for owner in ("alice", "pirate"):
            published = publication(owner)
            await api.submit(published)
            hashes[owner] = await api.submit(claim(published, owner))
        for owner in ("pirate", "alice"):
            await vote(nodes, bytes.fromhex(hashes[owner]["message_hash"]), 0, 1)
        pirate = hashes["pirate"]["message_hash"]
        shown = await api.json(f"/v1/claims/{pirate}")
        assert shown["superseded_by"] == hashes["alice"]["message_hash"]
        assert shown["superseding"]["owner"] == public_key("alice").hex()
        assert shown["superseding"]["publication_index"] == 1
        assert await api.error("GET", f"/v1/certificates/{pirate}") == (409, "superseded")


async def test_waiting_for_a_verdict_ends_when_it_comes(tmp_path: Path):
    import asyncio

    published = publication()
    envelope = claim(published)
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes)
        await api.submit(published)
        await api.submit(envelope)
        waiting = asyncio.create_task(api.json(f"/v1/claims/{message_hash(envelope).hex()}?wait_s=30"))
        await asyncio.sleep(0.05)
        await vote(nodes, message_hash(envelope), 0, 1)
        async with asyncio.timeout(5):
            assert (await waiting)["outcome"] == "VERIFIED"


async def test_an_auditor_replays_the_tiles_and_arrives_at_the_cosigned_root(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes)
        order = nodes.order
        maker_entries = [_entry(number) for number in range(299)]
        order.order(*maker_entries)
        status, text = await api.get("/checkpoint")
        assert status == 200
        checkpoint = nodes.trust.check(Note.parse(text.decode())).checkpoint
        assert checkpoint.size == 300
        _, full = await api.get("/tile/entries/000")
        _, partial = await api.get("/tile/entries/001.p/44")
        entries = parse_entry_bundle(full) + parse_entry_bundle(partial)
        assert replayed(entries).root_at(300) == checkpoint.root
        _, hashes = await api.get("/tile/0/000")
        assert hashes == b"".join(merkle.leaf_hash(entry) for entry in entries[:256])
        _, upper = await api.get("/tile/1/000.p/1")
        assert upper == merkle.root(merkle.leaf_hash(entry) for entry in entries[:256])
        assert (await api.call("GET", "/tile/entries/000"))[2]["Cache-Control"].endswith("immutable")
        for beyond in ("/tile/entries/001", "/tile/entries/001.p/45", "/tile/0/001", "/tile/1/000", "/tile/2/000.p/1"):
            assert await api.error("GET", beyond) == (404, "not_found")
        for path in (
            "/tile/9/000.p/1",
            "/tile/0/x999/x999/x999/x999/x999/999",
            "/tile/entries/x999/x999/x999/x999/x999/999",
        ):
            assert await api.error("GET", path) == (404, "not_found")
        for path in (
            "/tile/0/0",
            "/tile/0/000.p/0",
            "/tile/0/000.p/257",
            "/tile/-1/000",
            "/tile/entries/1",
            "/tile/0/...",
        ):
            assert await api.error("GET", path) == (400, "malformed")


async def test_who_has_a_tile_or_a_checkpoint_is_told_so_and_who_has_another_gets_it(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api = Api(nodes)
        nodes.order.order(*[_entry(number) for number in range(299)])
        controls = {}
        for path in ("/tile/entries/000", "/tile/0/000", "/tile/entries/001.p/44", "/tile/1/000.p/1", "/checkpoint"):
            status, body, headers = await api.call("GET", path)
            tag, controls[path] = headers["ETag"], headers["Cache-Control"]
            assert (status, tag[0], tag[-1]) == (200, '"', '"')
            for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                status, empty, headers = await api.call("GET", path, headers={"If-None-Match": known})
                assert (status, empty, headers["ETag"], headers["Cache-Control"]) == (304, b"", tag, controls[path])
            for other in ('"other"', "nonsense", ""):
                assert (await api.call("GET", path, headers={"If-None-Match": other}))[:2] == (200, body)
        assert ["immutable" in control for control in controls.values()] == [True, True, False, False, False]
        before = (await api.call("GET", "/checkpoint"))[2]["ETag"]
        await api.submit(publication(number=1000))
        status, _, headers = await api.call("GET", "/checkpoint", headers={"If-None-Match": before})
        assert (status, headers["ETag"] != before) == (200, True)


async def test_a_blob_may_be_kept_for_ever(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api, path = Api(nodes), f"/v1/blobs/{SHA256.hex()}"
        await api.call("PUT", path, BLOB, signed_upload(BLOB))
        _, _, headers = await api.call("GET", path)
        assert headers["Cache-Control"].endswith("immutable")
        assert (await api.call("GET", path, headers={"If-None-Match": headers["ETag"]}))[0] == 304
        assert (await api.call("GET", f"/v1/blobs/{'0' * 64}"))[2].get("Cache-Control") is None


def _entry(number: int) -> bytes:
    from registry.entry import Entry

    return Entry(publication(number=number), int(time.time())).encode()


async def test_a_node_gives_its_own_checkpoint_of_each_size(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        api = Api(nodes, 2)
        await api.submit(publication())
        status, text = await api.get("/v1/checkpoints/2?wait_s=5")
        note = Note.parse(text.decode())
        assert status == 200
        assert [line.name for line in note.signatures] == [ORIGIN, f"{ORIGIN}/node-3"]
        assert (await api.get("/v1/checkpoints/1"))[0] == 200
        assert await api.error("GET", "/v1/checkpoints/0") == (404, "not_yet")
        assert await api.error("GET", "/v1/checkpoints/3") == (404, "not_yet")
        assert await api.error("GET", "/v1/checkpoints/02") == (400, "malformed")
        assert await api.error("GET", "/v1/checkpoints/18446744073709551616") == (400, "malformed")
        assert await api.error("GET", "/v1/checkpoints/18446744073709551615") == (404, "not_yet")


async def test_a_blob_is_stored_once_and_served_with_ranges(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api, path = Api(nodes), f"/v1/blobs/{SHA256.hex()}"
        assert await api.error("GET", path) == (404, "not_found")
        assert (await api.call("PUT", path, BLOB, signed_upload(BLOB)))[0] == 201
        assert (await api.call("PUT", path, BLOB, signed_upload(BLOB)))[0] == 200
        assert (await api.get(path)) == (200, BLOB)
        status, body, headers = await api.call("HEAD", path)
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(BLOB)))
        assert (await api.call("GET", path, headers={"Range": "bytes=0-9"}))[:2] == (206, BLOB[:10])
        assert (await api.call("GET", path, headers={"Range": "bytes=-9"}))[:2] == (206, BLOB[-9:])
        for beyond in (f"bytes={len(BLOB)}-", "bytes=1-0", "bytes=0-1,3-4", f"bytes={'9' * 5000}-", "bytes=-", "x"):
            status, body, headers = await api.call("GET", path, headers={"Range": beyond})
            assert (status, json.loads(body)["error"]["code"]) == (416, "requested_range_not_satisfiable"), beyond
            assert headers["Content-Range"] == f"bytes */{len(BLOB)}"


NOWHERE = [
    "/v1/blobs/..%2f..%2fnode.toml",
    "/v1/blobs/..%252f..%252fnode.toml",
    "/v1/blobs/%2e%2e/%2e%2e/keys/note.pem",
    "/v1/blobs/../../keys/note.pem",
    "/v1/blobs/..%5c..%5ckeys%5cnote.pem",
    f"/v1/blobs/{'ab' * 31}a%00",
    f"/v1/blobs/{'ab' * 32}%00.pem",
    f"/v1/blobs/{'AB' * 32}",
    f"/v1/blobs/{'ab' * 32}/../../../keys/note.pem",
    "/tile/entries/../../../../keys/note.pem",
    "/tile/entries/..%2f..%2fkeys%2fnote.pem",
    "/tile/0/..%2f..%2f..%2fkeys%2fnote.pem",
    "/v1/cosignatures/..%2f..%2fkeys%2fnote.pem",
    "//keys/note.pem",
    "/keys/note.pem",
    "/%2fetc%2fpasswd",
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_a_path_leads_to_no_other_file(tmp_path: Path, method: str):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        config = nodes.nodes[0].config
        for path in NOWHERE:
            head = f"{method} {path} HTTP/1.1\r\nHost: n\r\nConnection: close\r\n"
            head += "".join(f"{name}: {value}\r\n" for name, value in signed_upload(BLOB).items())
            reader, writer = await asyncio.open_connection(config.api.host, config.api.port)
            writer.write(f"{head}Content-Length: {len(BLOB)}\r\n\r\n".encode() + BLOB)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            assert answer[9:12] in {b"400", b"404", b"405", b"422"}, (path, answer)
            assert b"PRIVATE KEY" not in answer
        assert nodes.nodes[0].services.blobs.bytes_total == 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("content", (422, "hash_mismatch")),
        ("length", (422, "bad_signature")),
        ("signer", (422, "bad_signature")),
        ("origin", (422, "bad_signature")),
        ("no signature", (400, "malformed")),
        ("upper case", (400, "malformed")),
        ("too large", (413, "too_large")),
        ("hash", (400, "malformed")),
    ],
)
async def test_a_bad_upload_is_refused_and_leaves_nothing(tmp_path: Path, change: str, expected: tuple[int, str]):
    body, headers, path = BLOB, signed_upload(BLOB), f"/v1/blobs/{SHA256.hex()}"
    if change == "content":
        body = BLOB[:-1] + b"!"
    elif change == "length":
        body = BLOB + b"!"
    elif change == "signer":
        headers["Wmreg-Signer"] = public_key("bob").hex()
    elif change == "origin":
        signature = signing.sign(private_key("alice"), signing.blob_upload("elsewhere", SHA256, len(BLOB)))
        headers["Wmreg-Signature"] = signature.hex()
    elif change == "no signature":
        del headers["Wmreg-Signature"]
    elif change == "upper case":
        headers = {name: value.upper() for name, value in headers.items()}
    elif change == "too large":
        body = bytes(1_000_001)
        headers = signed_upload(body, sha256=SHA256)
    else:
        path = path.upper().replace("/V1/BLOBS", "/v1/blobs")
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api = Api(nodes)
        status, answer, _ = await api.call("PUT", path, body, headers)
        assert (status, json.loads(answer)["error"]["code"]) == expected
        assert nodes.nodes[0].services.blobs.bytes_total == 0
        assert [p for p in (tmp_path / "ledger/node-1/state/blobs").rglob("*") if p.is_file()] == []


async def test_a_full_store_is_said_to_be_full(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api, statuses = Api(nodes), []
        for number in range(3):
            body = bytes([number]) * 900_000
            path = f"/v1/blobs/{hashlib.sha256(body).hexdigest()}"
            status, answer, _ = await api.call("PUT", path, body, signed_upload(body))
            statuses.append(status)
        assert statuses == [201, 201, 507]
        assert json.loads(answer)["error"]["code"] == "quota"


REFUSALS = [
    ("POST", "/v1/entries", b"", (400, "malformed")),
    ("POST", "/v1/entries", b"\x80\x04\x95pickle", (400, "malformed")),
    ("POST", "/v1/entries", bytes(70_000), (413, "too_large")),
    ("GET", "/v1/entries/zz", None, (400, "malformed")),
    ("GET", f"/v1/entries/{'0' * 64}", None, (404, "not_found")),
    ("GET", f"/v1/entries/{'A' * 64}", None, (400, "malformed")),
    ("GET", "/v1/entries?start=-1", None, (400, "malformed")),
    ("GET", "/v1/entries?limit=1e3", None, (400, "malformed")),
    ("GET", f"/v1/receipts/{'0' * 64}", None, (404, "not_found")),
    ("GET", f"/v1/claims/{'0' * 64}", None, (404, "not_found")),
    ("GET", f"/v1/claims/{'0' * 64}?wait_s=x", None, (400, "malformed")),
    ("GET", f"/v1/certificates/{'0' * 64}", None, (404, "not_found")),
    ("GET", "/nothing/here", None, (404, "not_found")),
    ("DELETE", "/v1/entries", None, (405, "method_not_allowed")),
]


async def test_what_is_wrong_with_a_request_is_said_in_one_shape(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api = Api(nodes)
        for method, path, body, expected in REFUSALS:
            assert await api.error(method, path, body) == expected, path
        assert nodes.order.proposed == []


async def test_what_the_rules_refuse_keeps_their_code(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        answer = await Api(nodes).submit(publication(time_s=5), status=422)
        assert answer["error"]["code"] == "time_skew"


async def test_no_leader_is_503_with_a_time_to_come_back(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        nodes.order.failures = ["queue_full"]
        status, answer, headers = await Api(nodes).call("POST", "/v1/entries", publication())
        assert (status, json.loads(answer)["error"]["code"], headers["Retry-After"]) == (503, "queue_full", "1")


async def test_an_entry_without_a_quorum_is_503_and_a_second_submission_gets_the_receipt(tmp_path: Path):
    envelope = publication()
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(0)
        node = nodes.nodes[0]
        quick = dataclasses.replace(node.services, submit_timeout_s=0.3)
        node.services = quick
        await nodes.serve_app(nodes.nodes[2], _app(quick))
        api = Api(nodes, 2)
        assert await api.error("POST", "/v1/entries", envelope) == (503, "quorum")
        await nodes.serve(1)
        again = await Api(nodes, 0).submit(envelope)
        assert (again["index"], again["duplicate"]) == (1, True)


def _app(services: object) -> Any:
    from node.api import make_app

    return make_app(services)


async def test_a_bug_is_500_says_nothing_outside_and_everything_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()

        def broken(_: bytes) -> None:
            raise ZeroDivisionError("secret detail")

        assert await nodes.nodes[0].services.index.reach(1, 30)
        nodes.nodes[0].ledger.store.find = broken
        status, body = await Api(nodes).get(f"/v1/entries/{'0' * 64}")
        assert (status, json.loads(body)["error"]["code"]) == (500, "internal")
        assert b"secret" not in body
        assert "secret detail" in caplog.text


async def test_the_policy_is_the_one_that_init_wrote(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        status, text = await Api(nodes).get("/v1/policy")
        assert status == 200
        assert TrustPolicy.parse(text.decode()) == nodes.trust


async def test_a_node_says_how_it_is(tmp_path: Path):
    published = publication()
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api = Api(nodes)
        await api.submit(published)
        await api.submit(claim(published))
        state = await api.json("/v1/node")
        assert (state["name"], state["origin"], state["size"]) == ("node-1", ORIGIN, 3)
        assert state["root"] == nodes.nodes[0].ledger.store.root(3).hex()
        assert state["raft"]["leader"] == "node-1"
        assert state["verifier"] == {"state": "stopped", "device": "cpu", "queue": 1, "unusable_public": {}}
        assert state["claims_open"] == 1


async def test_health_turns_bad_with_an_alarm_or_without_a_leader(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=2) as nodes:
        await nodes.serve(0)
        api, node = Api(nodes), nodes.nodes[0]
        assert await node.ledger.signed.wait_for(1, 30)
        for path in ("/health", "/healthz"):
            assert await api.json(path) == {"status": "ok"}
        node.ledger.signer.alarm = "another tree"
        assert (await api.json("/health", status=503))["problems"] == {"signer": "another tree"}
        node.ledger.signer.alarm = None
        node.services.alarms["voter"] = "stopped"
        assert (await api.json("/health", status=503))["problems"] == {"voter": "stopped"}
        node.services.alarms.clear()
        node.services.verifier.alarm = "did not start"
        assert (await api.json("/health", status=503))["problems"] == {"verifier": "did not start"}
        node.services.verifier.alarm = None
        alone = dataclasses.replace(STATUS, leader=None)
        await nodes.serve_app(nodes.nodes[1], _app(dataclasses.replace(node.services, raft_status=lambda: alone)))
        (problem,) = (await Api(nodes, 1).json("/health", status=503))["problems"].items()
        assert problem[0] == "consensus"
        assert "no leader is known" in problem[1]


async def test_health_says_what_waits_and_for_how_long(tmp_path: Path):
    now_s = 0.0
    async with NodeSet(tmp_path / "ledger") as nodes:
        node = nodes.nodes[0]
        watch = Watch(node.ledger, node.services.gatherer, lambda: STATUS, clock=lambda: now_s)
        await nodes.serve_app(node, _app(dataclasses.replace(node.services, watch=watch)))
        await node.ledger.submit(publication(), timeout_s=5)
        assert await node.ledger.signed.wait_for(2, 30)
        assert await Api(nodes).json("/health") == {"status": "ok"}
        now_s = 61.0
        assert (await Api(nodes).json("/health", status=503))["problems"] == {
            "cosigned": "a quorum has cosigned 0 of 2 entries; what is missing has waited for 61 s"
        }
        assert (await Api(nodes).json("/v1/node"))["problems"].keys() == {"cosigned"}
        await nodes.serve(1, 2)
        assert (await Api(nodes).get("/checkpoint"))[0] == 200
        assert await Api(nodes).json("/health") == {"status": "ok"}


async def test_a_receipt_that_does_not_hold_is_500_and_turns_health_bad(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        api, store = Api(nodes), nodes.nodes[0].ledger.store
        digest = (await api.submit(publication()))["message_hash"]
        await api.submit(publication(number=1))
        nodes.nodes[0].services.gatherer._receipts = VerifiedReceipts()
        store.entries_at = lambda indexes: dict.fromkeys(indexes, store.entry(2))
        assert await api.error("GET", f"/v1/receipts/{digest}") == (500, "self_check")
        assert (await api.json("/health", status=503))["problems"].keys() == {"self_check"}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(UntrustedError("members left"), 503, "untrusted"), (ConsistencyError("a fork"), 500, "consistency")],
)
async def test_an_error_of_the_log_or_of_its_readers_policy_keeps_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()

        async def fail() -> None:
            raise error

        monkeypatch.setattr(nodes.nodes[0].services.gatherer, "latest_note", fail)
        assert await Api(nodes).error("GET", "/checkpoint") == (status, code)
