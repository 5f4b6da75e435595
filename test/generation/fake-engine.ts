/**
 * An engine in a few lines, for tests of the scheduler: a "model" whose next token is a hash of all
 * tokens before it, which it reads from a paged cache through the plan's block table. So a wrong
 * slot, page, position or order changes what comes out. A test can hold steps back and let them go.
 */
import { GenerateTask } from '../../lib/generation/generate-task.js';
import type { EngineSpec, NativeEngine, StepPlan, StepResult } from '../../lib/native.js';
import { type GenerateOptions, resolveGenerateOptions } from '../../lib/options.js';

export const VOCAB = 300;
export const PAGE_TOKENS = 4;

// Read once: jest's global object is slow, and every logit is a hash.
const { exp, imul } = Math;

/** 32 bits that depend on all tokens and their order (FNV-1a). */
function hash(tokens: readonly number[]): number {
  let h = 0x811c9dc5;
  for (const token of tokens) h = imul(h ^ token, 0x01000193);
  return h;
}

/** Spreads the bits of a hash and a number. */
function mix(h: number, n: number): number {
  let x = imul(h ^ imul(n + 1, 0x9e3779b1), 0x2c1b3c6d);
  x = imul(x ^ (x >>> 15), 0x297a2d39);
  return (x ^ (x >>> 12)) >>> 0;
}

/** The logits after a sequence: flat noise, and one token that stands out. */
export function fakeLogits(tokens: readonly number[]): Float32Array {
  const h = hash(tokens);
  const logits = new Float32Array(VOCAB);
  for (let id = 0; id < VOCAB; id++) logits[id] = (mix(h, id) % 1000) / 250;
  logits[mix(h, VOCAB) % VOCAB]! += 3;
  return logits;
}

/** What greedy decoding gives, without any engine. */
export function fakeGreedy(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt];
  for (let i = 0; i < count; i++) {
    const logits = fakeLogits(tokens);
    tokens.push(logits.indexOf(Math.max(...logits)));
  }
  return tokens.slice(prompt.length);
}

function codedError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

/** A step that waits for its end. */
interface Held {
  finish(): void;
  fail(error: Error): void;
}

export class FakeEngine implements NativeEngine {
  /** Every step's plan, cancelled ones included. */
  readonly plans: StepPlan[] = [];
  cancels = 0;
  /** While true, steps wait for {@link release}. */
  isHeld = false;
  /** Thrown by the next step. */
  nextError: Error | undefined;
  /** The oldest first; only that one runs. */
  readonly #steps: Held[] = [];
  #before: Promise<unknown> | undefined;
  /** The best ids of the rows of the step before. */
  #chosen: number[] = [];
  readonly #cache: Int32Array;
  readonly #stepsInFlight: number;

  constructor(pages: number, stepsInFlight = 1) {
    this.#stepsInFlight = stepsInFlight;
    this.#cache = new Int32Array(pages * PAGE_TOKENS).fill(-1);
  }

  async load(_spec: EngineSpec): Promise<void> {}

  progress() {
    return { doneBytes: 0, totalBytes: 0 };
  }

  async dispose(): Promise<void> {}

  cancel(): void {
    this.cancels++;
    for (const step of this.#steps) {
      step.fail(codedError('ALTIPLANO_ABORTED', 'the step was cancelled'));
    }
  }

  /** Whether a step waits. */
  get isRunning(): boolean {
    return this.#steps.length > 0;
  }

  /** Lets the oldest step that waits end. */
  release(): void {
    this.#steps[0]!.finish();
  }

  async step(plan: StepPlan): Promise<StepResult> {
    if (this.#steps.length >= this.#stepsInFlight) {
      throw new Error(`the scheduler runs more than ${this.#stepsInFlight} steps at once`);
    }
    this.plans.push(plan);
    const error = this.nextError;
    this.nextError = undefined;
    let step: Held;
    const end = new Promise<void>((finish, fail) => {
      step = { finish, fail };
    });
    end.catch(() => {});
    const isFirst = this.#steps.push(step!) === 1;
    if (isFirst && !this.isHeld) setImmediate(step!.finish);
    const result = this.#run(plan, isFirst ? undefined : this.#before, end, error);
    this.#before = result.catch(() => {});
    return result;
  }

  async #run(
    plan: StepPlan,
    before: Promise<unknown> | undefined,
    end: Promise<void>,
    error: Error | undefined,
  ): Promise<StepResult> {
    if (before !== undefined) {
      await before;
      if (!this.isHeld) setImmediate(this.#steps[0]!.finish);
    }
    try {
      await end;
    } finally {
      this.#steps.shift();
    }
    if (error !== undefined) {
      this.#chosen = [];
      throw error;
    }
    return this.#compute(plan);
  }

  #compute(plan: StepPlan): StepResult {
    const written = new Set<number>();
    plan.slots.forEach((slot, i) => {
      if (written.has(slot)) throw new Error(`slot ${slot} is written twice in a step`);
      written.add(slot);
      const id = plan.tokens[i]!;
      this.#cache[slot] = id < 0 ? this.#choice(-(id + 1)) : id;
    });
    const chosen: number[] = [];
    const candidateIds: number[] = [];
    const candidateLogits: number[] = [];
    const idLogits: number[] = [];
    const fullLogits: number[] = [];
    const logSumExp: number[] = [];
    const scaledLogSumExp: number[] = [];
    plan.rows.forEach((token, r) => {
      const logits = fakeLogits(this.#tokensUpTo(plan, token));
      chosen.push(...best(logits, 1));
      for (const id of best(logits, plan.candidates[r]!)) {
        candidateIds.push(id);
        candidateLogits.push(logits[id]!);
      }
      for (const id of plan.ids.subarray(plan.idStarts[r], plan.idStarts[r + 1])) {
        idLogits.push(logits[id]!);
      }
      if (plan.fullRows[r] === 1) fullLogits.push(...logits);
      const sum = (factor: number) => {
        let total = 0;
        for (const logit of logits) total += exp(logit * factor);
        return Math.log(total);
      };
      logSumExp.push(sum(1));
      scaledLogSumExp.push(sum(plan.inverseTemperatures[r]!));
    });
    this.#chosen = chosen;
    return {
      candidateIds: Int32Array.from(candidateIds),
      candidateLogits: Float32Array.from(candidateLogits),
      idLogits: Float32Array.from(idLogits),
      fullLogits: Float32Array.from(fullLogits),
      logSumExp: Float64Array.from(logSumExp),
      scaledLogSumExp: Float64Array.from(scaledLogSumExp),
      finite: new Uint8Array(plan.rows.length).fill(1),
    };
  }

  #choice(row: number): number {
    const id = this.#chosen[row];
    if (id === undefined) {
      throw codedError('ALTIPLANO_OUT_OF_RANGE', `step: the step before has no row ${row}`);
    }
    return id;
  }

  /** The tokens of a sequence up to one of the step's tokens, as the cache has them. */
  #tokensUpTo(plan: StepPlan, token: number): number[] {
    const sequence = plan.sequenceStarts.findLastIndex((start) => start <= token);
    const pages = plan.blockTable.subarray(
      plan.blockStarts[sequence],
      plan.blockStarts[sequence + 1],
    );
    return Array.from({ length: plan.positions[token]! + 1 }, (_, position) => {
      const page = pages[Math.floor(position / PAGE_TOKENS)]!;
      return this.#cache[page * PAGE_TOKENS + (position % PAGE_TOKENS)]!;
    });
  }
}

/** The ids of the `count` largest logits, best first; of equal ones the lower id first. */
function best(logits: Float32Array, count: number): number[] {
  if (count === 1) return [logits.indexOf(Math.max(...logits))];
  return [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, count);
}

/** How many sequences a step had. */
export const sequencesOf = (plan: StepPlan): number => plan.sequenceStarts.length - 1;

/** Tokens of each sequence in a step. */
export const lengthsOf = (plan: StepPlan): number[] =>
  Array.from(
    { length: sequencesOf(plan) },
    (_, s) => plan.sequenceStarts[s + 1]! - plan.sequenceStarts[s]!,
  );

/** A greedy request for `count` tokens whose text is one character per token. */
export function fakeTask(
  prompt: readonly number[],
  count: number,
  remove: (task: GenerateTask) => void,
  options: GenerateOptions = {},
): GenerateTask {
  return new GenerateTask({
    prompt,
    options: resolveGenerateOptions({ temperature: 0, ...options }, {}, VOCAB),
    vocabSize: VOCAB,
    mostNewTokens: count,
    endIds: new Set(),
    decoder: { push: characterOf, end: () => '' },
    remove,
  });
}

/** The text of a token. */
export const characterOf = (id: number): string => String.fromCharCode(0x4e00 + id);

export const textOf = (tokens: readonly number[]): string => tokens.map(characterOf).join('');

/** A prompt of `length` tokens, a different one for each seed. */
export const fakePrompt = (length: number, seed: number): number[] =>
  Array.from({ length }, (_, i) => mix(seed, i) % VOCAB);

/** Lets everything that is ready run; `turns` turns of the event loop. */
export async function settle(turns = 5): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
}
