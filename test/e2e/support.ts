/**
 * What the end-to-end tests share: the models that have golden outputs, the choice of a kernel table,
 * and the engine driven by hand, without scheduler and sampler.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runInThisContext } from 'node:vm';
import { describe, expect, test } from '@jest/globals';
import { openCheckpoint } from '../../lib/checkpoint/index.js';
import { cpuInfo } from '../../lib/cpu-info.js';
import { availableGpuBytes, chooseGpu } from '../../lib/devices.js';
import { PagePool } from '../../lib/generation/pages.js';
import { buildPlan, splitResult } from '../../lib/generation/plan.js';
import type { Llama } from '../../lib/index.js';
import { cpuPlace, type LoadPlan, planLoad } from '../../lib/load-plan.js';
import { type NativeEngine, native, packageRoot } from '../../lib/native.js';
import { type LoadOptions, resolveLoadOptions } from '../../lib/options.js';
import type { RowResult } from '../../lib/sampling/index.js';

export { generator } from '../kernels/support.js';

// --- models with golden outputs --------------------------------------------------------------

/** `golden.json`: computed in float64 by an independent implementation. */
export interface Golden {
  cases: {
    prompt: string;
    /** Of the prompt, BOS first. */
    ids: number[];
    /** 48 tokens by argmax; they go on behind an end of sequence. */
    greedy: number[];
    /** Best logit minus second best, at each step of `greedy`. */
    greedy_margins: number[];
    /** All logits after the prompt. */
    logits_last: number[];
  }[];
  perplexity: { text: string; tokens: number; value: number };
}

export interface GoldenModel {
  name: string;
  folder: string;
  golden: Golden;
}

/** The models' folders; those of `../shared` are there only where that folder is. */
const MODEL_FOLDERS: Readonly<Record<string, string>> = {
  demo: join(packageRoot, 'models', 'demo'),
  stories260K: join(packageRoot, '..', 'shared', 'models', 'stories260K'),
  'random-gqa8': join(packageRoot, '..', 'shared', 'models', 'random-gqa8'),
};

/** A `describe` for each model; one skipped test names a model that is missing. */
export function describeModels(name: string, tests: (model: GoldenModel) => void): void {
  for (const [model, folder] of Object.entries(MODEL_FOLDERS)) {
    const file = join(folder, 'golden.json');
    describe(`${name}, ${model}`, () => {
      if (existsSync(file)) {
        tests({ name: model, folder, golden: JSON.parse(readFileSync(file, 'utf8')) });
      } else {
        test.skip(`${file} is missing`, () => {});
      }
    });
  }
}

export const demoFolder = MODEL_FOLDERS.demo!;

export const demoGolden: Golden = JSON.parse(readFileSync(join(demoFolder, 'golden.json'), 'utf8'));

// --- kernel tables ---------------------------------------------------------------------------

/** The kernel tables that this processor can run. */
export const isas: readonly string[] = cpuInfo().available;

// jest gives tests a copy of the environment; native code reads the process's own.
const { env } = runInThisContext('process') as NodeJS.Process;

/** Loads something with `ALTIPLANO_ISA` set; the table is chosen while a model is loaded. */
export async function withIsa<T>(isa: string, load: () => Promise<T>): Promise<T> {
  const before = env.ALTIPLANO_ISA;
  env.ALTIPLANO_ISA = isa;
  try {
    expect(cpuInfo().selected).toBe(isa);
    return await load();
  } finally {
    if (before === undefined) delete env.ALTIPLANO_ISA;
    else env.ALTIPLANO_ISA = before;
  }
}

// --- the engine by hand ----------------------------------------------------------------------

/** A sequence of a {@link Driver}: what is in the cache, and where. */
export interface Sequence {
  pages: number[];
  cachedTokens: number;
}

/** What a sequence does in a step. */
export interface Part {
  sequence: Sequence;
  /** The next tokens. */
  tokens: readonly number[];
  /** Whose logits are wanted; default: those of every token. */
  rows?: 'all' | 'last' | 'none';
}

/** A loaded engine whose steps a test plans itself. Every row comes whole. */
export class Driver {
  /** The most sequences that shared a step. */
  mostSequencesInStep = 0;
  readonly #engine: NativeEngine;
  readonly #plan: LoadPlan;
  readonly #pool: PagePool;

  private constructor(engine: NativeEngine, plan: LoadPlan) {
    this.#engine = engine;
    this.#plan = plan;
    this.#pool = new PagePool(plan.spec.kvPages);
  }

  /** On the CPU unless the options say otherwise. */
  static async load(path: string, options: LoadOptions = {}): Promise<Driver> {
    const resolved = resolveLoadOptions({ device: 'cpu', ...options });
    const gpu = await chooseGpu(resolved);
    const place = gpu === null ? cpuPlace() : { gpu, availableBytes: await availableGpuBytes(gpu) };
    const plan = planLoad(await openCheckpoint(path), resolved, place);
    const engine = new (native().Engine)();
    await engine.load(plan.spec);
    return new Driver(engine, plan);
  }

  get spec() {
    return this.#plan.spec;
  }

  /** Runs one step of all parts; the rows of each part, in order. */
  async step(parts: readonly Part[], inverseTemperature = 1): Promise<RowResult[][]> {
    const { kvPageTokens } = native();
    const request = {
      candidates: 1,
      ids: new Int32Array(0),
      inverseTemperature: Math.fround(inverseTemperature),
      fullRow: true,
    };
    const stretches = parts.map(({ sequence, tokens, rows = 'all' }) => {
      const begin = sequence.cachedTokens;
      const end = begin + tokens.length;
      while (sequence.pages.length * kvPageTokens < end) {
        sequence.pages.push(this.#pool.allocate()!);
      }
      const firstRow = { all: begin, last: end - 1, none: end }[rows];
      const positions = Array.from({ length: end - firstRow }, (_, i) => firstRow + i);
      return {
        begin,
        tokens,
        pages: sequence.pages,
        rows: positions.map((position) => ({ position, request })),
      };
    });
    const plan = buildPlan(stretches, kvPageTokens);
    const results = splitResult(plan, await this.#engine.step(plan), this.spec.vocabSize);
    for (const { sequence, tokens } of parts) sequence.cachedTokens += tokens.length;
    this.mostSequencesInStep = Math.max(this.mostSequencesInStep, plan.sequenceStarts.length - 1);
    let row = 0;
    return stretches.map(({ rows }) => {
      row += rows.length;
      return results.slice(row - rows.length, row);
    });
  }

  /** The logits of every token, computed alone in one step. */
  async logitsOf(tokens: readonly number[]): Promise<Float32Array[]> {
    const sequence = newSequence();
    const [rows] = await this.step([{ sequence, tokens }]);
    this.release(sequence);
    return rows!.map(({ fullLogits }) => fullLogits!);
  }

  release(sequence: Sequence): void {
    for (const page of sequence.pages) this.#pool.release(page);
    sequence.pages = [];
    sequence.cachedTokens = 0;
  }

  dispose(): Promise<void> {
    return this.#engine.dispose();
  }
}

export function newSequence(): Sequence {
  return { pages: [], cachedTokens: 0 };
}

/**
 * The greedy tokens, with golden ones where a margin below `marginBound` flips; `flips` are those
 * steps.
 */
export async function greedyTokens(
  llama: Llama,
  { ids, greedy, greedy_margins: margins }: Golden['cases'][0],
  marginBound: number,
) {
  const tokens: number[] = [];
  const flips: number[] = [];
  while (tokens.length < greedy.length) {
    const { result } = llama.generate([...ids, ...tokens], {
      temperature: 0,
      maxTokens: greedy.length - tokens.length,
      ignoreEos: true,
    });
    for (const token of (await result).tokens) {
      const step = tokens.length;
      const isFlip = token !== greedy[step] && margins[step]! < marginBound;
      tokens.push(isFlip ? greedy[step]! : token);
      if (isFlip) {
        flips.push(step);
        break; // what came behind it followed the other token
      }
    }
  }
  return { tokens, flips };
}

// --- comparisons -----------------------------------------------------------------------------

/** The greatest distance of two rows. */
export function maxError(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  let most = 0;
  for (let i = 0; i < found.length; i++) {
    const error = Math.abs(found[i]! - expected[i]!);
    if (!(error <= most)) most = error; // NaN stays
  }
  return most;
}

function bits(row: Float32Array): Buffer {
  return Buffer.from(row.buffer, row.byteOffset, row.byteLength);
}

/** Fails unless both are the same rows to the last bit. */
export function expectSameBits(found: readonly Float32Array[], expected: readonly Float32Array[]) {
  expect(found.length).toBe(expected.length);
  const different = found.findIndex((row, i) => !bits(row).equals(bits(expected[i]!)));
  if (different !== -1) {
    const error = maxError(found[different]!, expected[different]!);
    throw new Error(`row ${different} of ${found.length} differs, by up to ${error}`);
  }
}

/** Root of the mean square. */
export function rms(rows: Iterable<ArrayLike<number>>): number {
  let sum = 0;
  let count = 0;
  for (const row of rows) {
    for (let i = 0; i < row.length; i++) sum += row[i]! ** 2;
    count += row.length;
  }
  return Math.sqrt(sum / count);
}

/** Prints lines on standard error, past jest's own console. */
export function report(title: string, rows: readonly Record<string, string | number>[]): void {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const cells = [names, ...rows.map((row) => names.map((name) => String(row[name] ?? '')))];
  const widths = names.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  const lines = cells.map((line) => line.map((cell, i) => cell.padEnd(widths[i]!)).join('  '));
  process.stderr.write(`\n${title}\n${lines.map((line) => `  ${line.trimEnd()}\n`).join('')}`);
}
