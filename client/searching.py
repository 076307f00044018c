"""Entries that bear a hash, or that an owner's key signed, from all nodes together.

What a node finds is checked: its receipt by the reader's policy, and that the entry bears what was searched for. What a
node leaves out cannot be seen, so all nodes are asked and their answers joined: an entry stays hidden only if every
node that answers hides it. `wmreg audit` reads the whole ledger and depends on no node's index.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from client import answers
from client.api import Api
from client.transport import Request, UnreachableError, read_json
from registry.errors import MalformedError, QuorumError, RefusedError, RegistryError, UntrustedError
from registry.receipt import Receipt, VerifiedReceipt
from registry.terms import SIGNER, terms_of

CHECKS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to search for.

    Attributes:
        value: 32 bytes.
        is_owner: whether it is a signing key, whose entries are wanted.
        start: the first index to look at.
        limit: entries to return at most.
    """

    value: bytes
    is_owner: bool
    start: int = 0
    limit: int = 20

    @property
    def request(self) -> Request:
        """As the nodes are asked."""
        what = "owner" if self.is_owner else "hash"
        path = f"/v1/search?{what}={self.value.hex()}&start={self.start}&limit={self.limit}"
        return Request(path=path, wait_s=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An entry that was found, by a receipt that was checked, and as what it bears the value."""

    verified: VerifiedReceipt
    bears: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of entries.

    Attributes:
        query: what was searched for.
        following: where the next page begins; None after the last one.
        answered: URLs of the nodes whose word it is that there are no others.
        silent: why the others did not answer, by URL.
        wrong: URLs of nodes that listed an entry that could not be confirmed.
    """

    query: Query
    hits: tuple[Hit, ...]
    following: int | None
    answered: tuple[str, ...]
    silent: Mapping[str, str]
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Listed:
    """What one node answers: indexes and message hashes, and whether it has more."""

    entries: tuple[tuple[int, bytes], ...]
    has_more: bool


async def search(api: Api, query: Query) -> Found:
    """Ask every node, and check what they found.

    Raises:
        QuorumError: no node answers, or the receipt of an entry cannot be had now.
    """
    told = await api.transport.ask_all(query.request, least=api.quorum)
    read = {url: _read(answer) for url, answer in told.items()}
    listed = {url: answer for url, answer in read.items() if isinstance(answer, _Listed)}
    silent = {url: " ".join(str(error).split()) for url, error in read.items() if isinstance(error, RegistryError)}
    if not listed:
        details = "; ".join(f"{url}: {why}" for url, why in silent.items())
        raise QuorumError(f"no node can search: {details}", code="unavailable")
    named = sorted({entry for answer in listed.values() for entry in answer.entries})
    indexes = sorted({index for index, _ in named})
    shown = [entry for entry in named if entry[0] in set(indexes[: query.limit])]
    has_more = len(indexes) > query.limit or any(answer.has_more for answer in listed.values())
    checked = await _check_all(api, query, shown)
    invented = {entry for entry, hit in checked.items() if hit is None}
    return Found(
        query=query,
        hits=tuple(hit for hit in checked.values() if hit is not None),
        following=shown[-1][0] + 1 if has_more and shown else None,
        answered=tuple(listed),
        silent=silent,
        wrong=tuple(url for url, answer in listed.items() if invented & set(answer.entries)),
    )


async def _check_all(api: Api, query: Query, named: list[tuple[int, bytes]]) -> dict[tuple[int, bytes], Hit | None]:
    turns = asyncio.Semaphore(CHECKS_AT_ONCE)

    async def check(index: int, digest: bytes) -> Hit | None:
        async with turns:
            return await _check(api, query, index, digest)

    return dict(zip(named, await asyncio.gather(*(check(*entry) for entry in named)), strict=True))


async def _check(api: Api, query: Query, index: int, digest: bytes) -> Hit | None:
    """The entry by its receipt; None if there is no such entry, or if it does not bear what was searched for."""
    try:
        recorded = await api.receipt(digest)
    except (RefusedError, MalformedError, UntrustedError):
        return None
    verified, entry = recorded.verified, Receipt.parse(recorded.receipt).entry
    roles = {term.role for term in terms_of(entry, verified.signed) if term.value == query.value}
    bears = roles & {SIGNER} if query.is_owner else roles - {SIGNER}
    if not bears or verified.index != index or index < query.start:
        return None
    return Hit(verified=verified, bears=tuple(sorted(bears)))


def _read(answer: bytes | RegistryError) -> _Listed | RegistryError:
    if isinstance(answer, RegistryError):
        return answer
    try:
        document = read_json(answer)
        following = answers.optional(document["next"], answers.count)
        return _Listed(answers.items(document["entries"], _named), following is not None)
    except UnreachableError as error:
        return error
    except (KeyError, TypeError) as error:
        return UnreachableError(f"the answer is no page of a search: {error!r}", code="malformed")


def _named(entry: Mapping[str, object]) -> tuple[int, bytes]:
    return answers.count(entry["index"]), bytes.fromhex(answers.digest(entry["message_hash"]))
