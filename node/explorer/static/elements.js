/* Elements of a page, made of text: whatever is shown of a file goes in as words and never as markup. */

const LAST_S = 253402300799; // the end of the year 9999

/** An element with attributes and children; text becomes text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const outcome = (kind, sign, words) =>
  element("span", { class: `outcome ${kind}` }, element("span", { "aria-hidden": "true" }, sign), ` ${words}`);

/** A stranger's words, with what nobody sees in them spelled out. */
export const said = (words) =>
  element(
    "bdi",
    { class: "said" },
    words.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) =>
      /[\u200c\u200d]/.test(c) ? c : `\\u{${c.codePointAt(0).toString(16)}}`,
    ),
  );

export const digits = (hash) => element("code", { class: "digits" }, hash);

export function utc(seconds) {
  if (Number(seconds) > LAST_S) return `${seconds} s after 1970`;
  const spelled = new Date(1000 * Number(seconds)).toISOString();
  return element(
    "time",
    { datetime: `${spelled.slice(0, 19)}Z` },
    `${spelled.slice(0, 10)} ${spelled.slice(11, 19)} UTC`,
  );
}
