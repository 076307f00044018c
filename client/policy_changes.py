"""From the policy that a reader trusts to the one in force, step by step.

A change is taken only on two grounds at once. A quorum of the nodes that the reader trusts so far has cosigned a log in
which it is recorded; and a quorum of the members before it has signed the change itself, with the signing keys that the
message before it names, which is bound to it by its hash. The signatures alone would not do: a policy file names the
keys of checkpoints and not the signing keys, so anybody could make up a past with the right names in it.
"""

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from client.api import Api
from client.transport import Request, UnreachableError, read_json, unavailable
from registry.encoding import Value
from registry.errors import RegistryError, UntrustedError
from registry.policy import Member, Policy
from registry.policy_change import SetPolicy, follow, read_genesis
from registry.spelling import decode_base64
from registry.trust import TrustPolicy

_PAGES_MAX, _PAGE = 64, 16
KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One change, proven.

    Attributes:
        index: of its entry.
        before, after: the policies.
    """

    index: int
    before: SetPolicy
    after: SetPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Where a reader has got to.

    Attributes:
        genesis: the ledger's first message.
        in_force: the last policy that was proven.
        steps: the changes since the reader's own.
    """

    genesis: bytes
    in_force: SetPolicy
    steps: tuple[Step, ...]

    @property
    def trust(self) -> TrustPolicy:
        """What follows from the policy in force."""
        return TrustPolicy.of(self.in_force.policy, self.in_force.origin)


async def follow_changes(api: Api) -> Followed:
    """Prove every change since the reader's policy, as far as any node can show them.

    Raises:
        UntrustedError: his policy is none of this ledger's, or the nodes that he trusts do not vouch for a change.
        RefusedError: no node shows changes that hold.
        QuorumError: too few nodes answer.
    """
    answers = await api.transport.ask_all(Request(path="/v1/policies"))
    proven: list[Followed] = []
    problems: dict[str, RegistryError] = {}
    for url, answer in answers.items():
        try:
            if isinstance(answer, RegistryError):
                raise answer
            proven.append(await _prove(api, await _fetch_chain(api, url, answer)))
        except RegistryError as error:
            problems[url] = error
    if not proven:
        raise _worst(problems)
    return max(proven, key=lambda followed: len(followed.steps))


def _worst(problems: Mapping[str, RegistryError]) -> RegistryError:
    """What to raise when no node shows changes that hold: what one that answered said, if any did."""
    said = [problem for problem in problems.values() if not isinstance(problem, UnreachableError)]
    return said[0] if said else unavailable(problems)


async def _prove(api: Api, chain: "_Chain") -> Followed:
    known = [number for number, one in enumerate(chain.policies) if is_trust_in(api.trust, one)]
    if not known:
        raise UntrustedError(
            "the policy file is none of the policies that this ledger had; one with a quorum or witnesses of your own "
            "is yours to change by hand",
            code="other_policy",
        )
    since = chain.policies[known[-1] :]
    if len(since) == 1:
        await api.receipt(since[0].hash)
    steps = []
    for before, after in itertools.pairwise(since):
        reader = Api(api.transport, TrustPolicy.of(before.policy, before.origin))
        recorded = await reader.receipt(after.hash)
        steps.append(Step(index=recorded.verified.index, before=before, after=after))
    return Followed(genesis=chain.genesis, in_force=since[-1], steps=tuple(steps))


def is_trust_in(trust: TrustPolicy, known: SetPolicy) -> bool:
    """Whether a trust policy says the same as a ledger's own: its keys and its quorum, wherever the nodes are."""
    return _without_urls(trust) == _without_urls(TrustPolicy.of(known.policy, known.origin))


def describe_change(before: Policy, after: Policy) -> list[str]:
    """What a change of policy changes, one line each, for those who are to sign it."""
    old, new = ({member.name: member for member in policy.members} for policy in (before, after))
    lines = [f"joins    {name}, {new[name].api_url}, raft {_raft(new[name])}" for name in new if name not in old]
    lines += [f"leaves   {name}" for name in old if name not in new]
    for name in (name for name in new if name in old and new[name] != old[name]):
        lines += _differences(f"{name}: ", old[name].to_value(), new[name].to_value())
    return lines + _differences("", before.to_value(), after.to_value())


def _differences(what: str, before: Mapping[str, Value], after: Mapping[str, Value]) -> list[str]:
    changed = [name for name in before if name != "members" and before[name] != after[name]]
    return [f"changes  {what}{name} {_show(before[name])} -> {_show(after[name])}" for name in changed]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """What one node shows: every signature in it holds, by keys that it names itself."""

    genesis: bytes
    policies: list[SetPolicy]


async def _fetch_chain(api: Api, url: str, first_page: bytes) -> _Chain:
    envelopes = _envelopes(first_page)
    if not envelopes:
        raise UnreachableError("the node shows no policy")
    first = read_genesis(envelopes[0])
    if first.origin != api.trust.origin:
        raise UntrustedError(f"a genesis of {first.origin}; the policy trusts {api.trust.origin}", code="other_log")
    policies = [first, *_follow_all(first, envelopes[1:])]
    for _ in range(_PAGES_MAX):
        request = Request(path=f"/v1/policies?after={policies[-1].hash.hex()}")
        later = _follow_all(policies[-1], _envelopes(await api.transport.ask_node(url, request)))
        policies += later
        if not later:
            break
    return _Chain(genesis=envelopes[0], policies=policies)


def _follow_all(known: SetPolicy, envelopes: list[bytes]) -> list[SetPolicy]:
    chain = []
    for envelope in envelopes:
        known = follow(known, envelope)
        chain.append(known)
    return chain


def _envelopes(body: bytes) -> list[bytes]:
    shown = read_json(body).get("policies")
    if not isinstance(shown, list) or len(shown) > _PAGE:
        raise UnreachableError("the answer is no list of policies")
    try:
        return [decode_base64(one["envelope"]) for one in shown]
    except (KeyError, TypeError, AttributeError, RegistryError) as error:
        raise UnreachableError("the answer is no list of policies") from error


def _without_urls(trust: TrustPolicy) -> tuple[object, ...]:
    logs = {log.key for log in trust.logs}
    witnesses = {(witness.name, witness.key) for witness in trust.witnesses}
    return logs, witnesses, trust.groups, trust.quorum


def _raft(member: Member) -> str:
    return f"{member.raft_host}:{member.raft_port}"


def _show(value: object) -> str:
    if isinstance(value, bytes):  # a key; of a certificate its pin, which is what consensus knows it by
        return value.hex() if len(value) == KEY_BYTES else f"sha256:{hashlib.sha256(value).hexdigest()}"
    if isinstance(value, list):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    return str(value)
