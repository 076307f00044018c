/* The whole check of a certificate, step by step as registry/certificate.py does it: the file is whole, a quorum that
   the reader trusts signed the checkpoint, every entry is in that log, earlier checkpoints are of the same log, and the
   entries, replayed through the rules, add up to VERIFIED, or for a mark of integrity to INTACT or TAMPERED. */

import { endpointOf } from "./endpoint.js";
import { verifyConsistency, verifyInclusion, leafHash } from "./merkle.js";
import { parseNote } from "./note.js";
import { Ledger } from "./rules.js";
import { sha256 } from "./sha256.js";
import { decodeBase64, encodeBase64, hex, malformed, Refusal, same, text, utf8 } from "./spelling.js";
import { CERTIFIED, countVotes } from "./verdict.js";

export const FORMAT = "wmreg-certificate/1";
export const CERTIFICATE_BYTES_MAX = 8 * 2 ** 20;
const DOMAIN = "wmreg/v1/certificate\0";
const ENTRIES_MAX = 1024,
  ATTESTATIONS_MAX = 16,
  PROOF_HASHES_MAX = 128;

export const STEPS = {
  file: "The file is whole, and a certificate",
  checkpoint: "A quorum that you trust signed the checkpoint",
  entries: "Every entry is in that log, at its place",
  attestations: "The earlier checkpoints are of the same log",
  replay: "Every entry keeps the ledger’s rules, every signature holds",
  verdict: "The votes add up to a verdict that is certified",
};

const damaged = (why) => new Refusal("damaged", `the certificate is damaged: ${why}`);

/** Check a certificate's bytes against a trust policy.
 *
 * `onStep(name)` is called when a step has held. Returns the story; throws Refusal.
 */
export async function verifyCertificate(raw, trust, signatures, onStep = () => {}) {
  const certificate = decodeCertificate(raw);
  const notes = [certificate.checkpoint, ...certificate.attestations.map((one) => one.checkpoint)];
  onStep("file");
  const final = await trust.check(parseNote(certificate.checkpoint), signatures);
  if (certificate.origin !== trust.origin) throw new Refusal("untrusted", "a certificate of another ledger");
  onStep("checkpoint");
  verifyEntries(certificate.entries, final.checkpoint);
  onStep("entries");
  const earlier = [];
  for (const { checkpoint, proof } of certificate.attestations) {
    const one = await trust.check(parseNote(checkpoint), signatures);
    const { size: oldSize, root: oldRoot } = one.checkpoint;
    verifyConsistency({ oldSize, oldRoot, newSize: final.checkpoint.size, newRoot: final.checkpoint.root, proof });
    earlier.push(one);
  }
  onStep("attestations");
  const { ledger, indexes } = await replay(certificate.entries, signatures);
  if (ledger.origin !== trust.origin) throw new Refusal("untrusted", "the genesis is of another ledger");
  onStep("replay");
  const story = tell(ledger, indexes, final, [...earlier, final]);
  onStep("verdict");
  const unchecked = [final, ...earlier].flatMap((one) =>
    one.unchecked.map((name) => `the ML-DSA cosignature of ${name}`),
  );
  if (signatures.unchecked) unchecked.unshift(`${signatures.unchecked} Ed25519 signatures, which is all of them`);
  return { ...story, unchecked: [...new Set(unchecked)], checkpoints: notes.length };
}

/** Read a certificate's file; any changed byte is damage. */
export function decodeCertificate(raw) {
  if (raw.length > CERTIFICATE_BYTES_MAX) throw new Refusal("too_large", "too large for a certificate");
  let document;
  try {
    document = JSON.parse(text(raw) ?? "");
  } catch {
    throw damaged("cut off, or not JSON at all");
  }
  const certificate = read(document);
  const content = {
    attestations: certificate.attestations.map(({ checkpoint, proof }) => ({
      checkpoint,
      proof: proof.map(encodeBase64),
    })),
    checkpoint: certificate.checkpoint,
    entries: certificate.entries.map(({ entry, index, proof }) => ({
      entry: encodeBase64(entry),
      index,
      proof: proof.map(encodeBase64),
    })),
    format: FORMAT,
    origin: certificate.origin,
  };
  const digest = hex(sha256(utf8(DOMAIN), utf8(`${spell(content)}\n`)));
  if (!same(utf8(`${spell({ ...content, sha256: digest })}\n`), raw)) {
    throw damaged("its content is not what its own hash says");
  }
  return certificate;
}

function read(document) {
  const { format, origin, checkpoint, entries, attestations } =
    typeof document === "object" && document ? document : {};
  if (format !== FORMAT) throw damaged(`not of the format ${FORMAT}`);
  if (![entries, attestations].every(Array.isArray)) throw damaged("no list of entries or checkpoints");
  if (entries.length > ENTRIES_MAX || attestations.length > ATTESTATIONS_MAX) throw damaged("too many entries");
  return {
    entries: entries.map((one) => ({ index: index(one?.index), entry: bytes(one.entry), proof: hashes(one.proof) })),
    attestations: attestations.map((one) => ({ checkpoint: string(one?.checkpoint), proof: hashes(one.proof) })),
    origin: string(origin),
    checkpoint: string(checkpoint),
  };
}

function index(value) {
  if (!Number.isSafeInteger(value)) throw damaged("an index is not an integer");
  return value;
}

function string(value) {
  if (typeof value !== "string") throw damaged("a text is not a string");
  return value;
}

const bytes = (value) => decodeBase64(string(value));

function hashes(values) {
  if (!Array.isArray(values) || values.length > PROOF_HASHES_MAX) throw damaged("a proof is not a list, or too long");
  return values.map(bytes);
}

/** JSON as Python's json.dumps spells it: one space of indent, keys in order (they come in order), ASCII only. */
export function spell(value, indent = "\n") {
  const inner = `${indent} `;
  if (typeof value === "string") return ascii(JSON.stringify(value));
  if (typeof value !== "object") return String(value);
  const isArray = Array.isArray(value);
  const items = isArray
    ? value.map((item) => spell(item, inner))
    : Object.entries(value).map(([name, item]) => `${spell(name)}: ${spell(item, inner)}`);
  const [open, close] = isArray ? "[]" : "{}";
  return items.length ? `${open}${inner}${items.join(`,${inner}`)}${indent}${close}` : `${open}${close}`;
}

const ascii = (quoted) =>
  quoted.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

function verifyEntries(entries, { size, root }) {
  if (entries.some((one, place) => place && entries[place - 1].index >= one.index)) {
    throw malformed("the entries of a certificate are not in the log's order");
  }
  for (const { index: at, entry, proof } of entries) {
    verifyInclusion(leafHash(entry), { index: BigInt(at), size, proof, root });
  }
}

/** Apply the entries in order; the first must be the log's genesis. */
async function replay(entries, signatures) {
  if (entries[0]?.index !== 0) throw malformed("a certificate begins with the genesis, entry 0 of the log");
  const ledger = new Ledger(signatures),
    indexes = new Map();
  for (const { index: at, entry } of entries) {
    try {
      const placed = await ledger.apply(entry);
      indexes.set(placed.name, at);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      throw new Refusal("rules", `entry ${at} breaks the ledger's rules: ${error.message} (${error.code})`);
    }
  }
  return { ledger, indexes };
}

function tell(ledger, indexes, final, checkpoints) {
  if (ledger.claims.size !== 1)
    throw new Refusal("rules", `a certificate is about one claim, not ${ledger.claims.size}`);
  const [[name, state]] = ledger.claims;
  const [outcome, reason] = countVotes(state);
  if (!CERTIFIED.includes(outcome)) {
    const what = `the votes add up to ${outcome ?? "no verdict"} (${reason})`;
    throw new Refusal("not_verified", `${what}, which no certificate proves`);
  }
  const published = indexes.get(state.publication.name),
    claimed = indexes.get(name);
  return {
    outcome,
    endpoint: endpointOf(state.claim.message),
    statistics: [...new Set(agreeing(state, outcome).map((vote) => vote.measurement.statistic))].sort(),
    origin: ledger.origin,
    owner: hex(state.claim.signers[0]),
    publishedBy: hex(state.publication.signers[0]),
    scheme: state.publication.message.scheme,
    modelSha256: hex(state.claim.message.model_sha256),
    claim: name,
    publication: state.publication.name,
    claimIndex: claimed,
    publicationIndex: published,
    published: attested(BigInt(published), checkpoints),
    claimed: attested(BigInt(claimed), checkpoints),
    quorum: state.policy.quorum,
    members: state.policy.members.length,
    votes: [...state.votes]
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([member, { message }]) => ({
        member,
        outcome: message.outcome,
        reason: message.reason,
        matched: message.measurement?.matched ?? null,
        total: message.measurement?.total ?? null,
      })),
    challenges: [...state.challenges.values()].map(({ message, signers }) => ({
      challenger: hex(signers[0]),
      reason: message.reason,
    })),
    size: String(final.checkpoint.size),
    witnesses: final.witnesses,
  };
}

/** The votes that say this and have numbers. */
const agreeing = (state, outcome) =>
  [...state.votes.values()]
    .map(({ message }) => message)
    .filter((vote) => vote.outcome === outcome && vote.measurement);

/** The interval between the last checkpoint that lacks the entry and the first that has it, by a quorum's clocks. */
function attested(at, checkpoints) {
  const lacking = checkpoints.filter((one) => one.checkpoint.size <= at && one.notBeforeS !== null);
  const having = checkpoints.filter((one) => one.checkpoint.size > at && one.notAfterS !== null);
  if (!having.length) throw new Refusal("untrusted", "no witness attests a time; the policy's quorum asks for none");
  const least = (times) => times.reduce((one, other) => (other < one ? other : one));
  const notAfter = least(having.map((one) => one.notAfterS));
  const early = lacking.map((one) => one.notBeforeS).filter((timeS) => timeS <= notAfter);
  const notBefore = early.length ? early.reduce((one, other) => (other > one ? other : one)) : null;
  return { notBefore: notBefore === null ? null : String(notBefore), notAfter: String(notAfter) };
}
