/**
 * Chooses the next token of one sequence.
 *
 * Order: repetition, frequency and presence penalties; logit bias; temperature; top-k; top-p; min-p;
 * draw. Temperature 0 takes the best token after penalties and bias (the lower id of equals). All in
 * float64 from the float32 logits; only the inverse temperature is a float32 value, so that native's
 * scaled log-sum-exp is about the same numbers.
 *
 * Native returns the best few tokens of a row instead of all of it. The choice never depends on how
 * many: if they do not settle it, `choose` answers 'full-row'. How many are asked for only decides
 * how often that happens, and adapts.
 */
import { AltiplanoError, outOfRange } from '../errors.js';
import type { ResolvedGenerateOptions } from '../options.js';
import { ChangeTracker } from './changes.js';
import { FullRow, ID_RANGE } from './full-row.js';
import { pick, type Truncation } from './pick.js';
import { uniform } from './random.js';
import { rankCandidates } from './ranking.js';
import type { Choice, RowRequest, RowResult, TokenHistory, TokenLogprobs } from './types.js';

/** More than this costs about as much as the whole row. */
const MOST_CANDIDATES = 1024;
/** Each fallback raises the level: four times the candidates, and at the last the whole row. */
const LEVEL_FACTOR = 4;
const LAST_LEVEL = 3;
/** Settled choices after which a lower level is tried again; each fallback doubles the number. */
const FIRST_PATIENCE = 50;
const LAST_PATIENCE = 1600;

/** Serves one sequence; holds no state on which a choice depends. */
export class Sampler {
  readonly #options: ResolvedGenerateOptions;
  readonly #vocabSize: number;
  readonly #isGreedy: boolean;
  readonly #truncation: Truncation;
  readonly #inverseTemperature: number;
  readonly #tracker: ChangeTracker;
  /** Whether truncation can be expected to cut the tail off. */
  readonly #cutsTail: boolean;
  /** A flat distribution with all of its tail: the whole row, always. */
  readonly #wantsFullRow: boolean;
  #level = 0;
  #patience = FIRST_PATIENCE;
  #settledInARow = 0;

  /** @throws RangeError (ALTIPLANO_OUT_OF_RANGE) for a vocabulary of more than 2^21 tokens */
  constructor(options: ResolvedGenerateOptions, vocabSize: number) {
    if (vocabSize > ID_RANGE) {
      throw outOfRange('is too large to sample from', {
        subject: 'vocabulary',
        expected: `at most ${ID_RANGE} tokens`,
        found: String(vocabSize),
      });
    }
    const { temperature, topK, topP, minP } = options;
    this.#options = options;
    this.#vocabSize = vocabSize;
    this.#isGreedy = temperature === 0;
    this.#truncation = { topK, topP, minP };
    this.#inverseTemperature = this.#isGreedy ? 1 : Math.fround(1 / temperature);
    this.#tracker = new ChangeTracker(options);
    this.#cutsTail = topK > 0 || topP <= 0.98 || minP >= 0.002;
    this.#wantsFullRow = !this.#isGreedy && !this.#cutsTail && temperature >= 0.9;
  }

  /**
   * Whether each token is the best of its row, whatever came before: then native knows the choice as
   * soon as it has the row, and every row is asked for the same.
   */
  get takesBest(): boolean {
    const { repetitionPenalty, frequencyPenalty, presencePenalty, logitBias } = this.#options;
    return (
      this.#isGreedy &&
      repetitionPenalty === 1 &&
      frequencyPenalty === 0 &&
      presencePenalty === 0 &&
      logitBias.size === 0
    );
  }

  /** What native has to return so that the token after `history` can be chosen. */
  request(history: TokenHistory): RowRequest {
    const { ids, changes } = this.#tracker.next(history);
    const logprobs = this.#options.logprobs ?? 0;
    const fullRow = this.#wantsFullRow || this.#level === LAST_LEVEL;
    const wanted = fullRow ? 0 : this.#wantedCandidates(ids.length);
    return {
      candidates: Math.min(this.#vocabSize, Math.max(logprobs, wanted)),
      ids,
      inverseTemperature: this.#inverseTemperature,
      fullRow,
      changes,
    };
  }

  #wantedCandidates(changedIds: number): number {
    const { topK } = this.#truncation;
    let least = this.#cutsTail ? 64 : 256;
    if (this.#isGreedy) least = 1;
    else if (topK > 0) least = Math.min(topK, 128);
    // Changed ids may take the places of the best candidates.
    const spare = Math.min(changedIds, 64);
    return Math.min(MOST_CANDIDATES, (least + spare) * LEVEL_FACTOR ** this.#level);
  }

  #adapt(isSettled: boolean): void {
    if (!isSettled) {
      this.#level = Math.min(LAST_LEVEL, this.#level + 1);
      this.#patience = Math.min(LAST_PATIENCE, this.#patience * 2);
      this.#settledInARow = 0;
    } else if (++this.#settledInARow >= this.#patience) {
      this.#level = Math.max(0, this.#level - 1);
      this.#settledInARow = 0;
    }
  }

  /**
   * The token for a row of logits.
   * @param row what native returned for `request`
   * @param index which generated token of the sequence this is, from 0
   * @returns 'full-row' if `row` does not settle the choice: call again with the result for
   *   `{ ...request, fullRow: true }`
   * @throws ALTIPLANO_NUMERIC if the row contains a NaN or an infinity above zero, or nothing else
   *   than infinities; RangeError (ALTIPLANO_OUT_OF_RANGE) if `logitBias` bans every token
   */
  choose(row: RowResult, request: RowRequest, index: number): Choice | 'full-row' {
    checkNumeric(row);
    if (request.fullRow && row.fullLogits?.length !== this.#vocabSize) {
      throw new AltiplanoError('ALTIPLANO_INTERNAL', 'a row of logits is missing', {
        expected: `${this.#vocabSize} logits`,
        found: String(row.fullLogits?.length),
      });
    }
    const u = this.#isGreedy ? 0 : uniform(this.#options.seed, index);
    const id =
      row.fullLogits === undefined
        ? this.#fromCandidates(row, request, u)
        : this.#fromFullRow(row.fullLogits, request, u);
    this.#adapt(id !== undefined);
    if (id === undefined) return 'full-row';
    if (this.#options.logprobs === null) return { id };
    return { id, logprobs: logprobsOf(id, row, request, this.#options.logprobs) };
  }

  #fromCandidates(row: RowResult, request: RowRequest, u: number): number | undefined {
    const { repetitionPenalty } = this.#options;
    const ranking = rankCandidates(row, request, this.#vocabSize, repetitionPenalty);
    if (ranking.ids.length === 0) {
      if (ranking.complete) throw allBanned();
      return undefined;
    }
    const place = this.#isGreedy ? 0 : pick(ranking, this.#truncation, u);
    return place === undefined ? undefined : ranking.ids[place]!;
  }

  #fromFullRow(logits: Float32Array, request: RowRequest, u: number): number {
    const full = new FullRow(logits, request, this.#options.repetitionPenalty);
    if (!full.isNumeric) throw notNumeric();
    if (full.best.id === -1) throw allBanned();
    if (this.#isGreedy) return full.best.id;
    // What is likely enough to settle it, then all.
    const { topP, topK } = this.#truncation;
    for (const share of [topP < 1 ? topP : u, 1]) {
      const ranking = full.rank(share, topK);
      const place = pick(ranking, this.#truncation, u);
      if (place !== undefined) return ranking.ids[place]!;
    }
    throw new AltiplanoError('ALTIPLANO_INTERNAL', 'a whole row did not settle the choice');
  }
}

function notNumeric(): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_NUMERIC', 'the model produced logits that are not numbers', {
    expected: 'finite logits',
    found: 'NaN or infinity',
    hint: 'The weights are damaged, or their values overflow in this format',
  });
}

function allBanned(): AltiplanoError {
  return outOfRange('bans every token', {
    subject: 'logitBias',
    expected: 'at least one token that may be chosen',
  });
}

/** Native's flag, and the numbers that it returned, as far as they are few. */
function checkNumeric({
  finite,
  logSumExp,
  scaledLogSumExp,
  candidateLogits,
  idLogits,
}: RowResult) {
  const isNumber = (logit: number) => logit < Number.POSITIVE_INFINITY;
  if (
    finite === false ||
    !Number.isFinite(logSumExp) ||
    Number.isNaN(scaledLogSumExp) ||
    !candidateLogits.every(isNumber) ||
    !idLogits.every(isNumber)
  ) {
    throw notNumeric();
  }
}

/** From raw logits; `id` is a candidate, an id that was asked for, or the whole row is there. */
function logprobsOf(
  id: number,
  { candidateIds, candidateLogits, idLogits, fullLogits, logSumExp }: RowResult,
  { ids }: RowRequest,
  alternatives: number,
): TokenLogprobs {
  const candidate = candidateIds.indexOf(id);
  const logit =
    fullLogits?.[id] ??
    (candidate === -1 ? idLogits[ids.indexOf(id)]! : candidateLogits[candidate]!);
  return {
    id,
    logprob: logit - logSumExp,
    alternatives: Array.from(candidateIds.subarray(0, alternatives), (alternativeId, i) => ({
      id: alternativeId,
      logprob: candidateLogits[i]! - logSumExp,
    })),
  };
}
