/* The Merkle tree of RFC 9162 (section 2.1), as a reader of proofs needs it; sizes and indexes are BigInt. */

import { sha256 } from "./sha256.js";
import { Refusal, same } from "./spelling.js";

export const HASH_BYTES = 32;

export const leafHash = (entry) => sha256(Uint8Array.of(0), entry);

const nodeHash = (left, right) => sha256(Uint8Array.of(1), left, right);

/** Check that a leaf hash is the index-th of the tree with this size and root (section 2.1.3.2). */
export function verifyInclusion(digest, { index, size, proof, root }) {
  const refuse = (why) => new Refusal("inclusion", why);
  if (!(0n <= index && index < size)) throw refuse(`index ${index} is not in a tree of size ${size}`);
  checkHashes([digest, root, ...proof], refuse);
  const walk = new Walk(index, size - 1n);
  let computed = digest;
  for (const sibling of proof) {
    if (walk.isOver) throw refuse("the inclusion proof is too long");
    computed = walk.step() ? nodeHash(sibling, computed) : nodeHash(computed, sibling);
  }
  if (!walk.isOver) throw refuse("the inclusion proof is too short");
  if (!same(computed, root)) throw refuse(`entry ${index} is not in the tree of size ${size} with this root`);
}

/** Check that one tree continues another (section 2.1.4.2). */
export function verifyConsistency({ oldSize, oldRoot, newSize, newRoot, proof }) {
  const refuse = (why) => new Refusal("consistency", why);
  if (!(0n < oldSize && oldSize <= newSize)) throw refuse(`no consistency proof leads from ${oldSize} to ${newSize}`);
  checkHashes([oldRoot, newRoot, ...proof], refuse);
  if (oldSize === newSize) {
    if (proof.length || !same(oldRoot, newRoot)) throw refuse(`two different trees of size ${oldSize}`);
    return;
  }
  const path = oldSize & (oldSize - 1n) ? [...proof] : [oldRoot, ...proof];
  if (!path.length) throw refuse("the consistency proof is too short");
  const walk = new Walk(oldSize - 1n, newSize - 1n);
  walk.skip();
  let [before, after] = [path[0], path[0]];
  for (const sibling of path.slice(1)) {
    if (walk.isOver) throw refuse("the consistency proof is too long");
    const isLeft = walk.step();
    if (isLeft) before = nodeHash(sibling, before);
    after = isLeft ? nodeHash(sibling, after) : nodeHash(after, sibling);
  }
  if (!walk.isOver) throw refuse("the consistency proof is too short");
  if (!same(before, oldRoot) || !same(after, newRoot)) {
    throw refuse(`the tree of size ${newSize} does not continue the tree of size ${oldSize}`);
  }
}

/** The way from a leaf to the root. */
class Walk {
  constructor(position, last) {
    this.position = position;
    this.last = last;
  }

  get isOver() {
    return this.last === 0n;
  }

  /** Leave out the levels on which the old tree's edge is a whole subtree. */
  skip() {
    while (this.position & 1n) this.#up();
  }

  /** One level up; whether the sibling stands on the left. */
  step() {
    const isLeft = Boolean(this.position & 1n) || this.position === this.last;
    if (isLeft) while (!(this.position & 1n) && this.position) this.#up();
    this.#up();
    return isLeft;
  }

  #up() {
    this.position >>= 1n;
    this.last >>= 1n;
  }
}

function checkHashes(digests, refuse) {
  if (digests.some((digest) => digest.length !== HASH_BYTES)) throw refuse(`a hash is not ${HASH_BYTES} bytes long`);
}
