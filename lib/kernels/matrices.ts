/** Matrices in the canonical formats: multiplication and quantization. Part of `lib/kernels.ts`. */
import { outOfRange, show } from '../errors.js';
import type { NativeMatrix, WeightType } from '../native.js';
import {
  allocate,
  boolean,
  checkOptions,
  object,
  oneOf,
  rowsOf,
  size,
  typedArray,
  typedArrayOf,
} from './arguments.js';
import { run } from './run.js';

/** A matrix of 32-bit floats. */
export interface Float32Matrix {
  type: 'f32';
  rows: number;
  cols: number;
  /** [rows, cols] */
  values: Float32Array;
}

/** A matrix of 16-bit floats, as bits (see `toFloat16` and `toBfloat16`). */
export interface Float16Matrix {
  type: 'f16' | 'bf16';
  rows: number;
  cols: number;
  /** [rows, cols] */
  values: Uint16Array;
}

/**
 * A matrix of 8-bit codes: weight = (value - zero) * scale. `group` columns of a row share a scale and
 * a zero; the last group of a row may be short. G = ceil(cols / group).
 */
export interface Int8Matrix {
  type: 'int8';
  rows: number;
  cols: number;
  group: 32 | 64 | 128;
  /** [rows, cols] */
  values: Int8Array;
  /** [rows, G] f16 bits, finite. */
  scales: Uint16Array;
  /** [rows, G]; without them every zero is 0. */
  zeros?: Int8Array;
}

/**
 * A matrix of 4-bit codes 0..15: weight = (code - zero) * scale, grouped as in {@link Int8Matrix}. Two
 * codes share a byte: an even column has the low four bits, the odd column after it the high four.
 */
export interface Int4Matrix {
  type: 'int4';
  rows: number;
  cols: number;
  group: 32 | 64 | 128;
  /** [rows, ceil(cols / 2)] */
  values: Uint8Array;
  /** [rows, G] f16 bits, finite. */
  scales: Uint16Array;
  /** [rows, G], 0..15; without them every zero is 8. */
  zeros?: Uint8Array;
}

export type QuantizedMatrix = Int8Matrix | Int4Matrix;
export type Matrix = Float32Matrix | Float16Matrix | QuantizedMatrix;

const GROUPS = [32, 64, 128] as const;
// Their order is that of WeightType in native/util/weight_format.h.
const TYPES = ['f32', 'f16', 'bf16', 'int8', 'int4'] as const satisfies readonly WeightType[];
const VALUE_ARRAYS = {
  f32: 'Float32Array',
  f16: 'Uint16Array',
  bf16: 'Uint16Array',
  int8: 'Int8Array',
  int4: 'Uint8Array',
} as const;

/** Checks a matrix of the caller and turns it into native arguments. */
function nativeMatrix(matrix: Matrix, subject: string): NativeMatrix {
  const checked = object<Int8Matrix>(matrix, subject);
  const type = oneOf<WeightType>(checked.type, `${subject}.type`, TYPES);
  const rows = size(checked.rows, `${subject}.rows`);
  const cols = size(checked.cols, `${subject}.cols`);
  const values = typedArrayOf(
    checked.values,
    `${subject}.values`,
    VALUE_ARRAYS[type],
    type === 'int4' ? rows * Math.ceil(cols / 2) : rows * cols,
    type === 'int4' ? 'rows * ceil(cols / 2)' : 'rows * cols',
  );
  const typeNumber = TYPES.indexOf(type);
  if (type !== 'int8' && type !== 'int4') {
    return [typeNumber, rows, cols, 0, 0, values, null, null];
  }
  const group = oneOf(checked.group, `${subject}.group`, GROUPS);
  const scaleCount = rows * Math.ceil(cols / group);
  const shape = 'rows * ceil(cols / group)';
  const scales = typedArrayOf(
    checked.scales,
    `${subject}.scales`,
    'Uint16Array',
    scaleCount,
    shape,
  );
  checkEach(
    scales,
    (bits) => (bits & 0x7c00) !== 0x7c00,
    `${subject}.scales`,
    'the bits of a finite f16',
  );
  if (checked.zeros === undefined) {
    return [typeNumber, rows, cols, group, 0, values, scales, null];
  }
  const zeros = typedArrayOf(
    checked.zeros,
    `${subject}.zeros`,
    VALUE_ARRAYS[type],
    scaleCount,
    shape,
  );
  if (type === 'int4') {
    checkEach(zeros, (zero) => zero <= 15, `${subject}.zeros`, 'an integer from 0 to 15');
  }
  return [typeNumber, rows, cols, group, 1, values, scales, zeros];
}

function checkEach(
  array: Uint16Array | Uint8Array | Int8Array | Float32Array,
  isValid: (x: number) => boolean,
  subject: string,
  expected: string,
): void {
  const index = array.findIndex((x) => !isValid(x));
  if (index >= 0) {
    throw outOfRange('not usable', {
      subject: `${subject}[${index}]`,
      expected,
      found: show(array[index]),
    });
  }
}

/**
 * y = x W^T: `y[t][r]` is the dot product of token `t` and row `r` of the weights, summed in f32.
 *
 * The weights are repacked for the kernel in every call, which costs about as much as multiplying one
 * or two tokens. With quantized weights sums may overflow where elements of `x` reach 1e28.
 * @param x [tokens, weights.cols]
 * @param weights any format; quantized weights are used as they are, without rounding `x`
 * @returns [tokens, weights.rows]
 */
export function matmul(x: Float32Array, weights: Matrix): Float32Array {
  const matrix = nativeMatrix(weights, 'weights');
  const [, rows, cols] = matrix;
  const tokens = rowsOf(typedArray(x, 'x', 'Float32Array'), 'x', cols, 'tokens * weights.cols');
  const out = allocate(Float32Array, tokens * rows);
  run((kernels) => kernels.matmul(...matrix, x, tokens, out));
  return out;
}

export interface QuantizeOptions<T extends 'int8' | 'int4' = 'int8' | 'int4'> {
  type: T;
  rows: number;
  cols: number;
  /** Columns that share a scale. Default 32. */
  group?: 32 | 64 | 128;
  /** A zero point for each group, for weights that are not centred on 0. Default false. */
  zeroPoints?: boolean;
}

/**
 * Rounds a matrix to 8-bit or 4-bit codes with an f16 scale per group.
 *
 * Without zero points int8 takes its scale from the largest magnitude (codes -127..127); with them the
 * codes span the group's least and greatest weight, 0 included. A weight is off by at most half a scale,
 * and with zero points at the ends of the group's range by at most 0.63.
 *
 * int4 takes the scale and zero point of the least sum of squared errors that a short search finds; the
 * sum is at most that of the choice of GGUF's Q4_0 or, with zero points, of a span as for int8. A weight
 * is off by at most half a scale, or more where the codes run out: it may pay to cut off the largest.
 *
 * Scales end at f16's 65504: weights far beyond that are cut off. All of it: docs/weight-formats.md.
 * @param values [rows, cols], finite
 */
export function quantize<T extends 'int8' | 'int4'>(
  values: Float32Array,
  options: QuantizeOptions<T>,
): Extract<QuantizedMatrix, { type: T }>;
export function quantize(values: Float32Array, options: QuantizeOptions): QuantizedMatrix {
  const o = checkOptions<QuantizeOptions>(options, ['type', 'rows', 'cols', 'group', 'zeroPoints']);
  const type = oneOf(o.type, 'type', ['int8', 'int4']);
  const rows = size(o.rows, 'rows');
  const cols = size(o.cols, 'cols');
  const group = oneOf(o.group ?? 32, 'group', GROUPS);
  const zeroPoints = boolean(o.zeroPoints ?? false, 'zeroPoints');
  const floats = typedArrayOf(values, 'values', 'Float32Array', rows * cols, 'rows * cols');
  checkEach(floats, Number.isFinite, 'values', 'a finite number');

  const scales = allocate(Uint16Array, rows * Math.ceil(cols / group));
  const matrix: QuantizedMatrix =
    type === 'int8'
      ? { type, rows, cols, group, values: allocate(Int8Array, rows * cols), scales }
      : {
          type,
          rows,
          cols,
          group,
          values: allocate(Uint8Array, rows * Math.ceil(cols / 2)),
          scales,
        };
  if (zeroPoints) {
    if (matrix.type === 'int8') matrix.zeros = allocate(Int8Array, scales.length);
    else matrix.zeros = allocate(Uint8Array, scales.length);
  }
  run((kernels) => kernels.quantize(...nativeMatrix(matrix, 'matrix'), floats));
  return matrix;
}

/**
 * The weights of a matrix of any format as f32; exact.
 * @returns [rows, cols]
 */
export function dequantize(matrix: Matrix): Float32Array {
  const checked = nativeMatrix(matrix, 'matrix');
  const [, rows, cols] = checked;
  const out = allocate(Float32Array, rows * cols);
  run((kernels) => kernels.dequantize(...checked, out));
  return out;
}
