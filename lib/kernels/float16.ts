/** Conversions between f32 and the 16-bit floats. Part of `lib/kernels.ts`. */
import { allocate, typedArray } from './arguments.js';
import { run } from './run.js';

type Conversion = 'toFloat16' | 'fromFloat16' | 'toBfloat16' | 'fromBfloat16';

function toBits(x: Float32Array, kernel: Conversion & `to${string}`): Uint16Array {
  const { length } = typedArray(x, 'x', 'Float32Array');
  const out = allocate(Uint16Array, length);
  if (length > 0) run((kernels) => kernels[kernel](x, length, out));
  return out;
}

function fromBits(x: Uint16Array, kernel: Conversion & `from${string}`): Float32Array {
  const { length } = typedArray(x, 'x', 'Uint16Array');
  const out = allocate(Float32Array, length);
  if (length > 0) run((kernels) => kernels[kernel](x, length, out));
  return out;
}

/** To IEEE 754 half precision bits: to nearest, ties to even; beyond 65504 infinity; NaN stays NaN. */
export function toFloat16(x: Float32Array): Uint16Array {
  return toBits(x, 'toFloat16');
}

/** From IEEE 754 half precision bits; exact. */
export function fromFloat16(x: Uint16Array): Float32Array {
  return fromBits(x, 'fromFloat16');
}

/** To bfloat16 bits, the upper half of an f32: to nearest, ties to even; NaN stays NaN. */
export function toBfloat16(x: Float32Array): Uint16Array {
  return toBits(x, 'toBfloat16');
}

/** From bfloat16 bits; exact. */
export function fromBfloat16(x: Uint16Array): Float32Array {
  return fromBits(x, 'fromBfloat16');
}
