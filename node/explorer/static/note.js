/* Signed notes, their keys, and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature). */

import { HASH_BYTES } from "./merkle.js";
import { sha256 } from "./sha256.js";
import { isPublicKey } from "./signing.js";
import { cut, decimal, decodeBase64, hex, isKeyName, joined, malformed, Refusal, utf8 } from "./spelling.js";

export const ED25519 = 0x01,
  COSIGNATURE = 0x04,
  ML_DSA = 0x06;

const NOTE_BYTES_MAX = 132 * 1024,
  SIGNATURES_MAX = 96,
  TIMESTAMP_BYTES = 8,
  KEY_ID_BYTES = 4;
const ML_DSA_KEY_BYTES = 1312,
  ML_DSA_SIGNATURE_BYTES = 2420,
  ML_DSA_NAME_BYTES_MAX = 255;
const TIMESTAMP_MAX_S = 2n ** 63n - 1n;
const DASH = "— ";

/** A public note key. */
export class VerifierKey {
  constructor(name, type, publicKey) {
    if (!isKeyName(name)) throw malformed("a note key's name is empty or has a space or a plus");
    if (type === ML_DSA && utf8(name).length > ML_DSA_NAME_BYTES_MAX) throw malformed("an ML-DSA name is too long");
    if (publicKey.length !== (type === ML_DSA ? ML_DSA_KEY_BYTES : 32)) throw malformed("a key has a wrong length");
    if (type !== ML_DSA && !isPublicKey(publicKey)) throw malformed(`the key of ${name} has not the full order`);
    this.name = name;
    this.type = type;
    this.publicKey = publicKey;
    this.keyId = sha256(utf8(`${name}\n`), Uint8Array.of(type), publicKey).slice(0, KEY_ID_BYTES);
  }

  get identity() {
    return `${this.name} ${hex(this.keyId)}`;
  }

  /** Read `name+hex(key ID)+base64(type ‖ public key)`. */
  static parse(line) {
    const [name, , rest] = cut(line, "+");
    const [keyId, , encoded] = cut(rest, "+");
    const typed = decodeBase64(encoded);
    if (![ED25519, COSIGNATURE, ML_DSA].includes(typed[0])) throw malformed("not a key of type 0x01, 0x04 or 0x06");
    const key = new VerifierKey(name, typed[0], typed.slice(1));
    if (keyId !== hex(key.keyId)) throw malformed(`the key ID ${keyId.slice(0, 20)} does not belong to this key`);
    return key;
  }
}

/** Split a note into its text and its signature lines; nothing is verified. */
export function parseNote(raw) {
  if (!raw.isWellFormed()) throw malformed("a note has a character that UTF-8 cannot spell");
  if (utf8(raw).length > NOTE_BYTES_MAX) throw new Refusal("too_large", `a note of more than ${NOTE_BYTES_MAX} bytes`);
  if (/[\0-\x09\x0b-\x1f]/.test(raw)) throw malformed("a note has a control character");
  const at = raw.lastIndexOf("\n\n");
  if (at < 1 || !raw.slice(at + 2).endsWith("\n")) {
    throw malformed("a note is a text, an empty line and signature lines, each ended by a newline");
  }
  const lines = raw.slice(at + 2, -1).split("\n");
  if (lines.length > SIGNATURES_MAX) throw malformed(`a note with more than ${SIGNATURES_MAX} signatures`);
  return { text: raw.slice(0, at + 1), signatures: lines.map(parseLine) };
}

function parseLine(line) {
  if (!line.startsWith(DASH)) throw malformed("a signature line does not begin with an em dash and a space");
  const [name, , encoded] = cut(line.slice(DASH.length), " ");
  const blob = decodeBase64(encoded);
  if (!isKeyName(name) || blob.length <= KEY_ID_BYTES) throw malformed("a signature line has no name or no signature");
  const keyId = blob.slice(0, KEY_ID_BYTES);
  return { name, keyId, identity: `${name} ${hex(keyId)}`, payload: blob.slice(KEY_ID_BYTES) };
}

/** Read a checkpoint's text: origin, size, root. */
export function parseCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || lines[3]) throw malformed("a checkpoint has three lines: origin, size, root");
  const [origin, size, root] = [lines[0], decimal(lines[1]), decodeBase64(lines[2])];
  if (!isKeyName(origin)) throw malformed("the origin is not a log's name");
  if (root.length !== HASH_BYTES) throw malformed("the root of a checkpoint has 32 bytes");
  return { origin, size, root };
}

/** Check every signature that one of the keys could have made.
 *
 * Returns the signatures that hold, and the names on those that could not be checked: ML-DSA is in no browser.
 */
export async function verifySignatures(note, keys, signatures) {
  const known = new Map(keys.map((key) => [key.identity, key]));
  const verified = new Map(),
    unchecked = [],
    unknown = [];
  const seen = new Set();
  for (const line of note.signatures) {
    const key = known.get(line.identity);
    if (!key) {
      unknown.push(line.name);
      continue;
    }
    if (seen.has(line.identity)) throw new Refusal("duplicate_signature", `${line.name} signed the note twice`);
    seen.add(line.identity);
    const timestampS = await verifyLine(note.text, line, key, signatures);
    if (key.type === ML_DSA) unchecked.push(line.name);
    else verified.set(key, timestampS);
  }
  return { verified, unchecked, unknown };
}

/** Check one signature; the time that it states, null where it states none. */
async function verifyLine(text, line, key, signatures) {
  const timeBytes = key.type === ED25519 ? 0 : TIMESTAMP_BYTES;
  const timestampS = BigInt(`0x0${hex(line.payload.subarray(0, timeBytes))}`);
  const signature = line.payload.slice(timeBytes);
  const signatureBytes = key.type === ML_DSA ? ML_DSA_SIGNATURE_BYTES : 64;
  if (signature.length !== signatureBytes || timestampS > TIMESTAMP_MAX_S) {
    throw new Refusal("bad_signature", `the signature of ${key.name} has a wrong length or time`);
  }
  if (key.type === ML_DSA) return null;
  const head = key.type === COSIGNATURE ? `cosignature/v1\ntime ${timestampS}\n` : "";
  if (!(await signatures.isSigned(joined(utf8(head), utf8(text)), key.publicKey, signature))) {
    throw new Refusal("bad_signature", `the signature of ${key.name} does not hold`);
  }
  return key.type === COSIGNATURE ? timestampS : null;
}
