/* Hashes a file in a worker: slice by slice, so that a file of any size takes the memory of one slice. */

import { Sha256 } from "./sha256.js";
import { hex } from "./spelling.js";

const SLICE_BYTES = 4 * 2 ** 20;

onmessage = async ({ data: file }) => {
  try {
    const hash = new Sha256();
    for (let at = 0; at < file.size; at += SLICE_BYTES) {
      hash.update(new Uint8Array(await file.slice(at, at + SLICE_BYTES).arrayBuffer()));
      postMessage({ done: Math.min(at + SLICE_BYTES, file.size) });
    }
    postMessage({ digest: hex(hash.digest()) });
  } catch (error) {
    postMessage({ error: String(error) });
  }
};
