/* The verdict of one vote and of all: exact integers, so that everyone computes the same (registry/verdict.py and
   claims.py).

   S1: enough triggers match, and the exact binomial tail at 1/2 is small enough. S2: the head falls to chance on
   permuted channels. S3: fresh models stay near chance, and the suspect beats every control by an exact paired test. */

export const VERIFIED = "VERIFIED";
export const OUTCOMES = [VERIFIED, "REFUTED", "INCONCLUSIVE", "UNVERIFIABLE"];

const known = new Map();

/** Least count whose exact p-value, among so many, is at most 1 / factor; one more than all where none is. */
export function leastSignificant(total, factor) {
  const name = `${total} ${factor}`;
  if (!known.has(name)) known.set(name, search(total, factor));
  return known.get(name);
}

function search(total, factor) {
  let [least, term, tail] = [total + 1, 1n, 1n];
  while (least && tail * factor <= 1n << BigInt(total)) {
    least -= 1;
    term = (term * BigInt(least)) / BigInt(total - least + 1);
    tail += term;
  }
  return least;
}

/** What the numbers say: outcome and reason. */
export function judge(measurement, thresholds) {
  const { matched, total, aligned } = measurement;
  if (matched * 1000 < thresholds.refute_permille * total) return ["REFUTED", "below_threshold"];
  const factor = 1n << BigInt(thresholds.alpha_bits + Number(aligned));
  const isEnough = matched * 1000 >= thresholds.gamma_permille * total && matched >= leastSignificant(total, factor);
  return isEnough ? judgeControls(measurement, thresholds) : ["INCONCLUSIVE", "between_bounds"];
}

function judgeControls(measurement, thresholds) {
  const { controls, permutations, permutations_as_good: asGood, total } = measurement;
  const fresh = controls.filter((control) => control.kind === "fresh");
  if (permutations < thresholds.permutations_min || fresh.length < thresholds.controls_min) {
    return ["INCONCLUSIVE", "too_few_controls"];
  }
  if ((asGood + 1) * 1000 > thresholds.permutation_p_permille * (permutations + 1)) return ["REFUTED", "not_specific"];
  const best = Math.max(0, ...fresh.map((control) => control.matched));
  if (best * 1000 > thresholds.control_permille * total) return ["REFUTED", "not_specific"];
  const factor = BigInt(controls.length) * 10n ** BigInt(thresholds.paired_alpha_digits);
  for (const control of controls) {
    if (control.suspect_only < leastSignificant(control.suspect_only + control.control_only, factor)) {
      return ["REFUTED", control.kind === "fresh" ? "not_specific" : "shared_ancestor"];
    }
  }
  return [VERIFIED, "matched"];
}

/** What the votes on a claim add up to, at no time in particular: outcome (null while open) and reason. */
export function countVotes(state) {
  if (state.withdrawal) return ["INCONCLUSIVE", "withdrawn"];
  for (const outcome of OUTCOMES) {
    const agreeing = [...state.votes.values()].filter((vote) => vote.message.outcome === outcome);
    if (agreeing.length >= state.policy.quorum) return [outcome, agreeing[0].message.reason];
  }
  return state.votes.size === state.policy.members.length ? ["INCONCLUSIVE", "no_quorum"] : [null, "open"];
}
