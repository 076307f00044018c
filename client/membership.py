"""Drafts of a change of the members: made, shown, signed and submitted."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from client.api import Api, Recorded
from client.errors import InputError, InvalidError
from client.files import naming, read_limited
from client.policy_changes import Followed, describe_change
from registry.errors import RegistryError
from registry.joint import FILE_BYTES_MAX, Draft, decode_member
from registry.messages import PolicyChange
from registry.policy import Member, Policy
from registry.policy_change import SetPolicy, check_change

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to change.

    Attributes:
        add: a node that joins.
        remove: name of a member that leaves.
        replace: a member with new certificates or addresses.
        quorum: None keeps a majority where the quorum was one, and the number of nodes it tolerates otherwise.
    """

    add: Member | None = None
    remove: str | None = None
    replace: Member | None = None
    quorum: int | None = None


def load_member(path: Path) -> Member:
    """Read the description of a node; raises InputError, OSError or MalformedError naming the file."""
    return _read(path, decode_member)


def load_draft(path: Path) -> Draft:
    """Read a draft whose signatures hold; raises as load_member, or RefusedError."""
    return _read(path, Draft.decode)


def load_drafts(paths: Sequence[Path]) -> Draft:
    """Read the copies of one draft that several members have signed.

    Raises:
        InputError: they hold different changes.
    """
    draft, *others = [load_draft(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        try:
            draft = draft.merged(other)
        except RegistryError as error:
            raise InputError(f"{path}: {error}", code=error.code) from error
    return draft


def draft_change(in_force: SetPolicy, wish: Wish) -> Draft:
    """Draft a change of the policy in force.

    Raises:
        InvalidError: nothing changes, or the policy could not work.
    """
    members = {member.name: member for member in in_force.policy.members}
    if wish.add is not None:
        if wish.add.name in members:
            raise InvalidError(f"{wish.add.name} is a member already; --replace changes its entry", code="name_in_use")
        members[wish.add.name] = wish.add
    if wish.replace is not None:
        members[_known(members, wish.replace.name)] = wish.replace
    if wish.remove is not None:
        del members[_known(members, wish.remove)]
    after = tuple(members[name] for name in sorted(members))
    policy = replace(in_force.policy, members=after, quorum=wish.quorum or _quorum(in_force.policy, len(after)))
    if policy == in_force.policy:
        raise InvalidError("nothing changes: give --add, --remove, --replace or another --quorum", code="no_change")
    policy = _checked(policy)
    return Draft(
        origin=in_force.origin,
        change=PolicyChange(time_s=int(time.time()), previous=in_force.hash, policy=policy),
    )


def describe_draft(draft: Draft, in_force: SetPolicy) -> list[str]:
    """The change in lines for people, who has signed it and who may still.

    Raises:
        InvalidError: it replaces another policy than the one in force.
    """
    if (draft.origin, draft.change.previous) != (in_force.origin, in_force.hash):
        message = "the draft replaces a policy that is not in force, or of another ledger; propose the change anew"
        raise InvalidError(message, code="stale_policy")
    lines = describe_change(in_force.policy, draft.change.policy)
    everyone = {m.signing_key: m.name for m in (*draft.change.policy.members, *in_force.policy.members)}
    signed = sorted(everyone.get(key, key.hex()) for key in draft.signatures)
    missing = sorted(name for key, name in everyone.items() if key not in draft.signatures)
    return [
        *lines,
        f"signed   {', '.join(signed) or 'nobody'}",
        f"may sign {', '.join(missing) or 'nobody else'}",
        needs(draft, in_force),
    ]


def needs(draft: Draft, in_force: SetPolicy) -> str:
    """What a draft lacks, in words."""
    before = {member.signing_key for member in in_force.policy.members}
    missing = in_force.policy.quorum - len(before & draft.signatures.keys())
    joining = [m.name for m in draft.change.policy.members if m.signing_key not in before | draft.signatures.keys()]
    lacking = [f"{missing} more of the present members"] if missing > 0 else []
    lacking += joining
    return f"needs    {' and '.join(lacking)}" if lacking else "ready    to be submitted"


async def submit_draft(api: Api, followed: Followed, draft: Draft) -> Recorded:
    """Record a change that enough members have signed.

    Raises:
        RefusedError: by the rules; the code says which.
        QuorumError: the outcome is unknown; submitting it again is safe.
    """
    check_change(draft.change, draft.signatures, in_force=followed.in_force)
    return await api.submit(draft.envelope())


def _quorum(policy: Policy, members: int) -> int:
    """A majority stays one; a larger quorum keeps the number of members that may fail."""
    spare = len(policy.members) - policy.quorum
    return max(members - spare, members // 2 + 1) if policy.quorum != len(policy.members) // 2 + 1 else members // 2 + 1


def _checked(policy: Policy) -> Policy:
    try:
        return Policy.from_value(policy.to_value())
    except RegistryError as error:
        raise InvalidError(f"such a policy cannot work: {error}", code=error.code) from error


def _known(members: dict[str, Member], name: str) -> str:
    if name not in members:
        raise InvalidError(f"{name} is no member; members are {', '.join(members)}", code="not_a_member")
    return name


def _read(path: Path, decode: Callable[[bytes], T]) -> T:
    with naming(path):
        return decode(read_limited(path, FILE_BYTES_MAX))
