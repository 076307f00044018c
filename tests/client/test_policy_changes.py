"""A reader gets from his policy file to the one in force, and nobody leads him to another ledger's."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web
from fakes import member, policy, private_key
from nodeset import ORIGIN, NodeSet, publication, sealed

from client.api import Api, open_ledger
from client.command import run as run_command
from client.membership import Wish, describe_draft, draft_change
from client.policy_changes import describe_change, follow_changes
from client.transport import Timing
from registry.envelope import message_hash, seal
from registry.errors import RegistryError
from registry.joint import Draft, decode_member, encode_member
from registry.messages import Genesis, PolicyChange
from registry.policy_change import SetPolicy
from registry.spelling import encode_base64
from registry.trust import TrustPolicy

pytestmark = pytest.mark.long

T = TypeVar("T")
TIMING = Timing(patience_s=1, attempt_timeout_s=10)


def run(directory: Path, play: Callable[[NodeSet, Api], Awaitable[T]], *, serve: tuple[int, ...] = (0, 1, 2)) -> T:
    """Play with three nodes and a reader who has their first policy."""

    async def main() -> T:
        async with NodeSet(directory / "ledger") as nodes:
            await nodes.serve(*serve)
            async with open_ledger(nodes.trust, TIMING) as api:
                return await play(nodes, api)

    return asyncio.run(main())


def in_force(nodes: NodeSet) -> SetPolicy:
    return nodes.nodes[0].ledger.store.set_policy


async def change(nodes: NodeSet, wish: Wish, *signers: str) -> None:
    keys = {node.name: node.identity.signing for node in nodes.nodes} | {"node-4": private_key("node-4/signing")}
    draft = draft_change(in_force(nodes), wish)
    for name in signers:
        draft = draft.signed_by(keys[name])
    await nodes.nodes[0].ledger.submit(draft.envelope(), timeout_s=30)


def test_every_change_since_is_proven_and_the_file_of_today_is_the_ledgers(tmp_path):
    async def play(nodes: NodeSet, api: Api) -> None:
        assert (await follow_changes(api)).steps == ()
        await change(nodes, Wish(add=member("node-4")), "node-1", "node-2", "node-4")
        await nodes.nodes[0].ledger.submit(publication(), timeout_s=30)
        await change(nodes, Wish(remove="node-1"), "node-1", "node-2", "node-3")
        followed = await follow_changes(api)
        assert [step.index for step in followed.steps] == [1, 3]
        assert followed.trust == TrustPolicy.of(in_force(nodes).policy, ORIGIN)
        assert str(followed.trust) != str(api.trust)
        async with open_ledger(followed.trust, TIMING) as later:
            assert (await follow_changes(later)).steps == ()

    run(tmp_path, play)


def test_the_file_of_before_is_kept_for_what_was_made_in_its_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WMREG_HOME", str(tmp_path / "home"))
    path, kept = tmp_path / "policy.txt", tmp_path / "policy.txt.before-1"

    async def play(nodes: NodeSet, _api: Api) -> None:
        path.write_text(before := str(nodes.trust))
        update = ["policy", "update", "--policy", str(path)]
        assert await asyncio.to_thread(run_command, update) == 0
        assert (path.read_text(), kept.exists()) == (before, False)

        await change(nodes, Wish(add=member("node-4")), "node-1", "node-2", "node-4")
        for _twice in range(2):
            assert await asyncio.to_thread(run_command, update) == 0
            assert kept.read_text() == before
            assert path.read_text() == str(TrustPolicy.of(in_force(nodes).policy, ORIGIN))
        assert [file.name for file in sorted(tmp_path.glob("policy.txt*"))] == [path.name, kept.name]

    run(tmp_path, play)
    assert capsys.readouterr().out.count("the file of before") == 1


def test_a_policy_file_that_somebody_changed_is_not_followed(tmp_path):
    async def play(nodes: NodeSet, api: Api) -> None:
        own = replace(api.trust, quorum="none")
        with pytest.raises(RegistryError) as raised:
            await follow_changes(Api(api.transport, own))
        assert raised.value.code == "other_policy"

    run(tmp_path, play)


def forged_chain(nodes: NodeSet) -> list[bytes]:
    """The members' names and checkpoint keys, with signing keys of the forger's own, who then joins and takes over."""
    keys = {node.name: private_key(f"mallory/{node.name}") for node in nodes.nodes}
    real = in_force(nodes).policy
    members = tuple(replace(m, signing_key=keys[m.name].public_key().public_bytes_raw()) for m in real.members)
    forged = replace(real, members=members)
    genesis = sealed(Genesis(time_s=1, origin=ORIGIN, policy=forged), *keys.values())
    known = SetPolicy(origin=ORIGIN, policy=forged, hash=message_hash(genesis))
    draft = draft_change(known, Wish(add=member("node-4")))
    for key in (*keys.values(), private_key("node-4/signing")):
        draft = draft.signed_by(key)
    return [genesis, draft.envelope()]


def liar(envelopes: list[bytes]) -> web.Application:
    async def policies(request: web.Request) -> web.Response:
        shown = [] if "after" in request.query else envelopes
        return web.json_response({"policies": [{"index": 0, "envelope": encode_base64(one)} for one in shown]})

    app = web.Application()
    app.add_routes([web.get("/v1/policies", policies)])
    return app


def test_a_past_that_was_made_up_with_the_right_names_leads_nowhere(tmp_path):
    async def play(nodes: NodeSet, api: Api) -> None:
        await nodes.serve_app(nodes.nodes[0], liar(forged_chain(nodes)))
        alone = await follow_changes(api)
        assert alone.steps == ()
        assert alone.in_force == in_force(nodes)

    run(tmp_path, play, serve=(1, 2))


def test_if_all_nodes_that_answer_lie_the_file_stays_as_it_is(tmp_path):
    async def main() -> None:
        async with NodeSet(tmp_path / "ledger") as nodes:
            for node in nodes.nodes:
                await nodes.serve_app(node, liar(forged_chain(nodes)))
            async with open_ledger(nodes.trust, TIMING) as api:
                with pytest.raises(RegistryError):
                    await follow_changes(api)

    asyncio.run(main())


def test_a_change_of_the_real_members_that_was_never_recorded_is_not_followed(tmp_path):
    async def play(nodes: NodeSet, api: Api) -> None:
        draft = draft_change(in_force(nodes), Wish(remove="node-3"))
        for node in nodes.nodes[:2]:
            draft = draft.signed_by(node.identity.signing)
        genesis = nodes.nodes[0].ledger.store.envelope(0)
        await nodes.serve_app(nodes.nodes[0], liar([genesis, draft.envelope()]))
        assert (await follow_changes(api)).steps == ()

    run(tmp_path, play, serve=(1, 2))


def test_a_draft_is_what_was_signed_and_says_what_it_lacks(tmp_path):
    async def play(nodes: NodeSet, _api: Api) -> None:
        known = in_force(nodes)
        draft = draft_change(known, Wish(add=member("node-4")))
        assert describe_change(known.policy, draft.change.policy)[1:] == ["changes  quorum 2 -> 3"]
        assert describe_draft(draft, known)[-1] == "needs    2 more of the present members and node-4"
        one = draft.signed_by(nodes.nodes[0].identity.signing)
        other = draft.signed_by(nodes.nodes[1].identity.signing).signed_by(private_key("node-4/signing"))
        merged = Draft.decode(one.encode()).merged(Draft.decode(other.encode()))
        assert describe_draft(merged, known)[-1] == "ready    to be submitted"
        damaged = one.encode().replace(b'"origin": "node.test', b'"origin": "node.tess')
        with pytest.raises(RegistryError) as raised:
            Draft.decode(damaged)
        assert raised.value.code == "damaged"
        elsewhere = replace(one, origin="another.log").encode()
        with pytest.raises(RegistryError) as raised:
            Draft.decode(elsewhere)
        assert raised.value.code == "bad_signature"
        later = replace(draft, change=replace(draft.change, time_s=draft.change.time_s + 1))
        with pytest.raises(RegistryError) as raised:
            one.merged(later)
        assert raised.value.code == "other_draft"

    run(tmp_path, play)


def test_the_description_of_a_node_is_read_back_and_damage_is_found():
    described = member("node-4")
    assert decode_member(encode_member(described)) == described
    with pytest.raises(RegistryError):
        decode_member(encode_member(described).replace(b"node-4", b"node-5"))


def test_an_envelope_signed_apart_is_the_one_that_is_sealed_at_once():
    keys = [private_key("a"), private_key("b")]
    change_ = PolicyChange(time_s=int(time.time()), previous=bytes(32), policy=policy(1, 2, 3))
    draft = Draft(origin=ORIGIN, change=change_)
    for key in keys:
        draft = draft.signed_by(key)
    assert draft.envelope() == seal(change_, origin=ORIGIN, private_keys=keys)
