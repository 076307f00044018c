"""The API described for programs: OpenAPI 3.1, served at /openapi.json and tested against.

Source: https://spec.openapis.org/oas/v3.1.1.html. A path of several segments (tiles) has no spelling in OpenAPI; here
it is one parameter whose slashes stay as they are.
"""

import json
from typing import Any

from aiohttp import web

from node.api import caching
from node.api.negotiation import JSON, MSGPACK
from node.api.reads import COSTS
from node.api.schemas import COUNT, HASH, SCHEMAS, Schema, ref
from node.api.witness import SIZE_TYPE
from node.version import VERSION

BYTES, PLAIN = "application/octet-stream", "text/plain"
_HASH_DIGITS = "64 lower-case hexadecimal digits."
_ERRORS = {
    "400": "malformed: what was sent is not in its one spelling, or not HTTP; length_required, unknown_kind.",
    "403": "untrusted_checkpoint: no member has signed it.",
    "404": "not_found, not_yet, unknown_origin: there is no such thing here, or not yet.",
    "408": "too_slow: the body does not come steadily.",
    "409": "open, not_verified, superseded: not in this state.",
    "413": "too_large: the body, a batch, a message or an upload.",
    "414": "uri_too_long: more than 4 KiB.",
    "416": "requested_range_not_satisfiable: the file has no such bytes, or it is no range.",
    "422": "Well formed, and the rules refuse it; the code says which one does.",
    "429": "too_many_requests, too_many_claims: from this address or signing key.",
    "431": "headers_too_large: one of more than 8 KiB, more than 64, or more than 32 KiB in all.",
    "500": "internal, a fault of the node; self_check, a receipt or certificate of its own making did not hold.",
    "503": "Not now: no leader, no quorum, no room on the disk, or too busy; the code says which.",
    "507": "quota: the node's store is full.",
}
_ANY = ("414", "431", "500", "503")  # whatever is asked
_COMES_BACK = {"429", "503"}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_TAGGED = {
    "ETag": {"schema": {"type": "string"}},
    "Cache-Control": {"schema": {"type": "string"}},
}


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json: this description."""
    return caching.cacheable(request, DOCUMENT_BYTES, content_type=JSON, control=caching.REVALIDATE)


def _path(name: str, schema: Schema, text: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text}


def _query(name: str, schema: Schema, text: str, *, required: bool = False) -> Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": text}


def _header(name: str, schema: Schema, text: str, *, required: bool = False) -> Schema:
    return {"name": name, "in": "header", "required": required, "schema": schema, "description": text}


def _answer(text: str, kind: str, schema: Schema, headers: Schema | None = None) -> Schema:
    kinds = (JSON, MSGPACK) if kind == JSON else (kind,)
    return _as(text, kinds, schema, headers)


def _file(text: str, schema: Schema, headers: Schema | None = None) -> Schema:
    """An answer that is JSON whatever is asked for."""
    return _as(text, (JSON,), schema, headers)


def _as(text: str, kinds: tuple[str, ...], schema: Schema, headers: Schema | None) -> Schema:
    content = {kind: {"schema": schema} for kind in kinds}
    return {"description": text, "content": content, **({"headers": headers} if headers else {})}


def _operation(
    name: str,
    text: str,
    *,
    answers: dict[str, Schema],
    errors: str = "",
    parameters: tuple[Schema, ...] = (),
    body: str = "",
) -> Schema:
    """One operation; errors are statuses, besides those that any may answer."""
    refused = {status: {"$ref": f"#/components/responses/{status}"} for status in sorted([*errors.split(), *_ANY])}
    operation: dict[str, Any] = {"operationId": name, "summary": text, "responses": refused | answers}
    if parameters:
        operation["parameters"] = list(parameters)
    if body:
        content = {BYTES: {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "description": body, "content": content}
    return operation


_BINARY: Schema = {"type": "string", "format": "binary"}
_TEXT: Schema = {"type": "string"}
_NAMED = _path("hash", HASH, _HASH_DIGITS)
_WAIT = _query("wait_s", COUNT, "Longest wait in seconds; 60 at most counts. Default 0.")
_START = _query("start", COUNT, "First index to look at. Default 0.")
_LIMIT = _query("limit", {**COUNT, "minimum": 1}, "Entries of the page; 100 at most count. Default 100.")
_IF_NONE_MATCH = _header("If-None-Match", {"type": "string"}, "Tags that are had already: then 304.")
_UNCHANGED: Schema = {"description": "It is the one that is had already.", "headers": _TAGGED}
_TILE_PATH = _path(
    "path",
    {"type": "string", "pattern": r"^(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$"},
    "C2SP tlog-tiles: 000, x001/234, and .p/WIDTH when it is partial.",
)


def _tagged(text: str, kind: str) -> dict[str, Schema]:
    return {"200": _answer(text, kind, _BINARY if kind == BYTES else _TEXT, _TAGGED), "304": _UNCHANGED}


_HEALTH = {
    "200": _answer("The node does its work and keeps up.", JSON, ref("Healthy")),
    "503": _answer("It does not; the answer says why.", JSON, ref("Unhealthy")),
}
_BLOB_HEADERS = {"Cache-Control": {"schema": {"type": "string"}}, "ETag": {"schema": {"type": "string"}}}
PATHS: dict[str, dict[str, Schema]] = {
    "/v1/entries": {
        "post": _operation(
            "submitEntry",
            "Submit a message, and wait for its receipt. The same bytes again get the same entry.",
            answers={"200": _answer("It is in the log.", JSON, ref("Submitted"))},
            errors="400 408 413 422 429",
            body="The message's envelope, canonical msgpack.",
        ),
        "get": _operation(
            "listEntries",
            "A page of the log.",
            answers={"200": _answer("Entries in order.", JSON, ref("EntryPage"))},
            errors="400",
            parameters=(_START, _LIMIT),
        ),
    },
    "/v1/entries/{hash}": {
        "get": _operation(
            "showEntry",
            "One entry, by its message's hash.",
            answers={"200": _answer("The entry and its bytes.", JSON, ref("ShownEntry"))},
            errors="400 404",
            parameters=(_NAMED,),
        )
    },
    "/v1/batches": {
        "post": _operation(
            "submitBatch",
            "Submit up to 256 messages, and wait for all their receipts. Each is recorded or refused by itself.",
            answers={"200": _answer("What became of each, in their order.", JSON, ref("BatchResults"))},
            errors="400 408 413 429",
            body="Envelopes, each behind its length: two bytes, big-endian. At most 1 MiB.",
        )
    },
    "/v1/search": {
        "get": _operation(
            "searchEntries",
            "Entries that bear a hash, or that a key signed; hash or owner, one of them.",
            answers={"200": _answer("Entries in order.", JSON, ref("SearchPage"))},
            errors="400",
            parameters=(
                _query("hash", HASH, "Of a message, model or evidence; a commitment, a leaf, a watermark key."),
                _query("owner", HASH, "A public signing key."),
                _START,
                _LIMIT,
            ),
        )
    },
    "/v1/events": {
        "get": _operation(
            "followEntries",
            "Entries as they come: events of the type entry, the index as their id, an entry as their data. No end.",
            answers={"200": _answer("Server-sent events.", "text/event-stream", _TEXT)},
            errors="400",
            parameters=(
                _query("since", COUNT, "First index to send; without it only new entries are."),
                _header("Last-Event-ID", COUNT, "Instead of since: the last index that was received."),
            ),
        )
    },
    "/v1/receipts/{hash}": {
        "get": _operation(
            "getReceipt",
            "The receipt of a message.",
            answers={"200": _answer("C2SP tlog-proof, cosigned by a quorum.", PLAIN, _TEXT)},
            errors="400 404",
            parameters=(_NAMED,),
        )
    },
    "/v1/claims/{hash}": {
        "get": _operation(
            "showClaim",
            "A claim, its votes and what they add up to; answers when there is a verdict or the wait is over.",
            answers={"200": _answer("The claim.", JSON, ref("Claim"))},
            errors="400 404",
            parameters=(_NAMED, _WAIT),
        )
    },
    "/v1/certificates/{hash}": {
        "get": _operation(
            "getCertificate",
            "The certificate of a verified claim, byte for byte the file.",
            answers={"200": _file("The certificate.", ref("Certificate"))},
            errors="400 404 409",
            parameters=(_NAMED,),
        )
    },
    "/v1/blobs/{hash}": {
        "put": _operation(
            "storeBlob",
            "Upload a file that somebody signed for.",
            answers={
                "200": _answer("The node has it already.", JSON, ref("Stored")),
                "201": _answer("It is stored.", JSON, ref("Stored")),
            },
            errors="400 408 413 422 507",
            parameters=(
                _NAMED,
                _header("Wmreg-Signer", ref("PublicKey"), "Who signs for it.", required=True),
                _header(
                    "Wmreg-Signature", ref("Signature"), "Over the ledger's origin, hash and length.", required=True
                ),
            ),
            body="The file, with its Content-Length.",
        ),
        "get": _operation(
            "fetchBlob",
            "A file by its hash, or a range of it.",
            answers={
                "200": _answer("The file.", BYTES, _BINARY, _BLOB_HEADERS),
                "206": _answer("The range.", BYTES, _BINARY, _BLOB_HEADERS),
                "304": _UNCHANGED,
                "412": {"description": "It has another tag than If-Match names."},
            },
            errors="400 404 416",
            parameters=(_NAMED,),
        ),
    },
    "/checkpoint": {
        "get": _operation(
            "latestCheckpoint",
            "The latest checkpoint that a quorum cosigned.",
            answers=_tagged("C2SP tlog-checkpoint.", PLAIN),
            parameters=(_IF_NONE_MATCH,),
        )
    },
    "/v1/checkpoints/{size}": {
        "get": _operation(
            "ownCheckpoint",
            "This node's own signatures on the checkpoint of a size; answers when there are any or the wait is over.",
            answers={"200": _answer("C2SP tlog-checkpoint.", PLAIN, _TEXT)},
            errors="400 404",
            parameters=(_path("size", COUNT, "Entries."), _WAIT),
        )
    },
    "/add-checkpoint": {
        "post": _operation(
            "addCheckpoint",
            "This node's cosignature on a checkpoint that continues the last one that it signed.",
            answers={
                "200": _answer("The cosignature's line.", PLAIN, _TEXT),
                "409": _answer(
                    "Old is not the size that this node signed last, which the answer is.", SIZE_TYPE, _TEXT
                ),
            },
            errors="400 403 404 408 413 422",
            body="C2SP tlog-witness: `old SIZE`, a consistency proof in lines of base64, an empty line, a checkpoint.",
        )
    },
    "/{origin}/checkpoint": {
        "get": _operation(
            "witnessedCheckpoint",
            "The largest checkpoint that this node has signed.",
            answers={"200": _answer("C2SP tlog-checkpoint.", PLAIN, _TEXT)},
            errors="404",
            parameters=(_path("origin", HASH, "SHA-256 of the log's name, in hexadecimal."),),
        )
    },
    "/tile/entries/{path}": {
        "get": _operation(
            "entryTile",
            "Up to 256 entries.",
            answers=_tagged("An entry bundle of C2SP tlog-tiles.", BYTES),
            errors="400 404",
            parameters=(_TILE_PATH, _IF_NONE_MATCH),
        )
    },
    "/tile/{level}/{path}": {
        "get": _operation(
            "hashTile",
            "Up to 256 hashes of complete subtrees of 256^level entries.",
            answers=_tagged("A tile of C2SP tlog-tiles.", BYTES),
            errors="400 404",
            parameters=(_path("level", COUNT, "From 0 on."), _TILE_PATH, _IF_NONE_MATCH),
        )
    },
    "/v1/policy": {
        "get": _operation(
            "trustPolicy",
            "The ledger's trust policy, to be compared with one's own.",
            answers={"200": _answer("C2SP tlog-policy.", PLAIN, _TEXT)},
        )
    },
    "/v1/policies": {
        "get": _operation(
            "policies",
            "The messages that set a policy, in order: 16 at most.",
            answers={"200": _answer("Envelopes in base64.", JSON, ref("Policies"))},
            errors="400 404",
            parameters=(_query("after", HASH, "Begin behind the message of this hash."),),
        )
    },
    "/v1/cosignatures/{name}": {
        "get": _operation(
            "seenCosignature",
            "The largest checkpoint that this node has seen signed by a member.",
            answers={"200": _answer("C2SP tlog-checkpoint.", PLAIN, _TEXT)},
            errors="400 404",
            parameters=(_path("name", {"type": "string", "minLength": 1, "maxLength": 64}, "The member's name."),),
        )
    },
    "/v1/node": {
        "get": _operation(
            "nodeState",
            "What the node says of itself.",
            answers={"200": _answer("Its state.", JSON, ref("Node"))},
        )
    },
    "/health": {"get": _operation("health", "Whether the node does its work and keeps up.", answers=_HEALTH)},
    "/healthz": {"get": _operation("healthz", "The same as /health.", answers=_HEALTH)},
    "/metrics": {
        "get": _operation(
            "metrics",
            "Everything that is measured.",
            answers={"200": _answer("Prometheus' text format.", PLAIN, _TEXT)},
        )
    },
    "/openapi.json": {
        "get": _operation(
            "description",
            "This description.",
            answers={"200": _file("OpenAPI 3.1.", {"type": "object"}, _TAGGED), "304": _UNCHANGED},
            parameters=(_IF_NONE_MATCH,),
        )
    },
}


def _refusal(status: str, text: str) -> Schema:
    return _answer(text, JSON, ref("Error"), _RETRY_AFTER if status in _COMES_BACK else None)


def _with_rate(path: str, operations: dict[str, Schema]) -> dict[str, Schema]:
    """Say of a read that costs something that it may be refused, and what it costs."""
    cost = COSTS.get(path, 0)
    if cost and "get" in operations:
        get = operations["get"]
        limited = {"429": {"$ref": "#/components/responses/429"}, **get["responses"]}
        operations = {**operations, "get": {**get, "responses": limited, "x-read-cost": cost}}
    return operations


DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "wmreg node",
        "version": VERSION,
        "summary": "One node of an ownership registry for neural networks.",
        "description": (
            "Receipts, certificates and checkpoints are checked by their reader against a trust policy of his own; "
            "everything else is this one node's word. Errors have one shape with a stable code. What is JSON is "
            "msgpack for whoever prefers that by Accept. Reads are paid for in tokens, so many a second for each "
            "address; x-read-cost says how many, and a read without it is free."
        ),
    },
    "paths": {path: _with_rate(path, operations) for path, operations in PATHS.items()},
    "components": {
        "schemas": dict(SCHEMAS),
        "responses": {status: _refusal(status, text) for status, text in _ERRORS.items()},
    },
}
DOCUMENT_BYTES = json.dumps(DOCUMENT).encode()
