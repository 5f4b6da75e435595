/**
 * Truncation and draw: top-k, then top-p, then min-p, then a token by inverse CDF over the tokens
 * from the most to the least likely.
 *
 * The whole row defines the choice. A ranking may be only a prefix of it, with bounds for the total
 * instead of the total; the answer is then given only if it is the same for every row that fits the
 * bounds. All is float64, and every comparison below is between values that rounding keeps in
 * order, so that the same answer means the same to the last bit.
 */
import { ADDITION_SLACK, type Bounds, type Ranking } from './ranking.js';

export interface Truncation {
  /** 0: off. */
  topK: number;
  /** 1: off. */
  topP: number;
  /** 0: off. */
  minP: number;
}

/**
 * The chosen token's place in the ranking; undefined if the ranking does not settle it.
 * @param u in [0, 1)
 */
export function pick(ranking: Ranking, truncation: Truncation, u: number): number | undefined {
  const { weights } = ranking;
  const { count, mass } = keep(ranking, truncation);

  let before = 0;
  for (let i = 0; i < count; i++) {
    const through = before + weights[i]!;
    if (u * mass.high < through) return u * mass.low >= before ? i : undefined;
    before = through;
  }
  if (!ranking.complete || mass.low !== mass.high) return undefined;
  // The total was summed in another order and is larger by a rounding error: the last token it is,
  // but not one whose weight vanished.
  let lastIndex = count - 1;
  while (weights[lastIndex] === 0) lastIndex--;
  return lastIndex;
}

/** How many tokens of the ranking are surely kept, and the weight of all that are kept. */
function keep(ranking: Ranking, { topK, topP, minP }: Truncation): { count: number; mass: Bounds } {
  const { weights } = ranking;
  const limit = topK > 0 ? Math.min(topK, weights.length) : weights.length;
  const endsAtLimit = ranking.complete || (topK > 0 && topK <= weights.length);
  const pool = poolBounds(ranking, weights.subarray(0, limit), topK > 0, endsAtLimit);

  let before = 0;
  for (let i = 0; i < limit; i++) {
    const weight = weights[i]!;
    if (weight < minP) return { count: i, mass: { low: before, high: before } };
    if (topP < 1) {
      if (before > topP * pool.high) return { count: i, mass: { low: before, high: before } };
      if (before > topP * pool.low) {
        // Perhaps the nucleus ends here, perhaps later.
        return { count: i, mass: { low: before, high: topP * pool.high + weight } };
      }
    }
    before += weight;
  }
  if (endsAtLimit) return { count: limit, mass: pool };

  // The ranking ends before a cut was seen: it comes here or later.
  if (topP === 1 && minP === 0) return { count: limit, mass: pool };
  const mass = { low: before, high: Math.max(before, pool.high) * (1 + ADDITION_SLACK) };
  if (topP < 1) {
    if (before > topP * pool.high) return { count: limit, mass: { low: before, high: before } };
    const next = ranking.boundaryWeight * (1 + ADDITION_SLACK);
    mass.high = Math.min(mass.high, topP * pool.high + next);
    if (minP === 0) mass.low = Math.max(before, topP * pool.low);
  }
  return { count: limit, mass };
}

/** The weight of all tokens that top-k leaves. */
function poolBounds(
  ranking: Ranking,
  weights: Float64Array,
  isTopK: boolean,
  endsAtLimit: boolean,
): Bounds {
  if (!isTopK) return ranking.total();
  let sum = 0;
  for (const weight of weights) sum += weight;
  if (endsAtLimit) return { low: sum, high: sum };
  return { low: sum, high: Math.max(sum, ranking.total().high * (1 + ADDITION_SLACK)) };
}
