/* Bytes and their spellings, each with one only: hexadecimal, base64 (RFC 4648, section 4), decimals, key names. */

/** What a check objects to; the code is the one that the ledger's own program gives. */
export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export const malformed = (message) => new Refusal("malformed", message);

const SIZE_MAX = 2n ** 64n - 1n;
// Spaces as Unicode has them, control characters, the plus, and halves of UTF-16 pairs.
const NOT_IN_KEY_NAME = /[\0-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000+\ud800-\udfff]/u;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The UTF-8 of a text. */
export const utf8 = (text) => encoder.encode(text);

/** The text of UTF-8; null if it is none. */
export function text(bytes) {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Bytes one after the other. */
export function joined(...parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Less than, equal to or greater than 0, as bytes are ordered. */
export function compared(one, other) {
  for (let i = 0; i < Math.min(one.length, other.length); i++) if (one[i] !== other[i]) return one[i] - other[i];
  return one.length - other.length;
}

export const same = (one, other) => compared(one, other) === 0;

/** Standard base64 with padding. */
export function encodeBase64(bytes) {
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(binary);
}

/** Read standard base64 in its one spelling. */
export function decodeBase64(encoded) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(encoded) || encoded.length % 4) throw malformed("not base64");
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  if (encodeBase64(bytes) !== encoded) throw malformed("not base64: the same bytes have another spelling");
  return bytes;
}

/** Read a size or a count: digits without a leading zero, below 2^64. */
export function decimal(digits) {
  if (!/^(0|[1-9][0-9]{0,19})$/.test(digits) || BigInt(digits) > SIZE_MAX) {
    throw malformed("not a decimal number without leading zeros below 2^64");
  }
  return BigInt(digits);
}

/** Whether a note key may have this name. */
export const isKeyName = (name) => name !== "" && !NOT_IN_KEY_NAME.test(name);

/** A text cut at the first of a separator: before, whether it is there, behind. */
export function cut(whole, separator) {
  const at = whole.indexOf(separator);
  return at < 0 ? [whole, false, ""] : [whole.slice(0, at), true, whole.slice(at + separator.length)];
}
