"""The JSON that the API answers with, as schemas of OpenAPI 3.1, which are those of JSON Schema 2020-12.

Every object names all its members and no others, so that a member which nobody described is found by the tests, which
check each answer against this.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from node.examining import Progress
from registry.certificate import FORMAT
from registry.messages import KINDS
from registry.policy import Thresholds
from registry.verdict import ControlKind, Outcome, Statistic

Schema = dict[str, Any]
SIZE_MAX = 2**64 - 1


def ref(name: str) -> Schema:
    """A schema below, by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def obj(**members: Schema) -> Schema:
    """An object with exactly these members."""
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def listed(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def described(schema: Schema, text: str) -> Schema:
    """The same with a description; a reference keeps it beside itself, as 3.1 allows."""
    return {**schema, "description": text}


def _octets(count: int, text: str) -> Schema:
    return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * count}}}$", "description": text}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": SIZE_MAX}
TRUTH: Schema = {"type": "boolean"}
HASH, KEY = ref("Hash"), ref("PublicKey")
_LONG_HEX: Schema = {"type": "string", "pattern": "^([0-9a-f]{2})+$"}
_TIME, _INDEX = ref("Time"), ref("Index")
_COMMITTED: Schema = {"type": "array", "items": HASH, "minItems": 3, "maxItems": 3}
_NUMBERS = ("matched", "total", "chance_ppm", "permutations", "permutations_as_good")
_ALIGNED = described(TRUTH, "Whether channels of suspect and controls were put into the published model's order first.")
_MODEL_SHA256 = described(HASH, "Of the model's file; of a claim on an endpoint, of its URL and of no file.")
_MATCHED_UNALIGNED = described(
    nullable(COUNT), "What the suspect matched before; null if nothing was aligned, or its channels are not as many."
)

_BODIES: Mapping[str, Schema] = {
    "genesis": obj(time_s=_TIME, origin=TEXT, policy=ref("Policy")),
    "policy": obj(time_s=_TIME, previous=HASH, policy=ref("Policy")),
    "publish": obj(
        time_s=_TIME,
        scheme=TEXT,
        key_commitment=HASH,
        head_commitment=HASH,
        info_commitment=HASH,
        model_commitment=nullable(HASH),
        further=nullable(obj(count=COUNT, root=HASH)),
    ),
    "claim": obj(
        time_s=_TIME,
        publication=HASH,
        model_pointer=TEXT,
        model_sha256=_MODEL_SHA256,
        evidence_pointer=TEXT,
        evidence_sha256=HASH,
        binding=obj(nonce=_octets(16, "Fresh for each watermark key."), signature=ref("Signature")),
        opening=nullable(obj(index=COUNT, committed=_COMMITTED, proof=listed(HASH))),
    ),
    "vote": obj(
        time_s=_TIME,
        claim=HASH,
        policy=HASH,
        outcome=ref("Outcome"),
        reason=TEXT,
        measurement=nullable(
            obj(
                **dict.fromkeys(_NUMBERS, COUNT),
                statistic=ref("Statistic"),
                controls=listed(ref("Control")),
                aligned=_ALIGNED,
                matched_unaligned=_MATCHED_UNALIGNED,
            )
        ),
        device=TEXT,
        software=TEXT,
    ),
    "withdraw": obj(time_s=_TIME, target=HASH, reason=TEXT),
    "rotate": obj(time_s=_TIME, old_key=KEY, new_key=KEY),
    "challenge": obj(time_s=_TIME, claim=HASH, publication=HASH, reason=TEXT),
}


def _entry() -> Schema:
    members = {
        "index": _INDEX,
        "message_hash": HASH,
        "kind": {"enum": list(KINDS)},
        "recorded_s": described(_TIME, "When a node recorded it, by that node's clock."),
        "signers": {"type": "array", "items": KEY, "minItems": 1},
        "body": described({"type": "object"}, "The message; its members depend on the kind."),
    }
    kinds = [{"properties": {"kind": {"const": kind}, "body": body}} for kind, body in _BODIES.items()]
    return {"type": "object", "properties": members, "required": list(members), "oneOf": kinds}


def _entry_with(**more: Schema) -> Schema:
    return {**ref("Entry"), "properties": more, "required": list(more), "unevaluatedProperties": False}


def _page(entry: Schema) -> Schema:
    following = described(nullable(_INDEX), "Where the next page begins; null after the last one.")
    return obj(entries=listed(entry), size=described(COUNT, "Entries in the whole log."), next=following)


_ERROR = obj(
    code=described({"type": "string", "pattern": "^[a-z0-9_]+$"}, "Stable; programs read this."),
    message=described(TEXT, "For people."),
)
_PLAIN: Mapping[str, Schema] = {
    "Hash": _octets(32, "SHA-256."),
    "PublicKey": _octets(32, "Ed25519."),
    "Signature": _octets(64, "Ed25519."),
    "Time": {"type": "integer", "minimum": 0, "maximum": SIZE_MAX, "description": "POSIX seconds."},
    "Index": {"type": "integer", "minimum": 0, "maximum": SIZE_MAX, "description": "Place in the log, from 0 on."},
    "Outcome": {"enum": [str(outcome) for outcome in Outcome]},
    "Statistic": described({"enum": [str(statistic) for statistic in Statistic]}, "What was counted."),
    "Error": obj(error=_ERROR),
    "Control": obj(
        kind={"enum": [str(kind) for kind in ControlKind]}, matched=COUNT, suspect_only=COUNT, control_only=COUNT
    ),
    "Member": obj(
        name=TEXT,
        signing_key=KEY,
        note_key=KEY,
        cosigner_key=KEY,
        tls_certificates=listed(_LONG_HEX),
        raft_host=TEXT,
        raft_port=COUNT,
        api_url=TEXT,
    ),
    "Policy": obj(
        members=listed(ref("Member")),
        quorum=COUNT,
        time_skew_s=COUNT,
        claim_deadline_s=COUNT,
        model_bytes_max=COUNT,
        evidence_bytes_max=COUNT,
        thresholds=obj(**{field.name: COUNT for field in fields(Thresholds)}),
    ),
}

_ANSWERS: Mapping[str, Schema] = {
    "Entry": _entry(),
    "EntryPage": _page(_entry_with()),
    "ShownEntry": _entry_with(entry={"type": "string", "contentEncoding": "base64", "description": "Its bytes."}),
    "SearchPage": _page(_entry_with(bears=described(listed(TEXT), "As what the entry bears the value."))),
    "Submitted": obj(
        index=_INDEX,
        message_hash=HASH,
        recorded_s=_TIME,
        duplicate=described(TRUTH, "The same message had been recorded before."),
        receipt=described(TEXT, "C2SP tlog-proof, cosigned by a quorum."),
    ),
    "RefusedOfBatch": obj(
        status=described(COUNT, "The HTTP status that the message would have got by itself."), error=_ERROR
    ),
    "BatchResults": obj(results=listed({"oneOf": [ref("Submitted"), ref("RefusedOfBatch")]})),
    "Rival": obj(claim=HASH, publication=HASH, owner=KEY, publication_index=_INDEX),
    "Objection": obj(challenge=HASH, challenger=KEY, publication=HASH, reason=TEXT, recorded_s=_TIME),
    "CountedVote": obj(
        member=TEXT,
        outcome=ref("Outcome"),
        reason=TEXT,
        device=TEXT,
        software=TEXT,
        recorded_s=_TIME,
        **dict.fromkeys(_NUMBERS, nullable(COUNT)),
        statistic=nullable(ref("Statistic")),
        p_value=described(nullable(TEXT), "Null if nothing was measured, and of integrity, where chance says nothing."),
        controls=listed(ref("Control")),
        aligned=nullable(_ALIGNED),
        matched_unaligned=_MATCHED_UNALIGNED,
    ),
    "Claim": obj(
        claim=HASH,
        publication=HASH,
        owner=KEY,
        model_sha256=_MODEL_SHA256,
        endpoint=described(nullable(TEXT), "The URL that the claim names; null for a claim on a model's file."),
        outcome=described(nullable(ref("Outcome")), "Null while the claim is open."),
        reason=TEXT,
        members=described(listed(TEXT), "Nodes that agree."),
        superseded_by=described(nullable(HASH), "Another owner's claim whose publication is older."),
        superseding=nullable(ref("Rival")),
        rivals=listed(ref("Rival")),
        rivals_total=COUNT,
        challenges=listed(ref("Objection")),
        challenges_total=COUNT,
        withdrawn_by=nullable(HASH),
        deadline_s=_TIME,
        quorum=COUNT,
        nodes=COUNT,
        publication_index=_INDEX,
        claim_index=_INDEX,
        progress=described({"enum": [str(step) for step in Progress]}, "How far this node is with it."),
        votes=listed(ref("CountedVote")),
    ),
    "Certificate": obj(
        format={"const": FORMAT},
        origin=TEXT,
        checkpoint=TEXT,
        entries=listed(obj(index=_INDEX, entry=TEXT, proof=listed(TEXT))),
        attestations=listed(obj(checkpoint=TEXT, proof=listed(TEXT))),
        sha256=described(HASH, "Of all the rest."),
    ),
    "Stored": obj(sha256=HASH, stored=described(TRUTH, "False if the node had it.")),
    "Node": obj(
        name=TEXT,
        origin=TEXT,
        size=COUNT,
        root=HASH,
        signed_size=COUNT,
        version=TEXT,
        standing={"enum": ["member", "joining", "left", "stranger"]},
        policy=obj(hash=HASH, quorum=COUNT, members=listed(TEXT)),
        raft=obj(
            state={"enum": ["leader", "candidate", "follower"]},
            leader=nullable(TEXT),
            term=COUNT,
            commit_index=COUNT,
            applied_index=COUNT,
            connected=listed(TEXT),
        ),
        verifier=obj(
            state={"enum": ["stopped", "starting", "ready", "busy"]},
            device=TEXT,
            queue=COUNT,
            unusable_public=described(
                {"type": "object", "additionalProperties": COUNT},
                "Public models that the operator keeps and that did not fit the latest claim on an architecture.",
            ),
        ),
        claims_open=COUNT,
        tolerates=described({"type": "integer"}, "Members that may fail; negative when the ledger has stopped."),
        problems=ref("Problems"),
    ),
    "Policies": obj(policies=listed(obj(index=COUNT, message_hash=HASH, envelope=TEXT))),
    "Problems": described(
        {"type": "object", "additionalProperties": TEXT}, "What is wrong, by the part that has the trouble."
    ),
    "Healthy": obj(status={"const": "ok"}),
    "Unhealthy": obj(status={"const": "unhealthy"}, problems=ref("Problems")),
}
SCHEMAS: Mapping[str, Schema] = {**_PLAIN, **_ANSWERS}
