/**
 * The CPU kernels as functions over typed arrays: `import { matmul } from 'altiplano/kernels'`.
 *
 * They are the very kernels that models run on (same table, same bits), for tests, experiments and
 * small work. They are synchronous and use one thread, so they hold up the event loop while they
 * compute; a model's own work never comes this way but runs on the model's threads.
 *
 * Arrays are row-major, and shapes are written `[rows, cols]`. Inputs are never changed, and may
 * overlap or lie in shared memory; results are new arrays. Numbers are f32 unless said. All functions
 * throw a `TypeError` (`ALTIPLANO_INVALID_ARGUMENT`) for an argument of the wrong type, a `RangeError`
 * (`ALTIPLANO_OUT_OF_RANGE`) for a wrong length or value, `ALTIPLANO_OUT_OF_MEMORY`, and
 * `ALTIPLANO_NATIVE_MISSING` if the native addon does not load.
 *
 * The environment variable `ALTIPLANO_ISA` chooses the kernel table at each call (see
 * {@link availableIsas}). Tables differ in the last bits of f32 results; conversions, quantized codes
 * and dequantized values are the same bits in all of them.
 */
export { type AttentionOptions, attention } from './kernels/attention.js';
export { fromBfloat16, fromFloat16, toBfloat16, toFloat16 } from './kernels/float16.js';
export {
  dequantize,
  type Float16Matrix,
  type Float32Matrix,
  type Int4Matrix,
  type Int8Matrix,
  type Matrix,
  matmul,
  type QuantizedMatrix,
  type QuantizeOptions,
  quantize,
} from './kernels/matrices.js';
export { availableIsas, isa } from './kernels/run.js';
export { type RopeOptions, rmsNorm, rope, siluMul, softmax } from './kernels/vectors.js';
