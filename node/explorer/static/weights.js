/* Whether a file of weights is known: its SHA-256, made here, and a link that asks the ledger for it. */

import { digits, element, said } from "./elements.js";

let worker = null;

/** Hash a file in a worker and show what came out; a file that is given meanwhile takes its place. */
export function hashModel(file) {
  const byId = (id) => document.getElementById(id);
  worker?.terminate();
  worker = new Worker(new URL("hashing.js", import.meta.url), { type: "module" });
  const place = byId("model-progress"),
    result = byId("model-result");
  const [bar, words] = [place.querySelector("progress"), place.querySelector("span")];
  result.replaceChildren();
  bar.value = 0;
  place.hidden = false;
  worker.onmessage = ({ data }) => {
    if (data.done !== undefined) {
      bar.value = file.size ? data.done / file.size : 1;
      words.textContent = `${mebibytes(data.done)} of ${mebibytes(file.size)} MiB`;
      return;
    }
    place.hidden = true;
    result.replaceChildren(...(data.digest ? known(file, data.digest, result.dataset.search) : unreadable(data.error)));
  };
  worker.onerror = () => {
    place.hidden = true;
    result.replaceChildren(...unreadable("the hashing did not start"));
  };
  worker.postMessage(file);
}

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

function known(file, digest, search) {
  const look = element("a", { class: "button", href: search + digest }, "Look it up in the ledger");
  return [
    element("p", {}, "SHA-256 of ", said(file.name), ": ", digits(digest)),
    element("p", {}, look, element("span", { class: "quiet" }, "This tells the node the hash, and nothing else.")),
  ];
}

const unreadable = (why) => [element("p", { class: "notice" }, "The file could not be read: ", said(String(why)))];
