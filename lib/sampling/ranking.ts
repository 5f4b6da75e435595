/**
 * The best tokens of a row after penalties and bias, in their exact order: either from the few
 * candidates that native returned, or from the whole row. Both give a prefix of the same order, so
 * that what is decided from one holds for the other.
 */
import { changeLogit } from './changes.js';
import type { RowRequest, RowResult } from './types.js';

/** Bounds of a sum. Equal when the sum is known to the last bit. */
export interface Bounds {
  low: number;
  high: number;
}

/** A prefix of the row's tokens by changed logit, best first; of equal ones the lower id first. */
export interface Ranking {
  ids: number[];
  /** Changed logits, parallel to `ids`; none is -Infinity. */
  logits: number[];
  /** True if no token with a probability above zero is missing. */
  complete: boolean;
  /** No missing token's changed logit is above this. */
  boundary: number;
  /** Sum over the whole row of exp((logit - best) * inverseTemperature). */
  total(): Bounds;
}

/** Relative room for different orders of float64 addition. */
export const ADDITION_SLACK = 1e-9;

/**
 * How far native's scaled log-sum-exp, computed partly in float32, may be from the true value: a
 * fixed part for the sum, and a part for the rounding of the largest scaled logit.
 */
const logSumExpError = (largest: number) => 1e-4 + 1e-6 * Math.abs(largest);

interface Token {
  id: number;
  logit: number;
}

const byRank = (a: Token, b: Token) => b.logit - a.logit || a.id - b.id;

/** Merges two ranked lists and drops what is banned. */
function merge(a: readonly Token[], b: readonly Token[]): { ids: number[]; logits: number[] } {
  const ids: number[] = [];
  const logits: number[] = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const token = j === b.length || (i < a.length && byRank(a[i]!, b[j]!) < 0) ? a[i++]! : b[j++]!;
    if (token.logit === Number.NEGATIVE_INFINITY) continue;
    ids.push(token.id);
    logits.push(token.logit);
  }
  return { ids, logits };
}

/** The ids of `request` with their changed logits, in the order of `request.ids`. */
function changedTokens(
  rawLogit: (position: number) => number,
  { ids, changes }: RowRequest,
  repetitionPenalty: number,
): Token[] {
  return Array.from(ids, (id, i) => ({
    id,
    logit: changeLogit(
      rawLogit(i),
      changes.repeated[i] === 1,
      changes.offsets[i]!,
      repetitionPenalty,
    ),
  }));
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
  const { candidateIds, candidateLogits } = row;
  const changed = changedTokens((i) => row.idLogits[i]!, request, repetitionPenalty);
  const rawOfChanged = new Map(Array.from(request.ids, (id, i) => [id, row.idLogits[i]!]));
  const unchanged: Token[] = [];
  for (let i = 0; i < candidateIds.length; i++) {
    const id = candidateIds[i]!;
    if (!rawOfChanged.has(id)) unchanged.push({ id, logit: candidateLogits[i]! });
  }

  const missing = vocabSize - unchanged.length - changed.length;
  const last: Token =
    candidateIds.length === 0
      ? { id: -1, logit: Number.POSITIVE_INFINITY }
      : { id: candidateIds.at(-1)!, logit: candidateLogits.at(-1)! };
  const isSettled = (token: Token) => missing === 0 || byRank(token, last) <= 0;
  const { ids, logits } = merge(unchanged, changed.filter(isSettled).sort(byRank));

  return {
    ids,
    logits,
    complete: missing === 0 || last.logit === Number.NEGATIVE_INFINITY,
    boundary: last.logit,
    total() {
      const { inverseTemperature } = request;
      const best = logits[0]!;
      const weight = (logit: number) => Math.exp((logit - best) * inverseTemperature);
      let known = 0;
      let rawKnown = 0;
      for (const { logit } of unchanged) known += weight(logit);
      rawKnown += known;
      for (const { logit } of changed) known += weight(logit);
      for (const logit of rawOfChanged.values()) rawKnown += weight(logit);
      // The tokens we know nothing about: what is left of the raw sum, at most `missing` times
      // the boundary. The raw sum overflows if a bias put `best` far below the raw best.
      const most = missing * weight(last.logit) * (1 + ADDITION_SLACK);
      const rawTotal = Math.exp(row.scaledLogSumExp - best * inverseTemperature);
      const largest = (candidateLogits[0] ?? best) * inverseTemperature;
      const error = rawTotal * Math.expm1(logSumExpError(largest));
      let rest: Bounds = { low: 0, high: most };
      if (missing === 0) rest = { low: 0, high: 0 };
      else if (Number.isFinite(rawTotal) && Number.isFinite(rawKnown)) {
        const high = Math.min(most, Math.max(0, rawTotal - rawKnown + error));
        rest = { low: Math.min(high, Math.max(0, rawTotal - rawKnown - error)), high };
      }
      return {
        low: known * (1 - ADDITION_SLACK) + rest.low,
        high: known * (1 + ADDITION_SLACK) + rest.high,
      };
    },
  };
}

/** The whole row; `rank` sorts as much of it as is needed. */
export class FullRow {
  /** Changed logits. */
  readonly #logits: Float64Array;
  readonly #raw: Float32Array;
  readonly #changed: Token[];
  readonly #isChanged: Uint8Array;
  readonly #inverseTemperature: number;
  #total: number | undefined;
  /** The best changed logit and the lowest id that has it; id -1 if everything is banned. */
  readonly best: Readonly<Token>;
  /** Whether the row holds a NaN or an infinity above zero. */
  readonly isNumeric: boolean;

  constructor(raw: Float32Array, request: RowRequest, repetitionPenalty: number) {
    this.#raw = raw;
    this.#inverseTemperature = request.inverseTemperature;
    this.#logits = new Float64Array(raw);
    this.#isChanged = new Uint8Array(raw.length);
    this.#changed = changedTokens((i) => raw[request.ids[i]!]!, request, repetitionPenalty);
    let isNumeric = raw.every((logit) => logit < Number.POSITIVE_INFINITY);
    for (const { id, logit } of this.#changed) {
      this.#logits[id] = logit;
      this.#isChanged[id] = 1;
      isNumeric &&= logit < Number.POSITIVE_INFINITY;
    }
    this.isNumeric = isNumeric;
    const best = { id: -1, logit: Number.NEGATIVE_INFINITY };
    for (let id = 0; id < raw.length; id++) {
      if (this.#logits[id]! > best.logit) {
        best.id = id;
        best.logit = this.#logits[id]!;
      }
    }
    this.best = best;
  }

  /** All tokens whose weight is at least exp(-gap) of the best one's. */
  rank(gap: number): Ranking {
    const threshold = this.best.logit - gap / this.#inverseTemperature;
    const keys = new Float64Array(this.#raw.length);
    const bits = new Uint32Array(this.#raw.buffer, this.#raw.byteOffset, this.#raw.length);
    let count = 0;
    for (let id = 0; id < keys.length; id++) {
      if (this.#logits[id]! < threshold || this.#isChanged[id] === 1) continue;
      keys[count++] = sortKey(this.#logits[id] === 0 ? 0 : bits[id]!, id);
    }
    const unchanged = Array.from(keys.subarray(0, count).sort(), (key) => {
      const id = key % ID_RANGE;
      return { id, logit: this.#raw[id]! };
    });
    const changed = this.#changed.filter(({ logit }) => logit >= threshold).sort(byRank);
    return {
      ...merge(unchanged, changed),
      complete: count + changed.length === keys.length || gap === Number.POSITIVE_INFINITY,
      boundary: threshold,
      total: () => {
        this.#total ??= this.#sum();
        return { low: this.#total, high: this.#total };
      },
    };
  }

  /** In the order of ids. */
  #sum(): number {
    let sum = 0;
    for (const logit of this.#logits) {
      sum += Math.exp((logit - this.best.logit) * this.#inverseTemperature);
    }
    return sum;
  }
}

/** Vocabularies must be at most this large for {@link sortKey}. */
export const ID_RANGE = 2 ** 21;

/**
 * A number that sorts as (logit descending, id ascending), so that the engine's fast numeric sort
 * can be used: float32 bits made monotone, then reversed, then the id; 53 bits in all.
 */
function sortKey(bits: number, id: number): number {
  const descending = bits >= 0x80000000 ? bits : 0x7fffffff - bits;
  return descending * ID_RANGE + id;
}
