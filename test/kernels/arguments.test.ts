import { runInNewContext } from 'node:vm';
import { describe, expect, test } from '@jest/globals';
import * as kernels from '../../lib/kernels.js';
import { withIsa } from './support.js';

const {
  attention,
  availableIsas,
  dequantize,
  isa,
  matmul,
  quantize,
  rmsNorm,
  rope,
  siluMul,
  softmax,
  toFloat16,
} = kernels;

const f32 = (length: number) => new Float32Array(length);
const int8 = quantize(f32(80), { type: 'int8', rows: 2, cols: 40 });
const int4 = quantize(f32(80), { type: 'int4', rows: 2, cols: 40, zeroPoints: true });
const ropeOptions = { heads: 2, headDim: 4, positions: [0] };
const attentionOptions = { heads: 4, kvHeads: 2, headDim: 4 };

function detached(): Float32Array {
  const array = f32(8);
  structuredClone(array.buffer, { transfer: [array.buffer] });
  expect(array).toHaveLength(0);
  return array;
}

/** Calls with arguments that TypeScript would refuse. */
// biome-ignore lint/suspicious/noExplicitAny: wrong types are the subject
const wrong = (value: unknown) => value as any;

type Row = [name: string, call: () => unknown, message: string | RegExp];

const TYPE_ERRORS: Row[] = [
  [
    'no array',
    () => softmax(wrong(undefined)),
    'x: wrong type (expected a Float32Array, found undefined)',
  ],
  ['a plain array', () => softmax(wrong([1, 2])), 'found an array of 2'],
  ['another typed array', () => siluMul(wrong(new Float64Array(2)), f32(2)), 'gate: wrong type'],
  [
    'an object in disguise',
    () => softmax(wrong({ length: 2, [Symbol.toStringTag]: 'Float32Array' })),
    'found an object',
  ],
  ['a subclass of another array', () => toFloat16(wrong(Buffer.alloc(8))), 'x: wrong type'],
  [
    'bits that are no Uint16Array',
    () => kernels.fromFloat16(wrong(f32(2))),
    'expected a Uint16Array',
  ],
  ['a detached array', () => softmax(detached()), /^x: .*transferred.*found a detached one/],
  ['a detached weight', () => rmsNorm(f32(8), detached()), /^weight: .*transferred/],
  [
    'options that are no object',
    () => softmax(f32(2), wrong(3)),
    'options: wrong type (expected an object, found 3)',
  ],
  ['options that are null', () => softmax(f32(2), wrong(null)), 'options: wrong type'],
  [
    'an unknown option',
    () => softmax(f32(2), wrong({ columns: 2 })),
    'columns: unknown option (expected one of cols)',
  ],
  ['a size in text', () => softmax(f32(2), wrong({ cols: '2' })), /^cols: wrong type .*found "2"/],
  ['an eps in text', () => rmsNorm(f32(2), f32(2), wrong({ eps: '1' })), 'eps: wrong type'],
  ['no matrix', () => matmul(f32(2), wrong(undefined)), 'weights: wrong type (expected an object'],
  ['a typed array as matrix', () => matmul(f32(2), wrong(f32(2))), 'weights.type: wrong type'],
  [
    'values of another type',
    () => dequantize({ ...int8, values: wrong(new Uint8Array(80)) }),
    'matrix.values: wrong type (expected a Int8Array, found a Uint8Array)',
  ],
  [
    'no scales',
    () => dequantize({ ...int8, scales: wrong(undefined) }),
    'matrix.scales: wrong type',
  ],
  [
    'zeros of another type',
    () => dequantize({ ...int4, zeros: wrong(new Int8Array(4)) }),
    'matrix.zeros: wrong type',
  ],
  [
    'zero points in text',
    () => quantize(f32(2), wrong({ type: 'int8', rows: 1, cols: 2, zeroPoints: 'no' })),
    'zeroPoints: wrong type (expected a boolean',
  ],
  ['no positions', () => rope(f32(8), wrong({ heads: 2, headDim: 4 })), 'positions: wrong type'],
  [
    'a position in text',
    () => rope(f32(8), wrong({ ...ropeOptions, positions: ['0'] })),
    'positions[0]: wrong type',
  ],
  [
    '64-bit positions',
    () => rope(f32(8), wrong({ ...ropeOptions, positions: new BigInt64Array(1) })),
    'positions: wrong type',
  ],
  [
    'two sources of frequencies',
    () => rope(f32(8), { ...ropeOptions, theta: 1e4, inverseFrequencies: [1, 1] }),
    'theta: ',
  ],
  [
    'a first position without causal',
    () =>
      attention(f32(16), f32(8), f32(8), { ...attentionOptions, causal: false, firstPosition: 0 }),
    'firstPosition: every token sees every key',
  ],
  [
    'causal in numbers',
    () => attention(f32(16), f32(8), f32(8), wrong({ ...attentionOptions, causal: 1 })),
    'causal: wrong type',
  ],
];

const RANGE_ERRORS: Row[] = [
  [
    'unequal lengths',
    () => siluMul(f32(3), f32(2)),
    'up: wrong length (expected 3 elements (gate.length), found 2)',
  ],
  ['an empty row', () => softmax(f32(0)), 'x: wrong length'],
  [
    'an incomplete row',
    () => softmax(f32(5), { cols: 2 }),
    'x: wrong length (expected a multiple of 2 elements (rows * cols), at least one, found 5)',
  ],
  [
    'no columns',
    () => softmax(f32(5), { cols: 0 }),
    'cols: not usable (expected an integer from 1 to 2147483648, found 0)',
  ],
  ['half a column', () => softmax(f32(5), { cols: 2.5 }), 'cols: not usable'],
  ['too many columns', () => softmax(f32(5), { cols: 2 ** 40 }), 'cols: not usable'],
  ['an empty weight', () => rmsNorm(f32(4), f32(0)), 'weight.length: not usable'],
  ['rows of another length', () => rmsNorm(f32(5), f32(4)), 'x: wrong length'],
  [
    'a negative eps',
    () => rmsNorm(f32(4), f32(4), { eps: -1 }),
    'eps: not usable (expected a finite number from 0, found -1)',
  ],
  ['an eps beyond f32', () => rmsNorm(f32(4), f32(4), { eps: 1e39 }), 'eps: not usable'],
  ['an eps of NaN', () => rmsNorm(f32(4), f32(4), { eps: Number.NaN }), 'eps: not usable'],
  [
    'an unknown type',
    () => dequantize(wrong({ type: 'int2' })),
    'matrix.type: not usable (expected one of "f32", "f16", "bf16", "int8", "int4", found "int2")',
  ],
  [
    'a shape that does not fit',
    () => matmul(f32(3), { type: 'f32', rows: 2, cols: 3, values: f32(5) }),
    'weights.values: wrong length (expected 6 elements (rows * cols), found 5)',
  ],
  [
    'a product of sizes that overflows',
    () => dequantize({ type: 'f32', rows: 2 ** 31, cols: 2 ** 31, values: f32(0) }),
    'matrix.values: wrong length',
  ],
  [
    'tokens that are cut off',
    () => matmul(f32(4), { type: 'f32', rows: 2, cols: 3, values: f32(6) }),
    'x: wrong length',
  ],
  [
    'a group of 48',
    () => dequantize({ ...int8, group: wrong(48) }),
    'matrix.group: not usable (expected one of 32, 64, 128, found 48)',
  ],
  [
    'too few int4 values',
    () => dequantize({ ...int4, values: new Uint8Array(39) }),
    'matrix.values: wrong length (expected 40 elements (rows * ceil(cols / 2))',
  ],
  [
    'too few scales',
    () => dequantize({ ...int8, scales: new Uint16Array(2) }),
    'matrix.scales: wrong length (expected 4 elements',
  ],
  [
    'too many zeros',
    () => dequantize({ ...int4, zeros: new Uint8Array(5) }),
    'matrix.zeros: wrong length',
  ],
  [
    'an infinite scale',
    () => dequantize({ ...int8, scales: Uint16Array.of(0, 0, 0x7c00, 0) }),
    'matrix.scales[2]: not usable (expected the bits of a finite f16, found 31744)',
  ],
  [
    'a scale of NaN',
    () => dequantize({ ...int8, scales: Uint16Array.of(0, 0xfe00, 0, 0) }),
    'matrix.scales[1]: not usable',
  ],
  [
    'an int4 zero of 16',
    () => matmul(f32(40), { ...int4, zeros: Uint8Array.of(0, 15, 16, 0) }),
    'weights.zeros[2]: not usable (expected an integer from 0 to 15, found 16)',
  ],
  [
    'a type that is not quantized',
    () => quantize(f32(2), wrong({ type: 'f16', rows: 1, cols: 2 })),
    'type: not usable (expected one of "int8", "int4"',
  ],
  [
    'a NaN to quantize',
    () => quantize(Float32Array.of(0, Number.NaN), { type: 'int8', rows: 1, cols: 2 }),
    'values[1]: not usable (expected a finite number, found NaN)',
  ],
  [
    'too few values to quantize',
    () => quantize(f32(3), { type: 'int4', rows: 2, cols: 2 }),
    'values: wrong length',
  ],
  [
    'an odd head',
    () => rope(f32(6), { heads: 2, headDim: 3, positions: [0] }),
    'headDim: not usable (expected an even number, found 3)',
  ],
  [
    'a position too many',
    () => rope(f32(8), { ...ropeOptions, positions: [0, 1] }),
    'positions: wrong length (expected 1 elements (tokens), found 2)',
  ],
  [
    'a negative position',
    () => rope(f32(8), { ...ropeOptions, positions: Int32Array.of(-1) }),
    'positions[0]: not usable (expected an integer from 0, found -1)',
  ],
  [
    'a frequency too few',
    () => rope(f32(8), { ...ropeOptions, inverseFrequencies: [1] }),
    'inverseFrequencies: wrong length',
  ],
  [
    'an infinite frequency',
    () => rope(f32(8), { ...ropeOptions, inverseFrequencies: [1, Number.POSITIVE_INFINITY] }),
    'inverseFrequencies[1]: not usable',
  ],
  ['a theta below 1', () => rope(f32(8), { ...ropeOptions, theta: 0 }), 'theta: not usable'],
  [
    'an unknown layout',
    () => rope(f32(8), wrong({ ...ropeOptions, layout: 'pairs' })),
    'layout: not usable',
  ],
  ['too many heads', () => rope(f32(8), { ...ropeOptions, heads: 40_000 }), 'heads: not usable'],
  [
    'key heads that divide nothing',
    () => attention(f32(16), f32(12), f32(12), { heads: 4, kvHeads: 3, headDim: 4 }),
    'kvHeads: not usable (expected a divisor of heads (4), found 3)',
  ],
  [
    'more key heads than heads',
    () => attention(f32(16), f32(32), f32(32), { heads: 4, kvHeads: 8, headDim: 4 }),
    'kvHeads: not usable',
  ],
  ['cut queries', () => attention(f32(17), f32(8), f32(8), attentionOptions), 'q: wrong length'],
  ['cut keys', () => attention(f32(16), f32(9), f32(8), attentionOptions), 'k: wrong length'],
  [
    'values for other keys',
    () => attention(f32(16), f32(16), f32(8), attentionOptions),
    'v: wrong length (expected 16 elements (k.length), found 8)',
  ],
  [
    'more tokens than keys',
    () => attention(f32(32), f32(8), f32(8), attentionOptions),
    'k: too few keys (expected a key for each of the 2 tokens, found 1)',
  ],
  [
    'a first position that leaves no keys',
    () => attention(f32(32), f32(16), f32(16), { ...attentionOptions, firstPosition: 1 }),
    'firstPosition: not usable (expected an integer from 0 to 0, found 1)',
  ],
  [
    'an infinite scale of scores',
    () =>
      attention(f32(16), f32(8), f32(8), { ...attentionOptions, scale: Number.POSITIVE_INFINITY }),
    'scale: not usable',
  ],
  [
    'an unknown element type',
    () => attention(f32(16), f32(8), f32(8), wrong({ ...attentionOptions, kv: 'int4' })),
    'kv: not usable',
  ],
];

function caught(call: () => unknown): Error & { code?: string } {
  try {
    call();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

describe('arguments of the wrong type', () => {
  test.each(TYPE_ERRORS)('%s', (_, call, message) => {
    const error = caught(call);
    expect(error).toBeInstanceOf(TypeError);
    expect(error.code).toBe('ALTIPLANO_INVALID_ARGUMENT');
    expect(error.message).toMatch(message);
  });
});

describe('arguments out of range', () => {
  test.each(RANGE_ERRORS)('%s', (_, call, message) => {
    const error = caught(call);
    expect(error).toBeInstanceOf(RangeError);
    expect(error.code).toBe('ALTIPLANO_OUT_OF_RANGE');
    expect(error.message).toMatch(message);
  });
});

describe('unusual arrays', () => {
  test('from another realm', () => {
    const x = runInNewContext('Float32Array.of(1, 1)') as Float32Array;
    expect([...softmax(x)]).toEqual([0.5, 0.5]);
    const positions = runInNewContext('[0]') as number[];
    expect(rope(f32(8), { ...ropeOptions, positions })).toHaveLength(8);
  });

  test('in shared memory', () => {
    const x = new Float32Array(new SharedArrayBuffer(16), 4, 2).fill(1);
    expect([...softmax(x)]).toEqual([0.5, 0.5]);
    const scales = new Uint16Array(new SharedArrayBuffer(8));
    expect([...dequantize({ ...int8, scales })]).toEqual(Array(80).fill(0));
  });

  test('that overlap', () => {
    const memory = Float32Array.from({ length: 40 }, (_, i) => i / 40);
    const copy = (begin: number, end: number) => memory.slice(begin, end);
    const view = (begin: number, end: number) => memory.subarray(begin, end);
    const of = (part: typeof copy) => [
      siluMul(part(0, 20), part(5, 25)),
      rmsNorm(part(0, 16), part(8, 16)),
      attention(part(0, 32), part(8, 24), part(9, 25), attentionOptions),
      matmul(part(3, 11), { type: 'f32', rows: 3, cols: 4, values: part(0, 12) }),
    ];
    expect(of(view)).toEqual(of(copy));
  });

  test('an allocation that is impossible', () => {
    const weights = { type: 'f32', rows: 2 ** 18, cols: 1, values: f32(2 ** 18) } as const;
    const error = caught(() => matmul(f32(2 ** 26), weights));
    expect(error.code).toBe('ALTIPLANO_OUT_OF_MEMORY');
  });
});

describe('kernel tables', () => {
  test('one of those available is used', () => {
    for (const name of availableIsas()) expect(withIsa(name, isa)).toBe(name);
    expect(withIsa('', isa)).toBe(availableIsas().at(-1));
    expect(availableIsas()[0]).toBe('portable');
  });

  test('an unknown one is an error', () => {
    for (const call of [isa, () => softmax(f32(2)), () => toFloat16(f32(2))]) {
      const error = withIsa('sse9', () => caught(call));
      expect(error.code).toBe('ALTIPLANO_OUT_OF_RANGE');
      expect(error.message).toMatch(/ALTIPLANO_ISA.*portable.*sse9/);
    }
  });
});
