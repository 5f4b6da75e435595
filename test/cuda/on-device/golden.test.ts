/**
 * The engine on a CUDA device against golden outputs in float64, and against the CPU's engine with the
 * same weights: every model in f16 and in bf16, with a KV cache of that type and of int8, alone, in
 * batches and in chunks.
 */
import { afterAll, describe, expect, test } from '@jest/globals';
import { Llama } from '../../../lib/index.js';
import type { EngineSpec } from '../../../lib/native.js';
import type { LoadOptions } from '../../../lib/options.js';
import {
  Driver,
  describeModels,
  generator,
  greedyTokens,
  maxError,
  newSequence,
  type Part,
  report,
  rms,
} from '../../e2e/support.js';

/** Significant bits of the types of activations, and of the weights of files. */
const BITS: Readonly<Record<string, number>> = { f16: 11, bf16: 8, F16: 11, BF16: 8, F32: 24 };
/** How far sums in f32 move a logit; see test/e2e/golden.test.ts. */
const F32_BOUND = 1e-3;

/**
 * The root mean square of the logits' error, as a share of their own: each rounded tensor between
 * token and logit adds an independent error of at most u (f16: 2^-11, bf16: 2^-8) times its size, and
 * they add up as squares; test/e2e/half-precision.test.ts derives it. On a device that multiplies in 16
 * bits these are, in each layer
 * - seven activations: the two normalised inputs of matmuls, q with k and v as they come out of theirs,
 *   q rotated, k and v in the cache (int8: sqrt(headDim / 12) / 127 instead, twice), what attention
 *   gives, and silu(gate) * up;
 * - seven matrices, which are rounded where the file has more bits, and dequantized to f16 where they
 *   are int8 or int4;
 * and the last normalised row with the output head.
 */
function relativeError({ layers, headDim, kv, activations, tensors }: EngineSpec) {
  const u = 2 ** -BITS[activations]!;
  const int8 = Math.sqrt(headDim / 12) / 127;
  const { type, format } = tensors.layers[0]!.q;
  const isRounded = 'group' in format || BITS[type]! > BITS[activations]!;
  const rounded = (7 * layers + 1) * (isRounded ? 2 : 1);
  return Math.sqrt(rounded * u ** 2 + (kv === 'int8' ? 2 * layers * int8 ** 2 : 0));
}

/** The largest of `count` normally distributed numbers, in standard deviations. */
const largestOf = (count: number) => Math.sqrt(2 * Math.log(count));

const ON_DEVICE = { device: 'cuda', kvCacheTokens: 2048, threads: 1 } as const;

const measured: Record<string, string | number>[] = [];
afterAll(() => report('on the CUDA device', measured));

describeModels('on a CUDA device', ({ name, folder, golden }) => {
  const expected = golden.cases.map(({ logits_last }) => logits_last);
  const sequences = golden.cases.map(({ ids, greedy }) => [...ids, ...greedy]);

  /** Bounds of the error of logits like `rows`. */
  function boundsFor(spec: EngineSpec, rows: readonly ArrayLike<number>[]) {
    const rmsBound = relativeError(spec) * rms(rows) + F32_BOUND;
    return { rmsBound, maxBound: rmsBound * largestOf(rows.length * rows[0]!.length) };
  }

  function expectNear(
    label: object,
    found: readonly Float32Array[],
    exact: readonly ArrayLike<number>[],
    { rmsBound, maxBound }: { rmsBound: number; maxBound: number },
  ) {
    const errors = found.map((row, i) => row.map((logit, id) => logit - exact[i]![id]!));
    const error = Math.max(...found.map((row, i) => maxError(row, exact[i]!)));
    measured.push({
      model: name,
      ...label,
      'rms error': rms(errors).toExponential(1),
      'rms bound': rmsBound.toExponential(1),
      'max error': error.toExponential(1),
      'max bound': maxBound.toExponential(1),
    });
    expect(rms(errors)).toBeLessThanOrEqual(rmsBound);
    expect(error).toBeLessThanOrEqual(maxBound);
  }

  describe.each([
    { weights: 'f16', kv: 'f16' },
    { weights: 'f16', kv: 'int8' },
    { weights: 'bf16', kv: 'bf16' },
    { weights: 'bf16', kv: 'int8' },
  ] as const)('%j', (types) => {
    let maxBound: number;

    test('all logits after the prompts', async () => {
      const driver = await Driver.load(folder, { ...ON_DEVICE, ...types });
      const found: Float32Array[] = [];
      for (const { ids } of golden.cases) found.push((await driver.logitsOf(ids)).at(-1)!);
      const bounds = boundsFor(driver.spec, expected);
      maxBound = bounds.maxBound;
      await driver.dispose();
      expectNear({ what: 'golden logits', ...types }, found, expected, bounds);
    });

    test('greedy tokens, of all prompts at once and of one alone', async () => {
      const llama = await Llama.load(folder, { ...ON_DEVICE, ...types });
      expect(llama.info).toMatchObject({
        device: 'cuda:0',
        activations: types.weights,
        ...types,
      });
      const margin = 2 * maxBound;
      const answers = await Promise.all(
        golden.cases.map((each) => greedyTokens(llama, each, margin)),
      );
      answers.push(await greedyTokens(llama, golden.cases[0]!, margin));
      for (const [i, { tokens, flips }] of answers.entries()) {
        const { greedy, greedy_margins: margins } = golden.cases[i] ?? golden.cases[0]!;
        expect(tokens).toEqual(greedy);
        expect(flips.length).toBeLessThanOrEqual(margins.filter((m) => m < margin).length);
      }
      measured.push({
        model: name,
        what: 'greedy tokens',
        ...types,
        flips: answers.flatMap(({ flips }) => flips).length,
      });
      expect(llama.stats.mostSequencesInStep).toBe(golden.cases.length);
      await llama.dispose();
    });
  });

  test('random chunks of all sequences in shared steps: the logits of each alone', async () => {
    const driver = await Driver.load(folder, ON_DEVICE);
    const random = generator(1);
    const running = sequences.map((tokens) => ({
      tokens,
      sequence: newSequence(),
      rows: [] as Float32Array[],
    }));
    for (;;) {
      const rest = running.filter(({ tokens, sequence }) => sequence.cachedTokens < tokens.length);
      if (rest.length === 0) break;
      const chosen = rest.filter(() => random() < 0.8);
      if (chosen.length === 0) continue;
      const parts = chosen.map(({ tokens, sequence }): Part => {
        const length = random() < 0.3 ? 1 : 1 + Math.floor(random() * 40);
        const begin = sequence.cachedTokens;
        return { sequence, tokens: tokens.slice(begin, begin + length) };
      });
      const found = await driver.step(parts);
      chosen.forEach(({ rows }, i) => {
        rows.push(...found[i]!.map(({ fullLogits }) => fullLogits!));
      });
    }
    expect(driver.mostSequencesInStep).toBeGreaterThan(1);
    const alone: Float32Array[] = [];
    for (const tokens of sequences) alone.push(...(await driver.logitsOf(tokens)));
    const bounds = boundsFor(driver.spec, alone);
    await driver.dispose();
    // Each is off by the bound.
    const twice = { rmsBound: 2 * bounds.rmsBound, maxBound: 2 * bounds.maxBound };
    expectNear(
      { what: 'batched, alone' },
      running.flatMap(({ rows }) => rows),
      alone,
      twice,
    );
  });

  test.each<LoadOptions>([
    { weights: 'int8' },
    { weights: 'int8', weightGroup: 128, zeroPoints: true },
    { weights: 'int4' },
    { weights: 'int4', weightGroup: 64, zeroPoints: true },
  ])('the same quantized weights as on the CPU: %j', async (options) => {
    const { ids } = golden.cases[1]!;
    const logits = async (more: LoadOptions) => {
      const driver = await Driver.load(folder, { ...options, ...more });
      const found = await driver.logitsOf(ids);
      const { spec } = driver;
      await driver.dispose();
      return { found, spec };
    };
    const exact = await logits({ device: 'cpu', activations: 'f32', kv: 'f32', threads: 1 });
    const onDevice = await logits(ON_DEVICE);
    const bounds = boundsFor(onDevice.spec, exact.found);
    expectNear({ what: JSON.stringify(options) }, onDevice.found, exact.found, bounds);
  });
});
