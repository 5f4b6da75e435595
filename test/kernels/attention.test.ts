import { expect, test } from '@jest/globals';
import {
  type AttentionOptions,
  attention,
  fromBfloat16,
  fromFloat16,
  toBfloat16,
  toFloat16,
} from '../../lib/kernels.js';
import {
  at,
  bytes,
  describeTables,
  expectWithin,
  generator,
  ROUNDING,
  randomFloats,
  unchanged,
} from './support.js';

interface Case extends AttentionOptions {
  tokens: number;
  keys: number;
  size?: number;
}

/** Attention as its formula says, in f64, with a bound of what f32 may differ. */
function reference(q: Float32Array, k: Float32Array, v: Float32Array, c: Case) {
  const { tokens, keys, heads, kvHeads = heads, headDim, causal = true } = c;
  const scale = c.scale ?? 1 / Math.sqrt(headDim);
  const first = c.firstPosition ?? keys - tokens;
  const values: number[] = [];
  const bounds: number[] = [];
  for (let t = 0; t < tokens; t++) {
    const visible = causal ? first + t + 1 : keys;
    for (let h = 0; h < heads; h++) {
      const kvHead = Math.floor(h / (heads / kvHeads));
      const scores: number[] = [];
      let scoreError = 0;
      for (let j = 0; j < visible; j++) {
        let [sum, absolute] = [0, 0];
        for (let d = 0; d < headDim; d++) {
          const product =
            at(q, (t * heads + h) * headDim + d) * at(k, (j * kvHeads + kvHead) * headDim + d);
          sum += product;
          absolute += Math.abs(product);
        }
        scores.push(sum * scale);
        // headDim products and sums, the factor (itself rounded twice) and its product.
        scoreError = Math.max(scoreError, (headDim + 4) * ROUNDING * absolute * Math.abs(scale));
      }
      const most = Math.max(...scores);
      const weights = scores.map((s) => Math.exp(s - most));
      const total = weights.reduce((a, b) => a + b);
      // An error e of a score is a relative error e of its weight, once in the numerator and once in
      // the sum; so is the rounding of the difference to the maximum; the running sums of keys are
      // rounded at each key, and rescaled (an exponential, 4 roundings, and a product) at each page.
      const gap = most - Math.min(...scores);
      const pages = Math.ceil(visible / 32);
      const relative = 2 * (scoreError + (gap + visible + 6 * pages + 6) * ROUNDING);
      for (let d = 0; d < headDim; d++) {
        let [sum, absolute] = [0, 0];
        for (let j = 0; j < visible; j++) {
          const term = (at(weights, j) * at(v, (j * kvHeads + kvHead) * headDim + d)) / total;
          sum += term;
          absolute += Math.abs(term);
        }
        values.push(sum);
        bounds.push(relative * absolute + 2 ** -140);
      }
    }
  }
  return { values, bounds };
}

function inputs(c: Case, seed: number): [Float32Array, Float32Array, Float32Array] {
  const random = generator(seed);
  const { tokens, keys, heads, kvHeads = heads, headDim, size = 1 } = c;
  return [
    randomFloats(random, tokens * heads * headDim, size),
    randomFloats(random, keys * kvHeads * headDim, size),
    randomFloats(random, keys * kvHeads * headDim),
  ];
}

function optionsOf({ tokens: _, keys: __, size: ___, ...options }: Case): AttentionOptions {
  return options;
}

/** What x is in int8: the largest magnitude of each head of each key is 127. */
function toInt8Codes(x: Float32Array, headDim: number): Float32Array {
  return x.map((value, i) => {
    const head = x.subarray(i - (i % headDim), i - (i % headDim) + headDim);
    const scale = Math.fround(Math.max(...head.map(Math.abs)) / 127);
    // Random numbers: no ties.
    return Math.round(Math.fround(value / scale)) * scale;
  });
}

const CASES: Case[] = [
  { tokens: 1, keys: 1, heads: 1, headDim: 1 },
  { tokens: 5, keys: 5, heads: 2, headDim: 7 },
  { tokens: 3, keys: 70, heads: 4, kvHeads: 2, headDim: 16 },
  { tokens: 33, keys: 64, heads: 6, kvHeads: 1, headDim: 24 },
  { tokens: 50, keys: 97, heads: 8, kvHeads: 2, headDim: 33 },
  { tokens: 4, keys: 40, heads: 2, headDim: 64, causal: false },
  { tokens: 9, keys: 3, heads: 3, headDim: 12, causal: false },
  { tokens: 4, keys: 40, heads: 2, headDim: 8, firstPosition: 0 },
  { tokens: 4, keys: 40, heads: 2, headDim: 8, firstPosition: 30, scale: 0.5 },
  { tokens: 7, keys: 65, heads: 2, headDim: 128, scale: -0.25 },
  { tokens: 6, keys: 65, heads: 2, headDim: 32, size: 4 },
  { tokens: 3, keys: 34, heads: 2, headDim: 16, size: 1e-20 },
];

describeTables('attention', (use) => {
  test.each(CASES)('%j', (c) => {
    const [q, k, v] = inputs(c, c.keys * c.headDim);
    const y = use(() => unchanged([q, k, v], () => attention(q, k, v, optionsOf(c))));
    const { values, bounds } = reference(q, k, v, c);
    expect(y).toHaveLength(values.length);
    expectWithin(
      y,
      (i) => at(values, i),
      (i) => at(bounds, i),
    );
  });

  test.each([
    ['f16', (x: Float32Array) => fromFloat16(toFloat16(x))],
    ['bf16', (x: Float32Array) => fromBfloat16(toBfloat16(x))],
  ] as const)('%s keys and values are those rounded to it', (kv, rounded) => {
    for (const c of CASES.slice(1, 7)) {
      const [q, k, v] = inputs(c, 11);
      const y = use(() => unchanged([q, k, v], () => attention(q, k, v, { ...optionsOf(c), kv })));
      const { values, bounds } = reference(q, rounded(k), rounded(v), c);
      expectWithin(
        y,
        (i) => at(values, i),
        (i) => at(bounds, i),
      );
    }
  });

  test('int8 keys and values have a scale per key and head', () => {
    for (const c of CASES.slice(1, 7)) {
      const [q, k, v] = inputs(c, 12);
      const y = use(() =>
        unchanged([q, k, v], () => attention(q, k, v, { ...optionsOf(c), kv: 'int8' })),
      );
      const rounded = (x: Float32Array) => toInt8Codes(x, c.headDim);
      const { values, bounds } = reference(q, rounded(k), rounded(v), c);
      // The reference's numbers are themselves rounded to f32, and two scales are multiplied. Some
      // tables round q, and the 32 weights of a page, by up to 2^-16 of the largest.
      const [mostQ, mostK, mostV] = [q, k, v].map((x) => Math.max(...x.map(Math.abs)));
      const scale = Math.abs(c.scale ?? 1 / Math.sqrt(c.headDim));
      const scoreSteps = scale * c.headDim * mostQ! * mostK!;
      const rounding = 2 ** -16 * (2 * scoreSteps + 32) * mostV!;
      expectWithin(
        y,
        (i) => at(values, i),
        (i) => 2 * at(bounds, i) + rounding,
      );
    }
  });

  test('keys after a token do not count, whatever they are', () => {
    const c = { tokens: 6, keys: 50, heads: 4, kvHeads: 2, headDim: 16, firstPosition: 20 };
    const [q, k, v] = inputs(c, 2);
    const clean = use(() => attention(q, k, v, optionsOf(c)));
    const hidden = 26 * 2 * 16;
    for (const poison of [Number.NaN, Number.POSITIVE_INFINITY, 1e38]) {
      k.fill(poison, hidden);
      v.fill(poison, hidden);
      const y = use(() => attention(q, k, v, optionsOf(c)));
      expect(bytes(y).equals(bytes(clean))).toBe(true);
    }
  });

  test('a token has the same bits alone and in a chunk', () => {
    const c = { tokens: 37, keys: 80, heads: 6, kvHeads: 2, headDim: 40 };
    const [q, k, v] = inputs(c, 3);
    const cols = c.heads * c.headDim;
    const all = use(() => attention(q, k, v, optionsOf(c)));
    for (let t = 0; t < c.tokens; t += 5) {
      const one = use(() =>
        attention(q.subarray(t * cols, (t + 1) * cols), k, v, {
          ...optionsOf(c),
          firstPosition: c.keys - c.tokens + t,
        }),
      );
      expect(bytes(one).equals(bytes(all.subarray(t * cols, (t + 1) * cols)))).toBe(true);
    }
  });

  test('huge scores choose one key; zeros weigh all keys alike', () => {
    const c = { tokens: 1, keys: 40, heads: 1, headDim: 8 };
    const [q, k, v] = inputs(c, 4);
    q.fill(1e15);
    k.fill(-1e15);
    k.fill(1e15, 33 * 8, 34 * 8);
    const chosen = use(() => attention(q, k, v, optionsOf(c)));
    expect([...chosen]).toEqual([...v.subarray(33 * 8, 34 * 8)]);
    q.fill(0);
    const mean = use(() => attention(q, k, v, optionsOf(c)));
    const column = (d: number) => {
      let sum = 0;
      for (let j = 0; j < 40; j++) sum += at(v, j * 8 + d);
      return sum / 40;
    };
    expectWithin(mean, column, () => 50 * ROUNDING);
  });
});
