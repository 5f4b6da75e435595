/**
 * The best tokens of a row after penalties and bias, in their exact order: either from the few
 * candidates that native returned (here), or from the whole row (`full-row.ts`). Both give a prefix
 * of the same order, so that what is decided from one holds for the other.
 */
import { changeLogit } from './changes.js';
import type { RowRequest, RowResult } from './types.js';

/** Bounds of a sum. Equal when the sum is known to the last bit. */
export interface Bounds {
  low: number;
  high: number;
}

/**
 * A prefix of the row's tokens by changed logit, best first; of equal ones the lower id first.
 * A token's weight is exp((logit - best logit) * inverseTemperature).
 */
export interface Ranking {
  /** None is banned (-Infinity). */
  ids: Int32Array;
  /** Parallel to `ids`. */
  weights: Float64Array;
  /** True if no token with a weight above zero is missing. */
  complete: boolean;
  /** No missing token weighs more. */
  boundaryWeight: number;
  /** Sum of the weights of the whole row. */
  total(): Bounds;
}

export interface Token {
  id: number;
  logit: number;
}

/** Relative room for different orders of float64 addition. */
export const ADDITION_SLACK = 1e-9;

/**
 * How far native's scaled log-sum-exp, computed partly in float32, may be from the true value: a
 * fixed part for the sum, and a part for the rounding of the largest scaled logit.
 */
const logSumExpError = (largest: number) => 1e-4 + 1e-6 * Math.abs(largest);

export const byRank = (a: Token, b: Token) => b.logit - a.logit || a.id - b.id;

/** Merges two ranked lists and drops what is banned. */
export function merge(
  ids: ArrayLike<number>,
  logits: ArrayLike<number>,
  others: readonly Token[],
): { ids: Int32Array; logits: Float64Array } {
  const mergedIds = new Int32Array(ids.length + others.length);
  const mergedLogits = new Float64Array(mergedIds.length);
  let count = 0;
  const add = (id: number, logit: number) => {
    if (logit === Number.NEGATIVE_INFINITY) return;
    mergedIds[count] = id;
    mergedLogits[count++] = logit;
  };
  let i = 0;
  for (const other of others) {
    for (; i < ids.length; i++) {
      const logit = logits[i]!;
      if (logit < other.logit || (logit === other.logit && ids[i]! > other.id)) break;
      add(ids[i]!, logit);
    }
    add(other.id, other.logit);
  }
  for (; i < ids.length; i++) add(ids[i]!, logits[i]!);
  return { ids: mergedIds.subarray(0, count), logits: mergedLogits.subarray(0, count) };
}

/** The logits of `request.ids` after penalties and bias, in their order. */
export function changeLogits(
  raw: ArrayLike<number>,
  { repeated, offsets }: RowRequest['changes'],
  repetitionPenalty: number,
): Float64Array {
  return Float64Array.from(raw, (logit, i) =>
    changeLogit(logit, repeated[i] === 1, offsets[i]!, repetitionPenalty),
  );
}

/**
 * What the candidates settle. A token that was neither a candidate nor asked for is worse than the
 * last candidate, so everything known that is better than that one is in its final place.
 */
export function rankCandidates(
  row: RowResult,
  request: RowRequest,
  vocabSize: number,
  repetitionPenalty: number,
): Ranking {
  const { candidateIds, candidateLogits, idLogits } = row;
  const changed = changeLogits(idLogits, request.changes, repetitionPenalty);

  const places = new Map(Array.from(candidateIds, (id, place) => [id, place]));
  for (const id of request.ids) places.delete(id);
  const unchangedIds = Int32Array.from(places.keys());
  const unchanged = Float32Array.from(places.values(), (place) => candidateLogits[place]!);

  const missing = vocabSize - unchanged.length - changed.length;
  const lastId = candidateIds.at(-1) ?? -1;
  const boundary = candidateLogits.at(-1) ?? Number.POSITIVE_INFINITY;
  const settled: Token[] = [];
  for (let i = 0; i < changed.length; i++) {
    const id = request.ids[i]!;
    const logit = changed[i]!;
    if (missing === 0 || logit > boundary || (logit === boundary && id < lastId)) {
      settled.push({ id, logit });
    }
  }

  const { ids, logits } = merge(unchangedIds, unchanged, settled.sort(byRank));
  const best = logits[0] ?? Number.NEGATIVE_INFINITY;
  const weight = (logit: number) => Math.exp((logit - best) * request.inverseTemperature);
  const sum = (values: Float32Array | Float64Array) => {
    let total = 0;
    for (const logit of values) total += weight(logit);
    return total;
  };
  return {
    ids,
    weights: logits.map(weight),
    complete: missing === 0 || boundary === Number.NEGATIVE_INFINITY,
    boundaryWeight: weight(boundary),
    total() {
      const sumUnchanged = sum(unchanged);
      const known = sumUnchanged + sum(changed);
      // The tokens we know nothing about: what is left of the raw sum, at most `missing` times
      // the boundary. The raw sum overflows if a bias put `best` far below the raw best.
      const rawKnown = sumUnchanged + sum(idLogits);
      const rawTotal = Math.exp(row.scaledLogSumExp - best * request.inverseTemperature);
      const largest = (candidateLogits[0] ?? best) * request.inverseTemperature;
      const error = rawTotal * Math.expm1(logSumExpError(largest));
      let rest: Bounds = { low: 0, high: 0 };
      if (missing > 0) {
        rest.high = missing * weight(boundary) * (1 + ADDITION_SLACK);
        if (Number.isFinite(rawTotal) && Number.isFinite(rawKnown)) {
          const high = Math.min(rest.high, Math.max(0, rawTotal - rawKnown + error));
          rest = { low: Math.min(high, Math.max(0, rawTotal - rawKnown - error)), high };
        }
      }
      return {
        low: known * (1 - ADDITION_SLACK) + rest.low,
        high: known * (1 + ADDITION_SLACK) + rest.high,
      };
    },
  };
}
