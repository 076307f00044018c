"""A verified certificate as an in-toto Statement v1, for tools that speak that format.

The subject is the model's file by its SHA-256, or the endpoint by its URL; the predicate is the story that the
certificate proves, and the hash of the certificate's file, which alone proves it. The statement is not signed: whoever
passes it on signs it in an envelope of his own (DSSE), and says by that no more than that he checked the certificate
against his trust policy.

Source: in-toto attestation framework, spec v1.1 (statement, resource descriptor) and its guidelines for new
predicates: names in lowerCamelCase, times in RFC 3339 with Z, a field that is not known is left out.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from registry import hashed_json
from registry.certificate import Attested, Story
from registry.errors import RefusedError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
# A predicate type is a versioned URI that nobody else uses and that need not resolve. Names under .example belong to
# nobody for ever (RFC 2606), so no later owner of a domain can give this one another meaning.
PREDICATE_TYPE = "https://wmreg.example/certificate/v1"
TIME_MAX_S = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that RFC 3339 can spell


def statement(story: Story, certificate: bytes) -> bytes:
    """Spell what a certificate proves as an in-toto statement: JSON, the same bytes each time.

    Args:
        story: what `verify_certificate` returned for the certificate.
        certificate: the certificate's file.

    Raises:
        RefusedError: code time_range; a witness attests a time after the year 9999.
    """
    content = {
        "_type": STATEMENT_TYPE,
        "subject": [_subject(story)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "outcome": str(story.outcome),
            "certificate": {"digest": {"sha256": hashlib.sha256(certificate).hexdigest()}},
            "story": _told(story),
        },
    }
    return hashed_json.spell(content)


def _subject(story: Story) -> dict[str, object]:
    """The model's file; or the endpoint, whose digest is of its URL and so must not be called the content's."""
    if story.endpoint is not None:
        return {"uri": story.endpoint, "digest": {"wmreg_endpoint": story.model_sha256.hex()}}
    return {"digest": {"sha256": story.model_sha256.hex()}}


def _told(story: Story) -> dict[str, Any]:
    """The story in JSON; the hash of an endpoint's URL is not called a model's."""
    told: dict[str, Any] = _value(story)
    if story.endpoint is not None:
        told["endpointSha256"] = told.pop("modelSha256")
    return told


def rfc3339(time_s: int) -> str:
    """Spell POSIX seconds, in [0, TIME_MAX_S], as 2022-02-28T12:00:00Z.

    Raises:
        RefusedError: code time_range; RFC 3339 has no such year.
    """
    if not 0 <= time_s <= TIME_MAX_S:
        raise RefusedError(f"the attested time {time_s} s is not before the year 10000", code="time_range")
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _value(value: object) -> Any:  # noqa: ANN401 (JSON has no narrower type here)
    """A story's value in JSON: hashes and keys in hexadecimal, whatever fields it has."""
    if isinstance(value, Attested):
        bounds = {"notBefore": value.not_before_s, "notAfter": value.not_after_s}
        return {name: rfc3339(time_s) for name, time_s in bounds.items() if time_s is not None}
    if is_dataclass(value):
        return _value({_camel(f.name): getattr(value, f.name) for f in fields(value)})
    if isinstance(value, Mapping):
        return {str(name): _value(item) for name, item in value.items() if item is not None}
    if isinstance(value, tuple | list):
        return [_value(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str | int):
        return value
    raise TypeError(f"a story's {type(value).__name__} has no spelling in a statement")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
