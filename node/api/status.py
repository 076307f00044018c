"""What the node says of itself: policy, state, health."""

from aiohttp import web

from node.api.health import problems, tolerates
from node.api.services import services
from node.version import VERSION


async def policy(request: web.Request) -> web.Response:
    """GET /v1/policy: the trust policy of this ledger, for owners and auditors to compare with theirs."""
    return web.Response(text=str(services(request).gatherer.trust))


async def state(request: web.Request) -> web.Response:
    """GET /v1/node: the node's state."""
    node = services(request)
    store, raft = node.ledger.store, node.raft_status()
    size = store.size
    return web.json_response(
        {
            "name": node.name,
            "origin": store.origin,
            "size": size,
            "root": store.root(size).hex(),
            "signed_size": node.ledger.signed.value,
            "version": VERSION,
            "standing": node.standing(),
            "policy": {
                "hash": store.policy_hashes[-1].hex(),
                "quorum": store.policy.quorum,
                "members": [member.name for member in store.policy.members],
            },
            "raft": {
                "state": raft.state,
                "leader": raft.leader,
                "term": raft.term,
                "commit_index": raft.commit_index,
                "applied_index": raft.applied_index,
                "connected": list(raft.connected),
            },
            "verifier": {
                "state": node.verifier.state,
                "device": node.device,
                "queue": node.voter.queue,
                "unusable_public": node.verifier.public.unusable,
            },
            "claims_open": node.ledger.claims_open(),
            "tolerates": tolerates(node),
            "problems": problems(node),
        }
    )


async def health(request: web.Request) -> web.Response:
    """GET /health (and /healthz): 200 while the node does its work and keeps up; else 503, and why."""
    found = problems(services(request))
    if found:
        return web.json_response({"status": "unhealthy", "problems": found}, status=503)
    return web.json_response({"status": "ok"})
