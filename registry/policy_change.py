"""Who may change a ledger's policy, and how a reader follows the changes from a policy that he knows.

A change is signed by a quorum of the members so far and by the one who joins; one member joins or leaves at a time. A
member keeps the name under which he came, and nobody takes it after him: consensus knows the nodes by their names.

Signatures of organisations take days to collect, so a change is dated when it is drafted and may be recorded until
SIGNING_S_MAX later. That opens no door to replay: it names the policy that it replaces, and so takes effect once or
never.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from registry.envelope import unseal
from registry.errors import RefusedError
from registry.messages import Genesis, PolicyChange
from registry.policy import Member, Policy
from registry.signing import IsSigned, is_signed

SIGNING_S_MAX = 30 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPolicy:
    """A policy and the message that set it.

    Attributes:
        hash: of the message.
    """

    origin: str
    policy: Policy
    hash: bytes


class Names:
    """Which signing key came under which name, for ever."""

    def __init__(self) -> None:
        self._key_of: dict[str, bytes] = {}
        self._name_of: dict[bytes, str] = {}

    def note(self, members: Iterable[Member]) -> None:
        """Remember the members of a policy."""
        for member in members:
            self._key_of[member.name] = member.signing_key
            self._name_of[member.signing_key] = member.name

    def check(self, members: Iterable[Member]) -> None:
        """Check that no name and no key has changed its partner.

        Raises:
            RefusedError: code name_in_use.
        """
        for member in members:
            key = self._key_of.get(member.name, member.signing_key)
            name = self._name_of.get(member.signing_key, member.name)
            if (key, name) != (member.signing_key, member.name):
                raise RefusedError(
                    f"the name {member.name!r} or its signing key belongs to another member, present or past; "
                    "a node that joins has a new name and new keys",
                    code="name_in_use",
                )


def check_change(change: PolicyChange, signers: Iterable[bytes], *, in_force: SetPolicy) -> None:
    """Check a change against the policy that it replaces.

    Args:
        change: to be checked.
        signers: whose signatures hold.
        in_force: the policy of the moment.

    Raises:
        RefusedError: code stale_policy, too_many_changes, not_a_member, no_quorum, not_signed_by_both or key_id_taken.
    """
    if change.previous != in_force.hash:
        raise RefusedError("the change replaces a policy that is not in force", code="stale_policy")
    signed = set(signers)
    before = {member.signing_key for member in in_force.policy.members}
    after = {member.signing_key for member in change.policy.members}
    if len(before ^ after) > 1:
        raise RefusedError("one member may join or leave at a time", code="too_many_changes")
    if not signed <= before | after:
        raise RefusedError("only members sign a change of policy", code="not_a_member")
    if len(before & signed) < in_force.policy.quorum:
        raise RefusedError(
            f"{len(before & signed)} members signed; {in_force.policy.quorum} are a quorum", code="no_quorum"
        )
    if not after - before <= signed:
        raise RefusedError("the member that joins has not signed", code="not_signed_by_both")
    _check_key_ids(change.policy, in_force.origin)


def read_genesis(envelope: bytes, *, is_signed: IsSigned = is_signed) -> SetPolicy:
    """The policy that a genesis sets.

    Raises:
        MalformedError, RefusedError: it is none, or not signed by its members.
    """
    signed = unseal(envelope, origin=None, is_signed=is_signed)
    if not isinstance(signed.message, Genesis):
        raise RefusedError("not a genesis", code="no_genesis")
    check_genesis(signed.message, signed.signers)
    return SetPolicy(origin=signed.message.origin, policy=signed.message.policy, hash=signed.hash)


def check_genesis(genesis: Genesis, signers: tuple[bytes, ...]) -> None:
    """Check that a genesis is signed by all its members and nobody else.

    Raises:
        RefusedError: code not_a_member or key_id_taken.
    """
    if signers != tuple(sorted(member.signing_key for member in genesis.policy.members)):
        raise RefusedError("a genesis is signed by all founding members and nobody else", code="not_a_member")
    _check_key_ids(genesis.policy, genesis.origin)


def follow(known: SetPolicy, envelope: bytes, *, is_signed: IsSigned = is_signed) -> SetPolicy:
    """The policy that a change sets in place of a known one, by the signatures of the members known so far.

    Raises:
        MalformedError, RefusedError: it is no change of this policy that the rulebook would take.
    """
    signed = unseal(envelope, origin=known.origin, is_signed=is_signed)
    if not isinstance(signed.message, PolicyChange):
        raise RefusedError("not a change of policy", code="no_policy")
    check_change(signed.message, signed.signers, in_force=known)
    return SetPolicy(origin=known.origin, policy=signed.message.policy, hash=signed.hash)


def _check_key_ids(policy: Policy, origin: str) -> None:
    """Check that a signature line, which names its key by 4 bytes of a hash, can be of one member only.

    Raises:
        RefusedError: code key_id_taken.
    """
    if len({member.log_key(origin).key_id for member in policy.members}) != len(policy.members):
        raise RefusedError("two members' note keys have one key ID; one of them makes another", code="key_id_taken")
