/**
 * Weights in f16 and bf16, KV cache in f16 and int8: how far the logits move, and that nothing else
 * moves them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from '@jest/globals';
import { openCheckpoint } from '../../lib/checkpoint/index.js';
import type { KvType } from '../../lib/native.js';
import { writeChanged } from './checkpoint-copies.js';
import { toBf16, toF16 } from './rounding.js';
import {
  Driver,
  describeModels,
  expectSameBits,
  isas,
  maxError,
  report,
  rms,
  withIsa,
} from './support.js';

/** How far an f32 logit may be from the float64 one; see golden.test.ts. */
const F32_BOUND = 1e-3;

/** Unit roundoff: half the distance of neighbouring numbers, relative. */
const ROUNDOFF = { f32: 0, f16: 2 ** -11, bf16: 2 ** -8 } as const;

/**
 * Significant bits of the file types: a format with as many holds them exactly. (bf16 weights below
 * 2^-14 lose bits in f16, but at most 2^-25 each: over a row of 768 that is less than what f32
 * arithmetic loses.)
 */
const SIGNIFICANT_BITS = { F32: 24, F16: 11, BF16: 8 } as const;
const SIGNIFICANT_BITS_KEPT = { f32: 24, f16: 11, bf16: 8 } as const;

type Format = keyof typeof ROUNDOFF;

/**
 * The root mean square of the error that rounding gives logits, as a share of the logits' own.
 *
 * A rounded tensor's elements are off by independent errors of up to u times their size, so that what
 * is computed from it (a sum over hundreds of elements) is off by a random vector of up to u times
 * its own norm. Behind it the network does not amplify relative errors: each layer adds its output to
 * the residual stream, and RMSNorm takes the stream's size out. So each of the n rounded tensors
 * between token and logit contributes u or less; being independent, they add up as squares.
 * Tensors: seven matrices in each layer, embedding and head; in the cache, keys and values of each
 * layer.
 *
 * int8 in the cache: the error is even over half a scale to either side, in the root mean square
 * scale / sqrt(12), and the scale is largest / 127; a head's largest number is at most
 * sqrt(headDim) times its root mean square.
 */
function relativeError(layers: number, weights: number, kv: number): number {
  return Math.sqrt((7 * layers + 2) * weights ** 2 + 2 * layers * kv ** 2);
}

const kvRoundoff = (kv: KvType, headDim: number) =>
  kv === 'int8' ? Math.sqrt(headDim / 12) / 127 : ROUNDOFF[kv];

/** The largest of `count` normally distributed numbers, in standard deviations. */
const largestOf = (count: number) => Math.sqrt(2 * Math.log(count));

const root = mkdtempSync(join(tmpdir(), 'altiplano-half-'));
const measured: Record<string, string | number>[] = [];
afterAll(() => {
  rmSync(root, { recursive: true });
  report('16-bit weights and KV caches against golden.json', measured);
});

const combinations: { weights: Format; kv: KvType }[] = [
  { weights: 'f16', kv: 'f32' },
  { weights: 'bf16', kv: 'f32' },
  { weights: 'f32', kv: 'f16' },
  { weights: 'f16', kv: 'f16' },
  { weights: 'bf16', kv: 'f16' },
  { weights: 'bf16', kv: 'bf16' },
  { weights: 'f32', kv: 'int8' },
  { weights: 'bf16', kv: 'int8' },
];

describeModels('half precision', ({ name, folder, golden }) => {
  const expected = golden.cases.map(({ logits_last }) => logits_last);

  async function lastLogits(path: string, options: { weights: Format; kv: KvType }) {
    const driver = await Driver.load(path, { ...options, threads: 1 });
    const rows: Float32Array[] = [];
    for (const { ids } of golden.cases) rows.push((await driver.logitsOf(ids)).at(-1)!);
    const { layers, headDim } = driver.spec;
    await driver.dispose();
    return { rows, layers, headDim };
  }

  test.each(isas)('errors stay within the bounds, table %s', async (isa) => {
    const { tensors } = await openCheckpoint(folder);
    const fileBits = SIGNIFICANT_BITS[tensors.embedding.type as keyof typeof SIGNIFICANT_BITS];
    for (const options of combinations) {
      const { rows, layers, headDim } = await withIsa(isa, () => lastLogits(folder, options));
      const { weights, kv } = options;
      const isExact = fileBits <= SIGNIFICANT_BITS_KEPT[weights];
      const share = relativeError(layers, isExact ? 0 : ROUNDOFF[weights], kvRoundoff(kv, headDim));
      const rmsBound = share * rms(expected);
      const maxBound = rmsBound * largestOf(expected.length * expected[0]!.length) + F32_BOUND;

      const errors = rows.map((row, i) => row.map((logit, id) => logit - expected[i]![id]!));
      const error = Math.max(...rows.map((row, i) => maxError(row, expected[i]!)));
      measured.push({
        model: name,
        isa,
        ...options,
        'rms error': rms(errors).toExponential(1),
        'rms bound': rmsBound.toExponential(1),
        'max error': error.toExponential(1),
        'max bound': maxBound.toExponential(1),
      });
      expect(rms(errors)).toBeLessThanOrEqual(rmsBound + F32_BOUND);
      expect(error).toBeLessThanOrEqual(maxBound);
    }
  });

  // The bounds above would let a wrong rounding pass. What follows would not.
  test.each([
    ['f16', toF16],
    ['bf16', toBf16],
  ] as const)(
    '%s weights are the nearest ones, and what is computed is the same',
    async (weights, round) => {
      const rounded = writeChanged(folder, join(root, `${name}-${weights}`), round);
      for (const isa of isas) {
        await withIsa(isa, async () => {
          const kept = await lastLogits(folder, { weights, kv: 'f32' });
          const inF32 = await lastLogits(rounded, { weights: 'f32', kv: 'f32' });
          expectSameBits(kept.rows, inF32.rows);
        });
      }
    },
  );
});
