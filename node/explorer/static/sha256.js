/* SHA-256 (FIPS 180-4) over bytes that come piece by piece: Web Crypto has no such thing, and files of weights do not
   fit into memory. The bytes that wait for a block are the only ones that are kept. */

const BLOCK_BYTES = 64;

const K = Int32Array.from(primes(64), (p) => fraction(Math.cbrt(p)) | 0);

/** A hash that is being made. */
export class Sha256 {
  #state = Int32Array.from(primes(8), (p) => fraction(Math.sqrt(p)) | 0);
  #words = new Int32Array(64);
  #rest = new Uint8Array(BLOCK_BYTES);
  #waiting = 0;
  #bytes = 0;

  /** Take more bytes; returns itself. */
  update(bytes) {
    this.#bytes += bytes.length;
    let at = 0;
    if (this.#waiting) {
      at = Math.min(BLOCK_BYTES - this.#waiting, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#waiting);
      this.#waiting += at;
      if (this.#waiting < BLOCK_BYTES) return this;
      this.#blocks(this.#rest, 0, BLOCK_BYTES);
      this.#waiting = 0;
    }
    const whole = at + Math.floor((bytes.length - at) / BLOCK_BYTES) * BLOCK_BYTES;
    this.#blocks(bytes, at, whole);
    this.#rest.set(bytes.subarray(whole));
    this.#waiting = bytes.length - whole;
    return this;
  }

  /** The 32 bytes; nothing can be added afterwards. */
  digest() {
    const bits = BigInt(this.#bytes) * 8n;
    const padding = new Uint8Array(((this.#waiting + 8) % BLOCK_BYTES < this.#waiting + 8 ? 128 : 64) - this.#waiting);
    padding[0] = 0x80;
    new DataView(padding.buffer).setBigUint64(padding.length - 8, bits);
    this.update(padding);
    const out = new Uint8Array(32);
    const view = new DataView(out.buffer);
    this.#state.forEach((word, place) => view.setInt32(4 * place, word));
    return out;
  }

  /** Fold whole blocks in. Every sum of two is cut to 32 bits at once: so it stays an integer for the engine, which
   * doubles the speed (measured). */
  #blocks(bytes, start, stop) {
    const state = this.#state,
      w = this.#words,
      k = K;
    for (let at = start; at < stop; at += BLOCK_BYTES) {
      for (let i = 0, j = at; i < 16; i++, j += 4) {
        w[i] = (bytes[j] << 24) | (bytes[j + 1] << 16) | (bytes[j + 2] << 8) | bytes[j + 3];
      }
      for (let i = 16; i < 64; i++) {
        const x = w[i - 15],
          y = w[i - 2];
        const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
        const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
        w[i] = (((w[i - 16] + w[i - 7]) | 0) + ((s0 + s1) | 0)) | 0;
      }
      let a = state[0],
        b = state[1],
        c = state[2],
        d = state[3],
        e = state[4],
        f = state[5],
        g = state[6],
        h = state[7];
      for (let i = 0; i < 64; i++) {
        const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
        const t1 = (((h + s1) | 0) + ((((e & f) ^ (~e & g)) + ((k[i] + w[i]) | 0)) | 0)) | 0;
        const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
        const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        h = g;
        g = f;
        f = e;
        e = (d + t1) | 0;
        d = c;
        c = b;
        b = a;
        a = (t1 + t2) | 0;
      }
      state[0] += a;
      state[1] += b;
      state[2] += c;
      state[3] += d;
      state[4] += e;
      state[5] += f;
      state[6] += g;
      state[7] += h;
    }
  }
}

/** The hash of bytes that are there together, one after the other. */
export function sha256(...parts) {
  const hash = new Sha256();
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** The first primes, from whose roots the standard takes its constants. */
function primes(count) {
  const found = [];
  for (let n = 2; found.length < count; n++) if (found.every((p) => n % p)) found.push(n);
  return found;
}

/** The first 32 bits behind the point. */
function fraction(x) {
  return Math.floor((x - Math.floor(x)) * 2 ** 32);
}
