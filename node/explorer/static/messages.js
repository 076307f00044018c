/* The messages of the ledger: their bodies, the policy that some of them carry, and the envelope that all travel in
   (registry/messages.py, policy.py, envelope.py). */

import { decode, encode, ENTRY_BYTES_MAX } from "./encoding.js";
import { verifyInclusion, leafHash } from "./merkle.js";
import { sha256 } from "./sha256.js";
import { fields, listed, mapping, octets, optional, row, text, truth, uint, word } from "./schema.js";
import { PUBLIC_KEY_BYTES, publicKey, SIGNATURE_BYTES, statement } from "./signing.js";
import { compared, hex, isKeyName, malformed, Refusal, same, utf8 } from "./spelling.js";
import { BRANCH, HALF_PPM, MILLION, OUTCOMES, STATISTICS } from "./verdict.js";

const MEMBERS_MAX = 31,
  TRIGGERS_MAX = 4096,
  CONTROLS_MAX = 32,
  FURTHER_MAX = 4096,
  DAY_S = 86400;
const RESERVED = ["nodes", "none"];
const UNMEASURED = ["head_mismatch", "info_mismatch"];
const JOINTLY_SIGNED = ["genesis", "policy", "rotate"];
const API_URL =
  /^https?:\/\/(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(?:\/[A-Za-z0-9._~!$&'()*+,;=:%/-]*)?$/;

const hash = octets(32),
  time = uint(),
  reason = text(1000);

const member = fields("member", {
  name: text(64),
  signing_key: publicKey,
  note_key: publicKey,
  cosigner_key: publicKey,
  tls_certificates: listed(octets(1, 4096), 2, 1),
  raft_host: text(253),
  raft_port: uint(65535, 1),
  api_url: apiUrl,
});

const policyFields = fields("policy", {
  members: listed(member, MEMBERS_MAX, 1),
  quorum: uint(MEMBERS_MAX, 1),
  time_skew_s: uint(7 * DAY_S, 1),
  claim_deadline_s: uint(366 * DAY_S, 60),
  model_bytes_max: uint(2 ** 43, 1),
  evidence_bytes_max: uint(2 ** 32, 1),
  thresholds: fields("thresholds", {
    gamma_permille: uint(1000, 501),
    alpha_bits: uint(256, 20),
    refute_permille: uint(1000, 500),
    permutations_min: uint(10 ** 6),
    permutation_p_permille: uint(1000),
    controls_min: uint(31),
    control_permille: uint(1000, 500),
    paired_alpha_digits: uint(30),
  }),
});

const control = (value) => {
  const [kind, matched, suspectOnly, controlOnly] = row(
    word(["fresh", "base", "public", "null"]),
    ...Array(3).fill(uint(TRIGGERS_MAX)),
  )(value);
  return { kind, matched, suspect_only: suspectOnly, control_only: controlOnly };
};

const counts = {
  matched: uint(TRIGGERS_MAX),
  total: uint(TRIGGERS_MAX, 1),
  controls: listed(control, CONTROLS_MAX),
};

const branchFields = fields("measurement", {
  ...counts,
  permutations: uint(10 ** 6),
  permutations_as_good: uint(10 ** 6),
  aligned: truth,
  matched_unaligned: optional(uint(TRIGGERS_MAX)),
});

const otherFields = fields("measurement", { ...counts, statistic: word(STATISTICS), chance_ppm: uint(MILLION, 1) });

const vote = fields("vote", {
  time_s: time,
  claim: hash,
  policy: hash,
  outcome: word(OUTCOMES),
  reason: text(64),
  measurement: optional(measurement),
  device: text(128),
  software: text(512),
});

const BODIES = {
  genesis: fields("genesis", { time_s: time, origin, policy }),
  policy: fields("policy", { time_s: time, previous: hash, policy }),
  publish: fields("publish", {
    time_s: time,
    scheme: text(64),
    key_commitment: hash,
    head_commitment: hash,
    info_commitment: hash,
    model_commitment: optional(hash),
    further: optional(row(uint(FURTHER_MAX, 1), hash)),
  }),
  claim: fields("claim", {
    time_s: time,
    publication: hash,
    model_pointer: text(2048),
    model_sha256: hash,
    evidence_pointer: text(2048),
    evidence_sha256: hash,
    nonce: octets(16),
    key_signature: octets(SIGNATURE_BYTES),
    opening: optional(row(uint(FURTHER_MAX - 1), listed(hash, 3, 3), listed(hash, 12))),
  }),
  vote: measuredVote,
  withdraw: fields("withdraw", { time_s: time, target: hash, reason }),
  rotate: fields("rotate", { time_s: time, old_key: publicKey, new_key: publicKey }),
  challenge: fields("challenge", { time_s: time, claim: hash, publication: hash, reason }),
};

const envelopeFields = fields("envelope", {
  version: uint(1, 1),
  kind: text(32),
  body: mapping,
  signatures: listed(row(octets(PUBLIC_KEY_BYTES), octets(SIGNATURE_BYTES)), MEMBERS_MAX + 1, 1),
});

const entryFields = row(octets(1, ENTRY_BYTES_MAX), time);

/** Read an entry of the log: a message's envelope, its hash, and when it was recorded. */
export function decodeEntry(raw) {
  const [envelope, recordedS] = entryFields(decode(raw));
  return { envelope, hash: sha256(utf8("wmreg/v1/envelope\0"), envelope), recordedS: BigInt(recordedS) };
}

/** Read an envelope and check its signatures; without an origin it has to be a genesis, which names its own. */
export async function unseal(envelope, origin, signatures) {
  const read = envelopeFields(decode(envelope, ENTRY_BYTES_MAX - 64));
  const { kind } = read;
  if (!Object.hasOwn(BODIES, kind)) throw new Refusal("unknown_kind", "an unknown kind of message");
  const message = BODIES[kind](read.body);
  if (origin === null && kind !== "genesis") throw new Refusal("no_genesis", "the first message is the genesis");
  const signed = statement("wmreg/v1/message", origin ?? message.origin, [kind, read.body]);
  const signers = read.signatures.map(([signer]) => signer);
  if (signers.some((signer, place) => place && compared(signers[place - 1], signer) >= 0)) {
    throw malformed("signers are not in ascending order, or one signed twice");
  }
  for (const [signer, signature] of read.signatures) {
    if (!(await signatures.isSigned(signed, signer, signature))) {
      throw new Refusal("bad_signature", `the signature of ${hex(signer)} does not hold`);
    }
  }
  if (signers.length !== 1 && !JOINTLY_SIGNED.includes(kind)) throw malformed(`a ${kind} has one signer`);
  return { kind, message, signers };
}

/** Check that the key which a claim reveals is its publisher's, and the one that was committed to. */
export async function checkRevealedKey(claim, publication, { origin, signatures }) {
  const signed = statement("wmreg/v1/watermark-key", origin, claim.nonce);
  if (!(await signatures.isSigned(signed, publication.signers[0], claim.key_signature))) {
    throw new Refusal("key_not_bound", "the watermark key is not bound to the claimant's signing key");
  }
  const committed = claim.opening
    ? opened(claim.opening, publication.message.further)
    : publication.message.key_commitment;
  const watermarkKey = sha256(utf8("wmreg/v1/watermark-key\0"), claim.key_signature);
  if (!same(sha256(utf8("wmreg/v1/commitment/key\0"), watermarkKey), committed)) {
    throw new Refusal("key_mismatch", "the revealed key is not the one that was committed to");
  }
}

/** The commitment to the key of a further watermark. */
function opened([index, committed, proof], further) {
  if (!further) throw new Refusal("bad_opening", "the publication commits to no further watermarks");
  const leaf = leafHash(encode(["wmreg/v1/watermark", ...committed]));
  try {
    verifyInclusion(leaf, { index: BigInt(index), size: BigInt(further[0]), proof, root: further[1] });
  } catch (error) {
    throw new Refusal("bad_opening", `not one of the further watermarks: ${error.message}`);
  }
  return committed[0];
}

function origin(value) {
  if (!isKeyName(text(255)(value))) throw malformed("expected a name without spaces and pluses");
  return value;
}

function apiUrl(value) {
  const match = typeof value === "string" && value.length <= 512 ? API_URL.exec(value) : null;
  const port = match ? Number(match[1] ?? 1) : 0;
  if (port < 1 || port > 65535) throw malformed("expected the URL of an API");
  return value;
}

function policy(value) {
  const read = policyFields(value);
  const { members, quorum } = read;
  const names = members.map((one) => utf8(one.name));
  if (names.some((name, place) => place && compared(names[place - 1], name) >= 0)) {
    throw malformed("members are not in the order of their names, or two have one name");
  }
  if (!members.every(({ name }) => isKeyName(name) && !name.includes("/") && !RESERVED.includes(name))) {
    throw malformed("a member has a name that none may have");
  }
  const keys = members.flatMap((one) => [one.signing_key, one.note_key, one.cosigner_key].map(hex));
  const pins = members.flatMap((one) => one.tls_certificates.map((der) => hex(sha256(der))));
  if (new Set(keys).size !== keys.length || new Set(pins).size !== pins.length) {
    throw malformed("one key or certificate serves twice");
  }
  if (!(members.length < 2 * quorum && quorum <= members.length)) throw malformed("the quorum is not a majority");
  return read;
}

function measurement(value) {
  const read = readMeasurement(value);
  const { matched, total, matched_unaligned: before } = read;
  if (matched > total || read.permutations_as_good > read.permutations) throw malformed("more counted than there are");
  if (before !== null && !(read.aligned && before < matched)) throw malformed("an aligned count that is not greater");
  if (read.statistic === "signs" && read.chance_ppm !== HALF_PPM) throw malformed("of bits the chance is one half");
  for (const one of read.controls) {
    if (one.kind === "null" && one.matched * MILLION > read.chance_ppm * total) {
      throw malformed("a null model matches more than the chance that was measured on it");
    }
    const both = matched - one.suspect_only;
    if (both < 0 || one.control_only > total - matched || one.matched !== both + one.control_only) {
      throw malformed("the counts of a control contradict each other");
    }
  }
  return read;
}

/** A branch's is spelled without a statistic and a chance, the others' without what only a branch has. */
function readMeasurement(value) {
  if (!(value instanceof Map && value.has("statistic"))) return { ...branchFields(value), statistic: BRANCH, chance_ppm: HALF_PPM };
  const lacking = { permutations: 0, permutations_as_good: 0, aligned: false, matched_unaligned: null };
  return { ...otherFields(value), ...lacking };
}

function measuredVote(value) {
  const read = vote(value);
  const isUnmeasured =
    read.outcome === "UNVERIFIABLE" || (read.outcome === "REFUTED" && UNMEASURED.includes(read.reason));
  if ((read.measurement === null) !== isUnmeasured) throw malformed("a vote has numbers missing or too many");
  return read;
}
