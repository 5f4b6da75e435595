import { describe, expect, test } from '@jest/globals';
import { rmsNorm, rope, siluMul, softmax } from '../../lib/kernels.js';
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

const LENGTHS = [1, 2, 7, 8, 9, 15, 31, 64, 100, 257];
/** The error of an f32 exponential, in roundings: at most 2 units in the last place, 4 roundings. */
const EXP = 4;

describeTables('rmsNorm', (use) => {
  test.each(LENGTHS)('rows of %i', (cols) => {
    const random = generator(cols);
    for (const size of [1e-30, 1e-3, 1, 1e30]) {
      const rows = 3;
      const x = randomFloats(random, rows * cols, size);
      const weight = randomFloats(random, cols, 2);
      const eps = 1e-6;
      const y = use(() => unchanged([x, weight], () => rmsNorm(x, weight, { eps })));
      const expected = (i: number) => {
        const row = Math.floor(i / cols);
        let sum = 0;
        for (let j = 0; j < cols; j++) sum += at(x, row * cols + j) ** 2;
        return (at(weight, i % cols) * at(x, i)) / Math.sqrt(sum / cols + Math.fround(eps));
      };
      // The sum is wide; the factor, its product with x and with the weight are rounded once each,
      // and once more is left for second order.
      expectWithin(y, expected, (i) => 4 * ROUNDING * Math.abs(expected(i)) + 2 ** -149);
    }
  });

  test('the default eps keeps rows of zeros at zero', () => {
    const zeros = new Float32Array(12);
    expect([...use(() => rmsNorm(zeros, new Float32Array(6).fill(3)))]).toEqual([...zeros]);
    const one = use(() => rmsNorm(new Float32Array(4).fill(0.01), new Float32Array(4).fill(1)));
    expectWithin(
      one,
      () => 0.01 / Math.sqrt(1e-4 + 1e-5),
      () => 1e-6,
    );
  });
});

describeTables('siluMul', (use) => {
  const silu = (g: number) => g / (1 + Math.exp(-g));

  test.each(LENGTHS)('%i elements', (length) => {
    const random = generator(length);
    for (const size of [1e-38, 1, 20, 80, 1e30]) {
      const gate = randomFloats(random, length, size);
      const up = randomFloats(random, length, 3);
      const y = use(() => unchanged([gate, up], () => siluMul(gate, up)));
      const expected = (i: number) => silu(at(gate, i)) * at(up, i);
      // exp, the sum, the quotient, the product. Below gates of about -88 exp(-gate) is infinite
      // in f32 and the result 0 in place of 88 e^-88 < 2^-120.
      const bound = (i: number) =>
        (EXP + 4) * ROUNDING * Math.abs(expected(i)) + 2 ** -120 * Math.abs(at(up, i)) + 2 ** -147;
      expectWithin(y, expected, bound);
    }
  });

  test('the same array twice, and none', () => {
    const x = Float32Array.of(-1, 0, 1, 2, 3, 4, 5, 6, 7);
    const y = use(() => unchanged([x], () => siluMul(x, x)));
    expectWithin(
      y,
      (i) => silu(at(x, i)) * at(x, i),
      () => 1e-5,
    );
    expect(use(() => siluMul(new Float32Array(), new Float32Array()))).toHaveLength(0);
  });
});

describeTables('softmax', (use) => {
  test.each(LENGTHS)('rows of %i', (cols) => {
    const random = generator(cols);
    for (const size of [0, 1e-40, 1, 30, 1000, 3e38]) {
      const x = randomFloats(random, 2 * cols, size);
      if (cols > 2) x[cols - 1] = Number.NEGATIVE_INFINITY;
      const y = use(() => unchanged([x], () => softmax(x, { cols })));
      const row = (i: number) => x.subarray(i - (i % cols), i - (i % cols) + cols);
      const below = (i: number) => at(x, i) - Math.max(...row(i));
      const expected = (i: number) => {
        const most = Math.max(...row(i));
        return Math.exp(below(i)) / row(i).reduce((sum, v) => sum + Math.exp(v - most), 0);
      };
      // The difference d to the maximum is rounded, which the exponential turns into a relative error
      // of |d| roundings; in the sum these errors weigh by their terms, and sum |d| p <= log(cols) + 1.
      // Then exponential, sum, inverse and product. Denormal results have an absolute error instead.
      const bound = (i: number) =>
        expected(i) === 0
          ? 2 ** -147
          : (Math.abs(below(i)) + Math.log(cols) + 1 + 2 * EXP + 4) * ROUNDING * expected(i) +
            2 ** -147;
      expectWithin(y, expected, bound);
    }
  });

  test('-Infinity gives exactly 0, and a row of its own sums to 1', () => {
    const x = Float32Array.of(Number.NEGATIVE_INFINITY, 1, 1, Number.NEGATIVE_INFINITY);
    expect([...use(() => softmax(x))]).toEqual([0, 0.5, 0.5, 0]);
  });

  test('without a finite maximum there is no softmax', () => {
    for (const x of [Number.NEGATIVE_INFINITY, Number.NaN]) {
      const y = use(() => softmax(new Float32Array(9).fill(x)));
      expect(y.every(Number.isNaN)).toBe(true);
    }
  });
});

describeTables('rope', (use) => {
  const shapes = [
    { tokens: 1, heads: 1, headDim: 2 },
    { tokens: 3, heads: 2, headDim: 6 },
    { tokens: 5, heads: 3, headDim: 18 },
    { tokens: 2, heads: 4, headDim: 64 },
    { tokens: 4, heads: 1, headDim: 128 },
  ];
  const layouts = ['halves', 'interleaved'] as const;

  test.each(shapes)('$tokens tokens, $heads heads of $headDim', ({ tokens, heads, headDim }) => {
    const random = generator(headDim);
    const half = headDim / 2;
    const x = randomFloats(random, tokens * heads * headDim, 4);
    const positions = Int32Array.from({ length: tokens }, () => Math.floor(random() * 1e6));
    const theta = 500_000;
    for (const layout of layouts) {
      const y = use(() =>
        unchanged([x], () => rope(x, { heads, headDim, positions, theta, layout })),
      );
      const split = (i: number) => {
        const d = i % headDim;
        const pair = layout === 'halves' ? d % half : d >> 1;
        const isSecond = layout === 'halves' ? d >= half : d % 2 === 1;
        const start = i - d;
        const a = at(x, layout === 'halves' ? start + pair : start + 2 * pair);
        const b = at(x, layout === 'halves' ? start + pair + half : start + 2 * pair + 1);
        return { a, b, pair, isSecond };
      };
      const expected = (i: number) => {
        const { a, b, pair, isSecond } = split(i);
        const position = at(positions, Math.floor(i / (heads * headDim)));
        const angle = position * theta ** ((-2 * pair) / headDim);
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        return isSecond ? b * cos + a * sin : a * cos - b * sin;
      };
      // cos and sin, the two products and the sum are rounded; angles up to 1e6 are off by 1e6 f64
      // roundings of their frequency and product, far below one of f32.
      const bound = (i: number) => 4 * ROUNDING * (Math.abs(split(i).a) + Math.abs(split(i).b));
      expectWithin(y, expected, bound);
    }
  });

  test('frequencies of one’s own, and theta 10000 without any', () => {
    const x = randomFloats(generator(7), 2 * 8);
    const options = { heads: 1, headDim: 8, positions: [3, 9] };
    const plain = use(() => rope(x, options));
    const own = Float64Array.from({ length: 4 }, (_, i) => 10000 ** ((-2 * i) / 8));
    const same = use(() => rope(x, { ...options, inverseFrequencies: own }));
    expect(bytes(same).equals(bytes(plain))).toBe(true);
    const other = use(() => rope(x, { ...options, inverseFrequencies: [0, 0, 0, 0] }));
    expect(bytes(other).equals(bytes(x))).toBe(true);
    expect(bytes(plain).equals(bytes(x))).toBe(false);
  });

  test('position 0 changes nothing, and a token has the same bits beside others', () => {
    const x = randomFloats(generator(8), 3 * 2 * 20);
    const at0 = use(() => rope(x, { heads: 2, headDim: 20, positions: [0, 0, 0] }));
    expect(bytes(at0).equals(bytes(x))).toBe(true);
    const all = use(() => rope(x, { heads: 2, headDim: 20, positions: [4, 5, 6] }));
    const one = use(() => rope(x.subarray(40, 80), { heads: 2, headDim: 20, positions: [5] }));
    expect(bytes(all.subarray(40, 80)).equals(bytes(one))).toBe(true);
  });
});

describe('vectors', () => {
  test('results are arrays of their own', () => {
    const x = Float32Array.of(1, 2, 3, 4);
    for (const y of [softmax(x), siluMul(x, x), rmsNorm(x, x)]) expect(y.buffer).not.toBe(x.buffer);
  });
});
