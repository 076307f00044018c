/* The verdict of one vote and of all: exact integers, so that everyone computes the same (registry/verdict.py and
   claims.py).

   S1: enough match, and the exact binomial tail at the chance of a match is small enough. S2: a head falls to chance on
   permuted channels. S3: fresh models stay near chance, and the suspect beats every control by an exact paired test. A
   mark of integrity is intact if all match. */

export const VERIFIED = "VERIFIED";
export const OUTCOMES = [VERIFIED, "REFUTED", "INCONCLUSIVE", "UNVERIFIABLE", "INTACT", "TAMPERED"];
export const CERTIFIED = [VERIFIED, "INTACT", "TAMPERED"];
export const BRANCH = "branch";
export const STATISTICS = ["signs", "classes", "calibrated", "integrity"]; // those that a measurement names
export const MILLION = 1_000_000;
export const HALF_PPM = MILLION / 2;
const NULLS_MIN = 3;

const known = new Map();

/** Least count whose exact p-value, among so many, is at most 1 / factor; one more than all where none is. */
export function leastSignificant(total, factor, chancePpm = HALF_PPM) {
  const name = `${total} ${factor} ${chancePpm}`;
  if (!known.has(name)) known.set(name, search(total, factor, chancePpm));
  return known.get(name);
}

function search(total, factor, chancePpm) {
  const common = divisor(chancePpm, MILLION);
  const [hit, miss, whole] = [chancePpm, MILLION - chancePpm, MILLION].map((part) => BigInt(part / common));
  if (!miss) return factor > 1n ? total + 1 : 0;
  const limit = whole ** BigInt(total);
  let [least, term] = [total + 1, hit ** BigInt(total)];
  let tail = term;
  while (least && tail * factor <= limit) {
    least -= 1;
    term = (term * BigInt(least) * miss) / (BigInt(total - least + 1) * hit);
    tail += term;
  }
  return least;
}

const divisor = (one, other) => (other ? divisor(other, one % other) : one);

/** The policy states shares for a chance of one half; here is one of another chance, times a thousand million. */
const billionths = (permille, chancePpm) => 1000 * chancePpm + (2 * permille - 1000) * (MILLION - chancePpm);

/** What the numbers say: outcome and reason. */
export function judge(measurement, thresholds) {
  const { matched, total, aligned, statistic, chance_ppm: chance } = measurement;
  if (statistic === "integrity") return matched === total ? ["INTACT", "matched"] : ["TAMPERED", "changed"];
  const reaches = (permille) => matched * 1e9 >= total * billionths(permille, chance);
  if (!reaches(thresholds.refute_permille)) return ["REFUTED", "below_threshold"];
  const factor = 1n << BigInt(thresholds.alpha_bits + Number(aligned));
  const isEnough = reaches(thresholds.gamma_permille) && matched >= leastSignificant(total, factor, chance);
  return isEnough ? judgeControls(measurement, thresholds) : ["INCONCLUSIVE", "between_bounds"];
}

function judgeControls(measurement, thresholds) {
  const { controls, permutations, permutations_as_good: asGood, total, statistic, chance_ppm: chance } = measurement;
  const fresh = controls.filter((control) => control.kind === "fresh");
  const others = controls.filter((control) => ["null", "public"].includes(control.kind));
  if (
    fresh.length < thresholds.controls_min ||
    (statistic === BRANCH && permutations < thresholds.permutations_min) ||
    (statistic === "calibrated" && others.length < NULLS_MIN)
  ) {
    return ["INCONCLUSIVE", "too_few_controls"];
  }
  const isPermuted = (asGood + 1) * 1000 > thresholds.permutation_p_permille * (permutations + 1);
  if (statistic === BRANCH && isPermuted) return ["REFUTED", "not_specific"];
  const best = Math.max(0, ...fresh.map((control) => control.matched));
  if (best * 1e9 > total * billionths(thresholds.control_permille, chance)) return ["REFUTED", "not_specific"];
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
