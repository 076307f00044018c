/* The two zones into which files are dropped. Nothing is sent: the page's policy has no connect-src. */

import { CERTIFICATE_BYTES_MAX, verifyCertificate } from "./certificate.js";
import { Signatures } from "./signing.js";
import { Refusal } from "./spelling.js";
import { limits, refused, steps, told, verdict } from "./telling.js";
import { TrustPolicy } from "./trust.js";
import { hashModel } from "./weights.js";

const byId = (id) => document.getElementById(id);

/** Let a zone take a file by being dropped into, and by its input. */
function zone(input, take) {
  const place = document.querySelector(`[data-for="${input.id}"]`);
  input.addEventListener("change", () => input.files.length && take(input.files[0]));
  for (const event of ["dragenter", "dragover"]) {
    place.addEventListener(event, (happened) => {
      happened.preventDefault();
      place.classList.add("over");
    });
  }
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (happened) => {
    happened.preventDefault();
    place.classList.remove("over");
    if (happened.dataTransfer.files.length) take(happened.dataTransfer.files[0]);
  });
}

// A file that misses its zone must not replace the page.
for (const event of ["dragover", "drop"]) window.addEventListener(event, (happened) => happened.preventDefault());

let certificate = null; // the file that was given last
let asked = 0; // how often a check was asked for: only the last one's answer is shown

function takeCertificate(file) {
  certificate = file;
  check();
}

/** Check the file that was given last against the keys that are chosen now. */
async function check() {
  if (certificate === null) return;
  const turn = ++asked;
  const isOwn = byId("keys-own").checked;
  const policy = isOwn ? byId("policy").value : byId("node-policy").content.textContent;
  const held = [];
  const signatures = await Signatures.make();
  let shown,
    story = null;
  byId("certificate-result").replaceChildren(); // no answer outlives its question
  try {
    if (!policy.trim())
      throw new Refusal("policy", "there is no policy yet: paste one, choose one, or take this node’s");
    if (certificate.size > CERTIFICATE_BYTES_MAX) throw new Refusal("too_large", "too large for a certificate");
    const trust = readPolicy(policy);
    const raw = new Uint8Array(await certificate.arrayBuffer());
    story = await verifyCertificate(raw, trust, signatures, (step) => held.push(step));
    shown = [verdict(story, isOwn), ...told(story, isOwn), ...steps(held, null, story.unchecked.length > 0)];
  } catch (error) {
    shown = [...refused(error), ...steps(held, error, signatures.unchecked > 0)];
  }
  if (turn === asked) byId("certificate-result").replaceChildren(...shown, ...limits(story));
}

function readPolicy(text) {
  try {
    return TrustPolicy.parse(text);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    throw new Refusal("policy", error.message);
  }
}

zone(byId("model-file"), hashModel);
zone(byId("certificate-file"), takeCertificate);
byId("policy-file").addEventListener("change", async ({ target }) => {
  if (!target.files.length) return;
  byId("policy").value = await target.files[0].text();
  byId("keys-own").checked = true;
  await check();
});
byId("policy").addEventListener("input", () => {
  byId("keys-own").checked = true;
  check();
});
for (const id of ["keys-own", "keys-node"]) byId(id).addEventListener("change", check);
