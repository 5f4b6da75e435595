/** Random rows of logits, a stand-in for native, and the sampler's definition in plain steps. */
import {
  type GenerateOptions,
  type ResolvedGenerateOptions,
  resolveGenerateOptions,
} from '../../lib/options.js';
import type { Choice, Sampler } from '../../lib/sampling/index.js';
import { uniform } from '../../lib/sampling/random.js';
import type { RowRequest, RowResult, TokenHistory } from '../../lib/sampling/types.js';

/** Mulberry32: repeatable, and unrelated to the generator under test. */
export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export const rowKinds = ['peaked', 'flat', 'ties', 'holes', 'negative'] as const;

export function randomRow(
  kind: (typeof rowKinds)[number],
  vocabSize: number,
  random: () => number,
): Float32Array {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const row = new Float32Array(vocabSize);
  for (let id = 0; id < vocabSize; id++) {
    if (kind === 'peaked') row[id] = normal() * 2 + (random() < 0.003 ? 14 : 0);
    else if (kind === 'flat') row[id] = normal() * 0.3;
    else if (kind === 'ties') row[id] = Math.round(normal() * 2) * (random() < 0.5 ? 1 : -1);
    else if (kind === 'holes') row[id] = random() < 0.9 ? Number.NEGATIVE_INFINITY : normal() * 3;
    else row[id] = -20 - Math.abs(normal() * 6);
  }
  return row;
}

const sums = new WeakMap<Float32Array, Map<number, number>>();

function logSumExp(logits: Float32Array, factor: number): number {
  const known = sums.get(logits) ?? new Map<number, number>();
  sums.set(logits, known);
  if (known.has(factor)) return known.get(factor)!;
  const most = logits[orderOf(logits)[0]!]! * factor;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit * factor - most);
  known.set(factor, most + Math.log(sum));
  return most + Math.log(sum);
}

/** Sorting and summing are slow, and tests use a row more than once. */
const orders = new WeakMap<Float32Array, Int32Array>();

function orderOf(logits: Float32Array): Int32Array {
  let order = orders.get(logits);
  if (order === undefined) {
    order = Int32Array.from(logits.keys()).sort((a, b) => logits[b]! - logits[a]! || a - b);
    orders.set(logits, order);
  }
  return order;
}

/** What native would return. `error` is added to the scaled log-sum-exp, as float32 would. */
export function nativeRow(logits: Float32Array, request: RowRequest, error = 0): RowResult {
  const best = orderOf(logits).slice(0, request.candidates);
  return {
    candidateIds: best,
    candidateLogits: Float32Array.from(best, (id) => logits[id]!),
    logSumExp: logSumExp(logits, 1),
    scaledLogSumExp: logSumExp(logits, request.inverseTemperature) + error,
    idLogits: Float32Array.from(request.ids, (id) => logits[id]!),
    ...(request.fullRow && { fullLogits: logits }),
  };
}

/** Logits after penalties and bias, as the options' documentation says. */
export function changedLogits(
  logits: Float32Array,
  options: ResolvedGenerateOptions,
  history: TokenHistory,
): number[] {
  const prompt = Array.from(history.prompt);
  const all = [...prompt, ...Array.from(history.generated)];
  const start = Math.max(0, all.length - options.penaltyTokens);
  const seen = new Set(all.slice(start));
  const generated = all.slice(Math.max(start, prompt.length));
  const counts = new Map<number, number>();
  for (const id of generated) counts.set(id, (counts.get(id) ?? 0) + 1);
  return Array.from(logits, (logit, id) => {
    let changed = logit;
    if (seen.has(id)) {
      changed = logit > 0 ? logit / options.repetitionPenalty : logit * options.repetitionPenalty;
    }
    const count = counts.get(id) ?? 0;
    const penalty = count > 0 ? options.frequencyPenalty * count + options.presencePenalty : 0;
    return changed + ((options.logitBias.get(id) ?? 0) - penalty);
  });
}

/** The tokens that truncation leaves, with their probabilities, most likely first. */
export function nucleus(
  changed: readonly number[],
  { temperature, topK, topP, minP }: ResolvedGenerateOptions,
): { id: number; weight: number }[] {
  const inverse = Math.fround(1 / temperature);
  const best = Math.max(...changed);
  let kept = changed
    .map((logit, id) => ({ id, logit, weight: Math.exp((logit - best) * inverse) }))
    .filter(({ logit }) => logit > Number.NEGATIVE_INFINITY)
    .sort((a, b) => b.logit - a.logit || a.id - b.id);
  if (topK > 0) kept = kept.slice(0, topK);
  if (topP < 1) {
    const total = kept.reduce((sum, { weight }) => sum + weight, 0);
    let before = 0;
    kept = kept.filter(({ weight }) => {
      const isKept = before <= topP * total;
      before += weight;
      return isKept;
    });
  }
  return kept.filter(({ weight }) => weight >= minP);
}

/** The definition: sorts everything, truncates, draws. */
export function referenceChoice(
  logits: Float32Array,
  options: ResolvedGenerateOptions,
  history: TokenHistory,
  index: number,
): number {
  const changed = changedLogits(logits, options, history);
  if (options.temperature === 0) return changed.indexOf(Math.max(...changed));
  const kept = nucleus(changed, options);
  const mass = kept.reduce((sum, { weight }) => sum + weight, 0);
  const target = uniform(options.seed, index) * mass;
  let through = 0;
  for (const { id, weight } of kept) {
    through += weight;
    if (target < through) return id;
  }
  return kept.at(-1)!.id;
}

export const noTokens: TokenHistory = { prompt: [], generated: [] };

export const resolve = (options: GenerateOptions, vocabSize: number) =>
  resolveGenerateOptions({ topP: 1, seed: 1, ...options }, {}, vocabSize);

/** Chooses as a scheduler would; also says whether the whole row was asked for. */
export function choose(
  sampler: Sampler,
  logits: Float32Array,
  history: TokenHistory,
  index: number,
  error = 0,
): { choice: Choice; fellBack: boolean; asked: boolean } {
  const request = sampler.request(history);
  const choice = sampler.choose(nativeRow(logits, request, error), request, index);
  if (choice !== 'full-row') return { choice, fellBack: false, asked: request.fullRow };
  const again = { ...request, fullRow: true };
  const settled = sampler.choose(nativeRow(logits, again, error), again, index);
  if (settled === 'full-row') throw new Error('a whole row was refused');
  return { choice: settled, fellBack: true, asked: true };
}
