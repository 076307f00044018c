/* Canonical msgpack, as registry/encoding.py has it: nil, bool, integers, UTF-8, bytes, arrays, and maps whose keys are
   strings in the order of their bytes. What is decoded is encoded again and compared, so one value has one spelling.

   Integers are numbers where those are exact, else BigInt; maps are Map, whose keys can be any string. */

import { compared, joined, malformed, Refusal, same, text, utf8 } from "./spelling.js";

export const ENTRY_BYTES_MAX = 60 * 1024;
const DEPTH_MAX = 16;

/** Read a canonical value. */
export function decode(bytes, bytesMax = ENTRY_BYTES_MAX) {
  if (bytes.length > bytesMax) throw new Refusal("too_large", `a message of more than ${bytesMax} bytes`);
  const reader = new Reader(bytes);
  const value = reader.value(DEPTH_MAX);
  if (!reader.isDone || !same(encode(value), bytes)) throw malformed("not canonical msgpack: another spelling");
  return value;
}

/** Spell a value. */
export function encode(value) {
  if (value === null) return Uint8Array.of(0xc0);
  if (typeof value === "boolean") return Uint8Array.of(value ? 0xc3 : 0xc2);
  if (typeof value === "number" || typeof value === "bigint") return encodeInteger(BigInt(value));
  if (typeof value === "string") return withHead(utf8(value), 0xa0, 32, [0xd9, 0xda, 0xdb]);
  if (value instanceof Uint8Array) return withHead(value, 0, 0, [0xc4, 0xc5, 0xc6]);
  if (Array.isArray(value)) return joined(head(value.length, 0x90, 16, [null, 0xdc, 0xdd]), ...value.map(encode));
  const named = [...value].map(([name, item]) => [utf8(name), encode(name), encode(item)]);
  named.sort(([one], [other]) => compared(one, other));
  return joined(head(value.size, 0x80, 16, [null, 0xde, 0xdf]), ...named.flatMap(([, name, item]) => [name, item]));
}

function withHead(bytes, fixed, fixedMax, kinds) {
  return joined(head(bytes.length, fixed, fixedMax, kinds), bytes);
}

/** The shortest head of a length: fixed below a bound, else of 1, 2 or 4 bytes by their kinds, where there is one. */
function head(length, fixed, fixedMax, [one, two, four]) {
  if (length < fixedMax) return Uint8Array.of(fixed | length);
  if (one !== null && length < 2 ** 8) return Uint8Array.of(one, length);
  if (length < 2 ** 16) return Uint8Array.of(two, length >> 8, length & 0xff);
  return Uint8Array.of(four, length >>> 24, (length >> 16) & 0xff, (length >> 8) & 0xff, length & 0xff);
}

function encodeInteger(value) {
  if (value >= -32n && value < 128n) return Uint8Array.of(Number(value) & 0xff);
  const isNegative = value < 0n;
  const place = [8n, 16n, 32n, 64n].findIndex((bits) =>
    isNegative ? value >= -(2n ** (bits - 1n)) : value < 2n ** bits,
  );
  const bytes = new Uint8Array(1 + 2 ** place);
  bytes[0] = (isNegative ? 0xd0 : 0xcc) + place;
  for (let i = bytes.length - 1, rest = value; i; i--, rest >>= 8n) bytes[i] = Number(rest & 0xffn);
  return bytes;
}

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get isDone() {
    return this.at === this.bytes.length;
  }

  value(depth) {
    const first = this.integer(1);
    if (first < 0x80) return first;
    if (first >= 0xe0) return first - 0x100;
    if (first < 0x90) return this.map(first & 0x0f, depth);
    if (first < 0xa0) return this.array(first & 0x0f, depth);
    if (first < 0xc0) return this.string(first & 0x1f);
    switch (first) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.take(this.integer(2 ** (first - 0xc4))).slice();
      case 0xcc:
      case 0xcd:
      case 0xce:
      case 0xcf:
        return this.integer(2 ** (first - 0xcc));
      case 0xd0:
      case 0xd1:
      case 0xd2:
      case 0xd3:
        return this.integer(2 ** (first - 0xd0), true);
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.string(this.integer(2 ** (first - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.array(this.integer(2 * (first - 0xdb)), depth);
      case 0xde:
      case 0xdf:
        return this.map(this.integer(2 * (first - 0xdd)), depth);
      default:
        throw malformed("not canonical msgpack: a type that is not allowed");
    }
  }

  take(count) {
    if (count > this.bytes.length - this.at) throw malformed("not canonical msgpack: cut off");
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }

  /** A number of so many bytes, the first the most significant. */
  integer(count, isSigned = false) {
    let value = 0n;
    for (const byte of this.take(count)) value = (value << 8n) | BigInt(byte);
    if (isSigned) value = BigInt.asIntN(8 * count, value);
    const number = Number(value);
    return Number.isSafeInteger(number) ? number : value;
  }

  string(count) {
    const read = text(this.take(count));
    if (read === null) throw malformed("not canonical msgpack: not UTF-8");
    return read;
  }

  array(count, depth) {
    this.check(count, depth);
    return Array.from({ length: count }, () => this.value(depth - 1));
  }

  map(count, depth) {
    this.check(count, depth);
    const read = new Map();
    for (let i = 0; i < count; i++) {
      const name = this.value(1);
      if (typeof name !== "string") throw malformed("not canonical msgpack: a map key is not a string");
      read.set(name, this.value(depth - 1));
    }
    return read;
  }

  /** Refuse what is nested too deeply, and what says that it holds more than could follow. */
  check(count, depth) {
    if (depth < 1 || (depth === 1 && count) || count > this.bytes.length) throw malformed("not canonical msgpack");
  }
}
