"""What a node measures of itself is read from its parts, in Prometheus' format, and is the node's alone."""

import dataclasses
from pathlib import Path

from fakes import good_measurement
from nodeset import FAKE_WORKER, JOB, STATUS, NodeSet, claim, publication, sealed, vote_message
from prometheus_client.parser import text_string_to_metric_families

from node.api import Services, make_app
from node.space import DiskSpace
from node.verifier.protocol import Answer
from node.verifier.supervisor import ENDINGS
from registry.entry import Entry
from registry.envelope import message_hash

Samples = dict[tuple[str, ...], float]


async def samples(nodes: NodeSet, number: int = 0) -> Samples:
    """Every sample by its name and its labels' values."""
    async with nodes.session.get(f"{nodes.nodes[number].url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def test_every_metric_has_the_projects_prefix_a_help_text_and_a_unit_or_a_count(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        async with nodes.session.get(f"{nodes.nodes[0].url}/metrics") as answer:
            families = list(text_string_to_metric_families(await answer.text()))
    assert len(families) > 20
    assert {family.name.split("_")[0] for family in families} == {"wmreg", "process"}
    assert [family.name for family in families if not family.documentation] == []
    assert len({family.name for family in families}) == len(families)


async def test_the_log_grows_and_is_cosigned(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve()
        node = nodes.nodes[0]
        before = await samples(nodes)
        assert before["wmreg_log_size_entries", "applied"] == 1
        assert before["wmreg_checkpoint_timestamp_seconds",] == 0
        async with nodes.session.post(f"{node.url}/v1/entries", data=publication()) as answer:
            assert answer.status == 200
        after = await samples(nodes)
        assert [after["wmreg_log_size_entries", step] for step in ("applied", "signed", "cosigned")] == [2, 2, 2]
        assert after["wmreg_checkpoint_timestamp_seconds",] > 1.7e9
        assert after["wmreg_checkpoint_cosignatures",] == 2
        assert (await samples(nodes, 1))["wmreg_log_size_entries", "cosigned"] == 0


async def test_the_room_on_the_disk_is_told(tmp_path: Path):
    class NearlyFull(DiskSpace):
        @property
        def free_bytes(self) -> int:
            return 4096

    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        replaced = dataclasses.replace(nodes.nodes[0].services, space=NearlyFull(tmp_path))
        await nodes.serve_app(nodes.nodes[0], make_app(replaced))
        found = await samples(nodes)
    assert found["wmreg_disk_free_bytes",] == 4096
    assert found["wmreg_problem", "disk"] == 1


async def test_consensus_is_told_with_the_failures_that_it_tolerates(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        status = dataclasses.replace(STATUS, state="follower", term=7, connected=("node-2",))
        replaced = dataclasses.replace(nodes.nodes[0].services, raft_status=lambda: status)
        await nodes.serve_app(nodes.nodes[0], make_app(replaced))
        found = await samples(nodes)
        assert found["wmreg_raft_term",] == 7
        assert (found["wmreg_raft_state", "follower"], found["wmreg_raft_state", "leader"]) == (1, 0)
        assert found["wmreg_failure_tolerance",] == 0
        status = dataclasses.replace(status, connected=())
        assert (await samples(nodes))["wmreg_failure_tolerance",] == -1
        status = dataclasses.replace(status, connected=("node-2", "node-3"))
        assert (await samples(nodes))["wmreg_failure_tolerance",] == 1


async def test_claims_are_counted_by_their_verdict(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        node, published = nodes.nodes[0], publication()
        claimed = claim(published)
        for envelope in (published, claimed):
            await node.ledger.submit(envelope, timeout_s=5)
        opened = await samples(nodes)
        assert (opened["wmreg_claims", "open"], opened["wmreg_claims", "verified"]) == (1, 0)
        assert opened["wmreg_queue_length", "vote"] == 1
        message = vote_message(nodes, message_hash(claimed), measurement=good_measurement())
        await node.ledger.submit(sealed(message, node.identity.signing), timeout_s=5)
        for _ in range(2):
            decided = await samples(nodes)
            assert (decided["wmreg_claims", "open"], decided["wmreg_claims", "verified"]) == (0, 1)


async def test_refusals_are_counted_by_their_code(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        node = nodes.nodes[0]
        for path in ("/v1/entries/zz", "/v1/entries/zz", f"/v1/receipts/{'0' * 64}"):
            async with nodes.session.get(node.url + path) as answer:
                assert answer.status >= 400
        nodes.order.order(b"nonsense", Entry(publication(time_s=5), 10**9).encode())
        found = await samples(nodes)
        assert found["wmreg_refused_requests_total", "malformed"] == 2
        assert found["wmreg_refused_requests_total", "not_found"] == 1
        assert found["wmreg_refused_entries_total", "malformed"] == 1
        assert found["wmreg_refused_entries_total", "time_skew"] == 1


async def test_verifications_are_timed(tmp_path: Path):
    model = tmp_path / "model"
    model.write_text("600 of 600")
    async with NodeSet(tmp_path / "ledger", nodes=1, command=FAKE_WORKER) as nodes:
        await nodes.serve()
        assert (await samples(nodes))["wmreg_verification_duration_seconds_count",] == 0
        verifier = nodes.nodes[0].services.verifier
        await verifier.verify(dataclasses.replace(JOB, model_path=str(model)))
        found = await samples(nodes)
        assert found["wmreg_verification_duration_seconds_count",] == 1
        assert found["wmreg_verification_duration_seconds_sum",] > 0
        assert sum(found["wmreg_verifier_state", state] for state in ("starting", "ready")) == 1
        ended = {why: found["wmreg_verifier_processes_ended_total", why] for why in ENDINGS}
        assert ended == {**dict.fromkeys(ENDINGS, 0), "answered": 1}


async def test_public_models_that_are_no_controls_are_counted_for_every_claim_that_met_them(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        public = nodes.nodes[0].services.verifier.public
        assert (await samples(nodes))["wmreg_unusable_public_models_total",] == 0
        public.note(found_unusable("resnet18", 2))
        public.note(found_unusable("vgg11", 1))
        public.note(found_unusable("resnet18", 0))
        found = await samples(nodes)
        assert found["wmreg_unusable_public_models_total",] == 3
        assert found["wmreg_healthy",] == 1  # it changes no vote that other nodes do not make alike
        async with nodes.session.get(f"{nodes.nodes[0].url}/v1/node") as answer:
            assert (await answer.json())["verifier"]["unusable_public"] == {"vgg11": 1}


def found_unusable(architecture: str, count: int) -> Answer:
    answer = Answer(measurement=good_measurement(), outcome=None, reason="", detail="", device="cpu", software="")
    return dataclasses.replace(answer, architecture=architecture, unusable_public=count)


async def test_trouble_shows_by_the_part_that_has_it(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve()
        node: Services = nodes.nodes[0].services
        assert await node.ledger.signed.wait_for(1, 30)
        assert (await samples(nodes))["wmreg_healthy",] == 1
        node.ledger.signer.alarm = "another tree"
        found = await samples(nodes)
        assert (found["wmreg_healthy",], found["wmreg_problem", "signer"]) == (0, 1)
        assert found["wmreg_self_check_failures_total",] == 0
