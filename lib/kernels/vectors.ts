/** Normalization, activation, softmax and rotary position embedding. Part of `lib/kernels.ts`. */
import { invalidArgument, outOfRange, show } from '../errors.js';
import {
  allocate,
  checkOptions,
  finite,
  MOST_HEAD_DIM,
  MOST_HEADS,
  numbers,
  oneOf,
  rowsOf,
  size,
  typedArray,
  typedArrayOf,
} from './arguments.js';
import { run } from './run.js';

/**
 * Root mean square normalization of each row: `weight * x / sqrt(mean(x^2) + eps)` (Zhang and
 * Sennrich, "Root Mean Square Layer Normalization", 2019).
 * @param x [rows, weight.length]
 * @param weight [cols]
 * @param options.eps at least 0, default 1e-5. With 0 a row of zeros becomes NaN.
 * @returns [rows, cols]
 */
export function rmsNorm(
  x: Float32Array,
  weight: Float32Array,
  options: { eps?: number } = {},
): Float32Array {
  const cols = size(typedArray(weight, 'weight', 'Float32Array').length, 'weight.length');
  const rows = rowsOf(typedArray(x, 'x', 'Float32Array'), 'x', cols, 'rows * weight.length');
  const eps = finite(checkOptions<{ eps: number }>(options, ['eps']).eps ?? 1e-5, 'eps', 0);
  const out = allocate(Float32Array, x.length);
  run((kernels) => kernels.rmsNorm(x, weight, eps, rows, cols, out));
  return out;
}

/**
 * SiLU-gated product, element by element: `gate / (1 + exp(-gate)) * up` (Shazeer, "GLU Variants
 * Improve Transformer", 2020).
 * @param gate any shape
 * @param up of the same length
 */
export function siluMul(gate: Float32Array, up: Float32Array): Float32Array {
  const { length } = typedArray(gate, 'gate', 'Float32Array');
  typedArrayOf(up, 'up', 'Float32Array', length, 'gate.length');
  const out = allocate(Float32Array, length);
  if (length > 0) run((kernels) => kernels.siluMul(gate, up, length, out));
  return out;
}

/**
 * Softmax of each row: `exp(x - max) / sum(exp(x - max))`. -Infinity gives 0; a row with NaN, with
 * +Infinity, or with nothing but -Infinity has no softmax and becomes NaN in part or whole.
 * @param x [rows, cols]
 * @param options.cols default: all of `x` is one row
 * @returns [rows, cols]
 */
export function softmax(x: Float32Array, options: { cols?: number } = {}): Float32Array {
  const o = checkOptions<{ cols: number }>(options, ['cols']);
  const { length } = typedArray(x, 'x', 'Float32Array');
  const cols = o.cols === undefined ? Math.max(length, 1) : size(o.cols, 'cols');
  const rows = rowsOf(x, 'x', cols, 'rows * cols');
  const out = allocate(Float32Array, length);
  run((kernels) => kernels.softmax(x, rows, cols, out));
  return out;
}

export interface RopeOptions {
  heads: number;
  /** Even. */
  headDim: number;
  /** [tokens] integers from 0. */
  positions: ArrayLike<number>;
  /** The base of the frequencies: pair i turns by position * theta^(-2i / headDim). Default 10000. */
  theta?: number;
  /** [headDim / 2] the frequencies themselves, in place of `theta`. */
  inverseFrequencies?: ArrayLike<number>;
  /**
   * Which elements of a head form a pair: i and i + headDim / 2 ("halves", as in Hugging Face
   * checkpoints, the default), or 2i and 2i + 1 ("interleaved", as in Meta's and GGUF's).
   */
  layout?: 'halves' | 'interleaved';
}

/**
 * Rotary position embedding: turns each pair (a, b) of a head into (a cos - b sin, b cos + a sin) (Su
 * et al., "RoFormer", 2021). Angles are computed in f64.
 * @param x [tokens, heads * headDim]
 * @returns [tokens, heads * headDim]
 */
export function rope(x: Float32Array, options: RopeOptions): Float32Array {
  const o = checkOptions<RopeOptions>(options, [
    'heads',
    'headDim',
    'positions',
    'theta',
    'inverseFrequencies',
    'layout',
  ]);
  const heads = size(o.heads, 'heads', 1, MOST_HEADS);
  const headDim = size(o.headDim, 'headDim', 2, MOST_HEAD_DIM);
  if (headDim % 2 !== 0) {
    throw outOfRange('not usable', {
      subject: 'headDim',
      expected: 'an even number',
      found: show(headDim),
    });
  }
  const tokens = rowsOf(
    typedArray(x, 'x', 'Float32Array'),
    'x',
    heads * headDim,
    'tokens * heads * headDim',
  );
  const positions = numbers(
    o.positions,
    'positions',
    tokens,
    'tokens',
    'an integer from 0',
    (position) => Number.isSafeInteger(position) && position >= 0,
  );
  const frequencies = inverseFrequencies(o, headDim);
  const interleaved = oneOf(o.layout ?? 'halves', 'layout', ['halves', 'interleaved']);
  const out = allocate(Float32Array, x.length);
  run((kernels) =>
    kernels.rope(
      x,
      positions,
      frequencies,
      tokens,
      heads,
      headDim,
      interleaved === 'interleaved' ? 1 : 0,
      out,
    ),
  );
  return out;
}

function inverseFrequencies(o: Partial<RopeOptions>, headDim: number): Float64Array {
  const half = headDim / 2;
  if (o.inverseFrequencies !== undefined) {
    if (o.theta !== undefined) {
      throw invalidArgument('there are two sources of frequencies', {
        subject: 'theta',
        expected: 'theta or inverseFrequencies',
        found: 'both',
      });
    }
    return numbers(
      o.inverseFrequencies,
      'inverseFrequencies',
      half,
      'headDim / 2',
      'a finite number',
      Number.isFinite,
    );
  }
  const theta = finite(o.theta ?? 10000, 'theta', 1);
  return Float64Array.from({ length: half }, (_, i) => theta ** ((-2 * i) / headDim));
}
