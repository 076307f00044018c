/* The two zones into which files are dropped. Nothing is sent: the page's policy has no connect-src.

   Whatever is shown of a file goes in as text. The one green answer is the last one of a certificate's check: that all of it
   was checked, and against keys that the reader brought. */

import { CERTIFICATE_BYTES_MAX, STEPS, verifyCertificate } from "./certificate.js";
import { Signatures } from "./signing.js";
import { Refusal } from "./spelling.js";
import { TrustPolicy } from "./trust.js";

const LAST_S = 253402300799; // the end of the year 9999
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; text becomes text. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const outcome = (kind, sign, words) =>
  element("span", { class: `outcome ${kind}` }, element("span", { "aria-hidden": "true" }, sign), ` ${words}`);

/** A stranger's words, with what nobody sees in them spelled out. */
const said = (words) =>
  element("bdi", { class: "said" }, words.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) =>
    /[\u200c\u200d]/.test(c) ? c : `\\u{${c.codePointAt(0).toString(16)}}`));

const digits = (hash) => element("code", { class: "digits" }, hash);

function utc(seconds) {
  if (Number(seconds) > LAST_S) return `${seconds} s after 1970`;
  const spelled = new Date(1000 * Number(seconds)).toISOString();
  return element("time", { datetime: `${spelled.slice(0, 19)}Z` }, `${spelled.slice(0, 10)} ${spelled.slice(11, 19)} UTC`);
}

/** Let a zone take a file by being dropped into, and by its input. */
function zone(input, take) {
  const place = document.querySelector(`[data-for="${input.id}"]`);
  input.addEventListener("change", () => input.files.length && take(input.files[0]));
  for (const event of ["dragenter", "dragover"]) {
    place.addEventListener(event, (happened) => {
      happened.preventDefault();
      place.classList.add("over");
    });
  }
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (happened) => {
    happened.preventDefault();
    place.classList.remove("over");
    if (happened.dataTransfer.files.length) take(happened.dataTransfer.files[0]);
  });
}

// A file that misses its zone must not replace the page.
for (const event of ["dragover", "drop"]) window.addEventListener(event, (happened) => happened.preventDefault());

// Weights

let worker = null;

function hashModel(file) {
  worker?.terminate();
  worker = new Worker(new URL("hashing.js", import.meta.url), { type: "module" });
  const place = byId("model-progress"), result = byId("model-result");
  const [bar, words] = [place.querySelector("progress"), place.querySelector("span")];
  result.replaceChildren();
  bar.value = 0;
  place.hidden = false;
  worker.onmessage = ({ data }) => {
    if (data.done !== undefined) {
      bar.value = file.size ? data.done / file.size : 1;
      words.textContent = `${mebibytes(data.done)} of ${mebibytes(file.size)} MiB`;
      return;
    }
    place.hidden = true;
    result.replaceChildren(...(data.digest ? known(file, data.digest, result.dataset.search) : unreadable(data.error)));
  };
  worker.onerror = () => {
    place.hidden = true;
    result.replaceChildren(...unreadable("the hashing did not start"));
  };
  worker.postMessage(file);
}

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

function known(file, digest, search) {
  const look = element("a", { class: "button", href: search + digest }, "Look it up in the ledger");
  return [
    element("p", {}, "SHA-256 of ", said(file.name), ": ", digits(digest)),
    element("p", {}, look, element("span", { class: "quiet" }, "This tells the node the hash, and nothing else.")),
  ];
}

const unreadable = (why) => [element("p", { class: "notice" }, "The file could not be read: ", said(String(why)))];

// Certificates

let certificate = null;
let asked = 0;

async function takeCertificate(file) {
  certificate = file;
  await check();
}

/** Check the file that was given last against the keys that are chosen now. */
async function check() {
  if (certificate === null) return;
  const turn = ++asked;
  const isOwn = byId("keys-own").checked;
  const policy = isOwn ? byId("policy").value : byId("node-policy").content.textContent;
  const held = [];
  let shown;
  try {
    if (!policy.trim()) throw new Refusal("policy", "there is no policy yet: paste one, choose one, or take this node’s");
    if (certificate.size > CERTIFICATE_BYTES_MAX) throw new Refusal("too_large", "too large for a certificate");
    const trust = readPolicy(policy);
    const raw = new Uint8Array(await certificate.arrayBuffer());
    const signatures = await Signatures.make();
    const story = await verifyCertificate(raw, trust, signatures, (step) => held.push(step));
    shown = [verdict(story, isOwn), ...told(story, isOwn), ...steps(held, null, story.unchecked.length > 0)];
  } catch (error) {
    shown = [...refused(error), ...steps(held, error, false)];
  }
  if (turn === asked) byId("certificate-result").replaceChildren(...shown, ...limits());
}

function readPolicy(text) {
  try {
    return TrustPolicy.parse(text);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new Refusal("policy", error.message);
  }
}

/** The answer in one line. */
function verdict(story, isOwn) {
  const line = element("p", { class: "answer" });
  if (story.unchecked.length) line.append(outcome("open", "~", "not checked in full"), " What could be checked holds.");
  else if (!isOwn) line.append(outcome("open", "~", "fits this node’s keys"), " All of it was checked, against keys that you took from this node.");
  else line.append(outcome("verified", "✓", "it holds"), " All of it was checked, against the keys that you brought.");
  return line;
}

function told(story, isOwn) {
  const parts = [];
  if (story.unchecked.length) {
    parts.push(element("p", {}, "Not checked, and therefore not believed:"));
    parts.push(element("ul", {}, ...story.unchecked.map((what) => element("li", {}, said(what)))));
    parts.push(element("p", {}, "This browser cannot do it here. ", element("code", {}, "wmreg verify"), " does."));
  }
  const whose = isOwn && !story.unchecked.length ? "" : "If those keys are the nodes’ own and every signature holds: ";
  parts.push(
    element("p", {}, whose, "The model with SHA-256 ", digits(story.modelSha256), " carries the ", said(story.scheme), " watermark of the owner ", digits(story.owner), "."),
    element(
      "dl",
      { class: "facts" },
      ...fact("Ledger", said(story.origin), `, ${story.size} entries`),
      ...fact("Published", `entry ${story.publicationIndex}, `, ...interval(story.published)),
      ...fact("Claimed", `entry ${story.claimIndex}, `, ...interval(story.claimed)),
      ...(story.publishedBy === story.owner ? [] : fact("Published with", digits(story.publishedBy), ", an earlier key of this owner")),
      ...fact("Quorum", `${story.quorum} of ${story.members} nodes`),
      ...fact("Cosigned by", said(story.witnesses.join(", "))),
      ...story.challenges.flatMap((one) => fact("Objection", said(one.reason), " by ", digits(one.challenger))),
    ),
    votes(story),
  );
  return parts;
}

const fact = (name, ...value) => [element("div", {}, element("dt", {}, name), element("dd", {}, ...value))];

function interval({ notBefore, notAfter }) {
  return notBefore === null ? ["by ", utc(notAfter)] : ["between ", utc(notBefore), " and ", utc(notAfter)];
}

function votes(story) {
  const cells = (name, contents) => contents.map((content) => element(name, name === "th" ? { scope: "col" } : {}, content));
  const body = story.votes.map((vote) => element(
    "tr",
    {},
    element("th", { scope: "row" }, said(vote.member)),
    ...cells("td", [
      vote.outcome.toLowerCase(),
      said(vote.reason),
      vote.matched === null ? "–" : `${vote.matched} / ${vote.total}`,
    ]),
  ));
  const table = element(
    "table",
    {},
    element("caption", {}, "Votes in the certificate"),
    element("thead", {}, element("tr", {}, ...cells("th", ["Node", "Vote", "Reason", "Matched"]))),
    element("tbody", {}, ...body),
  );
  return element("div", { class: "scroll", role: "region", "aria-label": "Votes, a table", tabindex: "0" }, table);
}

/** What was checked, in its order, and how each ended. */
function steps(held, error, isPartial) {
  const names = Object.keys(STEPS);
  const failed = error && error.code !== "policy" ? names[held.length] : null;
  const state = (name) => {
    if (held.includes(name)) return isPartial && !["file", "entries"].includes(name) ? "in part" : "held";
    return name === failed ? "failed" : "not reached";
  };
  const rows = names.map((name) => element("li", { "data-step": name }, element("strong", {}, state(name)), ` – ${STEPS[name]}`));
  return [element("h3", {}, "What was checked"), element("ol", {}, ...rows)];
}

function refused(error) {
  if (!(error instanceof Refusal)) {
    console.error(error);
    return [element("p", { class: "answer" }, outcome("open", "~", "not checked"), " The check itself failed; this says nothing of the certificate.")];
  }
  if (error.code === "policy") {
    return [element("p", { class: "answer" }, outcome("open", "~", "not checked"), " The policy: ", said(error.message))];
  }
  return [element("p", { class: "answer" }, outcome("refuted", "✕", "it does not hold"), " ", said(error.message), " ", element("code", {}, error.code))];
}

function limits() {
  return [
    element("h3", {}, "What it does not say"),
    element(
      "ul",
      {},
      element("li", {}, "That nothing came later: a withdrawal, or an older publication’s claim. Ask the ledger for the claim."),
      element("li", {}, "That the owner trained the model, or who is behind the key."),
      element("li", {}, "That this page told the truth: its program came from the node that serves it."),
    ),
  ];
}

zone(byId("model-file"), hashModel);
zone(byId("certificate-file"), takeCertificate);
byId("policy-file").addEventListener("change", async ({ target }) => {
  if (!target.files.length) return;
  byId("policy").value = await target.files[0].text();
  byId("keys-own").checked = true;
  await check();
});
byId("policy").addEventListener("input", () => {
  byId("keys-own").checked = true;
  check();
});
for (const id of ["keys-own", "keys-node"]) byId(id).addEventListener("change", check);
