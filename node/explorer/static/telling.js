/* What the check of a certificate found, for people. The one green answer is the last one: that all of it was checked,
   and against keys that the reader brought. */

import { STEPS } from "./certificate.js";
import { digits, element, outcome, said, utc } from "./elements.js";
import { Refusal } from "./spelling.js";

/** The answer in one line. */
export function verdict(story, isOwn) {
  if (story.unchecked.length) return answer("open", "~", "not checked in full", "What could be checked holds.");
  const whole = "All of it was checked, against the keys that you";
  if (!isOwn) return answer("open", "~", "fits this node’s keys", `${whole} took from this node.`);
  return answer("verified", "✓", "it holds", `${whole} brought.`);
}

const answer = (kind, sign, words, ...more) =>
  element("p", { class: "answer" }, outcome(kind, sign, words), " ", ...more);

/** What the certificate says, and what of it was not checked. */
export function told(story, isOwn) {
  const parts = [];
  if (story.unchecked.length) {
    parts.push(element("p", {}, "Not checked, and therefore not believed:"));
    parts.push(element("ul", {}, ...story.unchecked.map((what) => element("li", {}, said(what)))));
    parts.push(element("p", {}, "This browser cannot do it here. ", element("code", {}, "wmreg verify"), " does."));
  }
  const isBelieved = isOwn && !story.unchecked.length;
  const whose = isBelieved ? "" : "If those keys are the nodes’ own and every signature holds: ";
  parts.push(
    element(
      "p",
      {},
      whose,
      ...(story.endpoint === null
        ? ["The model with SHA-256 ", digits(story.modelSha256)]
        : ["The endpoint ", said(story.endpoint), ", as it answered when the nodes asked,"]),
      ...found(story),
    ),
    element(
      "dl",
      { class: "facts" },
      ...fact("Ledger", said(story.origin), `, ${story.size} entries`),
      ...fact("Published", `entry ${story.publicationIndex}, `, ...interval(story.published)),
      ...fact("Claimed", `entry ${story.claimIndex}, `, ...interval(story.claimed)),
      ...(story.publishedBy === story.owner
        ? []
        : fact("Published with", digits(story.publishedBy), ", an earlier key of this owner")),
      ...fact("Quorum", `${story.quorum} of ${story.members} nodes`),
      ...fact("Cosigned by", said(story.witnesses.join(", "))),
      ...story.challenges.flatMap((one) => fact("Objection", said(one.reason), " by ", digits(one.challenger))),
    ),
    votes(story),
  );
  return parts;
}

function found(story) {
  const words = story.endpoint !== null && story.outcome === "VERIFIED" ? SHOWN : FOUND[story.outcome];
  return words(said(story.scheme), digits(story.owner));
}

const SHOWN = (scheme, owner) => [" shows the ", scheme, " watermark of the owner ", owner, "."];
const FOUND = {
  VERIFIED: (scheme, owner) => [" carries the ", scheme, " watermark of the owner ", owner, "."],
  INTACT: (scheme, owner) => [" answers every ", scheme, " trigger of ", owner, " as the model did that he published."],
  TAMPERED: (scheme, owner) => [
    " does not answer the ",
    scheme,
    " triggers of ",
    owner,
    " as the model did that he published.",
  ],
};

const fact = (name, ...value) => [element("div", {}, element("dt", {}, name), element("dd", {}, ...value))];

function interval({ notBefore, notAfter }) {
  return notBefore === null ? ["by ", utc(notAfter)] : ["between ", utc(notBefore), " and ", utc(notAfter)];
}

function votes(story) {
  const cells = (name, contents) =>
    contents.map((content) => element(name, name === "th" ? { scope: "col" } : {}, content));
  const body = story.votes.map((vote) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, said(vote.member)),
      ...cells("td", [
        vote.outcome.toLowerCase(),
        said(vote.reason),
        vote.matched === null ? "–" : `${vote.matched} / ${vote.total}`,
      ]),
    ),
  );
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
export function steps(held, error, isPartial) {
  const names = Object.keys(STEPS);
  const failed = error && error.code !== "policy" ? names[held.length] : null;
  const state = (name) => {
    if (held.includes(name)) return isPartial && !["file", "entries"].includes(name) ? "in part" : "held";
    return name === failed ? "failed" : "not reached";
  };
  const rows = names.map((name) =>
    element("li", { "data-step": name }, element("strong", {}, state(name)), ` – ${STEPS[name]}`),
  );
  return [element("h3", {}, "What was checked"), element("ol", {}, ...rows)];
}

/** Why there is no yes. Only what the ledger's own program would refuse is a no. */
export function refused(error) {
  if (!(error instanceof Refusal)) {
    console.error(error);
    return [answer("open", "~", "not checked", "The check itself failed; this says nothing of the certificate.")];
  }
  if (error.code === "policy") return [answer("open", "~", "not checked", "The policy: ", said(error.message))];
  if (error.code === "undecidable") return [answer("open", "~", "not checked in full", said(error.message))];
  return [answer("refuted", "✕", "it does not hold", said(error.message), " ", element("code", {}, error.code))];
}

/** What no check of a certificate says, and what this one's does not; null for one that does not hold. */
export function limits(story) {
  const item = (words) => element("li", {}, words);
  return [
    element("h3", {}, "What it does not say"),
    element(
      "ul",
      {},
      item("That nothing came later: a withdrawal, or an older publication’s claim. Ask the ledger for the claim."),
      ...(story ? ofStory(story) : [OF_OWNER]).map(item),
      item("That this page told the truth: its program came from the node that serves it."),
    ),
  ];
}

const OF_OWNER = "That the owner trained the model, or who is behind the key.";
const OF_INTEGRITY = {
  INTACT: "That nothing was changed: the claimant chose the triggers, and INTACT speaks only of what they see.",
  TAMPERED: "That the model was ever the claimant’s: he chose the triggers, and any other one answers otherwise too.",
};

function ofStory({ outcome, statistics, endpoint }) {
  const ofIntegrity = OF_INTEGRITY[outcome];
  const words = ofIntegrity ? [ofIntegrity, "Whose the model is, or who is behind the key."] : [OF_OWNER];
  if (statistics.includes("calibrated")) {
    words.push("That the chance is not greater: it was measured on models that the claimant declared (and public ones).");
  }
  if (endpoint !== null) {
    words.push("That the endpoint still serves that model, or serves it to everybody, or who is behind its URL.");
  }
  return words;
}
