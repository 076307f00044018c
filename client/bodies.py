"""The body of a message for people and programs: bytes as hexadecimal, times in UTC."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

from client.output import printable, utc
from registry.endpoint import endpoint_named, is_endpoint_pointer
from registry.messages import Claim, Message
from registry.verdict import ControlCounts

_OF_ENDPOINT = {"model_pointer": "endpoint", "model_sha256": "endpoint_sha256"}


def body_document(message: Message) -> dict[str, object]:
    """A message's fields as JSON-able values."""
    return {field.name: _json(getattr(message, field.name)) for field in fields(message)}


def body_text(body: Mapping[str, object]) -> str:
    """A body, one line for each field; maps and lists are indented. A claim on an endpoint shows it by its URL."""
    return "\n".join(_lines(_named(body), ""))


def field_of(name: str, message: Message) -> str:
    """A field of a message as `body_text` calls it: the hash of an endpoint's URL is not called a model's."""
    is_endpoint = isinstance(message, Claim) and is_endpoint_pointer(message.model_pointer)
    return _OF_ENDPOINT.get(name, name) if is_endpoint else name


def _named(body: Mapping[str, object]) -> Mapping[str, object]:
    pointer = body.get("model_pointer")
    url = endpoint_named(pointer) if isinstance(pointer, str) else None
    if url is None:
        return body
    return {_OF_ENDPOINT.get(name, name): value for name, value in {**body, "model_pointer": url}.items()}


def _json(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, ControlCounts):
        return {name: _json(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value


def _lines(body: Mapping[str, object], indent: str) -> list[str]:
    lines: list[str] = []
    for name, value in body.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name}  ({len(value)})")
            for item in value:
                lines += _item_lines(item, indent + "  ")
        else:
            lines.append(f"{indent}{name}  {_scalar(name, value)}")
    return lines


def _item_lines(item: object, indent: str) -> list[str]:
    if not isinstance(item, Mapping):
        return [f"{indent}- {printable(str(item))}"]
    first, *rest = _lines(item, indent + "  ")
    return [f"{indent}- {first.strip()}", *rest]


def _scalar(name: str, value: object) -> str:
    if name == "time_s" and isinstance(value, int):
        return f"{value} ({utc(value)})"
    return "-" if value is None else printable(str(value))
