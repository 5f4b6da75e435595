/**
 * The element types of tensors in files. A new one is a row here, its name in `types.ts` and a
 * reader in the engine.
 */
import type { TensorType } from './types.js';

export interface TensorTypeInfo {
  /** Consecutive elements of a row that are stored together; a row is a whole number of blocks. */
  blockElements: number;
  blockBytes: number;
  /** The number that stands for the type in GGUF files (`ggml_type`). */
  ggufId: number;
  /** Whether safetensors files may hold it (under the same name). */
  inSafetensors: boolean;
}

/** Every type that can be read, by name. */
export const TENSOR_TYPES: Readonly<Record<TensorType, TensorTypeInfo>> = {
  F32: { blockElements: 1, blockBytes: 4, ggufId: 0, inSafetensors: true },
  F16: { blockElements: 1, blockBytes: 2, ggufId: 1, inSafetensors: true },
  BF16: { blockElements: 1, blockBytes: 2, ggufId: 30, inSafetensors: true },
  Q8_0: { blockElements: 32, blockBytes: 34, ggufId: 8, inSafetensors: false },
  Q4_0: { blockElements: 32, blockBytes: 18, ggufId: 2, inSafetensors: false },
  Q6_K: { blockElements: 256, blockBytes: 210, ggufId: 14, inSafetensors: false },
};

const NAMES = Object.keys(TENSOR_TYPES) as TensorType[];

/** Types that safetensors files may hold. */
export const SAFETENSORS_TYPES = NAMES.filter((name) => TENSOR_TYPES[name].inSafetensors);

/** Types that GGUF files may hold: all. */
export const GGUF_TYPES: readonly TensorType[] = NAMES;

/** The type behind a `ggml_type` number, or undefined. */
export function ggufTensorType(ggufId: number): TensorType | undefined {
  return NAMES.find((name) => TENSOR_TYPES[name].ggufId === ggufId);
}

/**
 * Bytes of a tensor.
 *
 * @param shape outermost first; the last dimension is what blocks divide
 * @returns undefined if rows are no whole number of blocks, or if the size is no safe integer
 */
export function tensorSizeBytes(type: TensorType, shape: readonly number[]): number | undefined {
  const { blockElements, blockBytes } = TENSOR_TYPES[type];
  if ((shape.at(-1) ?? 1) % blockElements !== 0) return undefined;
  const elements = shape.reduce((product, dimension) => product * BigInt(dimension), 1n);
  const bytes = (elements / BigInt(blockElements)) * BigInt(blockBytes);
  return bytes <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(bytes) : undefined;
}

/** A shape as messages show it: "[4096, 11008]". */
export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}
