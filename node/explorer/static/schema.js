/* Strict reading of decoded values: every field named, typed and bounded, none left over (registry/schema.py).

   A checker takes a decoded value and returns it, or throws what it expected. */

import { malformed } from "./spelling.js";

export const UINT_MAX = 2n ** 63n - 1n;

/** A map that has exactly these fields, each as its checker demands. */
export const fields = (what, checkers) => (value) => {
  const names = Object.keys(checkers);
  if (!(value instanceof Map) || value.size !== names.length || !names.every((name) => value.has(name))) {
    throw malformed(`${what}: expected a map of ${names.join(", ")}`);
  }
  return Object.fromEntries(names.map((name) => [name, within(`${what}: ${name}`, checkers[name], value.get(name))]));
};

function within(what, checker, value) {
  try {
    return checker(value);
  } catch (error) {
    error.message = `${what}: ${error.message}`;
    throw error;
  }
}

/** An integer in [minimum, maximum]. */
export const uint =
  (maximum = UINT_MAX, minimum = 0) =>
  (value) => {
    const isInteger = typeof value === "number" || typeof value === "bigint";
    if (!isInteger || value < minimum || value > maximum) throw malformed(`expected an integer up to ${maximum}`);
    return value;
  };

export const truth = (value) => {
  if (typeof value !== "boolean") throw malformed("expected true or false");
  return value;
};

/** A byte string of `length` bytes, or of `length` to `maximum`. */
export const octets =
  (length, maximum = length) =>
  (value) => {
    if (!(value instanceof Uint8Array) || value.length < length || value.length > maximum) {
      throw malformed(`expected ${length} to ${maximum} bytes`);
    }
    return value;
  };

/** A string of so many characters without control characters. */
export const text =
  (maximum, minimum = 1) =>
  (value) => {
    const length = typeof value === "string" ? [...value].length : -1;
    if (length < minimum || length > maximum) throw malformed(`expected ${minimum} to ${maximum} characters`);
    if (/[\0-\x1f\x7f]/.test(value)) throw malformed("expected a string without control characters");
    return value;
  };

export const optional = (checker) => (value) => (value === null ? null : checker(value));

/** An array of `minimum` to `maximum` items that each pass the checker. */
export const listed =
  (checker, maximum, minimum = 0) =>
  (value) => {
    if (!Array.isArray(value) || value.length < minimum || value.length > maximum) {
      throw malformed(`expected an array of ${minimum} to ${maximum} items`);
    }
    return value.map(checker);
  };

/** An array of exactly these. */
export const row =
  (...checkers) =>
  (value) => {
    if (!Array.isArray(value) || value.length !== checkers.length) throw malformed(`expected ${checkers.length} items`);
    return value.map((item, place) => checkers[place](item));
  };

/** One of some words. */
export const word = (words) => (value) => {
  if (!words.includes(value)) throw malformed(`expected one of ${words.join(", ")}`);
  return value;
};

export const mapping = (value) => {
  if (!(value instanceof Map)) throw malformed("expected a map");
  return value;
};
