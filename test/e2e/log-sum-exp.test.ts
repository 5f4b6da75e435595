/**
 * The sampler decides from few candidates and native's log-sum-exp, and assumes a bound for the error
 * of that. Here native's answers are held against float64 sums over the same whole rows.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { rankCandidates } from '../../lib/sampling/ranking.js';
import type { RowRequest } from '../../lib/sampling/types.js';
import { safetensorsBytes } from '../fixtures/safetensors-writer.js';
import { TINY, tinyConfig, tinyTensors, writeFiles } from '../fixtures/tiny-model.js';
import { Driver, describeModels, isas, newSequence, report, withIsa } from './support.js';

const root = mkdtempSync(join(tmpdir(), 'altiplano-sums-'));
const measured: Record<string, string | number>[] = [];
afterAll(() => {
  rmSync(root, { recursive: true });
  report('scaled log-sum-exp against float64, worst of all temperatures', measured);
});

// Read once: jest's global object is slow, and there are millions of logits.
const { abs, exp, log, max } = Math;

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/** From far above to far below what callers use. */
const TEMPERATURES = [100, 2, 1, 0.9, 0.6, 0.25, 0.05, 1e-3, 1e-4];

function requestFor(inverseTemperature: number): RowRequest {
  return {
    candidates: 1,
    ids: new Int32Array(0),
    inverseTemperature,
    fullRow: false,
    changes: { repeated: new Uint8Array(0), offsets: new Float64Array(0) },
  };
}

/**
 * The error that the sampler assumes in a scaled log-sum-exp whose largest term is exp(largest),
 * found from what it makes of a row: one token of weight 1, and a sum of 2 for the whole row. What
 * the others may weigh at most is then 1 and the error.
 */
function assumedError(largest: number): number {
  const logit = Math.fround(largest);
  const row = {
    candidateIds: Int32Array.of(0),
    candidateLogits: Float32Array.of(logit),
    logSumExp: logit + Math.LN2,
    scaledLogSumExp: logit + Math.LN2,
    idLogits: new Float32Array(0),
  };
  const unlimited = 2 ** 52; // tokens that the row may have
  const { high } = rankCandidates(row, requestFor(1), unlimited, 1).total();
  return Math.log1p((high - 2) / 2);
}

/** Natural log of the sum of exp(logit * factor), in float64. */
function logSumExp(logits: Float32Array, factor: number): number {
  let largest = -1 / 0;
  for (let i = 0; i < logits.length; i++) largest = max(largest, logits[i]!);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += exp((logits[i]! - largest) * factor);
  return largest * factor + log(sum);
}

/** Checks the rows of all tokens, at every temperature. */
async function checkRows(driver: Driver, tokens: readonly number[], label: object) {
  let worst = { error: 0, bound: 1 };
  const { vocabSize } = driver.spec;
  for (const temperature of TEMPERATURES) {
    const factor = Math.fround(1 / temperature);
    const sequence = newSequence();
    const [rows] = await driver.step([{ sequence, tokens }], factor);
    driver.release(sequence);
    for (const row of rows!) {
      const logits = row.fullLogits!;
      const best = row.candidateLogits[0]!;
      const expected = logSumExp(logits, factor);
      const error = abs(row.scaledLogSumExp - expected);
      const bound = assumedError(best * factor);
      expect(error).toBeLessThanOrEqual(bound);
      if (error / bound >= worst.error / worst.bound) worst = { error, bound };

      // The unscaled sum gives log-probabilities and perplexities.
      const unscaledError = abs(row.logSumExp - logSumExp(logits, 1));
      expect(unscaledError).toBeLessThanOrEqual(assumedError(best));

      // What the sampler makes of it: bounds that the whole row's weight lies in.
      const { low, high } = rankCandidates(row, requestFor(factor), vocabSize, 1).total();
      const total = exp(expected - best * factor);
      expect(total).toBeGreaterThanOrEqual(low);
      expect(total).toBeLessThanOrEqual(high);
    }
  }
  measured.push({
    ...label,
    error: worst.error.toExponential(1),
    'assumed error': worst.bound.toExponential(1),
  });
}

test('the assumed error can be found, and is small', () => {
  for (const largest of [0, 20, -20, 1e3, 1e5]) {
    expect(assumedError(largest)).toBeGreaterThan(0);
    expect(assumedError(largest)).toBeLessThan(1e-3 + 1e-5 * Math.abs(largest));
  }
});

describeModels('log-sum-exp', ({ name, folder, golden }) => {
  test.each(isas)('within the assumed error, table %s', async (isa) => {
    const driver = await withIsa(isa, () => Driver.load(folder, { threads: 1 }));
    for (const { ids } of golden.cases.slice(1, 2)) {
      await checkRows(driver, ids, { model: name, isa });
    }
    await driver.dispose();
  });
});

// The vocabulary of Llama 2, and three more so that kernels have a tail; rows from nearly flat to far
// wider than any model's. And a small one, of which three tokens are more than the assumed error.
describe.each([
  [32003, 0.01],
  [32003, 1],
  [32003, 30],
  [32003, 1000],
  [1003, 0.01],
])('log-sum-exp of %d logits of size %d', (vocabSize, size) => {
  const folder = join(root, `${vocabSize}-${size}`);

  beforeAll(async () => {
    // Evenly spread in [-scale, scale): the fractions of multiples of the golden ratio.
    const matrix = (scale: number) => {
      const values = new Float32Array(vocabSize * TINY.hiddenSize);
      for (let i = 0; i < values.length; i++) values[i] = scale * (((2 * i * GOLDEN) % 2) - 1);
      return new Uint8Array(values.buffer);
    };
    // A normalised h is about sqrt(hidden) long: the logits' root mean square is then `size`.
    const scales: Record<string, number> = {
      'model.embed_tokens.weight': 1,
      'lm_head.weight': size * Math.sqrt(3 / TINY.hiddenSize),
    };
    const tensors = tinyTensors().map((tensor) => {
      const scale = scales[tensor.name];
      if (scale === undefined) return tensor;
      return { ...tensor, shape: [vocabSize, TINY.hiddenSize], data: matrix(scale) };
    });
    await writeFiles(folder, {
      'config.json': JSON.stringify(tinyConfig({ vocab_size: vocabSize })),
      'model.safetensors': safetensorsBytes(tensors),
    });
  });

  test.each(isas)('within the assumed error, table %s', async (isa) => {
    const driver = await withIsa(isa, () => Driver.load(folder, { threads: 1 }));
    await checkRows(driver, [1, 500, 1000], { model: `${vocabSize} logits of ${size}`, isa });
    await driver.dispose();
  });
});
