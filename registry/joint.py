"""A change of policy on its way from one member to the next, until enough of them have signed (a file).

Each signature is over the very message that the ledger will get, so nobody signs anything but what he was shown. The
file is JSON in one spelling with a hash over itself; its signatures are checked whenever it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import hashed_json, signing
from registry.encoding import ENTRY_BYTES_MAX, Value, decode, encode
from registry.envelope import assemble, statement_of
from registry.errors import MalformedError, RefusedError
from registry.messages import PolicyChange
from registry.policy import MEMBERS_MAX, Member
from registry.schema import mapping
from registry.spelling import decode_base64, encode_base64

FORMAT, MEMBER_FORMAT = "wmreg-policy-draft/1", "wmreg-member/1"
FILE_BYTES_MAX = 2 * ENTRY_BYTES_MAX
_DOMAIN, _MEMBER_DOMAIN = "wmreg/v1/policy-draft", "wmreg/v1/member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A change and who has signed it so far.

    Attributes:
        signatures: by signing key; all of them hold.
    """

    origin: str
    change: PolicyChange
    signatures: Mapping[bytes, bytes] = field(default_factory=dict)

    def signed_by(self, private_key: Ed25519PrivateKey) -> "Draft":
        """The same with one more signature."""
        signature = signing.sign(private_key, statement_of(self.change, origin=self.origin))
        signer = private_key.public_key().public_bytes_raw()
        return replace(self, signatures={**self.signatures, signer: signature})

    def merged(self, other: "Draft") -> "Draft":
        """The same with the signatures of another copy of this draft.

        Raises:
            RefusedError: code other_draft, it is of another change.
        """
        if (other.origin, other.change) != (self.origin, self.change):
            raise RefusedError("the files hold different changes", code="other_draft")
        return replace(self, signatures={**self.signatures, **other.signatures})

    def envelope(self) -> bytes:
        """The message for the ledger.

        Raises:
            ValueError: nobody has signed, or it is larger than an entry may be.
        """
        return assemble(self.change, self.signatures)

    def encode(self) -> bytes:
        """The file's bytes."""
        content = {
            "format": FORMAT,
            "origin": self.origin,
            "change": encode_base64(encode(self.change.to_body())),
            "signatures": {signer.hex(): encode_base64(s) for signer, s in self.signatures.items()},
        }
        return hashed_json.encode(content, domain=_DOMAIN)

    @classmethod
    def decode(cls, raw: bytes) -> "Draft":
        """Read a file.

        Raises:
            MalformedError: damaged, or not a draft.
            RefusedError: code bad_signature.
        """
        draft = hashed_json.decode(raw, _read_draft, Draft.encode, what="draft", bytes_max=FILE_BYTES_MAX)
        signed = statement_of(draft.change, origin=draft.origin)
        for signer, signature in draft.signatures.items():
            if not signing.is_signed(signed, signer=signer, signature=signature):
                raise RefusedError(f"the signature of {signer.hex()} does not hold", code="bad_signature")
        return draft


def encode_member(member: Member) -> bytes:
    """A file that describes one node: its public keys, certificates and addresses."""
    content = {"format": MEMBER_FORMAT, "member": encode_base64(encode(member.to_value())), "name": member.name}
    return hashed_json.encode(content, domain=_MEMBER_DOMAIN)


def decode_member(raw: bytes) -> Member:
    """Read the description of a node; raises MalformedError."""
    return hashed_json.decode(raw, _read_member, encode_member, what="member file", bytes_max=FILE_BYTES_MAX)


def _read_draft(content: dict[str, Any]) -> Draft:
    if content["format"] != FORMAT or len(content["signatures"]) > MEMBERS_MAX + 1:
        raise ValueError(f"not of the format {FORMAT}")
    if not isinstance(content["origin"], str):
        raise TypeError("the origin is not a text")
    body = _value(content["change"])
    return Draft(
        origin=content["origin"],
        change=PolicyChange.from_body(body),
        signatures={bytes.fromhex(s): decode_base64(signature) for s, signature in content["signatures"].items()},
    )


def _read_member(content: dict[str, Any]) -> Member:
    if content["format"] != MEMBER_FORMAT:
        raise ValueError(f"not of the format {MEMBER_FORMAT}")
    return Member.from_value(_value(content["member"]))


def _value(encoded: object) -> Value:
    if not isinstance(encoded, str):
        raise MalformedError("expected base64")
    return cast("Value", mapping(decode(decode_base64(encoded), bytes_max=ENTRY_BYTES_MAX)))
