"""The description that a node serves is whole: every route is in it, and it is valid OpenAPI 3.1 and JSON Schema."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from nodeset import NodeSet

from node.api import make_app
from node.api.openapi import DOCUMENT


async def test_every_route_is_described_and_every_described_route_exists(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        app = make_app(nodes.nodes[0].services)
        routes = {
            (route.resource.canonical, route.method.lower()) for route in app.router.routes() if route.method != "HEAD"
        }
    assert routes == {(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations}


async def test_the_description_is_served_as_it_is(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        async with nodes.session.get(f"{nodes.nodes[0].url}/openapi.json") as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            assert await answer.json() == DOCUMENT
            tag = answer.headers["ETag"]
        async with nodes.session.get(f"{nodes.nodes[0].url}/openapi.json", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(item) for item in value.values()))
    return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere_and_everything_is_used():
    named = {f"#/components/{kind}/{name}" for kind, items in DOCUMENT["components"].items() for name in items}
    assert references(DOCUMENT) == named


def test_every_schema_is_one_of_json_schema():
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_has_a_name_of_its_own_and_describes_its_path():
    operations = [(path, op) for path, methods in DOCUMENT["paths"].items() for op in methods.values()]
    names = [operation["operationId"] for _, operation in operations]
    assert len(set(names)) == len(names)
    for path, operation in operations:
        described = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert described == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_an_answer_with_a_member_that_is_not_described_does_not_fit():
    schema = {"$ref": "#/components/schemas/EntryPage", "components": DOCUMENT["components"]}
    entry = {
        "index": 1,
        "message_hash": "0" * 64,
        "kind": "withdraw",
        "recorded_s": 1,
        "signers": ["0" * 64],
        "body": {"time_s": 1, "target": "0" * 64, "reason": "a mistake"},
    }
    page = {"entries": [entry], "size": 2, "next": None}
    validator = Draft202012Validator(json.loads(json.dumps(schema)))
    assert validator.is_valid(page)
    for wrong in (
        page | {"more": 1},
        page | {"entries": [entry | {"more": 1}]},
        page | {"entries": [entry | {"body": entry["body"] | {"more": 1}}]},
        page | {"entries": [entry | {"kind": "publish"}]},
        page | {"entries": [entry | {"index": -1}]},
        {"entries": [], "size": 2},
    ):
        assert not validator.is_valid(wrong), wrong
