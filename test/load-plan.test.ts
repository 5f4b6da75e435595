/**
 * How much of the memory a plan takes, and what happens where it does not suffice. Memory is made up
 * here: nothing is loaded.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type Checkpoint, openCheckpoint } from '../lib/checkpoint/index.js';
import { checkMemory, cpuPlace, type LoadPlan, planLoad } from '../lib/load-plan.js';
import { type LoadOptions, resolveLoadOptions } from '../lib/options.js';
import { TINY, tinyConfig, tinyFolder, writeFiles } from './fixtures/tiny-model.js';

const PAGE_TOKENS = 32;
/** Keys and values in f32, all layers. */
const TOKEN_BYTES = 2 * 4 * TINY.layers * TINY.kvHeads * TINY.headDim;
/** As Llama 3.1 has it. */
const LONG_CONTEXT = 131_072;

const folder = mkdtempSync(join(tmpdir(), 'altiplano-plan-'));
let tiny: Checkpoint;
let long: Checkpoint;
/** What weights and workspace take. */
let fixedBytes: number;

beforeAll(async () => {
  await writeFiles(join(folder, 'tiny'), tinyFolder());
  const config = JSON.stringify(tinyConfig({ max_position_embeddings: LONG_CONTEXT }));
  await writeFiles(join(folder, 'long'), tinyFolder({ 'config.json': config }));
  tiny = await openCheckpoint(join(folder, 'tiny'));
  long = await openCheckpoint(join(folder, 'long'));
  const { memory } = plan(tiny, 2 ** 40);
  fixedBytes = memory.weightsBytes + memory.workspaceBytes;
});
afterAll(() => rmSync(folder, { recursive: true }));

const plan = (checkpoint: Checkpoint, availableBytes: number, options: LoadOptions = {}) =>
  planLoad(checkpoint, resolveLoadOptions({ threads: 1, ...options }), cpuPlace(availableBytes));

/** Memory that leaves room for a cache of `tokens` beside the weights. */
const roomFor = (tokens: number) => fixedBytes + tokens * TOKEN_BYTES;

function refusal(made: LoadPlan): string {
  try {
    checkMemory(made, 'here');
  } catch (error) {
    expect(error).toMatchObject({ code: 'ALTIPLANO_OUT_OF_MEMORY', subject: 'here' });
    return (error as Error).message;
  }
  return 'fits';
}

describe('the default context', () => {
  test("is the model's, with a cache for four of them", () => {
    const made = plan(long, 2 ** 40);
    expect(made).toMatchObject({
      contextTokens: LONG_CONTEXT,
      kvCacheTokens: 4 * LONG_CONTEXT,
      place: { availableBytes: 2 ** 40 },
      warnings: [],
    });
    expect(made.spec.maxPositions).toBe(LONG_CONTEXT);
    expect(made.memory.kvBytes).toBe(4 * LONG_CONTEXT * TOKEN_BYTES);
    expect(refusal(made)).toBe('fits');
  });

  test.each([
    ['f16', TOKEN_BYTES / 2],
    ['bf16', TOKEN_BYTES / 2],
    // A code for each number, and two f32 scales for each head.
    ['int8', TOKEN_BYTES / 4 + 2 * 4 * TINY.layers * TINY.kvHeads],
  ] as const)('counts the bytes of keys and values in %s', (kv, tokenBytes) => {
    const made = plan(long, 2 ** 40, { kv });
    expect(made.spec.kv).toBe(kv);
    expect(made.memory.kvBytes).toBe(4 * LONG_CONTEXT * tokenBytes);
  });

  test('takes no more than a quarter of the memory for further contexts', () => {
    const made = plan(long, 8 * LONG_CONTEXT * TOKEN_BYTES);
    expect(made).toMatchObject({ contextTokens: LONG_CONTEXT, kvCacheTokens: 2 * LONG_CONTEXT });
  });

  test('is whole where exactly one fits', () => {
    const made = plan(long, roomFor(LONG_CONTEXT));
    expect(made).toMatchObject({
      contextTokens: LONG_CONTEXT,
      kvCacheTokens: LONG_CONTEXT,
      warnings: [],
    });
    expect(refusal(made)).toBe('fits');
  });

  test('is the longest that fits where one does not, with a warning', () => {
    const made = plan(long, roomFor(LONG_CONTEXT) - 1);
    const contextTokens = LONG_CONTEXT - PAGE_TOKENS;
    expect(made).toMatchObject({ contextTokens, kvCacheTokens: contextTokens });
    expect(made.spec.maxPositions).toBe(contextTokens);
    expect(refusal(made)).toBe('fits');
    expect(made.warnings).toEqual([
      expect.stringMatching(
        /^long: the context is 131040 tokens long instead of 131072, .* 32\.0 MiB.* 32\.9 MiB available, 32\.0 MiB are left/,
      ),
    ]);
  });

  test('is never shorter than 512 tokens: then the model is refused', () => {
    const made = plan(long, roomFor(512));
    expect(made).toMatchObject({ contextTokens: 512, kvCacheTokens: 512 });
    expect(refusal(made)).toBe('fits');
    expect(refusal(plan(long, roomFor(512) - 1))).toMatch(/KV cache \(512 tokens, f32\) 128 KiB/);
  });

  test('of a model that has no 512 tokens is not shortened', () => {
    const made = plan(tiny, fixedBytes);
    expect(made).toMatchObject({ contextTokens: TINY.contextTokens, warnings: [] });
    expect(refusal(made)).toMatch(/does not fit into memory/);
  });

  test('is the engine’s longest for a model that claims more', async () => {
    const config = JSON.stringify(tinyConfig({ max_position_embeddings: 2 ** 27 }));
    await writeFiles(join(folder, 'claims'), tinyFolder({ 'config.json': config }));
    const claims = await openCheckpoint(join(folder, 'claims'));
    expect(plan(claims, 2 ** 40).contextTokens).toBe(2 ** 24);
    expect(() => plan(claims, 2 ** 40, { contextTokens: 2 ** 24 + 1 })).toThrow(
      expect.objectContaining({ code: 'ALTIPLANO_OUT_OF_RANGE', subject: 'contextTokens' }),
    );
  });

  test('makes room beside weights that take most of the memory', () => {
    // Four contexts are within a quarter of the memory, but not within what the weights leave.
    const made = plan(tiny, roomFor(2 * TINY.contextTokens));
    expect(made.kvCacheTokens).toBe(2 * TINY.contextTokens);
    expect(refusal(made)).toBe('fits');
  });
});

describe('what the caller asks for', () => {
  test('is kept, and refused with the numbers where it does not fit', () => {
    const made = plan(long, roomFor(4096) - 1, { contextTokens: 4096 });
    expect(made).toMatchObject({ contextTokens: 4096, kvCacheTokens: 4096, warnings: [] });
    expect(refusal(made)).toMatch(
      /^here: .*expected \d\.\d+ MiB: weights \(f32\) \d+ KiB, KV cache \(4096 tokens, f32\) 1\.0 MiB, workspace \d+ KiB, found \d\.\d+ MiB available\)/,
    );
    expect(refusal(plan(long, roomFor(4096), { contextTokens: 4096 }))).toBe('fits');
  });

  test('a cache does not shorten the context', () => {
    const made = plan(long, roomFor(1024), { kvCacheTokens: 1000 });
    expect(made).toMatchObject({
      contextTokens: LONG_CONTEXT,
      kvCacheTokens: 1024,
      warnings: [],
    });
    expect(refusal(made)).toBe('fits');
    expect(refusal(plan(long, roomFor(1024) - 1, { kvCacheTokens: 1000 }))).toMatch(/1024 tokens/);
  });

  test.each([
    ['contextTokens', TINY.contextTokens + 1, /longer than the model was trained for.*at most 64/],
    ['kvCacheTokens', 2 ** 30, /more than a KV cache can hold.*at most 536870912/],
  ])('%s of %d is refused', (name, value, message) => {
    expect(() => plan(tiny, 2 ** 40, { [name]: value })).toThrow(
      expect.objectContaining({
        code: 'ALTIPLANO_OUT_OF_RANGE',
        name: 'RangeError',
        message: expect.stringMatching(message),
      }),
    );
  });

  test('what no machine could hold is a typed error of the engine', () => {
    const layers = Array.from({ length: 1024 }, () => tiny.tensors.layers[0]!);
    const config = { ...tiny.config, layers: 1024, headDim: 1024, heads: 2048, kvHeads: 2048 };
    const huge: Checkpoint = { ...tiny, config, tensors: { ...tiny.tensors, layers } };
    expect(() => plan(huge, 2 ** 60, { kvCacheTokens: 2 ** 29 })).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^ALTIPLANO_/) }),
    );
  });
});
