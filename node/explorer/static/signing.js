/* Ed25519 by the strict rule of registry/signing.py: no key and no R that everybody can sign for, each in its one
   spelling, and the equation without the cofactor, which is the one that browsers check.

   Web Crypto verifies. Browsers have it for pages that came by https or from this very machine. Without it every
   signature counts as not checked, and is told as that. */

import { encode } from "./encoding.js";
import { hex, malformed } from "./spelling.js";

export const PUBLIC_KEY_BYTES = 32,
  SIGNATURE_BYTES = 64;

const P = 2n ** 255n - 19n;
const D = ((P - 121665n) * power(121666n, P - 2n)) % P;
const SIGN = 1n << 255n;
const ORDER_8 = 0x5fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n;
const SMALL_ORDER = [0n, 1n, P - 1n, ORDER_8, P - ORDER_8]; // y of the points of order 4, 1, 2, 8 and 8
const NOT_REDUCED = Array.from({ length: 19 }, (_, i) => P + BigInt(i));
const FOR_EVERYBODY = new Set([...SMALL_ORDER, ...NOT_REDUCED].flatMap((y) => [y, y | SIGN]));

/** Checks signatures, and counts those that it cannot check. */
export class Signatures {
  #subtle = null;
  #keys = new Map();
  checked = 0;
  unchecked = 0;

  /** One that has Web Crypto's Ed25519 if the browser has it. */
  static async make(subtle = globalThis.crypto?.subtle) {
    const made = new Signatures();
    try {
      await subtle.importKey("raw", encodePoint((4n * power(5n, P - 2n)) % P), "Ed25519", false, ["verify"]);
      made.#subtle = subtle;
    } catch {
      // Not there: `canCheck` says so.
    }
    return made;
  }

  get canCheck() {
    return this.#subtle !== null;
  }

  /** Whether a signature is the signer's over these bytes; true as well where that cannot be checked. */
  async isSigned(signed, signer, signature) {
    if (signer.length !== PUBLIC_KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
    if (isForEverybody(signer) || isForEverybody(signature.subarray(0, PUBLIC_KEY_BYTES))) return false;
    if (!this.canCheck) {
      this.unchecked += 1;
      return true;
    }
    this.checked += 1;
    try {
      return await this.#subtle.verify("Ed25519", await this.#key(signer), signature, signed);
    } catch {
      return false; // not a point of the curve
    }
  }

  #key(signer) {
    const name = hex(signer);
    if (!this.#keys.has(name)) {
      this.#keys.set(name, this.#subtle.importKey("raw", signer, "Ed25519", false, ["verify"]));
    }
    return this.#keys.get(name);
  }
}

/** The bytes that are signed: the canonical array of context, origin and content. */
export const statement = (context, origin, content) => encode([context, origin, content]);

/** Whether bytes are a point of the curve in its one spelling, and not of small order (RFC 8032, section 5.1.3). */
export function isPublicKey(key) {
  if (key.length !== PUBLIC_KEY_BYTES || isForEverybody(key)) return false;
  const y = littleEndian(key) & (SIGN - 1n);
  return power(((y * y - 1n) * (D * y * y + 1n)) % P, (P - 1n) / 2n) === 1n; // Euler's criterion
}

/** A field that is a public key. */
export function publicKey(value) {
  if (!(value instanceof Uint8Array) || !isPublicKey(value)) {
    throw malformed("expected an Ed25519 public key: a point of full order in its one spelling");
  }
  return value;
}

const isForEverybody = (point) => FOR_EVERYBODY.has(littleEndian(point));

const littleEndian = (bytes) => BigInt(`0x${hex(bytes.slice().reverse())}`);

function encodePoint(y) {
  return Uint8Array.from({ length: PUBLIC_KEY_BYTES }, (_, i) => Number((y >> BigInt(8 * i)) & 0xffn));
}

function power(base, exponent) {
  let result = 1n;
  for (let square = base % P; exponent; exponent >>= 1n, square = (square * square) % P) {
    if (exponent & 1n) result = (result * square) % P;
  }
  return result;
}
