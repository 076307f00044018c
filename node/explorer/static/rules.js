/* The rulebook, for the few entries of a certificate: what the ledger accepts in which order (registry/rules.py,
   policy_change.py, owners.py). An entry that breaks a rule throws.

   What a certificate does not need is left out: rivals, since it holds one claim, and times of the reader's own. */

import { checkRevealedKey, decodeEntry, unseal } from "./messages.js";
import { ED25519, VerifierKey } from "./note.js";
import { compared, hex, Refusal, same } from "./spelling.js";
import { judge } from "./verdict.js";

const SIGNING_S_MAX = 30n * 86400n;

const refuse = (code, why) => new Refusal(code, why);

/** A ledger, entry by entry. Messages, owners and members are kept by the hexadecimal spelling of their bytes. */
export class Ledger {
  #signatures;
  #placed = new Map();
  #seen = new Set(); // signing keys
  #left = new Set(); // those that were given up
  #first = new Map(); // under which key an owner first appeared
  #keyOf = new Map(); // of a member's name, for ever
  #nameOf = new Map();
  #commitments = new Set();
  #withdrawn = new Set();
  #claimsOn = new Map(); // of a publication
  origin = null;
  policy = null;
  policyHash = null;
  policyHashes = [];
  claims = new Map();

  constructor(signatures) {
    this.#signatures = signatures;
  }

  /** Apply one entry. */
  async apply(raw) {
    const entry = decodeEntry(raw);
    const name = hex(entry.hash);
    if (this.#placed.has(name)) throw refuse("duplicate", "the message is in the log already");
    const placed = { ...entry, name, ...(await unseal(entry.envelope, this.origin, this.#signatures)) };
    await this.#check(placed);
    this.#admit(placed);
    return placed;
  }

  find(name) {
    return this.#placed.get(name);
  }

  #firstKey(key) {
    return this.#first.get(hex(key)) ?? hex(key);
  }

  #ownerOf(placed) {
    return this.#firstKey(placed.signers[0]);
  }

  #memberOf(policy, key) {
    return policy.members.find((member) => same(member.signing_key, key));
  }

  // What may enter

  async #check(placed) {
    const { kind, message, signers } = placed;
    if (kind === "genesis") {
      if (this.origin !== null) throw refuse("second_genesis", "a ledger has one genesis");
      const members = message.policy.members.map((member) => member.signing_key).sort(compared);
      if (signers.length !== members.length || !signers.every((signer, place) => same(signer, members[place]))) {
        throw refuse("not_a_member", "a genesis is signed by all founding members and nobody else");
      }
      checkKeyIds(message.policy, message.origin);
      return;
    }
    this.#checkTime(placed);
    if (kind === "policy") this.#checkPolicyChange(message, signers);
    else if (kind === "vote") this.#checkVote(placed);
    else if (kind === "rotate") this.#checkRotation(message, signers);
    else {
      this.#checkSpeaks(signers[0]);
      await this.#checkOwners(placed);
    }
  }

  #checkTime({ kind, message, recordedS }) {
    const skewS = BigInt(this.policy.time_skew_s);
    const lateS = recordedS - BigInt(message.time_s);
    if (lateS < -skewS || lateS > (kind === "policy" ? SIGNING_S_MAX : skewS)) {
      throw refuse("time_skew", "its author's time and the time of its recording are too far apart");
    }
  }

  #checkSpeaks(key) {
    if (this.#left.has(hex(key))) throw refuse("rotated_key", "the owner has moved from this signing key to another");
  }

  #checkRotation({ old_key: oldKey, new_key: newKey }, signers) {
    if (this.#memberOf(this.policy, oldKey)) throw refuse("key_in_use", "a member's key is changed by a policy");
    this.#checkSpeaks(oldKey);
    if (this.#seen.has(hex(newKey)) || same(newKey, oldKey))
      throw refuse("key_in_use", "the new signing key has a past");
    const both = [oldKey, newKey].sort(compared);
    if (signers.length !== 2 || !signers.every((signer, place) => same(signer, both[place]))) {
      throw refuse("not_signed_by_both", "the old and the new key sign a rotation, nobody else");
    }
  }

  #checkPolicyChange(change, signers) {
    const keys = (policy) => new Set(policy.members.map((member) => hex(member.signing_key)));
    const [before, after, signed] = [keys(this.policy), keys(change.policy), new Set(signers.map(hex))];
    const joining = [...after].filter((key) => !before.has(key));
    const leaving = [...before].filter((key) => !after.has(key));
    if (hex(change.previous) !== this.policyHash)
      throw refuse("stale_policy", "it replaces a policy that is not in force");
    if (joining.length + leaving.length > 1) throw refuse("too_many_changes", "one member may join or leave at a time");
    if (![...signed].every((key) => before.has(key) || after.has(key))) {
      throw refuse("not_a_member", "only members sign a change of policy");
    }
    if ([...before].filter((key) => signed.has(key)).length < this.policy.quorum) {
      throw refuse("no_quorum", "too few members signed");
    }
    if (!joining.every((key) => signed.has(key)))
      throw refuse("not_signed_by_both", "the member that joins has not signed");
    checkKeyIds(change.policy, this.origin);
    for (const member of change.policy.members) {
      const key = hex(member.signing_key);
      if ((this.#keyOf.get(member.name) ?? key) !== key || (this.#nameOf.get(key) ?? member.name) !== member.name) {
        throw refuse("name_in_use", "a name or key belongs to another member, present or past");
      }
    }
    for (const member of change.policy.members) {
      if (!this.#memberOf(this.policy, member.signing_key)) this.#checkSpeaks(member.signing_key);
    }
  }

  async #checkOwners(placed) {
    const { kind, message, signers } = placed;
    if (kind === "publish") {
      if (this.#commitments.has(`${this.#ownerOf(placed)} ${hex(message.key_commitment)}`)) {
        throw refuse("key_commitment_used", "this owner published this key commitment before");
      }
    } else if (kind === "claim") {
      const publication = this.#publicationOf(message.publication, signers[0]);
      this.#checkStands(message.publication);
      await checkRevealedKey(message, publication, { origin: this.origin, signatures: this.#signatures });
    } else if (kind === "withdraw") this.#checkWithdrawal(message, signers[0]);
    else this.#checkChallenge(message, placed);
  }

  #publicationOf(digest, signer) {
    const placed = this.#placed.get(hex(digest));
    if (placed?.kind !== "publish") throw refuse("unknown_publication", `no publication ${hex(digest)}`);
    if (this.#ownerOf(placed) !== this.#firstKey(signer)) {
      throw refuse("not_the_publisher", "the publication is somebody else's");
    }
    return placed;
  }

  #checkStands(digest) {
    if (this.#withdrawn.has(hex(digest))) throw refuse("withdrawn", "it was withdrawn");
  }

  #checkWithdrawal({ target }, signer) {
    const placed = this.#placed.get(hex(target));
    if (!["publish", "claim"].includes(placed?.kind)) throw refuse("unknown_target", "no publication and no claim");
    if (this.#ownerOf(placed) !== this.#firstKey(signer)) {
      throw refuse("not_the_publisher", "only its author withdraws a message");
    }
    this.#checkStands(target);
  }

  #checkChallenge(challenge, placed) {
    const state = this.claims.get(hex(challenge.claim));
    if (!state) throw refuse("unknown_claim", `no claim ${hex(challenge.claim)}`);
    this.#publicationOf(challenge.publication, placed.signers[0]);
    this.#checkStands(challenge.publication);
    const owner = this.#ownerOf(placed);
    if (this.#ownerOf(state.claim) === owner) throw refuse("own_claim", "nobody challenges his own claim");
    if (state.challenges.has(owner)) throw refuse("challenged_before", "this owner has challenged the claim already");
  }

  #checkVote({ message: vote, signers, recordedS }) {
    const state = this.claims.get(hex(vote.claim));
    if (!this.#memberOf(this.policy, signers[0])) throw refuse("not_a_member", "only members vote");
    if (!state) throw refuse("unknown_claim", `no claim ${hex(vote.claim)}`);
    const member = this.#memberOf(state.policy, signers[0]);
    if (!member) throw refuse("not_a_member", "only who was a member when the claim was made votes on it");
    if (state.votes.has(member.name)) throw refuse("voted_before", "this member has voted on this claim");
    if (hex(vote.policy) !== state.policyHash) throw refuse("other_policy", "the vote is by another policy");
    if (state.withdrawal) throw refuse("withdrawn", "the claim was withdrawn");
    if (recordedS > state.claim.recordedS + BigInt(state.policy.claim_deadline_s)) {
      throw refuse("deadline", "the claim is past its deadline");
    }
    if (vote.measurement) {
      const [outcome, reason] = judge(vote.measurement, state.policy.thresholds);
      if (vote.outcome !== outcome || vote.reason !== reason) {
        throw refuse("contradictory_vote", `the vote says ${vote.outcome}; its numbers say ${outcome} (${reason})`);
      }
    }
  }

  // What becomes of it

  #admit(placed) {
    const { kind, message, name, signers } = placed;
    this.#placed.set(name, placed);
    for (const signer of signers) this.#seen.add(hex(signer));
    if (kind === "genesis") this.origin = message.origin;
    if (kind === "genesis" || kind === "policy") this.#setPolicy(message.policy, name);
    if (kind === "publish") this.#commitments.add(`${this.#ownerOf(placed)} ${hex(message.key_commitment)}`);
    if (kind === "claim") this.#admitClaim(placed);
    if (kind === "rotate") this.#rotate(message);
    if (kind === "withdraw") this.#withdraw(hex(message.target), placed);
    if (kind === "challenge") this.claims.get(hex(message.claim)).challenges.set(this.#ownerOf(placed), placed);
    if (kind === "vote") {
      const state = this.claims.get(hex(message.claim));
      state.votes.set(this.#memberOf(state.policy, signers[0]).name, placed);
    }
  }

  #setPolicy(policy, name) {
    this.policy = policy;
    this.policyHash = name;
    this.policyHashes.push(name);
    for (const member of policy.members) {
      const key = hex(member.signing_key);
      this.#keyOf.set(member.name, key);
      this.#nameOf.set(key, member.name);
      this.#seen.add(key);
    }
  }

  #admitClaim(placed) {
    const name = hex(placed.message.publication);
    this.claims.set(placed.name, {
      claim: placed,
      publication: this.#placed.get(name),
      policy: this.policy,
      policyHash: this.policyHash,
      votes: new Map(),
      challenges: new Map(),
      withdrawal: null,
    });
    this.#claimsOn.set(name, [...(this.#claimsOn.get(name) ?? []), placed.name]);
  }

  #rotate({ old_key: oldKey, new_key: newKey }) {
    this.#seen.add(hex(oldKey)).add(hex(newKey));
    this.#left.add(hex(oldKey));
    this.#first.set(hex(newKey), this.#firstKey(oldKey));
  }

  #withdraw(target, placed) {
    this.#withdrawn.add(target);
    for (const name of [target, ...(this.#claimsOn.get(target) ?? [])]) {
      const state = this.claims.get(name);
      if (state) state.withdrawal ??= placed;
    }
  }
}

/** Check that a signature line, which names its key by 4 bytes of a hash, can be of one member only. */
function checkKeyIds(policy, origin) {
  const ids = policy.members.map((member) => hex(new VerifierKey(origin, ED25519, member.note_key).keyId));
  if (new Set(ids).size !== ids.length) throw refuse("key_id_taken", "two members' note keys have one key ID");
}
