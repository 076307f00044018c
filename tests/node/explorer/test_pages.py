"""The explorer's pages, of a real node without Raft: what they show, and what strangers' words do to them (nothing)."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin
from xml.etree.ElementTree import Element

import aiohttp
import pages
import pytest
from fakes import member, private_key, public_key
from nodeset import NodeSet, publication, sealed
from showcase import ENDPOINT, HOSTILE, MODEL_SHA256, Served, Showcase

from node import explorer
from node.api import make_app, reads
from node.explorer import window
from node.explorer.answers import POLICY
from registry.endpoint import endpoint_sha256
from registry.messages import PolicyChange

pytestmark = pytest.mark.long

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


class Reader:
    """Reads the explorer of one node as a browser does."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def page(self, path: str, *, status: int = 200) -> Element:
        found, body, headers = await self.get(path, **BROWSER)
        assert found == status, (path, body)
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Security-Policy"] == POLICY
        assert "\u202e" not in body.decode()
        return pages.read(body)

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, headers=spelled, allow_redirects=False) as answer,
        ):
            return answer.status, await answer.read(), answer.headers


def entry(digest: bytes) -> str:
    return f"/explorer/entries/{digest.hex()}"


async def all_pages(reader: Reader, shown: Showcase) -> dict[str, Element]:
    paths = [entry(digest) for digest in shown.all.values()]
    paths += [f"/explorer/{name}" for name in ("", "nodes", "about", "check", "search", "?kind=vote")]
    paths += [f"/explorer/owners/{public_key(owner).hex()}" for owner in ("alice", "bob", "nobody")]
    paths += [f"/explorer/search?q={MODEL_SHA256.hex()}", "/explorer/search?q=%3Cscript%3Ealert(1)%3C/script%3E"]
    return {path: await reader.page(path) for path in paths}


async def test_every_page_is_valid_and_every_link_on_it_leads_somewhere(served: Served):
    reader = Reader(served.url)
    found = await all_pages(reader, served.shown)
    leading = {urljoin(reader.url + path, link) for path, page in found.items() for link in pages.links(page)}
    inside = {link.split("#")[0] for link in leading if link.startswith(reader.url)}
    assert len(inside) > 40
    for link in sorted(inside):
        status, body, _ = await reader.get(link.removeprefix(reader.url), **BROWSER)
        assert status in {200, 302}, (link, body)
    for path, page in found.items():
        (fragments,) = [{one.get("id") for one in page.iter()}]
        here = [link[1:] for link in pages.links(page) if link.startswith("#")]
        assert set(here) <= fragments, path


async def test_what_strangers_write_stays_text(served: Served):
    reader, shown = Reader(served.url), served.shown
    visible = " ".join(HOSTILE.replace("\u202e", "\\u{202e}").split())
    for digest, words in (
        (shown.challenge, visible),
        (shown.withdrawal, visible),
        (shown.withdrawn, visible[:64]),
        (shown.refuted, f"https://{visible}"),
        (shown.open, visible),
        (shown.unverifiable, visible[:64]),
        (shown.verified, visible),
        (shown.misspelt, f"https://{visible}"),
    ):
        assert words in pages.text(await reader.page(entry(digest)))
    assert "<script>alert(1)</script>" in pages.text(await reader.page("/explorer/search?q=<script>alert(1)</script>"))


async def test_a_hostile_name_of_a_member_or_an_address_stays_text(tmp_path: Path):
    name = "\"'><svg><script>alert(1)<"
    stranger = replace(member("x", port=5000), name=name, api_url="http://evil.example/'onmouseover=alert(1)'")
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve(with_explorer=True)
        node, reader = nodes.nodes[0], Reader(nodes.nodes[0].url)
        store = node.ledger.store
        members = tuple(sorted((*store.policy.members, stranger), key=lambda one: one.name))
        change = PolicyChange(
            time_s=node.ledger.now_s(),
            previous=store.policy_hashes[-1],
            policy=replace(store.policy, members=members, quorum=2),
        )
        await node.ledger.submit(sealed(change, node.identity.signing, private_key("x/signing")), timeout_s=5)
        for path in ("/explorer/", "/explorer/nodes", "/explorer/about", entry(store.policy_hashes[-1])):
            assert name in pages.text(await reader.page(path)) or path == "/explorer/", path


async def test_a_claim_shows_verdict_votes_plot_and_certificate(served: Served):
    reader, shown = Reader(served.url), served.shown
    page = await reader.page(entry(shown.verified))
    words = pages.text(page)
    assert "✓ verified" in pages.text(pages.find(page, "h1")[0])
    assert "597 / 600" in words
    assert "331 base (1)" in words
    (download,) = pages.find(page, "a", class_="button")
    assert download.get("href") == f"../../v1/certificates/{shown.verified.hex()}"
    drawn = [one for one in page.iter() if str(one.tag).endswith("}circle")]
    assert {(one.get("cx"), one.get("class")) for one in drawn if "suspect" in str(one.get("class"))} == {
        ("99.5%", "suspect verified"),
        ("99.67%", "suspect verified"),
        ("99.83%", "suspect verified"),
    }
    assert len([one for one in drawn if one.get("class") == "control"]) == 24
    told = pages.text(next(one for one in page.iter() if str(one.tag).endswith("}desc")))
    assert "node-2: the suspect matches 598 of 600" in told
    assert "Refuted below 60.0 percent, verified from 70.0 percent on" in told


@pytest.mark.parametrize(
    ("which", "outcome", "said"),
    [
        ("superseded", "verified", "older publication and prevails"),
        ("refuted", "refuted", "too little matches"),
        ("open", "open", "1 of 3 nodes have voted; 2 equal votes decide"),
        ("unverifiable", "unverifiable", "nothing was measured"),
    ],
)
async def test_of_another_verdict_no_certificate_is_offered(served: Served, which: str, outcome: str, said: str):
    page = await Reader(served.url).page(entry(served.shown.all[which]))
    assert outcome in pages.text(pages.find(page, "h1")[0])
    assert said in pages.text(page)
    assert pages.find(page, "a", class_="button") == []


@pytest.mark.parametrize("which", ["intact", "tampered", "undecided"])
async def test_of_a_mark_of_integrity_nothing_is_said_that_is_true_of_owners_alone(served: Served, which: str):
    page = await Reader(served.url).page(entry(served.shown.all[which]))
    words = pages.text(page)
    assert "answers as the model did that was published with" in words
    assert "intact if all triggers match, else tampered" in words
    assert "The claimant chose the triggers." in words
    assert "carries" not in words
    for term in ("γ", "Permutations", "p-value", "refuted below", "chance", "ontrol", "head"):
        assert term not in words, term
    for row in [*pages.find(page, "tr")]:
        columns = [int(cell.get("colspan", 1)) for cell in row]
        assert sum(columns) == 3


async def test_of_an_owners_mark_bounds_are_those_of_its_chance_and_a_head_is_where_one_is(served: Served):
    reader, shown = Reader(served.url), served.shown
    said = {
        which: pages.text(await reader.page(entry(shown.all[which])))
        for which in ("verified", "endpoint", "stitched", "locked", "open", "vote", "endpoint_vote", "integrity_vote")
    }
    assert ". 3 of 3 nodes agree" in said["verified"]
    of_half = "at a chance of 50 % refuted below 360 of 600, verified from 420 on if the controls stay behind"
    assert of_half in said["verified"]
    assert of_half in said["vote"]
    assert "at a chance of 10 % refuted below 28 of 100, verified from 46 on" in said["endpoint"]
    assert "at a chance of 10 % refuted below 28 of 100, verified from 46 on" in said["endpoint_vote"]
    assert "at a chance of 30 % refuted below 44 of 100, verified from 75 on" in said["stitched"]
    assert "at a chance of 50 % refuted below 60 of 100, verified from 93 on" in said["locked"]
    assert "γ = 70.0 %" not in said["endpoint"] + said["stitched"]
    assert {which for which, words in said.items() if "ermutations" in words} == {"verified", "open", "vote"}
    assert {which for which, words in said.items() if "models that the claimant declared" in words} == {"stitched"}
    assert "intact if all triggers match, else tampered" in said["integrity_vote"]


async def test_an_endpoint_is_shown_by_its_url_and_its_hash_is_no_models(served: Served):
    reader, shown = Reader(served.url), served.shown
    words = pages.text(await reader.page(entry(shown.endpoint)))
    digits = endpoint_sha256(ENDPOINT).hex()
    assert f"says that the endpoint {ENDPOINT} shows the watermark of" in words
    assert f"Hash of its URL{digits}, which no file has" in words.replace("URL ", "URL")
    assert words.count(digits) == 1
    assert "Model, SHA-256" not in words
    assert "No node asks this endpoint" not in words
    for path in ("/explorer/?kind=claim", f"/explorer/owners/{public_key('jane').hex()}"):
        listed = pages.text(await reader.page(path))
        assert f"made a claim on the endpoint {ENDPOINT}" in listed
        assert digits not in listed
    for query in (digits, ENDPOINT, f"endpoint%2B{ENDPOINT}"):
        found = pages.text(await reader.page(f"/explorer/search?q={query}"))
        assert "as the hash that stands for the endpoint" in found
        assert "suspect model’s file" not in found
    assert "That is no hash" in pages.text(await reader.page("/explorer/search?q=https://models.example/v1/digits"))


async def test_the_api_says_which_endpoint_and_no_chance_of_integrity(served: Served):
    reader, shown = Reader(served.url), served.shown
    said = {
        which: json.loads((await reader.get(f"/v1/claims/{shown.all[which].hex()}"))[1])
        for which in ("verified", "endpoint", "mistaken", "intact")
    }
    assert {which: claim["endpoint"] for which, claim in said.items()} == {
        "verified": None, "endpoint": ENDPOINT, "mistaken": ENDPOINT, "intact": None,
    }  # fmt: skip
    assert {vote["p_value"] for vote in said["intact"]["votes"]} == {None}
    assert None not in {vote["p_value"] for vote in said["endpoint"]["votes"]}


async def test_an_endpoint_that_no_node_asks_is_said_to_be_one(served: Served):
    reader, shown = Reader(served.url), served.shown
    mistaken, misspelt = [pages.text(await reader.page(entry(one))) for one in (shown.mistaken, shown.misspelt)]
    assert "No node asks this endpoint: the claim’s hash is not that of its URL" in mistaken
    assert f"{'55' * 32}, which is not that of its URL" in mistaken
    assert "Hash of its URL" not in mistaken
    assert "No node asks this endpoint: its URL has another spelling" in misspelt
    assert "Model, SHA-256" not in mistaken + misspelt


async def test_a_publication_says_what_its_scheme_commits_to(served: Served):
    reader, shown = Reader(served.url), served.shown
    integrity = pages.text(await reader.page(entry(shown.integrity_published)))
    assert "committed to a mark of integrity (fragile)" in integrity
    assert "H(payload)" in integrity
    assert "answers as" not in integrity
    mtlsign = pages.text(await reader.page(entry(shown.published)))
    assert "committed to a watermark (mtlsign)" in mtlsign
    assert "H(head)" in mtlsign
    assert "H(head or payload)" in pages.text(await reader.page(entry(shown.withdrawn)))


async def test_a_publication_shows_what_follows_from_it(served: Served):
    reader, shown = Reader(served.url), served.shown
    published = await reader.page(entry(shown.published))
    assert f"../entries/{shown.verified.hex()}" in pages.links(published)
    assert f"../../v1/receipts/{shown.published.hex()}" in pages.links(published)
    withdrawn = await reader.page(entry(shown.withdrawn))
    assert {f"../entries/{shown.withdrawal.hex()}", f"../entries/{shown.challenge.hex()}"} <= set(
        pages.links(withdrawn)
    )
    assert "Nothing so far" not in pages.text(withdrawn)


async def test_the_timeline_is_paged_and_filtered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(window, "PAGE_ENTRIES", 3)
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve(with_explorer=True)
        reader = Reader(nodes.nodes[0].url)
        for number in range(6):
            await nodes.nodes[0].ledger.submit(publication(number=number), timeout_s=5)
        assert await indexes(reader, "/explorer/") == [6, 5, 4]
        first = await reader.page("/explorer/")
        (older,) = pages.find(first, "a", rel="next")
        assert older.get("href") == "./?before=4"
        middle = await reader.page("/explorer/?before=4")
        assert await indexes(reader, "/explorer/?before=4") == [3, 2, 1]
        assert [one.get("href") for one in pages.find(middle, "a", rel="prev")] == ["./?from=4"]
        assert await indexes(reader, "/explorer/?from=4") == [6, 5, 4]
        assert await indexes(reader, "/explorer/?from=5") == [6, 5, 4]
        assert await indexes(reader, "/explorer/?kind=genesis") == [0]
        assert await indexes(reader, "/explorer/?kind=vote") == []
        assert await indexes(reader, f"/explorer/owners/{public_key('alice').hex()}?start=5") == [5, 6]
        assert await indexes(reader, f"/explorer/owners/{public_key('alice').hex()}") == [1, 2, 3]
        await reader.page("/explorer/?kind=block", status=400)
        await reader.page("/explorer/?before=-1", status=400)


async def indexes(reader: Reader, path: str) -> list[int]:
    """The entries that a page lists."""
    listed = pages.find(await reader.page(path), "p", class_="where")
    return [int(pages.text(one).split()[1].rstrip(",")) for one in listed]


async def test_search_takes_hashes_as_people_paste_them_and_numbers(served: Served):
    reader, shown = Reader(served.url), served.shown
    digits = MODEL_SHA256.hex()
    for spelled in (digits, digits.upper(), f"sha256:{digits}", f"%20{digits[:20]}%20{digits[20:]}%0A"):
        page = await reader.page(f"/explorer/search?q={spelled}")
        assert f"./entries/{shown.verified.hex()}" in pages.links(page)
        assert "as the suspect model’s file" in pages.text(page)
    status, _, headers = await reader.get("/explorer/search?q=1", **BROWSER)
    assert (status, headers["Location"]) == (302, f"entries/{shown.published.hex()}")
    owned = await reader.page(f"/explorer/search?q={public_key('alice').hex()}")
    assert f"./owners/{public_key('alice').hex()}" in pages.links(owned)
    assert "Nothing in this ledger bears" in pages.text(await reader.page(f"/explorer/search?q={'ab' * 32}"))
    assert "That is no hash" in pages.text(await reader.page("/explorer/search?q=999999"))
    await reader.page(f"/explorer/search?q={'x' * 300}", status=400)


async def test_the_members_are_shown_as_far_as_they_have_signed(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger") as nodes:
        await nodes.serve(with_explorer=True)
        await nodes.nodes[0].ledger.submit(publication(), timeout_s=5)
        await nodes.nodes[0].services.gatherer.quorum_note(1, timeout_s=5)
        assert await nodes.nodes[0].ledger.signed.wait_for(2, 5)
        page = await Reader(nodes.nodes[0].url).page("/explorer/nodes")
        words = pages.text(page)
        assert "serves this page" in words
        facts = [pages.text(one) for one in pages.find(page, "dd")]
        assert facts.count("2 of 2 entries") == 1
        assert "1 of 2 entries, 1 behind" in facts
        assert words.count("not connected") == 2  # the status of these tests knows no connections
        assert "the ledger has stopped" in words


async def test_errors_are_pages_for_people_and_json_for_programs(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve(with_explorer=True)
        reader = Reader(nodes.nodes[0].url)
        for path in (entry(b"\xab" * 32), "/explorer/nothing", "/nothing/at/all", "/explorer/static/none.js"):
            page = await reader.page(path, status=404)
            home = urljoin(reader.url + path, pages.find(page, "a", class_="button")[0].get("href"))
            assert home == f"{reader.url}/explorer/", path
            status, body, headers = await reader.get(path, Accept="application/json")
            assert (status, headers["Content-Type"]) == (404, "application/json; charset=utf-8"), path
            assert b'"not_found"' in body
            assert headers["Content-Security-Policy"] == POLICY
        await reader.page("/explorer/entries/ABC", status=400)
        await reader.page("/explorer/owners/ABC", status=400)
        status, body, headers = await reader.get(f"/v1/entries/{'ab' * 32}", **BROWSER)
        assert (status, body[:1]) == (404, b"{")  # the API stays the API, whoever asks
        assert "Content-Security-Policy" not in headers


async def test_the_front_door_leads_to_the_ledger_and_pages_have_tags_and_heads(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        await nodes.serve(with_explorer=True)
        reader = Reader(nodes.nodes[0].url)
        for path in ("/", "/explorer"):
            status, _, headers = await reader.get(path)
            assert (status, urljoin(reader.url + path, headers["Location"])) == (302, f"{reader.url}/explorer/")
            assert headers["Content-Security-Policy"] == POLICY
        for path in ("/explorer/", "/explorer/about", "/explorer/static/style.css", "/explorer/static/check.js"):
            status, body, headers = await reader.get(path)
            assert status == 200
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-cache"
            known, nothing, _ = await reader.get(path, If_None_Match=headers["ETag"])
            assert (known, nothing) == (304, b"")
            status, nothing, asked = await reader.get(path, "HEAD")
            assert (status, nothing, asked["Content-Length"]) == (200, b"", str(len(body)))


async def test_the_policy_forbids_inline_code_foreign_hosts_framing_and_sending():
    said = dict(part.split(" ", 1) for part in POLICY.split("; "))
    assert said["default-src"] == "'none'"
    assert said["frame-ancestors"] == said["base-uri"] == "'none'"
    assert said["script-src"] == said["style-src"] == said["img-src"] == said["form-action"] == "'self'"
    assert "connect-src" not in said  # a file that is dropped into a page cannot be sent by it
    assert "unsafe" not in POLICY


async def test_pages_are_paid_for_as_the_apis_reads_are(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        node = nodes.nodes[0]
        charged = reads.ReadRate(1, clock=lambda: 0.0, is_free=lambda _: False)
        node.services = replace(node.services, reads=charged)
        await nodes.serve(with_explorer=True)
        reader = Reader(nodes.nodes[0].url)
        await reader.page("/explorer/nodes")
        await reader.page("/explorer/")
        refused = await reader.page("/explorer/", status=429)
        assert "too_many_requests" in pages.text(refused)


async def test_every_page_has_a_price(tmp_path: Path):
    async with NodeSet(tmp_path / "ledger", nodes=1) as nodes:
        app = make_app(nodes.nodes[0].services)
        before = {route.resource.canonical for route in app.router.routes()}
        explorer.add_to(app)
    added = {route.resource.canonical for route in app.router.routes()} - before
    assert added == reads.PAGE_COSTS.keys()
    assert min(reads.PAGE_COSTS.values()) > 0
