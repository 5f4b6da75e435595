import { describe, expect, test } from '@jest/globals';
import { philox4x32, uniform } from '../../lib/sampling/random.js';

describe('philox4x32', () => {
  // kat_vectors of Random123, the authors' library.
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('of counter %j under key %j', (counter, key, expected) => {
    expect(philox4x32(counter, key)).toEqual(expected);
  });
});

describe('uniform', () => {
  test('depends on all bits of seed and index', () => {
    const values = [
      0,
      1,
      -1,
      2 ** 32,
      -(2 ** 32),
      Number.MAX_SAFE_INTEGER,
      Number.MIN_SAFE_INTEGER,
    ].flatMap((seed) => [0, 1, 2 ** 32, 2 ** 32 + 1].map((index) => uniform(seed, index)));
    expect(new Set(values).size).toBe(values.length);
    expect(values.every((value) => value >= 0 && value < 1)).toBe(true);
  });

  test.each(['indices', 'seeds'])('is even, and free of correlation, over %s', (over) => {
    const n = 50_000;
    const values = Array.from({ length: n }, (_, i) =>
      over === 'indices' ? uniform(5, i) : uniform(i, 5),
    );
    const bins = new Array<number>(100).fill(0);
    for (const value of values) bins[Math.floor(value * 100)]!++;
    const chiSquare = bins.reduce((sum, count) => sum + (count - n / 100) ** 2 / (n / 100), 0);
    // 99 degrees of freedom: below 61 and above 149 once in 1000 each (the values are fixed).
    expect(chiSquare).toBeGreaterThan(61);
    expect(chiSquare).toBeLessThan(149);
    let product = 0;
    for (let i = 1; i < n; i++) product += (values[i]! - 0.5) * (values[i - 1]! - 0.5);
    expect(Math.abs((12 * product) / n)).toBeLessThan(3.3 / Math.sqrt(n));
  });

  test('uses all 53 bits', () => {
    const lowBits = new Set(Array.from({ length: 64 }, (_, i) => (uniform(1, i) * 2 ** 53) % 4));
    expect([...lowBits].sort()).toEqual([0, 1, 2, 3]);
  });
});
