"""This node among the members: whom consensus talks to, and where this node stands.

Who decides follows from the policy in force in the node's own ledger, and from nothing else. A node that is behind may
not know its peers any more: they have new addresses and certificates, or others took their place. So it asks the nodes
that it knows for the changes since; each is signed by a quorum of the members before it, so no word of theirs has to
be believed. What it learns that way decides nothing, it only says with whom to talk until the ledger has caught up.
"""

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum

import aiohttp

from node.bodies import read_limited
from node.raft import RaftMembers, RaftPeer
from node.store import Store
from registry.errors import RegistryError
from registry.policy import Member, Policy
from registry.policy_change import SetPolicy, follow

ASK_TIMEOUT_S = 5.0
PAGE = 16
_ANSWER_BYTES_MAX = PAGE * 96 * 1024
_ROUNDS_MAX = 64
# What a peer's answer can come to; RecursionError is JSON that is nested too deeply.
_NO_ANSWER = (
    aiohttp.ClientError,
    TimeoutError,
    UnicodeError,
    ValueError,
    KeyError,
    TypeError,
    RecursionError,
    RegistryError,
)
_KIND_POLICY = b"\xa4kind\xa6policy"  # canonical msgpack: every envelope of a change holds these bytes

logger = logging.getLogger(__name__)


class Standing(StrEnum):
    """Where a node stands in its ledger."""

    MEMBER = "member"
    JOINING = "joining"  # a member by a change that it has not applied yet
    LEFT = "left"
    STRANGER = "stranger"


class Membership:
    """What one node knows of the members.

    Args:
        name: this node's.
        store: its ledger.
    """

    def __init__(self, name: str, store: Store) -> None:
        self._name, self._store = name, store
        self._latest: SetPolicy | None = None
        self._members: tuple[Policy, SetPolicy | None, RaftMembers] | None = None

    @property
    def standing(self) -> Standing:
        """Where this node stands, by its own ledger and by what it has learned since."""
        if _find(self.latest_policy, self._name):
            return Standing.MEMBER if _find(self._store.policy, self._name) else Standing.JOINING
        return Standing.LEFT if self._was_member() else Standing.STRANGER

    @property
    def policy(self) -> Policy:
        """The policy in force in this node's ledger."""
        return self._store.policy

    @property
    def latest_policy(self) -> Policy:
        """The latest policy that this node knows of, whether its ledger has it or its peers have shown it."""
        return self._latest.policy if self._latest is not None else self._store.policy

    @property
    def member(self) -> Member | None:
        """This node's entry in the latest policy that names it, None where it stands outside."""
        return _find(self.latest_policy, self._name) or _find(self._store.policy, self._name)

    def members(self) -> RaftMembers:
        """Whom consensus counts, and whom it talks to besides; the same object until something changes. Any thread."""
        policy, latest = self._store.policy, self._latest
        known = self._members
        if known is None or known[0] is not policy or known[1] is not latest:
            known = (policy, latest, self._read(policy, latest.policy if latest else policy))
            self._members = known
        return known[2]

    def caught_up(self) -> None:
        """Forget what was learned from the peers, once the ledger itself says it."""
        if self._latest is not None and self._latest.hash in self._store.policy_hashes:
            self._latest = None

    async def ask(self, session: aiohttp.ClientSession, more_urls: Iterable[str] = ()) -> None:
        """Ask every node that this one knows for the changes since, and learn the furthest that one can show.

        Args:
            session: for the requests; nodes may have private addresses.
            more_urls: of further nodes.
        """
        self.caught_up()
        known = self._latest or self._store.set_policy
        members = (*self._store.policy.members, *known.policy.members)
        urls = dict.fromkeys([*(m.api_url for m in members if m.name != self._name), *more_urls])
        found = await asyncio.gather(*(_changes_since(session, url, known) for url in urls))
        steps, latest = max(found, key=lambda answer: answer[0], default=(0, known))
        if steps:
            logger.info("learned of a later policy", extra={"changes": steps, "policy": latest.hash.hex()})
            self._latest = latest

    def _was_member(self) -> bool:
        policies = (self._store.policy_set_by(digest) for digest in self._store.policy_hashes)
        return any(_find(policy, self._name) for policy in policies)

    def _read(self, policy: Policy, last: Policy) -> RaftMembers:
        if not _find(last, self._name):
            others = tuple(_peer(member) for member in policy.members if member.name != self._name)
            return RaftMembers(voters=others)
        names = {member.name for member in policy.members}
        return RaftMembers(
            voters=tuple(_peer(member, _find(last, member.name)) for member in policy.members),
            contacts=tuple(_peer(member) for member in last.members if member.name not in names),
        )


class PeerUrls(Sequence[str]):
    """API addresses of the other members at the moment at which one looks."""

    def __init__(self, name: str, store: Store) -> None:
        self._name, self._store = name, store

    def _now(self) -> list[str]:
        return [member.api_url for member in self._store.policy.members if member.name != self._name]

    def __len__(self) -> int:
        return len(self._now())

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # nobody takes slices
        return self._now()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())


def changes_members(command: bytes) -> bool:
    """Whether a command may be a change of the policy: True for every one, and for what quotes one."""
    return _KIND_POLICY in command


async def _changes_since(session: aiohttp.ClientSession, url: str, known: SetPolicy) -> tuple[int, SetPolicy]:
    """Follow the changes that a node shows from a known policy on; return how many held, and the last."""
    steps = 0
    with suppress(*_NO_ANSWER):
        for _ in range(_ROUNDS_MAX):
            envelopes = await _page_after(session, url, known)
            for envelope in envelopes:
                known = follow(known, envelope)
                steps += 1
            if len(envelopes) < PAGE:
                break
    return steps, known


async def _page_after(session: aiohttp.ClientSession, url: str, known: SetPolicy) -> list[bytes]:
    limit = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
    params = {"after": known.hash.hex()}
    async with session.get(f"{url}/v1/policies", params=params, timeout=limit, allow_redirects=False) as answer:
        if answer.status != 200:
            return []
        body = json.loads(await read_limited(answer.content, _ANSWER_BYTES_MAX))
    return [base64.b64decode(shown["envelope"], validate=True) for shown in body["policies"]]


def _find(policy: Policy, name: str) -> Member | None:
    return next((member for member in policy.members if member.name == name), None)


def _peer(member: Member, later: Member | None = None) -> RaftPeer:
    """A member as consensus knows it: at its latest address, with every certificate that it may show by now."""
    newest = later or member
    certificates = dict.fromkeys((*member.tls_certificates, *newest.tls_certificates))
    return RaftPeer(
        name=member.name,
        host=newest.raft_host,
        port=newest.raft_port,
        certificate_pins=tuple(dict.fromkeys((*member.tls_pins, *newest.tls_pins))),
        certificate_pem="".join(ssl.DER_cert_to_PEM_cert(der) for der in certificates),
    )
