"""Promises: the SDK does what the verbs do, with and without an event loop; it can be cancelled and called again."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from damage import with_flipped_bit

import client
from client import (
    Client,
    ConsistencyError,
    Cursor,
    EquivocationStory,
    InputError,
    InvalidError,
    Outcome,
    PendingError,
    QuorumError,
    RefusedError,
    Story,
    SyncClient,
    UntrustedError,
    VerifiedReceipt,
    claiming,
    create_signing_key,
    endpoint_at,
    load_signing_key,
    publishing,
    verify,
)
from client.memory import Memory
from registry.envelope import message_hash
from registry.equivocation import Equivocation
from registry.trust import TrustPolicy

ROOT = Path(__file__).parents[2]


@pytest.fixture
def policy(ledger):
    """The policy file's path."""
    return ledger.policy_path


def opened(policy, party=None, **more):
    """A client of a party, or of a reader, with little patience."""
    return Client(policy, owner=party and party.key, **({"patience_s": 0.5} | more))


def opened_sync(policy, party=None, **more):
    return SyncClient(policy, owner=party and party.key, **({"patience_s": 0.5} | more))


def test_a_mark_is_published_claimed_and_its_certificate_verified_offline(ledger, policy, alice, stolen, good):
    ledger.voting = (good, 3)

    async def run():
        async with opened(policy, alice) as sdk:
            published = await sdk.publish(alice.directory)
            claimed = await sdk.claim(stolen, alice.directory)
            return published, await sdk.wait_for_verdict(claimed, keep_in=alice.directory)

    published, status = asyncio.run(run())

    assert (published.index, published.duplicate, published.receipt_path) == (1, False, alice.bundle.receipt)
    assert (status.prevails, status.outcome, status.older_publication) == (True, Outcome.VERIFIED, None)
    assert status.certificate.path == alice.bundle.certificate
    assert status.certificate.path.read_bytes() == status.certificate.content
    for node in ledger.nodes:
        node.down = True
    checked, receipt = (verify(path, policy) for path in (alice.bundle.certificate, alice.bundle.receipt))
    assert isinstance(checked.proven, Story)
    assert checked.proven == status.certificate.story
    assert isinstance(receipt.proven, VerifiedReceipt)
    assert receipt.proven.index == published.index


def test_without_an_event_loop_it_is_the_same(ledger, policy, alice, stolen, good):
    ledger.voting = (good, 3)
    states = []

    with opened_sync(policy, alice) as sdk:
        published = sdk.publish(str(alice.directory))
        claimed = sdk.claim(str(stolen), alice.bundle)
        waited = sdk.wait_for_verdict(claimed, keep_in=alice.bundle, on_change=states.append)
        asked = sdk.status(claimed.hash.hex())
        shown = sdk.show(published)
        found = sdk.search(stolen)
        last = sdk.log(limit=2)
        kinds = [line.index for line in sdk.entries(start=1)]

    assert (waited.prevails, asked.prevails) == (True, True)
    assert asked.certificate.story.claim_hash == waited.certificate.story.claim_hash == claimed.hash
    assert (asked.certificate.path, [state.outcome for state in states][-1]) == (None, Outcome.VERIFIED)
    assert (shown.index, [hit.verified.index for hit in found.hits]) == (1, [2])
    assert ([line.index for line in last.lines], last.following) == ([4, 5], None)
    assert kinds == [1, 2, 3, 4, 5]


def test_the_sync_face_has_every_method_with_the_same_parameters():
    def parameters(function):
        return [(p.name, p.kind, p.default, p.annotation) for p in inspect.signature(function).parameters.values()]

    def methods(face):
        return {name for name, _value in inspect.getmembers(face, inspect.isfunction) if not name.startswith("_")}

    assert methods(Client) == methods(SyncClient)
    for name in [*methods(Client), "__init__"]:
        assert parameters(getattr(Client, name)) == parameters(getattr(SyncClient, name)), name


def test_inside_of_a_running_loop_the_sync_client_works_and_that_loop_stands_still(ledger, policy):
    async def run():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0)
        before = ticks
        with opened_sync(policy) as sdk:
            size = sdk.log().size
        during = ticks - before
        ticking.cancel()
        return size, during

    assert asyncio.run(run()) == (1, 0)


def test_a_callback_that_calls_the_client_is_told_so_instead_of_waiting_for_itself(ledger, policy, alice, stolen, good):
    ledger.voting = (good, 3)
    with opened_sync(policy, alice) as sdk:
        sdk.publish(alice.directory)
        claimed = sdk.claim(stolen, alice.directory)
        with pytest.raises(RuntimeError, match="callback"):
            sdk.wait_for_verdict(claimed, on_change=lambda state: sdk.status(state.claim))


def test_nothing_is_hashed_in_the_thread_that_asks_the_nodes(policy, alice, stolen, monkeypatch):
    threads = []

    def noting(function):
        def noted(*given, **more):
            threads.append(threading.current_thread().name)
            return function(*given, **more)

        return noted

    for name in ("blob_of", "make_claim"):
        monkeypatch.setattr(claiming, name, noting(getattr(claiming, name)))
    monkeypatch.setattr(publishing, "make_publication", noting(publishing.make_publication))
    with opened_sync(policy, alice) as sdk:
        sdk.publish(alice.directory)
        sdk.claim(stolen, alice.directory)

    assert len(threads) >= 3
    assert "wmreg" not in threads


def test_several_threads_use_one_sync_client(ledger, policy):
    ledger.grow(3)
    found = {}
    with opened_sync(policy) as sdk:
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: sdk.show(ledger.hash_of(i)).index})) for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {0: 0, 1: 1, 2: 2, 3: 3}


def test_tasks_of_one_client_remember_the_largest_tree(ledger, policy):
    ledger.grow(5)

    async def run():
        async with opened(policy) as sdk:
            await asyncio.gather(*(sdk.show(ledger.hash_of(index)) for index in range(6)))

    asyncio.run(run())
    assert Memory.default().recall(ledger.trust).size == 6


def test_waiting_that_is_cancelled_goes_on_later_with_the_same_claim(ledger, policy, alice, stolen, good):
    async def begin():
        async with opened(policy, alice) as sdk:
            await sdk.publish(alice.directory)
            claimed = await sdk.claim(stolen, alice.directory)
            seen = asyncio.Event()
            waiting = asyncio.create_task(sdk.wait_for_verdict(claimed, on_change=lambda _state: seen.set()))
            await seen.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            ledger.vote(claimed.hash, good)
            again = await sdk.claim(stolen, alice.directory)
            return claimed, again, await sdk.wait_for_verdict(again)

    claimed, again, status = asyncio.run(begin())
    assert (again.hash, again.duplicate) == (claimed.hash, True)
    assert status.prevails


@pytest.mark.parametrize("step", ["PUT", "POST"])
def test_a_claim_that_is_cancelled_while_it_is_sent_is_sent_again_as_it_was(ledger, policy, alice, stolen, step):
    async def cut_off():
        async with opened(policy, alice) as sdk:
            await sdk.publish(alice.directory)
            for node in ledger.nodes:
                node.requests.clear()
                node.hangs_on = step
            claiming = asyncio.create_task(sdk.claim(stolen, alice.directory))
            while not any(request.startswith(step) for node in ledger.nodes for request in node.requests):
                await asyncio.sleep(0.01)
            claiming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await claiming
            for node in ledger.nodes:
                node.hangs_on = ""
            saved = list((alice.directory / "claims").iterdir())
            return [message_hash(path.read_bytes()) for path in saved], await sdk.claim(stolen, alice.directory)

    saved, claimed = asyncio.run(cut_off())
    assert saved == ([claimed.hash] if step == "POST" else [])
    assert list(ledger.replay.ledger.claims()) == [claimed.hash]


def test_publishing_again_is_the_same_publication(ledger, policy, alice):
    with opened_sync(policy, alice) as sdk:
        first, second = sdk.publish(alice.directory), sdk.publish(alice.directory)
    assert (first.hash, first.duplicate, second.duplicate) == (second.hash, False, True)
    assert len(ledger.raw) == 2


def test_an_open_claim_is_pending_and_says_how_it_stands(ledger, policy, alice, stolen, good):
    ledger.voting = (good, 1)
    with opened_sync(policy, alice) as sdk:
        sdk.publish(alice.directory)
        claimed = sdk.claim(stolen, alice.directory)
        with pytest.raises(PendingError, match="open: 1 nodes have voted") as pending:
            sdk.wait_for_verdict(claimed, timeout_s=0)
        status = sdk.status(claimed)
    assert (pending.value.code, len(pending.value.state.votes)) == ("open", 1)
    assert (status.outcome, status.prevails, status.certificate) == (None, False, None)


def test_a_verdict_that_one_node_alone_tells_does_not_count(ledger, policy, alice, stolen, good):
    with opened_sync(policy, alice) as sdk:
        sdk.publish(alice.directory)
        claimed = sdk.claim(stolen, alice.directory)
        told = ledger.state_of(claimed.hash.hex()) | {"outcome": "REFUTED", "reason": "below_threshold"}
        ledger.nodes[0].answers[f"/v1/claims/{claimed.hash.hex()}"] = json.dumps(told).encode()
        ledger.nodes[1].down = ledger.nodes[2].down = True
        with pytest.raises(PendingError) as pending:
            sdk.wait_for_verdict(claimed, timeout_s=0)
    assert pending.value.code == "unconfirmed"


def test_a_lost_claim_is_a_result_without_a_certificate(ledger, policy, alice, stolen, poor):
    ledger.voting = (poor, 3)
    with opened_sync(policy, alice) as sdk:
        sdk.publish(alice.directory)
        claimed = sdk.claim(stolen, alice.directory)
        status = sdk.wait_for_verdict(claimed, keep_in=alice.directory)
        with pytest.raises(RefusedError) as refused:
            sdk.certificate(claimed)
    assert (status.outcome, status.prevails, status.certificate) == (Outcome.REFUTED, False, None)
    assert refused.value.code == "not_verified"
    assert not alice.bundle.certificate.exists()


def test_a_pirate_gets_the_receipt_of_the_older_publication(ledger, policy, alice, bob, stolen, good):
    ledger.voting = (good, 3)
    with opened_sync(policy, alice) as hers, opened_sync(policy, bob) as his:
        published = hers.publish(alice.directory)
        his.publish(bob.directory)
        hers.claim(stolen, alice.directory)
        status = his.wait_for_verdict(his.claim(stolen, bob.directory), stragglers_s=0)
    assert (status.prevails, status.older_publication.hash) == (False, published.hash)


def test_objections_withdrawals_and_moves_are_recorded_and_kept(ledger, policy, alice, bob, stolen, tmp_path):
    create_signing_key(tmp_path / "new.pem")
    with opened_sync(policy, alice) as hers, opened_sync(policy, bob) as his:
        published = hers.publish(alice.directory)
        his.publish(bob.directory)
        claimed = his.claim(stolen, bob.directory)
        acts = [
            hers.challenge(claimed, alice.directory, reason="it is mine"),
            his.withdraw(claimed, reason="so it is"),
            hers.rotate(load_signing_key(tmp_path / "new.pem")),
        ]
        with pytest.raises(InvalidError) as moved:
            hers.publish(alice.directory)
    with SyncClient(policy, owner=tmp_path / "new.pem", patience_s=0.5) as moved_on:
        again = moved_on.publish(alice.directory)
    kinds = [verify(act.receipt_path, policy).proven.signed.message.KIND for act in acts]
    assert kinds == ["challenge", "withdraw", "rotate"]
    assert (moved.value.code, again.hash) == ("rotated_key", published.hash)


def test_new_entries_are_followed_and_the_stream_can_be_left(ledger, policy):
    ledger.grow(3)
    with opened_sync(policy) as sdk:
        stream = sdk.follow(last=2)
        first = [next(stream).line.index for _ in range(2)]
        ledger.grow(1)
        third = next(stream).line.index
        stream.close()
        left_open = sdk.follow(start=0)
        assert next(left_open).line.index == 0
    assert [*first, third] == [2, 3, 4]


@pytest.fixture(params=["with an event loop", "without one"])
def watch(request, policy):
    """Watch until the newest checkpoint, by either client; the steps."""

    def without(*what, **more):
        with opened_sync(policy) as sdk:
            return list(sdk.watch(*what, once=True, **more))

    async def with_loop(*what, **more):
        async with opened(policy) as sdk:
            return [step async for step in sdk.watch(*what, once=True, **more)]

    return without if request.param == "without one" else lambda *what, **more: asyncio.run(with_loop(*what, **more))


def told(steps):
    """The indexes and kinds of what was told."""
    return [(event.index, event.kind) for step in steps for event in step.events]


@pytest.fixture
def busy(ledger, policy, alice, stolen):
    """Entries of many: what alice published (1) and claimed (4), which is returned, and others' publications."""
    with opened_sync(policy, alice) as sdk:
        published = sdk.publish(alice.directory)
        ledger.grow(2)
        claimed = sdk.claim(stolen, alice.directory)
    ledger.grow(1)
    return published, claimed


WATCHED = {
    "a bundle's path": lambda alice, **_: ((str(alice.directory),), {}),
    "a bundle": lambda alice, **_: ((alice.bundle,), {}),
    "an owner": lambda alice, **_: ((), {"owners": alice.public_key}),
    "owners": lambda alice, **_: ((), {"owners": [alice.public_key.hex()]}),
    "what was recorded": lambda published, **_: ((published,), {}),
    "a hash and a file": lambda published, stolen, **_: ((published.hash.hex(), stolen), {}),
    "bytes": lambda published, **_: ((published.hash,), {}),
}


@pytest.mark.parametrize("form", WATCHED)
def test_what_touches_is_told_and_nothing_else(watch, busy, alice, stolen, form):
    public_key = load_signing_key(alice.key).public_key().public_bytes_raw()
    party = SimpleNamespace(directory=alice.directory, bundle=alice.bundle, public_key=public_key)
    what, more = WATCHED[form](alice=party, published=busy[0], stolen=stolen)

    assert told(watch(*what, start=0, **more)) == [(1, "publish"), (4, "claim")]


def test_a_file_touches_what_bears_its_hash(watch, busy, alice, stolen):
    assert told(watch(stolen, start=0)) == [(4, "claim")]
    assert told(watch(alice.directory, kinds="claim", start=0)) == [(4, "claim")]
    assert told(watch(start=0)) == [
        (0, "genesis"),
        (1, "publish"),
        (2, "publish"),
        (3, "publish"),
        (4, "claim"),
        (5, "publish"),
    ]


def test_what_touches_nothing_is_not_told_and_the_cursor_has_passed_it(watch, ledger, busy):
    steps = watch(bytes(32), endpoint_at("https://api.example/v2/models/it"), start=0)

    assert (told(steps), steps[-1].cursor.index) == ([], ledger.size)


def test_from_a_kept_cursor_nothing_is_told_twice_and_nothing_is_lost(watch, ledger, busy, alice, good):
    steps = watch(alice.directory, start=0)
    kept = [str(step.cursor) for step in steps]
    ledger.vote(busy[1].hash, good, 2)
    votes = [(6, "vote"), (7, "vote"), (7, "verdict")]

    for taken, text in enumerate(kept, start=1):
        later = watch(alice.directory, cursor=Cursor.parse(text))
        assert told(steps[:taken]) + told(later) == [(1, "publish"), (4, "claim"), *votes]
    assert told(watch(alice.directory, cursor=later[-1].cursor)) == []


def test_who_begins_to_watch_is_told_what_comes_after(watch, ledger, busy, alice, good):
    begun = watch(alice.directory)
    ledger.vote(busy[1].hash, good, 1)

    assert (told(begun), begun[-1].cursor.index) == ([], 6)
    assert told(watch(alice.directory, cursor=begun[-1].cursor)) == [(6, "vote")]


def test_the_watch_goes_on_as_entries_come_and_can_be_left(ledger, policy, busy, alice, good):
    with opened_sync(policy) as sdk:
        steps = sdk.watch(alice.directory, start=4, interval_s=0.1)
        first = [next(steps), next(steps)]
        ledger.vote(busy[1].hash, good, 1)
        came = next(step for step in steps if step.events)
        steps.close()
        assert sdk.log().size == 7
    assert (told(first), told([came])) == ([(4, "claim")], [(6, "vote")])


def test_a_watch_that_too_few_nodes_answer_goes_on_from_its_cursor(watch, ledger, busy, alice, good):
    kept = watch(alice.directory, start=0)[-1].cursor
    ledger.vote(busy[1].hash, good, 1)
    for node in ledger.nodes:
        node.down = True
    with pytest.raises(QuorumError):
        watch(alice.directory, cursor=kept)
    for node in ledger.nodes:
        node.down = False
    assert told(watch(alice.directory, cursor=kept)) == [(6, "vote")]


def test_another_past_is_an_alarm_for_who_watches(watch, ledger):
    ledger.grow(3)
    kept = watch()[-1].cursor
    ledger.rewrite(1)
    ledger.grow(1)
    with pytest.raises(ConsistencyError):
        watch(cursor=kept)


WRONG = {
    "what: expected a SHA-256 hash, 32 bytes, got 5": ((b"short",), {}),
    "neither a file": (("zz",), {}),
    "not/there.*neither a file": ((Path("not/there"),), {}),
    "not the URL of a model's endpoint": (("https://api.example/it",), {}),
    "owners: expected a public key, 64 hexadecimal digits": ((), {"owners": "zz"}),
    "owners: expected a public key, 32 bytes, got 2": ((), {"owners": b"zz"}),
    "kinds: 'clam' is none of": ((), {"kinds": ["clam"]}),
    "start: -1": ((), {"start": -1}),
    "2: the ledger has 1 entries": ((), {"start": 2}),
    "interval_s: 0": ((), {"interval_s": 0}),
    "cursor: it is in other.example": ((), {"cursor": Cursor(origin="other.example", index=0, edge=())}),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_watched_is_a_mistake_of_the_caller(watch, ledger, message):
    what, more = WRONG[message]
    with pytest.raises(InputError, match=message):
        watch(*what, **more)


def test_an_endpoint_is_searched_for_by_its_url_in_any_spelling(ledger, policy, alice):
    url = "https://api.example/v2/models/it"
    with opened_sync(policy) as sdk:
        values = {sdk.search(spelt).query.value for spelt in (url, f"{url}/infer", url.replace("api.", "API."))}
        for wrong in ("https://api.example/it", "stolen.safetensors", b"short"):
            with pytest.raises(InputError, match=r"an endpoint's URL|URL of a model's endpoint"):
                sdk.search(wrong)
        for no_owner in (url, alice.key):
            with pytest.raises(InputError, match="expected a public key"):
                sdk.search(no_owner, is_owner=True)
    assert values == {endpoint_at(url).sha256}


def test_long_logs_are_paged_through(ledger, policy):
    ledger.grow(150)

    async def run():
        async with opened(policy) as sdk:
            return [line.index async for line in sdk.entries(start=10)]

    assert asyncio.run(run()) == list(range(10, 151))
    pages = [request for node in ledger.nodes for request in node.requests if request == "GET /v1/entries"]
    assert len(pages) == 2
    assert [node.requests.count("GET /checkpoint") for node in ledger.nodes] == [1, 1, 1]  # compared once, not by page


@pytest.mark.parametrize("form", [str, Path, Path.read_text, lambda path: TrustPolicy.parse(path.read_text())])
def test_a_policy_is_a_path_a_text_or_the_object(ledger, policy, form):
    with SyncClient(form(policy), patience_s=0.5) as sdk:
        assert (sdk.log().size, sdk.trust) == (1, ledger.trust)


@pytest.mark.parametrize("text", ["log nonsense\nquorum none\n", "\n", "quorum none\r\n"])
def test_a_text_that_is_no_policy_is_refused(text):
    with pytest.raises(InputError, match=r"policy: .*expected the trust policy of a ledger"):
        Client(text)


def test_a_policy_of_other_nodes_vouches_for_nothing(ledger, policy, alice, tmp_path):
    with opened_sync(policy, alice) as sdk:
        sdk.publish(alice.directory)
    strangers = policy.read_text()
    for trusted in (*ledger.trust.logs, *ledger.trust.witnesses):
        strangers = strangers.replace(str(trusted.key), stranger(trusted.key))
    other = SyncClient(strangers, state_directory=tmp_path / "other", patience_s=0.1)
    with other as sdk, pytest.raises(UntrustedError):
        sdk.show(ledger.hash_of(1))
    with pytest.raises(UntrustedError):
        verify(alice.bundle.receipt, strangers, state_directory=tmp_path / "other")


def stranger(key):
    """The verifier key of somebody else under the same name."""
    return str(replace(key, public_key=Ed25519PrivateKey.generate().public_key().public_bytes_raw()))


def test_an_unavailable_ledger_is_a_quorum_error_and_publishing_again_succeeds(ledger, policy, alice):
    with opened_sync(policy, alice, patience_s=0.1) as sdk:
        for node in ledger.nodes:
            node.down = True
        with pytest.raises(QuorumError) as unavailable:
            sdk.publish(alice.directory)
        saved = message_hash(alice.bundle.publication.read_bytes())
        for node in ledger.nodes:
            node.down = False
        assert sdk.publish(alice.directory).hash == saved
    assert unavailable.value.code == "unavailable"


def test_a_reader_cannot_publish_and_learns_what_is_missing(ledger, policy, alice):
    with opened_sync(policy) as sdk, pytest.raises(InputError, match="owner="):
        sdk.publish(alice.directory)
    assert len(ledger.raw) == 1


@pytest.mark.parametrize("value", ["zz", "A" * 64, b"short", ""])
def test_what_is_no_hash_is_a_mistake_of_the_caller(ledger, policy, value):
    with opened_sync(policy) as sdk, pytest.raises(InputError, match=r"message: expected"):
        sdk.show(value)


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"limit": 101}, {"start": -1}, {"start": 2**64}])
def test_pages_have_limits(ledger, policy, arguments):
    with opened_sync(policy) as sdk:
        for page in (sdk.log, lambda **given: sdk.search("ab" * 32, **given)):
            with pytest.raises(InputError, match=next(iter(arguments))):
                page(**arguments)


@pytest.mark.parametrize("patience_s", [-1, float("nan"), float("inf")])
def test_a_patience_that_is_none_is_refused(policy, patience_s):
    with pytest.raises(InputError, match="patience_s"):
        Client(policy, patience_s=patience_s)


def test_a_client_that_is_not_open_says_so(policy):
    sdk = opened_sync(policy)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not open"):
            sdk.log()
        with sdk:
            assert sdk.log().size == 1
            with pytest.raises(RuntimeError, match="open already"):
                sdk.__enter__()

    async def unopened():
        await opened(policy).log()

    with pytest.raises(RuntimeError, match="not open"):
        asyncio.run(unopened())


def test_a_client_leaves_no_thread_behind(ledger, policy):
    before = threading.active_count()
    with opened_sync(policy) as sdk:
        sdk.log()
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_another_state_directory_keeps_what_was_seen_apart(ledger, policy, tmp_path):
    with opened_sync(policy, state_directory=tmp_path / "mine") as sdk:
        sdk.show(ledger.hash_of(0))
    assert Memory.within(tmp_path / "mine").recall(ledger.trust).size == 1
    assert Memory.default().recall(ledger.trust) is None


def test_bytes_are_verified_like_files_and_damage_is_found(ledger, policy, alice, stolen, good):
    ledger.voting = (good, 3)
    with opened_sync(policy, alice) as sdk:
        receipt = sdk.publish(alice.directory).receipt.encode()
        content = sdk.wait_for_verdict(sdk.claim(stolen, alice.directory)).certificate.content
    assert verify(receipt, policy).proven.index == 1
    assert verify(content, policy).proven.outcome is Outcome.VERIFIED
    for raw in (receipt, content):
        damaged = with_flipped_bit(raw, 200)
        with pytest.raises((client.RegistryError, InvalidError)):
            verify(damaged, policy)
    with pytest.raises(InvalidError, match="neither"):
        verify(b"nothing", policy)
    with pytest.raises(InvalidError, match="larger"):
        verify(b" " * (9 * 2**20), policy)


def test_evidence_of_two_pasts_is_verified(ledger, policy):
    evidence = Equivocation.of(ledger.note(1), ledger.note(1, root=b"\x07" * 32)).encode()
    proven = verify(evidence, policy).proven
    assert isinstance(proven, EquivocationStory)
    assert len(proven.convicted) == 6


def test_every_exported_name_is_there_and_documented():
    assert client.__all__ == sorted(client.__all__)
    assert set(client.__all__) == set(client._MODULES)
    for name in client.__all__:
        assert getattr(client, name).__doc__, name
        assert name in dir(client)
    with pytest.raises(AttributeError, match="nonsense"):
        client.nonsense  # noqa: B018


def test_importing_the_package_is_cheap_and_the_sdk_needs_no_torch():
    code = (
        "import sys, client; light = [m for m in ('torch', 'aiohttp', 'cryptography', 'click') if m in sys.modules];"
        "from client import Client, SyncClient, verify;"
        "print(light, [m for m in ('torch', 'click', 'rich', 'numpy', 'wm', 'node') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[] []"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "instead", "code"), [("", "", 0), ("(published, Recorded)", "(published, str)", 1)]
)
def test_a_users_program_is_typed_and_a_wrong_type_in_it_is_found(tmp_path, written, instead, code):
    program = (ROOT / "tests" / "client" / "typed_program.py").read_text()
    (tmp_path / "program.py").write_text(program.replace(written, instead))
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("assert-type" in done.stdout) == bool(code)


def test_an_interruption_cancels_the_call_and_the_client_goes_on(ledger, policy):
    for node in ledger.nodes:
        node.hangs_on = "GET"
    with opened_sync(policy, patience_s=30) as sdk:
        timer = threading.Thread(target=interrupt_when, args=(lambda: all(node.requests for node in ledger.nodes),))
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                sdk.log()
            timer.join()
        finally:
            signal.signal(signal.SIGINT, before)
        for node in ledger.nodes:
            node.hangs_on = ""
        assert sdk.log().size == 1


def interrupt_when(condition):
    """Send this process SIGINT, as Ctrl-C does, once the condition holds."""
    deadline_s = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
