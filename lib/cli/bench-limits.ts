/**
 * What a model's work is bounded by: the bytes of weights that decoding a token reads (memory), and
 * the multiply-adds that reading a prompt takes (arithmetic). Used by `altiplano bench` and by the
 * benchmark beside another engine (bench/peer).
 */

import { findGpus } from '../devices.js';
import type { Checkpoint, LoadOptions } from '../index.js';
import { availableMemoryBytes, planLoad } from '../load-plan.js';
import { type Gpu, native } from '../native.js';
import { resolveLoadOptions } from '../options.js';

/** What the weights of a model cost. Attention over the KV cache comes on top. */
export interface ModelWork {
  /**
   * Bytes of weights, as they are held in memory, that decoding one token of one sequence reads:
   * all of them, but of an embedding matrix that is not the head as well only one row.
   */
  weightsBytesPerToken: number;
  /** Multiply-adds of a token in the layers' matrices: one for each weight. */
  layerMacsPerToken: number;
  /** Multiply-adds of the output head for one row of logits: a prompt needs those of its last token. */
  headMacs: number;
}

/**
 * @param options how the model is loaded
 * @param gpu where it is loaded; null: the CPU
 * @throws as `Llama.load` does for options that are wrong or do not fit the model
 */
export function modelWork(
  checkpoint: Checkpoint,
  options: LoadOptions,
  gpu: Gpu | null = null,
): ModelWork {
  const place = gpu === null ? undefined : { gpu, availableBytes: gpu.totalBytes };
  const { spec, memory } = planLoad(checkpoint, resolveLoadOptions(options), place);
  const { head, ...tied } = spec.tensors;
  let weightsBytesPerToken = memory.weightsBytes;
  if (head !== undefined) {
    // The embedding's size is what the model would grow by if it were the head as well.
    const weightsBytes = (tensors: typeof spec.tensors) =>
      native().estimate({ ...spec, tensors }).weightsBytes;
    weightsBytesPerToken -=
      weightsBytes({ ...tied, head: spec.tensors.embedding }) - weightsBytes(tied);
  }
  const weights = ({ rows, cols }: { rows: number; cols: number }) => rows * cols;
  const layerMacsPerToken = spec.tensors.layers
    .flatMap(({ q, k, v, o, gate, up, down }) => [q, k, v, o, gate, up, down].map(weights))
    .reduce((sum, macs) => sum + macs, 0);
  return {
    weightsBytesPerToken,
    layerMacsPerToken,
    headMacs: weights(head ?? spec.tensors.embedding),
  };
}

/** Multiply-adds that reading a prompt takes: all layers for each token, the head for the last. */
export function promptMacs(work: ModelWork, promptTokens: number): number {
  return work.layerMacsPerToken * promptTokens + work.headMacs;
}

/**
 * Bytes to measure the read bandwidth with: larger than any cache, and small beside what is free.
 * null: less than that is free.
 */
function bandwidthBuffer(availableBytes: number): number | null {
  const mebibyte = 2 ** 20;
  const size = Math.min(1024, Math.floor(availableBytes / 4 / mebibyte));
  return size < 64 ? null : size * mebibyte;
}

/** The GPU behind a device of {@link LlamaInfo}; null for "cpu". */
export async function gpuOf(device: string): Promise<Gpu | null> {
  if (device === 'cpu') return null;
  const { devices } = await findGpus();
  return devices.find(({ index }) => device === `cuda:${index}`) ?? null;
}

/**
 * Multiply-adds of dense f16 matrices, with sums in f32, that the tensor cores of a multiprocessor do
 * in a clock, by compute capability (CUDA programming guide and the architectures' white papers).
 * GeForce cards of 8.6 and 8.9 do half of it.
 */
const F16_MACS_PER_CLOCK: Readonly<Record<string, number>> = {
  '8.0': 1024,
  '8.6': 512,
  '8.9': 512,
  '9.0': 2048,
};

/** What a machine could deliver; null where that is not known. */
export interface Limits {
  /** Bytes that all threads together read from memory. */
  bytesPerSecond: number | null;
  /** Multiply-adds: of int8 numbers on a processor; on a GPU of f16 ones, or of int8 ones if asked. */
  macsPerSecond: number | null;
}

/** A processor's limits for `threads` threads, measured; takes a second, and up to a gigabyte. */
export async function measureLimits(threads: number): Promise<Limits> {
  const buffer = bandwidthBuffer(availableMemoryBytes());
  return {
    bytesPerSecond: buffer && (await native().measureReadBandwidth(buffer, threads)),
    macsPerSecond: (await native().measureInt8Peak(threads)) || null,
  };
}

/** A GPU's by its clocks: nominal figures, not measured. */
export function nominalLimits(gpu: Gpu, isInt8 = false): Limits {
  // Two transfers a clock.
  const bytesPerSecond = 2 * gpu.memoryClockKhz * 1e3 * (gpu.memoryBusBits / 8);
  const f16Macs = F16_MACS_PER_CLOCK[gpu.computeCapability] ?? 0;
  const macs = isInt8 ? 2 * f16Macs : f16Macs;
  return {
    bytesPerSecond: bytesPerSecond || null,
    macsPerSecond: gpu.multiprocessors * gpu.clockKhz * 1e3 * macs || null,
  };
}
