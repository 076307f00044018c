"""The members as this node sees them: how far each has signed, by when, and whether it is connected."""

from dataclasses import dataclass

from node.api.services import Services
from registry.checkpoint import Checkpoint
from registry.note import TIMESTAMP_BYTES, Note
from registry.policy import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMember:
    """One member.

    Attributes:
        is_self: whether it is the node that serves the page.
        is_leader: whether it orders entries at the moment.
        is_connected: whether there is a connection of the consensus port; None of the node itself.
        signed_size: the largest checkpoint of its that this node has seen; None for none.
        signed_s: when it was cosigned, by the member's own clock, POSIX seconds.
    """

    member: Member
    is_self: bool
    is_leader: bool
    is_connected: bool | None
    signed_size: int | None
    signed_s: int | None


def members(node: Services) -> list[ShownMember]:
    """The present members, in the order of their names."""
    raft = node.raft_status()
    shown = []
    for member in node.ledger.store.policy.members:
        is_self = member.name == node.name
        note = node.ledger.own_note(node.ledger.signed.value) if is_self else node.gatherer.seen_signed_by(member.name)
        shown.append(
            ShownMember(
                member=member,
                is_self=is_self,
                is_leader=raft.leader == member.name,
                is_connected=None if is_self else member.name in raft.connected,
                signed_size=None if note is None else Checkpoint.parse(note.text).size,
                signed_s=None if note is None else _cosigned_s(note, f"{node.ledger.store.origin}/{member.name}"),
            )
        )
    return shown


def _cosigned_s(note: Note, cosigner: str) -> int | None:
    """The time that a cosigner's line states, which was checked when the note was gathered."""
    payloads = [line.payload for line in note.signatures if line.name == cosigner]
    return int.from_bytes(payloads[0][:TIMESTAMP_BYTES], "big") if payloads else None
