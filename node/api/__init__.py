"""The HTTP API of a node, version 1."""

from aiohttp import web

from node.api import blobs, entries, events, log, members, metrics, openapi, search, status, witness
from node.api.errors import answer_errors
from node.api.negotiation import answer_as_accepted
from node.api.reads import charge_reads
from node.api.services import SERVICES, Services

__all__ = ["Services", "make_app"]


def make_app(node: Services) -> web.Application:
    """The application that serves a node."""
    app = web.Application(middlewares=[answer_as_accepted, answer_errors, charge_reads], client_max_size=64 * 1024)
    app[SERVICES] = node
    app[metrics.REGISTRY] = metrics.make_registry(node)
    app.add_routes(
        [
            web.post("/v1/entries", entries.submit),
            web.get("/v1/entries", entries.page),
            web.get("/v1/entries/{hash}", entries.show),
            web.post("/v1/batches", entries.submit_batch),
            web.get("/v1/events", events.follow, allow_head=False),
            web.get("/v1/search", search.search),
            web.get("/v1/receipts/{hash}", entries.receipt),
            web.get("/v1/claims/{hash}", entries.claim),
            web.get("/v1/certificates/{hash}", entries.certificate),
            web.put("/v1/blobs/{hash}", blobs.upload),
            web.get("/v1/blobs/{hash}", blobs.download),
            web.get("/checkpoint", log.latest),
            web.get("/v1/checkpoints/{size}", log.own),
            web.post("/add-checkpoint", witness.add_checkpoint),
            web.get("/{origin}/checkpoint", witness.latest),
            web.get("/tile/entries/{path:.+}", log.entry_tile),
            web.get("/tile/{level}/{path:.+}", log.hash_tile),
            web.get("/v1/policy", status.policy),
            web.get("/v1/policies", members.policies),
            web.get("/v1/cosignatures/{name}", members.cosignature),
            web.get("/v1/node", status.state),
            web.get("/health", status.health),
            web.get("/healthz", status.health),
            web.get("/openapi.json", openapi.openapi),
            web.get("/metrics", metrics.metrics),
        ]
    )
    return app
