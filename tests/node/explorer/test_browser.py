"""The explorer in a real browser: the zones for files, certificates checked as Python does it, looks, accessibility.

Needs Chromium (`browser.py`). The check for accessibility needs axe-core too: `npm install --no-save axe-core` in the
checkout, or its axe.min.js named in AXE; it is skipped without, and says so.
"""

import base64
import hashlib
import json
import os
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from cluster import http
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from fakes import LedgerMaker
from mutations import mutated
from refusals import CODES, Recorder
from showcase import ENDPOINT, MODEL_SHA256, Served

from registry import hashed_json, tiles
from registry.certificate import verify_certificate
from registry.errors import RegistryError
from registry.note import Cosigner, Note
from registry.policy import Thresholds
from registry.trust import TrustPolicy
from registry.verdict import ControlCounts, ControlKind, Measurement, Statistic, judge, least_of_share

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests" / "vectors" / "golden" / "v1"
PAGES = ("", "nodes", "about", "check", "search", f"search?q={MODEL_SHA256.hex()}", "?kind=claim", "nothing")
ANSWER = "document.querySelector('#certificate-result .answer')?.textContent"
# As of a page that came by plain http from another machine: browsers keep Web Crypto from it.
NO_CRYPTO = "Object.defineProperty(Crypto.prototype, 'subtle', {get: () => undefined})"
CHECK = """
async (cases) => {
  const { verifyCertificate } = await import("./static/certificate.js");
  const { TrustPolicy } = await import("./static/trust.js");
  const { Signatures } = await import("./static/signing.js");
  const signatures = await Signatures.make(), found = [];
  for (const [raw, policy] of cases) {
    try {
      const bytes = Uint8Array.from(atob(raw), (c) => c.charCodeAt(0));
      const story = await verifyCertificate(bytes, TrustPolicy.parse(policy), signatures);
      found.push(story.unchecked.length ? "partly" : "valid");
    } catch (error) {
      found.push(error.code ?? String(error.stack));
    }
  }
  return found;
}
"""
REPLAY = """
async (log) => {
  const { Ledger } = await import("./static/rules.js");
  const { Signatures } = await import("./static/signing.js");
  const ledger = new Ledger(await Signatures.make()), found = [];
  for (const raw of log) {
    try {
      await ledger.apply(Uint8Array.from(atob(raw), (c) => c.charCodeAt(0)));
      found.push("accepted");
    } catch (error) {
      found.push(error.code ?? String(error.stack));
    }
  }
  return found;
}
"""

JUDGE = """
async (cases) => {
  const { judge } = await import("./static/verdict.js");
  return cases.map(([measurement, thresholds]) => judge(measurement, thresholds));
}
"""


async def called(browser: Browser, function: str, argument: object) -> Any:
    return await browser.run(f"({function})({json.dumps(argument)})")


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def opened(browser: Browser, served: Served, path: str) -> None:
    await browser.open(f"{served.url}/explorer/{path}")


async def offer(browser: Browser, certificate: Path, policy: str) -> str:
    """Paste a policy and choose a certificate; the answer."""
    await browser.run(f"document.querySelector('#policy').value = {json.dumps(policy)}")
    await browser.run("document.querySelector('#certificate-result').replaceChildren()")
    await browser.run("document.querySelector('#certificate-file').value = ''")  # the same file again is a choice too
    await browser.choose("#certificate-file", certificate)
    return str(await browser.until(ANSWER))


@pytest.fixture
def certificate(served: Served, tmp_path: Path) -> Path:
    answer = http("GET", f"{served.url}/v1/certificates/{served.shown.verified.hex()}")
    assert answer.status == 200
    path = tmp_path / "certificate.json"
    path.write_bytes(answer.body)
    return path


@pytest.fixture
def policy(served: Served) -> str:
    return http("GET", f"{served.url}/v1/policy").body.decode()


async def test_a_model_is_hashed_here_and_looked_up_there_and_nothing_is_sent(served: Served, tmp_path: Path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(random.Random(0).randbytes(9 * 2**20 + 17))
    async with Browser() as browser:
        await opened(browser, served, "check")
        await browser.choose("#model-file", weights)
        digest = await browser.until("document.querySelector('#model-result code')?.textContent")
        assert digest == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert await browser.run("document.querySelector('#model-progress').hidden")
        link = await browser.run("document.querySelector('#model-result a').href")
        assert link == f"{served.url}/explorer/search?q={digest}"
        assert not [url for url in browser.requests if digest in url or not url.startswith(served.url)]
        await browser.open(link)
        assert "Nothing in this ledger bears this hash" in await browser.run("document.body.innerText")
        assert [line for line in browser.messages if "Security" in line] == []


async def test_the_page_can_send_nothing_even_if_it_wants_to(served: Served):
    async with Browser() as browser:
        await opened(browser, served, "check")
        sent = await browser.run("fetch('/v1/node', {method: 'POST', body: 'x'}).then(() => 'sent', () => 'refused')")
        assert sent == "refused"
        assert any("connect-src" in line or "default-src" in line for line in browser.messages)


async def test_a_file_of_any_length_has_its_hash(served: Served, tmp_path: Path):
    async with Browser() as browser:
        await opened(browser, served, "check")
        for length in (0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4 * 2**20, 4 * 2**20 + 1):
            file = tmp_path / f"{length}.safetensors"
            file.write_bytes(random.Random(length).randbytes(length))
            await browser.choose("#model-file", file)
            shown = await browser.until(
                f"document.querySelector('#model-result p')?.textContent.includes('{file.name}')"
                " && document.querySelector('#model-result code').textContent"
            )
            assert shown == hashlib.sha256(file.read_bytes()).hexdigest(), length


async def test_a_certificate_holds_against_the_readers_keys_and_only_then_is_it_green(
    served: Served, certificate: Path, policy: str
):
    async with Browser() as browser:
        await opened(browser, served, "check")
        assert (await offer(browser, certificate, policy)).startswith("✓ it holds")
        assert await browser.run("document.querySelectorAll('#certificate-result .verified').length") == 1
        steps = await browser.run("[...document.querySelectorAll('[data-step] strong')].map((one) => one.textContent)")
        assert steps == ["held"] * 6
        words = await browser.run("document.querySelector('#certificate-result').innerText")
        assert "alert(1)" in words  # the objection of a stranger, as text
        assert await browser.run("document.querySelectorAll('#certificate-result :is(script, img)').length") == 0
        await browser.run("document.querySelector('#keys-node').click()")
        await browser.until(f"{ANSWER}?.includes('fits this node’s keys')")
        assert await browser.run("document.querySelectorAll('#certificate-result .verified').length") == 0
        assert browser.messages == []


@pytest.mark.parametrize(
    ("which", "told", "untold"),
    [
        ("verified", ["The model with SHA-256", "carries the mtlsign", "the owner trained the model"], ["endpoint"]),
        ("stitched", ["the claimant declared", "the owner trained the model"], ["INTACT", "endpoint"]),
        ("intact", ["INTACT speaks only of what they see", "Whose the model is"], ["carries", "trained", "declared"]),
        ("tampered", [f"The endpoint {ENDPOINT}/versions/2, as it answered", "ever the claimant’s"], ["SHA-256"]),
        (
            "endpoint",
            [f"The endpoint {ENDPOINT}, as it answered", "shows the margin"],
            ["SHA-256", "carries", "INTACT"],
        ),
    ],
)
async def test_of_a_certificate_only_what_is_true_of_it_is_told(
    served: Served, policy: str, tmp_path: Path, which: str, told: list[str], untold: list[str]
):
    answer = http("GET", f"{served.url}/v1/certificates/{served.shown.all[which].hex()}")
    path = tmp_path / "certificate.json"
    path.write_bytes(answer.body)
    async with Browser() as browser:
        await opened(browser, served, "check")
        assert (await offer(browser, path, policy)).startswith("✓ it holds")
        words = await browser.run("document.querySelector('#certificate-result').innerText")
        assert [one for one in told if one not in words] == []
        assert [one for one in untold if one in words] == []
        path.write_bytes(b"{}")
        assert (await offer(browser, path, policy)).endswith("damaged")
        words = await browser.run("document.querySelector('#certificate-result').innerText")
        assert "That the owner trained the model" in words
        assert "claimant" not in words


async def test_a_changed_certificate_another_ledgers_keys_and_no_policy_are_told_apart(
    served: Served, certificate: Path, policy: str
):
    raw = certificate.read_bytes()
    async with Browser() as browser:
        await opened(browser, served, "check")
        assert "there is no policy yet" in await offer(browser, certificate, "")
        assert "line 1" in await offer(browser, certificate, "log nonsense\nquorum none\n")
        other = str(LedgerMaker().trust)
        refused = await offer(browser, certificate, other)
        assert refused.startswith("✕ it does not hold")
        assert refused.endswith("untrusted")
        certificate.write_bytes(raw.replace(b'"index": 1,', b'"index": 2,'))
        assert (await offer(browser, certificate, policy)).endswith("damaged")
        steps = await browser.run("[...document.querySelectorAll('[data-step] strong')].map((one) => one.textContent)")
        assert steps == ["failed"] + ["not reached"] * 5
        assert await browser.run("document.querySelectorAll('#certificate-result .verified').length") == 0


async def test_without_web_crypto_what_was_not_checked_is_said_and_nothing_is_green(
    served: Served, certificate: Path, policy: str
):
    async with Browser() as browser:
        await browser.send("Page.addScriptToEvaluateOnNewDocument", source=NO_CRYPTO)
        await opened(browser, served, "check")
        assert (await offer(browser, certificate, policy)).startswith("~ not checked in full")
        words = await browser.run("document.querySelector('#certificate-result').innerText")
        assert "Ed25519 signatures, which is all of them" in words
        assert "in part – A quorum that you trust signed the checkpoint" in words
        assert await browser.run("document.querySelectorAll('#certificate-result .verified').length") == 0


def verdict(raw: bytes, policy: str) -> str:
    """What Python says."""
    try:
        verify_certificate(raw, TrustPolicy.parse(policy))
    except RegistryError as error:
        return error.code
    return "valid"


def _flipped(encoded_bytes: str, draw: random.Random) -> str:
    raw = bytearray(base64.b64decode(encoded_bytes))
    raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    return encoded(bytes(raw))


def forged(raw: bytes, draw: random.Random) -> bytes:
    """A certificate with one thing changed, whose hash over itself is right again."""
    content = json.loads(raw)
    del content["sha256"]
    entries, attestations = content["entries"], content["attestations"]
    match draw.randrange(6):
        case 0:
            one = draw.choice(entries)
            one["entry"] = _flipped(one["entry"], draw)
        case 1:
            one = draw.choice([one for one in entries + attestations if one["proof"]])
            place = draw.randrange(len(one["proof"]))
            one["proof"][place] = _flipped(one["proof"][place], draw)
        case 2 | 3:
            one = draw.choice([content, *attestations])
            note, place = one["checkpoint"], draw.randrange(len(one["checkpoint"]))
            one["checkpoint"] = note[:place] + draw.choice("aZ19+/= \n—\ud800") + note[place + draw.randrange(2) :]
        case 4:
            listed = entries if draw.random() < 0.7 else attestations
            del listed[draw.randrange(len(listed))]
        case 5:
            draw.choice(entries)["index"] += draw.choice((-1, 1))
    return hashed_json.encode(content, domain="wmreg/v1/certificate")


def cases() -> list[tuple[bytes, str]]:
    draw, made = random.Random(1), []
    policy = (GOLDEN / "policy.txt").read_text()
    for name in ("certificate.json", "opening.certificate.json"):
        raw = (GOLDEN / name).read_bytes()
        made += [(raw, policy), (raw, str(LedgerMaker().trust)), (raw, policy.replace("quorum nodes", "quorum none"))]
        made += [(mutated(raw, draw, others=[raw]), policy) for _ in range(100)]
        made += [(forged(raw, draw), policy) for _ in range(300)]
    maker = LedgerMaker()
    claim = maker.claim("alice", maker.publish("alice"))
    maker.vote(1, claim)
    made.append((maker.certificate(claim).encode(), str(maker.trust)))  # a vote is no quorum
    maker.rotate("alice", "alice's next key")
    maker.vote(2, claim)
    made.append((maker.certificate(claim).encode(), str(maker.trust)))
    maker.withdraw("alice's next key", claim)
    made.append((maker.certificate(claim).encode(), str(maker.trust)))
    return made


async def test_the_browser_says_of_every_certificate_what_python_says(served: Served):
    made = cases()
    expected = [verdict(raw, policy) for raw, policy in made]
    assert {"valid", "damaged", "malformed", "inclusion", "consistency", "bad_signature"} <= set(expected)
    assert {"rules", "not_verified", "untrusted"} <= set(expected)
    async with Browser() as browser:
        await opened(browser, served, "check")
        found: list[str] = []
        for start in range(0, len(made), 50):
            part = [[encoded(raw), policy] for raw, policy in made[start : start + 50]]
            found += await called(browser, CHECK, part)
    differing = [(number, *both) for number, both in enumerate(zip(expected, found, strict=True)) if both[0] != both[1]]
    assert differing == []


async def test_the_browsers_rulebook_refuses_what_pythons_refuses_and_why(served: Served):
    logs = [Recorder(seed).play(400) for seed in range(4)]
    covered = {said for log in logs for _, said in log}
    assert covered >= CODES
    async with Browser() as browser:
        await opened(browser, served, "check")
        for log in logs:
            found = await called(browser, REPLAY, [encoded(raw) for raw, _ in log])
            assert found == [said for _, said in log]


def with_ml_dsa() -> tuple[bytes, str, str]:
    """A certificate with an ML-DSA cosignature on its checkpoint; a policy that can do without, and one that cannot."""
    maker = LedgerMaker()
    made = maker.certificate(maker.verified_claim())
    note, key = Note.parse(made.checkpoint_note), MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    cosigner = Cosigner(f"{maker.origin}/node-1", key)
    noted = Note(note.text, (*note.signatures, cosigner.cosign(note.text, timestamp_s=maker.now_s)))
    head, _, _ = str(maker.trust).rpartition("group nodes")
    witness = f"{head}witness pq {cosigner.key}\n"
    either = f"{witness}group first any node-1 pq\ngroup nodes 2 first node-2 node-3\nquorum nodes\n"
    return replace(made, checkpoint_note=str(noted)).encode(), either, f"{witness}quorum pq\n"


async def test_a_signature_that_the_browser_cannot_check_counts_for_nothing(served: Served, tmp_path: Path):
    raw, either, only = with_ml_dsa()
    assert verdict(raw, either) == "valid"
    path = tmp_path / "certificate.json"
    path.write_bytes(raw)
    async with Browser() as browser:
        await opened(browser, served, "check")
        assert (await offer(browser, path, either)).startswith("~ not checked in full")
        words = await browser.run("document.querySelector('#certificate-result').innerText")
        assert "the ML-DSA cosignature of example.org/wmreg/node-1" in words
        assert (await offer(browser, path, only)).startswith("~ not checked in full")
        assert await browser.run("document.querySelectorAll('#certificate-result .verified').length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_fit_a_phone_and_say_nothing_on_the_console(served: Served, scheme: str):
    paths = [*PAGES, *(f"entries/{digest.hex()}" for digest in served.shown.all.values())]
    async with Browser() as browser:
        for width in (1280, 360):
            await browser.look(width=width, scheme=scheme)
            for path in paths:
                await opened(browser, served, path)
                assert await browser.run("document.documentElement.scrollWidth") <= width, path
        assert [line for line in browser.messages if "404" not in line] == []


async def test_without_javascript_every_page_is_there(served: Served):
    async with Browser() as browser:
        await browser.send("Emulation.setScriptExecutionDisabled", value=True)
        await opened(browser, served, "check")
        shown = await browser.send("DOM.getDocument", depth=-1)
        assert "These two need JavaScript" in json.dumps(shown, ensure_ascii=False)


async def test_the_first_thing_that_a_keyboard_reaches_leads_past_the_head(served: Served):
    async with Browser() as browser:
        await opened(browser, served, "")
        for kind in ("keyDown", "keyUp"):
            await browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert await browser.run("document.activeElement.className") == "skip"
        assert await browser.run("document.activeElement.getBoundingClientRect().left") >= 0


def axe() -> str:
    """The text of axe.min.js; skips the test where there is none."""
    path = Path(os.environ.get("AXE") or ROOT / "node_modules" / "axe-core" / "axe.min.js")
    if not path.exists():
        pytest.skip(f"no {path}: `npm install --no-save axe-core`; accessibility was NOT checked")
    return path.read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(served: Served, certificate: Path, policy: str, scheme: str):
    program = axe()
    paths = [*PAGES, *(f"entries/{digest.hex()}" for digest in served.shown.all.values())]
    async with Browser() as browser:
        for width in (1280, 360):
            await browser.look(width=width, scheme=scheme)
            for path in paths:
                await opened(browser, served, path)
                if path == "check":
                    await offer(browser, certificate, policy)
                assert await findings(browser, program) == [], (path, width)


async def findings(browser: Browser, program: str) -> list[Any]:
    await browser.run(program + "; 0")
    return await browser.run(
        "axe.run({resultTypes: ['violations']}).then(({violations}) => violations"
        ".filter(({impact}) => impact === 'serious' || impact === 'critical')"
        ".map(({id, nodes}) => [id, nodes.slice(0, 3).map((one) => one.html.slice(0, 200) + one.failureSummary)]))"
    )


async def test_marks_of_every_scheme_count_as_they_do_in_python(served: Served):
    log = tiles.parse_entry_bundle((GOLDEN / "schemes.entries").read_bytes())
    policy = (GOLDEN / "policy.txt").read_text()
    async with Browser() as browser:
        await opened(browser, served, "check")
        assert set(await called(browser, REPLAY, [encoded(entry) for entry in log])) == {"accepted"}
        for name in ("intact", "tampered"):
            raw = (GOLDEN / f"{name}.certificate.json").read_bytes()
            assert await called(browser, CHECK, [[encoded(raw), policy]]) == ["valid"]


async def test_the_browser_judges_any_numbers_as_the_engine_does(served: Served):
    drawn = random.Random(1)
    measured = [drawn_measurement(drawn) for _ in range(400)]
    thresholds = Thresholds()
    expected = [list(map(str, judge(measurement, thresholds))) for measurement in measured]
    assert len({outcome for outcome, _ in expected}) == 5
    cases = [[plain(measurement), asdict(thresholds)] for measurement in measured]
    async with Browser() as browser:
        await opened(browser, served, "check")
        assert await called(browser, JUDGE, cases) == expected


def plain(measurement: Measurement) -> dict[str, Any]:
    """A measurement as the browser has it."""
    controls = [control._asdict() | {"kind": str(control.kind)} for control in measurement.controls]
    return asdict(measurement) | {"statistic": str(measurement.statistic), "controls": controls}


def drawn_measurement(drawn: random.Random) -> Measurement:
    """Numbers of any scheme, more of them near the bounds than chance would have it."""
    statistic = drawn.choice(list(Statistic))
    chance_ppm = (
        500_000 if statistic in {Statistic.BRANCH, Statistic.SIGNS} else drawn.choice([100_000, 333_334, 10**6])
    )
    total = drawn.choice([60, 100, 600])
    least = least_of_share(drawn.choice([600, 700]), total, chance_ppm)
    matched = drawn.choice([total, min(total, max(0, least + drawn.randint(-2, 2))), drawn.randint(0, total)])
    controls = []
    for kind in [*[ControlKind.FRESH] * drawn.choice([7, 8]), *drawn.choices(list(ControlKind), k=drawn.randint(0, 4))]:
        most = min(matched, total * chance_ppm // 10**6) if kind is ControlKind.NULL else matched
        both = drawn.choice([0] * 20 + [most, drawn.randint(0, most)])
        controls.append(ControlCounts(kind, both, matched - both, 0))
    permutations = {"permutations": 999, "permutations_as_good": drawn.choice([0, 0, 1])}
    return Measurement(
        matched=matched,
        total=total,
        statistic=statistic,
        chance_ppm=chance_ppm,
        controls=tuple(controls),
        **(permutations if statistic is Statistic.BRANCH else {}),
    )
