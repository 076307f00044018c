/* Claims on a prediction endpoint: how a pointer names one, and the hash in the place of a file's
   (registry/endpoint.py). */

import { sha256 } from "./sha256.js";
import { hex, malformed, Refusal, utf8 } from "./spelling.js";

const PREFIX = "endpoint+";
const CHARACTERS_MAX = 2048 - PREFIX.length;
const DOMAIN = "wmreg/v1/endpoint\0";
const LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
const SEGMENT = "(?!\\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()*+,;=:@-]+";
const URL_SPELLING = new RegExp(
  `^(https?)://(${LABEL}(?:\\.${LABEL})*)(?::([1-9][0-9]{0,4}))?` +
    `(?:/${SEGMENT})*/v2/models/${SEGMENT}(?:/versions/${SEGMENT})?$`,
);
const USUAL_PORTS = { http: "80", https: "443" };

/** The URL of the endpoint that a claim is on; null for a claim on a file. */
export function endpointOf({ model_pointer: pointer, model_sha256: digest }) {
  if (!pointer.startsWith(PREFIX)) return null;
  const url = pointer.slice(PREFIX.length);
  if (!isSpelt(url)) throw malformed("a pointer that is not the one spelling of a model's URL");
  if (hex(sha256(utf8(DOMAIN + url))) !== hex(digest)) {
    throw new Refusal("hash_mismatch", "the hash of a claim on an endpoint is not that of its URL");
  }
  return url;
}

function isSpelt(url) {
  const found = url.length <= CHARACTERS_MAX ? URL_SPELLING.exec(url) : null;
  if (!found || found[2].length > 253) return false;
  return found[3] === undefined || (found[3] !== USUAL_PORTS[found[1]] && Number(found[3]) <= 65535);
}
