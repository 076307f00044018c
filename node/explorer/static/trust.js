/* Whom the reader trusts: a C2SP tlog-policy file, as registry/trust.py reads it. */

import { ED25519, parseCheckpoint, VerifierKey, verifySignatures } from "./note.js";
import { decimal, hex, malformed, Refusal, utf8 } from "./spelling.js";

const POLICY_BYTES_MAX = 160 * 1024,
  KEYS_MAX = 256,
  GROUPS_MAX = 128;
const NO_QUORUM = "none";

/** What a policy file says. */
export class TrustPolicy {
  logs = [];
  witnesses = [];
  groups = new Map();
  quorum = null;

  get origin() {
    return this.logs[0].name;
  }

  get keys() {
    return [...this.logs, ...this.witnesses.map(({ key }) => key)];
  }

  /** Read a policy file. */
  static parse(text) {
    if (utf8(text).length > POLICY_BYTES_MAX) throw new Refusal("too_large", "the policy is too large");
    const read = new TrustPolicy();
    text.split("\n").forEach((line, index) => {
      try {
        read.#read(line);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        throw malformed(`policy, line ${index + 1}: ${error.message}`);
      }
    });
    if (read.quorum === null || !read.logs.length) throw malformed("a policy needs a log line and a quorum line");
    read.#check();
    return read;
  }

  #read(line) {
    if (/[\0-\x08\x0a-\x1f\x7f]/.test(line)) throw malformed("a control character");
    const [kind, ...words] = line.split(/[\t ]/).filter(Boolean);
    if (kind === undefined || kind.startsWith("#")) return;
    if (kind === "log") this.#log(words);
    else if (kind === "witness") this.#witness(words);
    else if (kind === "group") this.#group(words);
    else if (kind === "quorum") this.#quorum(words);
    else throw malformed(`unknown word ${kind.slice(0, 20)}`);
  }

  #log(words) {
    const key = VerifierKey.parse(oneOrTwo(words));
    if (key.type !== ED25519) throw malformed("a log key is a plain Ed25519 key (type 0x01)");
    this.logs.push(key);
  }

  #witness([name, ...words]) {
    if (name === undefined) throw malformed("a witness has a name and a key");
    const key = VerifierKey.parse(oneOrTwo(words));
    if (key.type === ED25519) throw malformed("a witness key is a cosignature key (type 0x04 or 0x06)");
    this.witnesses.push({ name, key });
  }

  #group([name, threshold, ...members]) {
    if (!members.length) throw malformed("a group has a name, a threshold and members");
    if (this.groups.has(name)) throw malformed("the name is taken");
    members.forEach((member) => this.#checkDefined(member));
    const least = threshold === "any" ? 1n : threshold === "all" ? BigInt(members.length) : decimal(threshold);
    this.groups.set(name, { threshold: least, members });
  }

  #quorum(words) {
    if (this.quorum !== null || words.length !== 1) throw malformed("exactly one quorum, a name or none");
    if (words[0] !== NO_QUORUM) this.#checkDefined(words[0]);
    this.quorum = words[0];
  }

  #checkDefined(name) {
    if (!this.groups.has(name) && !this.witnesses.some((one) => one.name === name)) {
      throw malformed(`${name.slice(0, 40)} is not defined above`);
    }
  }

  #check() {
    if (new Set(this.logs.map((log) => log.name)).size !== 1) throw malformed("the log keys have different names");
    const keys = this.keys;
    const distinct = new Set(keys.map((key) => hex(key.publicKey)));
    if (distinct.size !== keys.length || keys.length > KEYS_MAX) throw malformed("one key stands in two lines");
    if (new Set(keys.map((key) => key.identity)).size !== keys.length) throw malformed("two keys have one key ID");
    this.#checkGroups();
    this.#checkOneVoiceEach();
  }

  /** Refuse names that mean two things, and members that do not stand before. */
  #checkGroups() {
    const known = new Set([NO_QUORUM]),
      taken = new Set();
    for (const name of [...this.witnesses.map((one) => one.name), ...this.groups.keys()]) {
      const group = this.groups.get(name);
      if (known.has(name)) throw malformed(`the name ${name.slice(0, 40)} is taken`);
      for (const member of group?.members ?? []) {
        if (member === NO_QUORUM || !known.has(member) || taken.has(member)) {
          throw malformed(`${member.slice(0, 40)} is not defined above, or is a member twice`);
        }
        taken.add(member);
      }
      if (group && !(1n <= group.threshold && group.threshold <= BigInt(group.members.length))) {
        throw malformed(`the group ${name.slice(0, 40)} has a wrong threshold`);
      }
      known.add(name);
    }
    if (!known.has(this.quorum) || this.groups.size > GROUPS_MAX) throw malformed("the quorum is not defined");
  }

  /** Refuse a group in which one node would count twice, by two keys. */
  #checkOneVoiceEach() {
    const groupOf = new Map();
    for (const [name, { members }] of this.groups) {
      const cosigners = this.witnesses.filter((one) => members.includes(one.name)).map(({ key }) => key.name);
      const isOneNode = new Set(cosigners).size === 1 && cosigners.length === members.length;
      for (const cosigner of new Set(cosigners)) {
        if (!groupOf.has(cosigner)) groupOf.set(cosigner, name);
        const isTwice = cosigners.filter((one) => one === cosigner).length > 1;
        if (groupOf.get(cosigner) !== name || (isTwice && !isOneNode)) {
          throw malformed(`the keys of ${cosigner} need a group of their own: one voice each`);
        }
      }
    }
  }

  /** Check a signed checkpoint: the log's signature, every known cosignature, and the quorum. */
  async check(note, signatures) {
    const checkpoint = parseCheckpoint(note.text);
    const { verified, unchecked, unknown } = await verifySignatures(note, this.keys, signatures);
    const refuse = (why) => new Refusal("untrusted", why);
    if (checkpoint.origin !== this.origin) {
      throw refuse(`a checkpoint of the ledger ${checkpoint.origin}; your policy is for ${this.origin}`);
    }
    if (!this.logs.some((log) => verified.has(log))) throw refuse("no signature of a log key that you trust");
    const cosigned = this.witnesses
      .filter(({ key }) => verified.has(key))
      .map(({ name, key }) => ({ name, cosigner: key.name, timeS: verified.get(key) }));
    const names = new Set(cosigned.map((one) => one.name));
    if (this.quorum !== NO_QUORUM && !this.#isSatisfied(this.quorum, names)) {
      const possible = this.witnesses.filter(({ key }) => unchecked.includes(key.name)).map((one) => one.name);
      if (this.#isSatisfied(this.quorum, new Set([...names, ...possible]))) {
        throw new Refusal(
          "undecidable",
          "the quorum of your policy needs ML-DSA cosignatures, which browsers cannot check",
        );
      }
      const who = cosigned.map((one) => one.name).join(", ") || "nobody";
      throw refuse(`the checkpoint is cosigned by ${who}: the quorum of your policy is not reached`);
    }
    const early = [...cosigned].sort((one, other) => Number(one.timeS - other.timeS));
    return {
      checkpoint,
      witnesses: [...new Map(cosigned.toReversed().map((one) => [one.cosigner, one.name])).values()].sort(),
      notBeforeS: this.#reached(early.toReversed()),
      notAfterS: this.#reached(early),
      unchecked,
      unknown,
    };
  }

  /** Time of the signature that completes a quorum, taken in this order; of the last one where none is asked. */
  #reached(signed) {
    const names = new Set();
    for (const { name, timeS } of signed) {
      names.add(name);
      if (this.quorum !== NO_QUORUM && this.#isSatisfied(this.quorum, names)) return timeS;
    }
    return signed.length ? signed.at(-1).timeS : null;
  }

  #isSatisfied(name, signed) {
    const group = this.groups.get(name);
    if (!group) return signed.has(name);
    return BigInt(group.members.filter((member) => this.#isSatisfied(member, signed)).length) >= group.threshold;
  }
}

function oneOrTwo(words) {
  if (words.length !== 1 && words.length !== 2) throw malformed("expected a key and perhaps a URL");
  return words[0];
}
