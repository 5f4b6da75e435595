/**
 * Loads the native addon and gives it a type: the only file that knows the addon's shape, with the
 * one cast. Everything that crosses this boundary is plain numbers, strings and typed arrays.
 */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { AltiplanoError, type ErrorCode } from './errors.js';

/** Formats in which the engine keeps weights. */
export type WeightType = 'f32' | 'f16' | 'bf16' | 'int8' | 'int4';

/** Element types of the KV cache. */
export type KvType = 'f32' | 'f16' | 'bf16' | 'int8';

/**
 * What activations are rounded to before they are multiplied; f32 on the CPU alone, f16 and bf16 on
 * GPUs alone, where bf16 is for models whose matrices are all bf16.
 */
export type Activations = 'f32' | 'f16' | 'bf16' | 'int8';

/** A weight format; int8 and int4 share one scale, and maybe a zero point, among `group` columns. */
export type WeightFormat =
  | { type: 'f32' | 'f16' | 'bf16' }
  | { type: 'int8' | 'int4'; group: 32 | 64 | 128; zeroPoints: boolean };

export interface CpuInfo {
  /** Kernel tables that this processor can run, best last (such as "portable", "avx2"). */
  available: string[];
  /** The table that is used (`ALTIPLANO_ISA` or the best). */
  selected: string;
  /** Physical cores in the affinity mask. */
  physicalCores: number;
  /** Cores granted by the cgroup quota; Infinity without one. */
  quotaCores: number;
  /** Worker threads that a model gets by default. */
  defaultThreads: number;
}

/** A GPU of the CUDA driver. */
export interface Gpu {
  /** As in `cuda:0`. */
  index: number;
  name: string;
  /** For instance "8.0". */
  computeCapability: string;
  totalBytes: number;
  /** With the highest clocks, from which `bench` computes nominal limits; 0 where not known. */
  multiprocessors: number;
  clockKhz: number;
  memoryClockKhz: number;
  memoryBusBits: number;
  /** Why it cannot be used; null if it can. */
  problem: string | null;
}

/** What native code finds of CUDA. */
export interface Gpus {
  /** Whether this build has the CUDA backend. */
  built: boolean;
  /** The driver's library, null if none was found. */
  library: string | null;
  /** What the driver offers, 1000 times the major version and 10 times the minor; 0: unknown. */
  cudaVersion: number;
  /** Why there is nothing to use at all; null if there is. */
  problem: string | null;
  devices: Gpu[];
}

/** A tensor for the engine: where the bytes lie and what they become. */
export interface EngineTensor {
  name: string;
  type: string;
  rows: number;
  cols: number;
  file: string;
  offset: number;
  sizeBytes: number;
  /** What the engine keeps it as. Vectors are always f32. */
  format: WeightFormat;
}

export interface EngineLayer {
  attentionNorm: EngineTensor;
  q: EngineTensor;
  k: EngineTensor;
  v: EngineTensor;
  o: EngineTensor;
  feedForwardNorm: EngineTensor;
  gate: EngineTensor;
  up: EngineTensor;
  down: EngineTensor;
}

/** All that the engine must know to load a model. */
export interface EngineSpec {
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabSize: number;
  rmsNormEps: number;
  /** Inverse frequencies, [headDim / 2], scaling already applied. */
  inverseFrequencies: Float64Array;
  /** True if q and k rows pair as (2i, 2i+1); the engine reorders them to halves. */
  interleavedRotary: boolean;
  /** Positions 0 .. maxPositions-1 may be used. */
  maxPositions: number;
  kv: KvType;
  /** What activations are multiplied as: on the CPU with int8 and int4 matrices, else with all. */
  activations: Activations;
  /** Pages of the KV cache. */
  kvPages: number;
  /** The most tokens in one step. */
  maxStepTokens: number;
  /** Worker threads, the model's own thread included; on a GPU, while it is loaded. */
  threads: number;
  /** The GPU's index; null: the CPU. */
  gpu: number | null;
  tensors: {
    embedding: EngineTensor;
    layers: EngineLayer[];
    finalNorm: EngineTensor;
    head?: EngineTensor;
  };
}

/**
 * One step for all sequences. T tokens, S sequences, R wanted rows. Tokens of a sequence stand
 * together and in order; nothing is implied by the order of calls.
 */
export interface StepPlan {
  /** [T] token ids; -(r+1) means "what row r of the step before chose". */
  tokens: Int32Array;
  /** [T] position of each token in its sequence. */
  positions: Int32Array;
  /** [T] where each token's keys and values go: page * pageTokens + offset. */
  slots: Int32Array;
  /** [S+1] the tokens of sequence s are sequenceStarts[s] .. sequenceStarts[s+1]-1. */
  sequenceStarts: Int32Array;
  /** Pages of all sequences, one after the other. */
  blockTable: Int32Array;
  /** [S+1] the pages of sequence s are blockTable[blockStarts[s] .. blockStarts[s+1]-1]. */
  blockStarts: Int32Array;
  /** [R] indices of tokens whose logits are wanted. */
  rows: Int32Array;
  /** [R] how many candidates (best ids) each row wants, 0 to vocabulary. */
  candidates: Int32Array;
  /** [R] 1/temperature for the scaled log-sum-exp. */
  inverseTemperatures: Float32Array;
  /** Ids whose logits are wanted, one row after the other. */
  ids: Int32Array;
  /** [R+1] ids of row r are ids[idStarts[r] .. idStarts[r+1]-1]. */
  idStarts: Int32Array;
  /** [R] 1 if the row's whole logits are wanted. */
  fullRows: Uint8Array;
  /** Pairs (source page, destination page), copied first, in order. */
  pageCopies: Int32Array;
}

export interface StepResult {
  /** Ids of the candidates, row after row, best first (ties: the lower id). */
  candidateIds: Int32Array;
  candidateLogits: Float32Array;
  /** [R] natural log of the sum of exp(logit). */
  logSumExp: Float64Array;
  /** [R] natural log of the sum of exp(logit * inverseTemperature). */
  scaledLogSumExp: Float64Array;
  /** Logits of the ids asked for. */
  idLogits: Float32Array;
  /** Whole rows asked for, [number of full rows][vocabulary]. */
  fullLogits: Float32Array;
  /** [R] 0 if the row contains a NaN or an infinity above zero. */
  finite: Uint8Array;
}

/** A loaded model on the native side. Calls run in order on the model's own thread. */
export interface NativeEngine {
  /** Allocates, reads and packs the weights. Once. */
  load(spec: EngineSpec): Promise<void>;
  /** Bytes of weights read so far and in all. */
  progress(): { doneBytes: number; totalBytes: number };
  /** Makes the running load or step, and those queued, reject with ALTIPLANO_ABORTED soon. */
  cancel(): void;
  /** Computes one step. May be called while another runs; steps run in order. */
  step(plan: StepPlan): Promise<StepResult>;
  /** Waits for running work, frees everything. Idempotent. */
  dispose(): Promise<void>;
}

export interface NativeAddon {
  Engine: new () => NativeEngine;
  cpuInfo(): CpuInfo;
  /** Tokens in one page of the KV cache. */
  kvPageTokens: number;
  /** The CUDA driver and its devices. Asynchronous, as the driver takes its time to start. */
  gpus(): Promise<Gpus>;
  /** Bytes of a GPU's memory that are free now. */
  gpuFreeBytes(index: number): Promise<number>;
  /** Bytes that the engine will hold for `spec`, without loading it. */
  estimate(spec: EngineSpec): { weightsBytes: number; kvBytes: number; workspaceBytes: number };
  /** Bytes a second when `threads` threads read `sizeBytes` of memory. Asynchronous. */
  measureReadBandwidth(sizeBytes: number, threads: number): Promise<number>;
  /**
   * Multiply-adds of int8 numbers a second by `threads` threads with the processor's best
   * instructions for them, whichever kernels are used; 0 where that is not measured. Asynchronous.
   */
  measureInt8Peak(threads: number): Promise<number>;
  kernels: NativeKernels;
}

/** A matrix in canonical form (native/util/weight_format.h), as the leading arguments of a kernel. */
export type NativeMatrix = [
  /** 0 f32, 1 f16, 2 bf16, 3 int8, 4 int4. */
  type: number,
  rows: number,
  cols: number,
  /** 0 for the float types. */
  group: number,
  zeroPoints: 0 | 1,
  values: Float32Array | Uint16Array | Int8Array | Uint8Array,
  scales: Uint16Array | null,
  zeros: Int8Array | Uint8Array | null,
];

type Convert<From, To> = (x: From, length: number, out: To) => void;

/**
 * Synchronous kernels over typed arrays; `lib/kernels.ts` checks the arguments and documents them.
 * All sizes are at least 1. Results go into `out`, which shares no memory with the inputs.
 */
export interface NativeKernels {
  matmul(...args: [...NativeMatrix, x: Float32Array, tokens: number, out: Float32Array]): void;
  /** Writes the values, scales and zeros of the matrix. */
  quantize(...args: [...NativeMatrix, x: Float32Array]): void;
  dequantize(...args: [...NativeMatrix, out: Float32Array]): void;
  rmsNorm(
    x: Float32Array,
    weight: Float32Array,
    eps: number,
    rows: number,
    cols: number,
    out: Float32Array,
  ): void;
  siluMul(gate: Float32Array, up: Float32Array, length: number, out: Float32Array): void;
  softmax(x: Float32Array, rows: number, cols: number, out: Float32Array): void;
  rope(
    x: Float32Array,
    positions: Float64Array,
    inverseFrequencies: Float64Array,
    tokens: number,
    heads: number,
    headDim: number,
    interleaved: 0 | 1,
    out: Float32Array,
  ): void;
  attention(
    q: Float32Array,
    k: Float32Array,
    v: Float32Array,
    tokens: number,
    keys: number,
    heads: number,
    kvHeads: number,
    headDim: number,
    scale: number,
    /** Token t sees keys 0 .. firstPosition + t; null: all keys. */
    firstPosition: number | null,
    /** How keys and values are kept: 0 f32, 1 f16, 2 int8, 3 bf16. */
    kv: number,
    out: Float32Array,
  ): void;
  toFloat16: Convert<Float32Array, Uint16Array>;
  fromFloat16: Convert<Uint16Array, Float32Array>;
  toBfloat16: Convert<Float32Array, Uint16Array>;
  fromBfloat16: Convert<Uint16Array, Float32Array>;
}

/** The folder of the package, from `lib/` and from `dist/` alike. */
export const packageRoot = fileURLToPath(new URL('..', import.meta.url));

let addon: NativeAddon | undefined;

/**
 * The addon, loaded on first use so that text-only work needs none.
 * @throws AltiplanoError ALTIPLANO_NATIVE_MISSING
 */
export function native(): NativeAddon {
  if (addon === undefined) {
    const require = createRequire(import.meta.url);
    try {
      addon = require('node-gyp-build')(packageRoot) as NativeAddon;
    } catch (cause) {
      throw new AltiplanoError('ALTIPLANO_NATIVE_MISSING', 'the native addon does not load', {
        subject: packageRoot,
        found: cause instanceof Error ? cause.message.split('\n')[0] : String(cause),
        hint: 'Run "npm rebuild altiplano" (needs cmake and a C++20 compiler); "altiplano doctor" shows more',
        cause,
      });
    }
  }
  return addon;
}

/** The path of the `.node` file that {@link native} loads. */
export function nativePath(): string {
  const require = createRequire(import.meta.url);
  return (require('node-gyp-build') as { resolve(dir: string): string }).resolve(packageRoot);
}

/**
 * Turns whatever native code threw into an error of this realm with a `code` (under jest the addon's
 * errors belong to another realm); the original is the `cause`.
 */
export function fromNative(error: unknown): unknown {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code !== 'string' || !code.startsWith('ALTIPLANO_')) return error;
  return new AltiplanoError(code as ErrorCode, (error as Error).message, { cause: error });
}
