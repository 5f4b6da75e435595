import { describe, expect, test } from '@jest/globals';
import {
  availableIsas,
  dequantize,
  fromBfloat16,
  fromFloat16,
  type Matrix,
  matmul,
  type QuantizedMatrix,
  quantize,
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
  withIsa,
} from './support.js';

type Format = { type: Matrix['type']; group?: 32 | 64 | 128; zeroPoints?: boolean };

const QUANTIZED = (['int8', 'int4'] as const).flatMap((type) =>
  ([32, 64, 128] as const).flatMap((group) =>
    [false, true].map((zeroPoints) => ({ type, group, zeroPoints })),
  ),
);
const FORMATS: Format[] = [{ type: 'f32' }, { type: 'f16' }, { type: 'bf16' }, ...QUANTIZED];

function makeMatrix(format: Format, values: Float32Array, rows: number, cols: number): Matrix {
  const { type } = format;
  if (type === 'f32') return { type, rows, cols, values };
  if (type === 'f16') return { type, rows, cols, values: toFloat16(values) };
  if (type === 'bf16') return { type, rows, cols, values: toBfloat16(values) };
  return quantize(values, { ...format, type, rows, cols });
}

/** Reads the scale, the zero and the code of an element as the documentation says. */
function reader(m: QuantizedMatrix) {
  const scales = fromFloat16(m.scales);
  return (row: number, col: number) => {
    const index = row * Math.ceil(m.cols / m.group) + Math.floor(col / m.group);
    const scale = at(scales, index);
    if (m.type === 'int8') {
      const code = at(m.values, row * m.cols + col);
      return { scale, zero: m.zeros ? at(m.zeros, index) : 0, code };
    }
    const byte = at(m.values, row * Math.ceil(m.cols / 2) + (col >> 1));
    return { scale, zero: m.zeros ? at(m.zeros, index) : 8, code: col % 2 ? byte >> 4 : byte & 15 };
  };
}

/**
 * What int4 may cut off a weight: the squared errors of a group are together no more than those of
 * rounding to nearest, where each error is at most a step of an eighth of the largest magnitude (a
 * seventh covers its rounding to f16, and a unit of f16's smallest numbers).
 */
function cutOffBound(values: Float32Array, index: number, cols: number, group: number): number {
  const row = Math.floor(index / cols) * cols;
  const begin = row + Math.floor((index - row) / group) * group;
  const weights = values.subarray(begin, Math.min(begin + group, row + cols));
  const largest = weights.reduce((most, w) => Math.max(most, Math.abs(w)), 0);
  return Math.sqrt(weights.length) * (largest / 7 + 2 ** -23);
}

function inputsOf(m: Matrix): (Float32Array | Uint16Array | Int8Array | Uint8Array)[] {
  const zeros = 'zeros' in m ? m.zeros : undefined;
  return [m.values, ...('scales' in m ? [m.scales] : []), ...(zeros ? [zeros] : [])];
}

describeTables('matmul', (use) => {
  const shapes = [
    { tokens: 1, rows: 1, cols: 1 },
    { tokens: 1, rows: 17, cols: 33 },
    { tokens: 3, rows: 8, cols: 31 },
    { tokens: 5, rows: 23, cols: 129 },
    { tokens: 13, rows: 40, cols: 288 },
  ];

  function check(m: Matrix, x: Float32Array, y: Float32Array) {
    const tokens = x.length / m.cols;
    const weights = dequantize(m);
    expect(y).toHaveLength(tokens * m.rows);
    const sum = (i: number, term: (w: number, x: number) => number) => {
      const [t, r] = [Math.floor(i / m.rows), i % m.rows];
      let total = 0;
      for (let j = 0; j < m.cols; j++)
        total += term(at(weights, r * m.cols + j), at(x, t * m.cols + j));
      return total;
    };
    // A chain of at most 128 products and sums within a group or block, its scale, then the sum of at
    // most cols / 32 of them; and denormal products may lose half of the least number each.
    const roundings = Math.min(m.cols, 128) + Math.ceil(m.cols / 32) + 4;
    expectWithin(
      y,
      (i) => sum(i, (w, v) => w * v),
      (i) => roundings * ROUNDING * sum(i, (w, v) => Math.abs(w * v)) + m.cols * 2 ** -149,
    );
  }

  describe.each(FORMATS)('$type group $group zeroPoints $zeroPoints', (format) => {
    test.each(shapes)('$tokens tokens, [$rows, $cols]', ({ tokens, rows, cols }) => {
      const random = generator(rows * cols);
      const values = randomFloats(random, rows * cols).map((w) => w + 0.3);
      const m = makeMatrix(format, values, rows, cols);
      const x = randomFloats(random, tokens * cols, 5);
      check(
        m,
        x,
        use(() => unchanged([x, ...inputsOf(m)], () => matmul(x, m))),
      );
    });

    test('zeros, denormals and huge numbers', () => {
      const [rows, cols] = [9, 70];
      const random = generator(3);
      for (const [weightSize, size] of [
        [0, 1],
        [1, 0],
        [1, 1e-44],
        // AVX2 keeps codes times 2^24 on the way, so that its sums end at about 1e28.
        [1000, 1e25],
      ] as const) {
        const m = makeMatrix(format, randomFloats(random, rows * cols, weightSize), rows, cols);
        const x = randomFloats(random, 2 * cols, size);
        check(
          m,
          x,
          use(() => matmul(x, m)),
        );
      }
    });

    test('a token and a row have the same bits whatever is computed beside them', () => {
      const [tokens, rows, cols] = [9, 21, 160];
      const random = generator(5);
      const values = randomFloats(random, rows * cols);
      const x = randomFloats(random, tokens * cols);
      const all = use(() => matmul(x, makeMatrix(format, values, rows, cols)));
      const oneRow = makeMatrix(format, values.subarray(19 * cols, 20 * cols), 1, cols);
      for (let t = 0; t < tokens; t++) {
        const y = use(() => matmul(x.subarray(t * cols, (t + 1) * cols), oneRow));
        expect(Object.is(y[0], all[t * rows + 19])).toBe(true);
      }
    });
  });

  test('the unused half of the last byte of an odd int4 row does not count', () => {
    const [rows, cols] = [3, 35];
    const m = quantize(randomFloats(generator(1), rows * cols), { type: 'int4', rows, cols });
    const x = randomFloats(generator(2), cols);
    const rowBytes = Math.ceil(cols / 2);
    const values = m.values.map((byte, i) => (i % rowBytes === rowBytes - 1 ? byte | 0xf0 : byte));
    expect(values).not.toEqual(m.values);
    const dirty = { ...m, values };
    expect(use(() => matmul(x, dirty))).toEqual(use(() => matmul(x, m)));
    expect(use(() => dequantize(dirty))).toEqual(use(() => dequantize(m)));
  });
});

describeTables('quantize and dequantize', (use) => {
  describe.each(QUANTIZED)('$type group $group zeroPoints $zeroPoints', (format) => {
    test.each([
      [1, 1],
      [4, 33],
      [3, 127],
      [2, 256],
    ])('[%i, %i]', (rows, cols) => {
      const random = generator(cols);
      for (const [offset, size] of [
        [0, 1],
        [2, 1],
        [-3, 1e-3],
        [0, 1e-5],
        [0, 1e5],
        [1e-9, 0],
        [0, 0],
      ] as const) {
        const values = randomFloats(random, rows * cols, size).map((w) => w + offset);
        const m = use(() => unchanged([values], () => quantize(values, { ...format, rows, cols })));
        expect(m.zeros !== undefined).toBe(format.zeroPoints);
        const weights = use(() => unchanged(inputsOf(m), () => dequantize(m)));
        const read = reader(m);
        for (const [i, w] of values.entries()) {
          const [row, col] = [Math.floor(i / cols), i % cols];
          const { scale, zero, code } = read(row, col);
          // Exact: the product of a difference of codes and an f16 fits into f32.
          if (!Object.is(weights[i], (code - zero) * scale)) {
            throw new Error(`(${code} - ${zero}) * ${scale} became ${weights[i]}`);
          }
          // Half a scale. The product with the inverse of the scale has two roundings.
          const { type, group, zeroPoints } = format;
          const [least, most] = type === 'int4' ? [0, 15] : zeroPoints ? [-128, 127] : [-127, 127];
          let bound = Math.abs(scale) / 2 + 4 * ROUNDING * Math.abs(w);
          if (code === least || code === most) {
            bound += type === 'int8' ? Math.abs(scale) : cutOffBound(values, i, cols, group);
          }
          if (!(Math.abs(at(weights, i) - w) <= bound)) {
            throw new Error(`${w} became ${weights[i]}, off by more than ${bound}`);
          }
          if (code < least || code > most) throw new Error(`code ${code}`);
        }
      }
    });
  });

  test('a group of zeros has scale 0', () => {
    const m = use(() => quantize(new Float32Array(64), { type: 'int8', rows: 1, cols: 64 }));
    expect([...m.scales]).toEqual([0, 0]);
    expect(m.group).toBe(32);
  });

  test('weights beyond every f16 scale are cut off, and stay finite', () => {
    const values = Float32Array.of(3e38, -3e38, 1, 0);
    const int8 = use(() => dequantize(quantize(values, { type: 'int8', rows: 1, cols: 4 })));
    expect([...int8]).toEqual([65504 * 127, -65504 * 127, 0, 0]);
    const int4 = use(() => dequantize(quantize(values, { type: 'int4', rows: 1, cols: 4 })));
    expect(int4.every(Number.isFinite)).toBe(true);
  });

  test('the float formats become f32 unchanged', () => {
    const values = Float32Array.of(1.1, -0, 3e38, Number.NaN, 1e-45, 65504);
    for (const type of ['f32', 'f16', 'bf16'] as const) {
      const m = makeMatrix({ type }, values, 2, 3);
      const weights = use(() => unchanged(inputsOf(m), () => dequantize(m)));
      const bits = m.values as Uint16Array;
      const expected =
        type === 'f32' ? values : type === 'f16' ? fromFloat16(bits) : fromBfloat16(bits);
      expect(bytes(weights).equals(bytes(expected))).toBe(true);
    }
  });

  test('matrices made by hand: the lowest codes, negative scales', () => {
    const scales = toFloat16(Float32Array.of(-0.5));
    const int8 = { type: 'int8', rows: 1, cols: 2, group: 32, scales } as const;
    const values = Int8Array.of(-128, 127);
    const plain = use(() => dequantize({ ...int8, values }));
    expect([...plain]).toEqual([64, -63.5]);
    const zeros = use(() => dequantize({ ...int8, values, zeros: Int8Array.of(-128) }));
    expect([...zeros]).toEqual([-0, -127.5]);
    const int4 = { ...int8, type: 'int4', values: Uint8Array.of(0xf0) } as const;
    expect([...use(() => dequantize(int4))]).toEqual([4, -3.5]);
    const int4Zeros = use(() => dequantize({ ...int4, zeros: Uint8Array.of(15) }));
    expect([...int4Zeros]).toEqual([7.5, -0]);
  });
});

describe('quantize', () => {
  test('all tables give the same bits', () => {
    const [rows, cols] = [5, 201];
    const values = randomFloats(generator(9), rows * cols).map((w, i) => w * 10 ** ((i % 13) - 8));
    for (const format of QUANTIZED) {
      const results = availableIsas().map((isa) =>
        withIsa(isa, () => {
          const m = quantize(values, { ...format, rows, cols });
          return [...inputsOf(m), dequantize(m)].map((part) => bytes(part).toString('base64'));
        }),
      );
      for (const result of results) expect(result).toEqual(results[0]);
    }
  });
});
