"""Writes docs/reference/api.md from the OpenAPI description that every node serves (node/api/openapi.py).

A page of its own instead of a viewer: it needs no script, and it can be read, searched and compared. `make docs` writes
it, and the description beside it as openapi.json; tests/docs/test_reference.py compares both.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.api.openapi import DOCUMENT

DIRECTORY = Path(__file__).parents[1] / "reference"
PAGE, DESCRIPTION = DIRECTORY / "api.md", DIRECTORY / "openapi.json"
_PREFIX = "#/components/"
_HEAD = """# The HTTP API

<!-- Made by docs/tools/api_page.py from node/api/openapi.py; `make docs` makes it again. -->

Every node serves this description as [`/openapi.json`](openapi.json) (OpenAPI 3.1), and its tests check each answer
against it. {}

## Operations
"""


def render() -> str:
    """The page."""
    operations = [
        _operation(path, method, operation)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    ]
    components = DOCUMENT["components"]
    responses = [
        f"| {status} | {_cell(answer['description'])} |\n" for status, answer in sorted(components["responses"].items())
    ]
    schemas = [_schema(name, schema) for name, schema in sorted(components["schemas"].items())]
    return "".join(
        [
            _HEAD.format(DOCUMENT["info"]["description"]),
            *operations,
            "\n## Errors\nThe body is an [Error](#error): a stable `code` and a message for people.\n",
            "\n| status | codes and causes |\n|---|---|\n",
            *responses,
            "\n## Schemas\n",
            *schemas,
        ]
    )


def describe() -> str:
    """The description itself, for programs."""
    return json.dumps(DOCUMENT, indent=1) + "\n"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [f"\n### {method.upper()} `{path}`\n\n{operation['summary']}\n"]
    if "x-read-cost" in operation:
        parts.append(f"\nCost, in tokens of `reads_per_s`: {operation['x-read-cost']}.\n")
    if "requestBody" in operation:
        parts.append(f"\nBody: {operation['requestBody']['description']}\n")
    if "parameters" in operation:
        rows = (
            f"| `{one['name']}` | {one['in']} | {'yes' if one['required'] else 'no'} | {_kind(one['schema'])} | "
            f"{_cell(one['description'])} |\n"
            for one in operation["parameters"]
        )
        parts += ["\n| parameter | in | required | type | |\n|---|---|---|---|---|\n", *rows]
    answers = operation["responses"]
    parts.append("\n| status | answer | type |\n|---|---|---|\n")
    parts += [_answer(status, answer) for status, answer in sorted(answers.items()) if "$ref" not in answer]
    refused = [f"[{status}](#errors)" for status, answer in sorted(answers.items()) if "$ref" in answer]
    return "".join(parts) + f"\nErrors: {', '.join(refused)}.\n"


def _answer(status: str, answer: Mapping[str, Any]) -> str:
    kinds = [
        f"`{kind}`" + (f": {_kind(content['schema'])}" if "$ref" in content["schema"] else "")
        for kind, content in answer.get("content", {}).items()
    ]
    return f"| {status} | {_cell(answer['description'])} | {', '.join(kinds)} |\n"


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"\n### {name}\n"]
    if "description" in schema:
        parts.append(f"\n{_cell(schema['description'])}\n")
    if "properties" not in schema:
        return "".join([*parts, f"\n{_kind(schema)}\n"])
    required = set(schema.get("required", []))
    rows = (
        f"| `{member}`{'' if member in required else ' (may be missing)'} | {_kind(one)} | "
        f"{_cell(one.get('description', ''))} |\n"
        for member, one in schema["properties"].items()
    )
    return "".join([*parts, "\n| member | type | |\n|---|---|---|\n", *rows])


def _kind(schema: Mapping[str, Any]) -> str:
    """A type in a few words; a named one as a link to its section."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(f"{_PREFIX}schemas/")
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_kind(one) for one in schema[several])
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    return _plain(schema)


def _plain(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(schema['items'])}" if "items" in schema else "list"
    if kind == "object" and "properties" in schema:
        return "object with " + ", ".join(f"`{name}`: {_kind(one)}" for name, one in schema["properties"].items())
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_kind(schema['additionalProperties'])}"
    if "pattern" in schema:
        return f"{kind} `{_cell(schema['pattern'])}`"
    if kind == "integer" and {"minimum", "maximum"} <= set(schema):
        top = {2**64 - 1: "2^64 - 1"}.get(schema["maximum"], schema["maximum"])
        return f"integer, {schema['minimum']} to {top}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    DESCRIPTION.write_text(describe(), encoding="utf-8")
