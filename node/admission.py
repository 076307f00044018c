"""Whether a node may take part at all, found out before it does: is it a member, and does it remember what it said."""

import asyncio

import aiohttp

from node.api.tls import peer_trust
from node.config import Config
from node.errors import LeftError, UnavailableError
from node.init import JOURNAL_FILE, POLICY_FILE
from node.membership import Membership, Standing
from node.returning import Returning
from node.sessions import peer_session
from registry.trust import TrustPolicy

_MEMORY = "memory"


def check_standing(membership: Membership, config: Config, origin: str) -> None:
    """Find out, from the peers if need be, whether this node may take part.

    Raises:
        ConfigError, LeftError, UnavailableError: it may not.
    """
    if membership.standing is Standing.STRANGER:
        asyncio.run(_ask_peers(membership, config))
    if membership.standing is Standing.LEFT:
        raise LeftError(
            f"{config.name} was a member of {origin} and has left it; it signs nothing more. To take part again, let "
            "the members agree on a change that names it, with this very state, or make a new node with wmreg node init"
        )
    if membership.standing is Standing.STRANGER:
        raise UnavailableError(
            f"{config.name!r} is not a member of {origin}, as far as the nodes that answer know: submit the change "
            "that lets it join (wmreg node member submit), or check name in node.toml",
            code="not_a_member",
        )


async def _ask_peers(membership: Membership, config: Config) -> None:
    path = config.genesis.parent / POLICY_FILE
    urls = TrustPolicy.parse(path.read_text(encoding="utf-8")).urls if path.exists() else ()
    async with peer_session(peer_trust(config.api)) as session:
        await membership.ask(session, urls)


async def check_memory(
    config: Config,
    membership: Membership,
    returning: Returning,
    session: aiohttp.ClientSession,
    *,
    alarms: dict[str, str],
) -> None:
    """Refuse to take part without what this node has said before; see node.returning.

    Args:
        config: names the journal.
        membership: of this node.
        returning: what it remembers.
        session: for questions to the others.
        alarms: of the node; says what is waited for as long as it is.

    Raises:
        InconsistentStateError: it is lost.
    """
    if membership.standing is Standing.MEMBER:
        alarms[_MEMORY] = "waits until a majority of the members' APIs says that this node has forgotten nothing"
        await returning.ask_majority(session, membership)
        del alarms[_MEMORY]
    elif (config.state_directory / JOURNAL_FILE).exists():
        await returning.ask(session, membership.policy)
