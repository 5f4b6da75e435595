/**
 * A whole row of logits after penalties and bias. Sorting all of it for every token would be slow,
 * so a histogram of the weights tells how much of it has to be sorted.
 */
import {
  ADDITION_SLACK,
  byRank,
  changeLogits,
  merge,
  type Ranking,
  type Token,
} from './ranking.js';
import type { RowRequest } from './types.js';

/** Buckets of the histogram: an eighth of a nat wide, from the best token down; the last is open. */
const BUCKETS_PER_NAT = 8;
const BUCKETS = 512;

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

export class FullRow {
  readonly #raw: Float32Array;
  /** Changed logits. */
  readonly #logits: Float64Array;
  /** The ids that penalties and bias changed: their logits are no float32 values any more. */
  readonly #changed: Token[];
  readonly #isChanged: Uint8Array;
  readonly #inverseTemperature: number;
  #weights: Float64Array | undefined;
  #total = 0;
  /** Weight and number of tokens in each bucket. */
  readonly #bucketWeights = new Float64Array(BUCKETS);
  readonly #bucketCounts = new Int32Array(BUCKETS);
  /** The best changed logit and the lowest id that has it; id -1 if everything is banned. */
  readonly best: Readonly<Token>;
  /** Whether the row is free of NaN and infinities above zero. */
  readonly isNumeric: boolean;

  constructor(raw: Float32Array, request: RowRequest, repetitionPenalty: number) {
    const { ids, changes, inverseTemperature } = request;
    const logits = new Float64Array(raw);
    const isChanged = new Uint8Array(raw.length);
    const changed = changeLogits(
      Float32Array.from(ids, (id) => raw[id]!),
      changes,
      repetitionPenalty,
    );
    for (let i = 0; i < ids.length; i++) {
      logits[ids[i]!] = changed[i]!;
      isChanged[ids[i]!] = 1;
    }
    let id = -1;
    let logit = Number.NEGATIVE_INFINITY;
    let isNumeric = true;
    for (let i = 0; i < raw.length; i++) {
      if (!(raw[i]! < Number.POSITIVE_INFINITY)) isNumeric = false;
      if (logits[i]! > logit) {
        id = i;
        logit = logits[i]!;
      }
    }
    this.#raw = raw;
    this.#logits = logits;
    this.#changed = Array.from(ids, (id, i) => ({ id, logit: changed[i]! })).sort(byRank);
    this.#isChanged = isChanged;
    this.#inverseTemperature = inverseTemperature;
    this.best = { id, logit };
    this.isNumeric = isNumeric;
  }

  /** Weights of all ids, their sum in the order of ids, and the histogram. */
  #weigh(): Float64Array {
    if (this.#weights !== undefined) return this.#weights;
    const logits = this.#logits;
    const best = this.best.logit;
    const inverseTemperature = this.#inverseTemperature;
    const bucketWeights = this.#bucketWeights;
    const bucketCounts = this.#bucketCounts;
    const weights = new Float64Array(logits.length);
    const exp = Math.exp;
    let total = 0;
    for (let id = 0; id < weights.length; id++) {
      const exponent = (logits[id]! - best) * inverseTemperature;
      const weight = exp(exponent);
      weights[id] = weight;
      total += weight;
      const depth = -exponent * BUCKETS_PER_NAT;
      const bucket = depth < BUCKETS ? depth | 0 : BUCKETS - 1;
      bucketWeights[bucket]! += weight;
      bucketCounts[bucket]!++;
    }
    this.#total = total;
    this.#weights = weights;
    return weights;
  }

  /**
   * About the best tokens that make up `share` of the row's weight, and at least `count` of them;
   * all tokens if share is 1.
   */
  rank(share: number, count: number): Ranking {
    const weights = this.#weigh();
    const total = this.#total;
    const threshold = share < 1 ? this.#threshold(share, count) : Number.NEGATIVE_INFINITY;

    const raw = this.#raw;
    const logits = this.#logits;
    const isChanged = this.#isChanged;
    const bits = new Uint32Array(raw.buffer, raw.byteOffset, raw.length);
    const keys = new Float64Array(raw.length);
    let length = 0;
    for (let id = 0; id < keys.length; id++) {
      if (logits[id]! < threshold || isChanged[id] === 1) continue;
      // Zero and minus zero are equal, but their bits are not.
      keys[length++] = sortKey(logits[id] === 0 ? 0 : bits[id]!, id);
    }
    const sorted = keys.subarray(0, length).sort();
    const unchangedIds = new Int32Array(length);
    const unchanged = new Float64Array(length);
    for (let i = 0; i < length; i++) {
      const id = sorted[i]! % ID_RANGE;
      unchangedIds[i] = id;
      unchanged[i] = logits[id]!;
    }
    const changed = this.#changed.filter(({ logit }) => logit >= threshold);
    const { ids } = merge(unchangedIds, unchanged, changed);
    const ranked = new Float64Array(ids.length);
    for (let i = 0; i < ids.length; i++) ranked[i] = weights[ids[i]!]!;

    return {
      ids,
      weights: ranked,
      complete: length + changed.length === raw.length,
      boundaryWeight: Math.exp((threshold - this.best.logit) * this.#inverseTemperature),
      total: () => ({ low: total, high: total }),
    };
  }

  /** The logit at the lower end of the bucket where share and count are reached. */
  #threshold(share: number, count: number): number {
    const needed = share * this.#total * (1 + ADDITION_SLACK);
    let weight = 0;
    let tokens = 0;
    for (let bucket = 0; bucket < BUCKETS - 1; bucket++) {
      weight += this.#bucketWeights[bucket]!;
      tokens += this.#bucketCounts[bucket]!;
      if (weight > needed && tokens >= count) {
        const depth = (bucket + 1) / BUCKETS_PER_NAT;
        return this.best.logit - depth / this.#inverseTemperature;
      }
    }
    return Number.NEGATIVE_INFINITY;
  }
}
