/** What the tests of the addon share: models for the engine, steps, and processes of their own. */
import { spawn } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect } from '@jest/globals';
import { buildPlan } from '../../lib/generation/plan.js';
import {
  type EngineSpec,
  type EngineTensor,
  native,
  type StepPlan,
  type WeightFormat,
} from '../../lib/native.js';
import { inverseFrequencies } from '../../lib/rope.js';

interface Shape {
  hidden: number;
  intermediate: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocab: number;
}

/** Loads and steps at once. */
const SMALL: Shape = {
  hidden: 48,
  intermediate: 80,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 12,
  vocab: 101,
};

/** 150 MB; loading it and a step of 64 tokens take long enough to be interrupted. */
const BIG: Shape = {
  hidden: 1024,
  intermediate: 2816,
  layers: 6,
  heads: 16,
  kvHeads: 4,
  headDim: 64,
  vocab: 4000,
};

/** A folder that is removed when the tests of the file are done. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'altiplano-addon-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function engineSpec(
  shape: Shape,
  tensor: (name: string, rows: number, cols: number) => EngineTensor,
) {
  const { hidden, intermediate, layers, heads, kvHeads, headDim, vocab } = shape;
  const layer = (index: number) => {
    const at = (name: string, rows: number, cols: number) =>
      tensor(`layers.${index}.${name}`, rows, cols);
    return {
      attentionNorm: at('attentionNorm', 1, hidden),
      q: at('q', heads * headDim, hidden),
      k: at('k', kvHeads * headDim, hidden),
      v: at('v', kvHeads * headDim, hidden),
      o: at('o', hidden, heads * headDim),
      feedForwardNorm: at('feedForwardNorm', 1, hidden),
      gate: at('gate', intermediate, hidden),
      up: at('up', intermediate, hidden),
      down: at('down', hidden, intermediate),
    };
  };
  const spec: EngineSpec = {
    hiddenSize: hidden,
    intermediateSize: intermediate,
    layers,
    heads,
    kvHeads,
    headDim,
    vocabSize: vocab,
    rmsNormEps: 1e-5,
    inverseFrequencies: inverseFrequencies({
      headDim,
      ropeTheta: 10000,
      ropeScaling: { kind: 'none' },
    }),
    interleavedRotary: false,
    maxPositions: 128,
    kv: 'f32',
    activations: 'f32',
    kvPages: 8,
    maxStepTokens: 64,
    threads: 2,
    gpu: null,
    tensors: {
      embedding: tensor('embedding', vocab, hidden),
      layers: Array.from({ length: layers }, (_, index) => layer(index)),
      finalNorm: tensor('finalNorm', 1, hidden),
      head: tensor('head', vocab, hidden),
    },
  };
  return spec;
}

/** A small model of pseudo-random F32 weights in a file of the folder. */
export function smallSpec(folder: string, format: WeightFormat = { type: 'f32' }): EngineSpec {
  const file = join(folder, 'small.bin');
  let offset = 0;
  const spec = engineSpec(SMALL, (name, rows, cols) => {
    const sizeBytes = rows * cols * 4;
    const at = offset;
    offset += sizeBytes;
    return {
      name,
      type: 'F32',
      rows,
      cols,
      file,
      offset: at,
      sizeBytes,
      format: rows === 1 ? { type: 'f32' } : format,
    };
  });
  writeFileSync(
    file,
    Float32Array.from({ length: offset / 4 }, (_, i) => Math.sin(i * 12.9898) * 0.3),
  );
  return spec;
}

/** A big model of zeros; all of its tensors are the beginning of one file with a hole. */
export function bigSpec(folder: string): EngineSpec {
  const file = join(folder, 'zeros.bin');
  let largest = 0;
  const spec = engineSpec(BIG, (name, rows, cols) => {
    const sizeBytes = rows * cols * 2;
    largest = Math.max(largest, sizeBytes);
    const format: WeightFormat = { type: rows === 1 ? 'f32' : 'bf16' };
    return { name, type: 'BF16', rows, cols, file, offset: 0, sizeBytes, format };
  });
  const descriptor = openSync(file, 'w');
  ftruncateSync(descriptor, largest);
  closeSync(descriptor);
  return spec;
}

/** A step of `tokens` new tokens of one sequence, with the whole logits of the last one. */
export function wholePlan(tokens: number, pages: readonly number[] = [0, 1]): StepPlan {
  const request = {
    candidates: 3,
    ids: Int32Array.of(0),
    inverseTemperature: 1,
    fullRow: true,
  };
  return buildPlan(
    [
      {
        begin: 0,
        tokens: Array.from({ length: tokens }, (_, i) => (i * 7) % SMALL.vocab),
        pages,
        rows: [{ position: tokens - 1, request }],
      },
    ],
    native().kvPageTokens,
  );
}

/** Under AddressSanitizer everything takes longer, and freed memory is kept for a while. */
export const isSanitized = process.env.LD_PRELOAD?.includes('asan') ?? false;

/** Milliseconds from the wish to end to the end, on a busy machine: an operation, and Node's own. */
export const SOON_MS = isSanitized ? 15_000 : 1500;

/** Milliseconds after which a child is taken to hang. */
const HANGS_MS = isSanitized ? 300_000 : 30_000;

/** What a child process did. */
export interface Outcome {
  code: number | null;
  signal: NodeJS.Signals | null;
  stderr: string;
  /** Its line of JSON. */
  report: unknown;
  /** Milliseconds from its line "leaving" to its end, if it says that. */
  leavingMs: number | undefined;
}

/**
 * Runs a scenario of engine-child.mjs, which uses the compiled library. A child that hangs is killed.
 */
export async function runChild(
  scenario: string,
  specs: Record<string, EngineSpec> = {},
  nodeOptions: readonly string[] = [],
): Promise<Outcome> {
  const { NODE_OPTIONS: _, ...env } = process.env;
  const child = spawn(
    process.execPath,
    [
      ...nodeOptions,
      fileURLToPath(new URL('engine-child.mjs', import.meta.url)),
      scenario,
      JSON.stringify(specs, (_, value) =>
        value instanceof Float64Array ? { float64: Array.from(value) } : value,
      ),
    ],
    { env, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let stdout = '';
  let stderr = '';
  let leavingAt: number | undefined;
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
    if (stdout.includes('leaving')) leavingAt ??= performance.now();
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
  });
  const killer = setTimeout(() => child.kill('SIGKILL'), HANGS_MS);
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.on('close', (...ended) => resolve(ended)),
  );
  clearTimeout(killer);
  const json = stdout.split('\n').find((line) => line.startsWith('{'));
  return {
    code,
    signal,
    stderr,
    report: json === undefined ? undefined : JSON.parse(json),
    leavingMs: leavingAt === undefined ? undefined : performance.now() - leavingAt,
  };
}

/** Expects that a child ended with this exit code, by itself and without a word on standard error. */
export function expectEnd(outcome: Outcome, code = 0): void {
  expect(outcome).toMatchObject({ code, signal: null, stderr: '' });
}
