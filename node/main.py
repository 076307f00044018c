"""One node, from its node.toml to SIGTERM.

Exit codes: 0 stopped by a signal, 2 a setting, key or library is wrong, 4 a node that joins finds nobody who knows of
it yet, 5 the stored state is inconsistent or missing, 6 this node is no member any more, 74 there is no room on the
disk to start. The consensus layer stops the process itself (70, 74) when going on could break a promise.
"""

import asyncio
import logging
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import cast

import aiohttp
from aiohttp import web

from node import explorer, logs
from node.admission import check_memory, check_standing
from node.api import Services, make_app
from node.api.connection import ApiConnection
from node.api.limits import LimitedConnections, TokenBuckets, WorkBudget
from node.api.reads import ReadRate
from node.api.tls import HANDSHAKE_TIMEOUT_S, ServedCertificate, make_certificate, peer_trust
from node.config import Config, check_directories, load_config
from node.endpoint.asking import EndpointClient
from node.errors import ConfigError, InconsistentStateError, LeftError, UnavailableError
from node.examining import Means
from node.fetch import Fetcher
from node.gather import Gatherer
from node.index import Index
from node.init import JOURNAL_FILE, SIGNER_FILE
from node.joining import JoinProof, joined_at, keep_notes, notice_changes
from node.ledger import LedgerService
from node.logs import fields
from node.membership import PeerUrls, Standing, changes_members
from node.opening import State, open_blobs, open_state
from node.patrol import Patrol
from node.raft import JournalBusyError, JournalError, RaftService, install_unpickling_guard, settings_of
from node.sessions import peer_session
from node.space import START_BYTES_MIN, DiskSpace
from node.sweeper import Sweeper
from node.upkeep.startup import check_reach
from node.verifier.supervisor import Verifier
from node.voting import Voice, Voter
from node.watch import Watch

EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_STATE, EXIT_LEFT, EXIT_STORAGE = 2, 4, 5, 6, 74
INDEX_FILE = "search.db"
SWITCH_INTERVAL_S = 0.0005  # the raft thread answers in 1 ms rather than 20 beside a busy event loop (measured)
HAND_OVER_TIMEOUT_S, DRAIN_TIMEOUT_S, SHUTDOWN_TIMEOUT_S = 2.0, 2.0, 3.0
IDLE_TIMEOUT_S = 30.0
LINGER_S = 10.0  # a refused upload is read on for a while, so that the client gets to read the answer
DESCRIPTORS_MAX = 65536

logger = logging.getLogger(__name__)


def run(config_path: Path) -> int:
    """Run a node until SIGTERM or SIGINT; return the exit code."""
    logs.configure()
    try:
        config = load_config(config_path)
        check_directories(config)
        check_reach(config.state_directory)
        if DiskSpace(config.state_directory).free_bytes < START_BYTES_MIN:
            logger.critical("the disk is full", extra=fields(path=str(config.state_directory)))
            return EXIT_STORAGE
        state = open_state(config)
        asyncio.run(_serve(config, state))
    except ConfigError as error:
        logger.error("wrong configuration", extra=fields(why=str(error)))  # noqa: TRY400 -- no traceback for operators
        return EXIT_CONFIG
    except InconsistentStateError as error:
        logger.critical("inconsistent state", extra=fields(why=str(error)))
        return EXIT_STATE
    except LeftError as error:
        logger.error("not a member", extra=fields(why=str(error)))  # noqa: TRY400 -- likewise
        return EXIT_LEFT
    except UnavailableError as error:
        logger.error("not a member yet", extra=fields(why=str(error)))  # noqa: TRY400 -- likewise
        return EXIT_UNAVAILABLE
    return 0


async def _serve(config: Config, state: State) -> None:
    """Start every part in the order of their needs; stop them in reverse."""
    install_unpickling_guard()
    _raise_descriptor_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        stack.callback(state.store.close)
        stack.callback(state.signer.close)
        stack.callback(state.notes.close)
        node = await _start(config, state, stack, stop)
        if node is None:
            return
        logger.info(
            "ready", extra=fields(name=config.name, host=config.api.host, port=config.api.port, size=state.store.size)
        )
        await stop.wait()
        logger.info("stopping")
        node.stopping.set()
        node.ledger.refuse_submissions()
    check_standing(state.membership, config, state.store.origin)


async def _start(config: Config, state: State, stack: AsyncExitStack, stop: asyncio.Event) -> Services | None:
    """Start every part; None when the node was told to stop before it could."""
    ledger = LedgerService(state.store, state.signer, clock=time.time)
    raft = _make_raft(config, state, ledger)
    peer_tls = peer_trust(config.api)
    session = await stack.enter_async_context(peer_session(peer_tls))
    gatherer = Gatherer(config.name, ledger, state.notes, session)
    stack.push_async_callback(gatherer.close)
    ledger.start(raft, proof=_proof(config, state, ledger, gatherer), read_barrier=raft.read_barrier)
    stack.push_async_callback(ledger.stop)
    blobs, cache = open_blobs(config, state.store)
    fetcher = Fetcher(
        blobs, cache, peer_urls=PeerUrls(config.name, state.store), settings=config.fetch, peer_tls=peer_tls
    )
    stack.push_async_callback(fetcher.close)
    endpoints = EndpointClient(config.fetch)
    stack.push_async_callback(endpoints.close)
    verifier = Verifier(config.verifier, readable=(blobs.directory, cache.directory))
    stack.push_async_callback(verifier.stop)
    voter = Voter(
        Voice(name=config.name, signing=state.identity.signing),
        ledger,
        Means(fetcher=fetcher, endpoints=endpoints, verifier=verifier),
        unreachable_retry_s=config.fetch.unreachable_retry_s,
        clock=time.time,
    )
    index = Index(config.state_directory / INDEX_FILE, state.store)
    stack.callback(index.close)
    watch = Watch(ledger, gatherer, raft.status)
    node = Services(
        name=config.name,
        device=config.verifier.device,
        submit_timeout_s=config.api.submit_timeout_s,
        submissions=TokenBuckets(config.api.submissions_per_s, clock=time.monotonic),
        key_submissions=TokenBuckets(config.api.key_submissions_per_s, clock=time.monotonic),
        reads=ReadRate(config.api.reads_per_s, clock=time.monotonic),
        work=WorkBudget.per_hour(
            address=config.api.claims_per_hour, key=config.api.key_claims_per_hour, clock=time.monotonic
        ),
        blob_bytes_max=config.blobs.blob_bytes_max,
        ledger=ledger,
        gatherer=gatherer,
        index=index,
        blobs=blobs,
        fetcher=fetcher,
        voter=voter,
        verifier=verifier,
        space=DiskSpace(config.state_directory),
        raft_status=raft.status,
        watch=watch,
        standing=lambda: state.membership.standing,
        read_barrier=raft.read_barrier,
    )
    await _listen(config, node, stack)
    remembering = check_memory(config, state.membership, state.returning, session, alarms=node.alarms)
    if not await _unless(stop, remembering):
        return None
    _start_raft(raft)
    stack.push_async_callback(asyncio.to_thread, raft.stop)
    stack.push_async_callback(ledger.drain, DRAIN_TIMEOUT_S)
    stack.push_async_callback(asyncio.to_thread, raft.hand_over, HAND_OVER_TIMEOUT_S)
    _run_all(config, state, node, session, stack, stop)
    return node


def _run_all(
    config: Config,
    state: State,
    node: Services,
    session: aiohttp.ClientSession,
    stack: AsyncExitStack,
    stop: asyncio.Event,
) -> None:
    """Run what goes on by itself while the node serves."""
    sweeper = Sweeper(node.blobs, state.store, age_max_s=config.blobs.unclaimed_age_max_s, clock=time.time)
    patrol = Patrol(config.state_directory / SIGNER_FILE, name=config.name, store=state.store, signer=state.signer)
    changes = notice_changes(state.membership, session, lambda: node.raft_status().leader is not None, stop)
    for name, work in {
        "verifier": node.verifier.warm_up(),
        "voter": node.voter.run(),
        "watch": node.watch.run(),
        "search": node.index.run(node.ledger.applied),
        "sweeper": sweeper.run(),
        "signed_checkpoints": patrol.run(),
        "notes": keep_notes(node.ledger, node.gatherer),
        "membership": changes,
    }.items():
        _in_background(work, name, node, stack)


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Do some work unless the node is told to stop before it is done; whether it was done."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _proof(config: Config, state: State, ledger: LedgerService, gatherer: Gatherer) -> JoinProof | None:
    is_new = joined_at(config.name, state.store) is not None or state.membership.standing is Standing.JOINING
    return JoinProof(config.name, ledger, gatherer) if is_new and state.signer.size == 0 else None


def _make_raft(config: Config, state: State, ledger: LedgerService) -> RaftService:
    try:
        return RaftService(
            name=config.name,
            members=state.membership.members,
            changes_members=changes_members,
            certificate_path=config.keys.tls_certificate,
            private_key_path=config.keys.tls_private_key,
            journal_path=config.state_directory / JOURNAL_FILE,
            machine=state.store,
            settings=settings_of(config.raft.profile, bind_host=config.raft.bind_host),
            on_applied=ledger.on_applied,
        )
    except (OSError, ValueError) as error:  # ssl.SSLError among them: a key that is not the certificate's
        raise ConfigError(f"[keys]: the TLS key, its certificate or a peer's cannot be used: {error}") from error


def _start_raft(raft: RaftService) -> None:
    try:
        raft.start()
    except JournalBusyError as error:
        raise ConfigError(str(error)) from error
    except JournalError as error:
        raise InconsistentStateError(str(error)) from error
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"[raft]: cannot listen: {error}") from error


async def _listen(config: Config, node: Services, stack: AsyncExitStack) -> None:
    certificate = make_certificate(config.api)
    _warn_about_url(config, node)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, certificate)
    app = make_app(node)
    if config.api.explorer:
        explorer.add_to(app)
    runner = web.AppRunner(app, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)

    def serve(on_lost: Callable[[], None]) -> ApiConnection:
        # The time-out also ends a connection whose first request does not come, or comes byte by byte.
        return ApiConnection(
            cast("web.Server", runner.server),
            on_refused=lambda code: node.refused.update([code]),
            on_lost=on_lost,
            keepalive_timeout=IDLE_TIMEOUT_S,
            lingering_time=LINGER_S,
        )

    connections = LimitedConnections(
        serve,
        connections_max=config.api.connections_max,
        address_connections_max=config.api.address_connections_max,
        handshake_timeout_s=HANDSHAKE_TIMEOUT_S,
        on_refused=lambda: node.refused.update(["too_many_connections"]),
    )
    tls = None if certificate is None else certificate.context
    try:
        listening = await asyncio.get_running_loop().create_server(
            connections,
            config.api.host,
            config.api.port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if tls else None,
        )
    except OSError as error:
        raise ConfigError(f"[api]: cannot listen on {config.api.host} port {config.api.port}: {error}") from error
    stack.callback(listening.close)


def _reload(certificate: ServedCertificate | None) -> None:
    """Read the API's certificate again, on SIGHUP."""
    if certificate is None:
        logger.info("SIGHUP: this API has no certificate that could be read again")
        return
    try:
        certificate.reload()
    except ConfigError as error:
        logger.error("the new certificate cannot be used; the old one stays", extra=fields(why=str(error)))  # noqa: TRY400
    else:
        logger.info("the API's certificate was read again")


def _warn_about_url(config: Config, node: Services) -> None:
    """The policy tells others how to reach this API; a proxy may well add TLS, but nothing takes it away."""
    member = next((m for m in node.ledger.store.policy.members if m.name == config.name), None)
    if member is not None and config.api.tls_certificate and not member.api_url.startswith("https:"):
        logger.warning("the API has TLS, but the policy names another URL", extra=fields(url=member.api_url))


def _raise_descriptor_limit() -> None:
    """Use what the system allows: the default of 1024 is little for connections, journal and database together."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _in_background(work: Coroutine[None, None, None], name: str, node: Services, stack: AsyncExitStack) -> None:
    """Run a part beside the API; if it ends by an exception, the node is unhealthy but goes on serving the ledger."""

    def ended(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a part of the node stopped", extra=fields(part=name), exc_info=error)
            node.alarms[name] = repr(error)

    async def cancel() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    stack.push_async_callback(cancel)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1])))
