/** Decides how a checkpoint is held in memory: formats, context, KV cache, and what that takes. */
import { freemem } from 'node:os';
import type { Checkpoint, TensorSource, TensorType } from './checkpoint/types.js';
import { cpuInfo } from './cpu-info.js';
import type { Place } from './devices.js';
import { AltiplanoError, invalidArgument, outOfRange } from './errors.js';
import { formatBytes } from './format-bytes.js';
import {
  type Activations,
  type EngineLayer,
  type EngineSpec,
  type EngineTensor,
  fromNative,
  native,
  type WeightFormat,
} from './native.js';
import type { ResolvedLoadOptions } from './options.js';
import { inverseFrequencies } from './rope.js';

/** Bytes that a loaded model holds. */
export interface ModelMemory {
  weightsBytes: number;
  kvBytes: number;
  workspaceBytes: number;
}

export interface LoadPlan {
  spec: EngineSpec;
  place: Place;
  contextTokens: number;
  kvCacheTokens: number;
  /** The weight formats of the layers, for people: for instance "bf16", or "int4 (group 32)". */
  weights: string;
  memory: ModelMemory;
  /** Bytes of weights to read. */
  fileBytes: number;
  /** What the user should know about choices that were made for them. */
  warnings: readonly string[];
}

/** The most tokens in one step: enough for the kernels to work at full speed. */
const MAX_STEP_TOKENS = { cpu: 256, gpu: 2048 };
/** By default the KV cache has room for this many full contexts, */
const DEFAULT_CONTEXTS = 4;
/** as long as it takes no more than this share of the available memory; but for one in any case. */
const DEFAULT_KV_SHARE = 0.25;
/** A GPU's memory is for the models: the cache takes what is left, up to this many contexts. */
const MOST_GPU_CONTEXTS = 256;
/** Where not even one full context fits, the default context shrinks; but not below this. */
const SHORTEST_DEFAULT_CONTEXT = 512;
/** The engine's own limits (native/llama/config.cc). */
const MOST_CONTEXT_TOKENS = 2 ** 24;
const MOST_KV_PAGES = 2 ** 24;

/**
 * Weights `auto`: the smallest formats that hold a file type exactly, but for Q6_K, which only the
 * exact mode (activations `f32`) keeps so.
 */
const AUTO_FORMATS: Readonly<Record<TensorType, WeightFormat>> = {
  F32: { type: 'f32' },
  F16: { type: 'f16' },
  BF16: { type: 'bf16' },
  Q8_0: { type: 'int8', group: 32, zeroPoints: false },
  Q4_0: { type: 'int4', group: 32, zeroPoints: false },
  // Six bits with a scale of eight for every 16 weights: only f32 has room for that, and would read
  // 4 bytes where the file has 0.8, for every token if it is the output head. Int8 adds an error of
  // at most 1/254 of the largest weight among 32 (docs/weight-formats.md compares it with Q6_K's).
  Q6_K: { type: 'int8', group: 32, zeroPoints: false },
};

/**
 * Decides every format and size. Without `contextTokens` the context is the model's; if the KV cache
 * of one such context does not fit beside the weights, it is the longest that fits, with a warning.
 * @param place where the model is to run; default: on the CPU, with what memory the process can have
 * @throws RangeError for options that do not fit the model; ALTIPLANO_OUT_OF_MEMORY for sizes that
 *   fit no machine (what does not fit this one is left to {@link checkMemory})
 */
export function planLoad(
  checkpoint: Checkpoint,
  options: ResolvedLoadOptions,
  place: Place = cpuPlace(),
): LoadPlan {
  const { gpu, availableBytes } = place;
  const { config, tensors } = checkpoint;
  const addon = native();
  const matrix = (source: TensorSource, isLayer = true) =>
    engineTensor(source, matrixFormat(source, options, isLayer));
  const vector = (source: TensorSource) => engineTensor(source, { type: 'f32' });

  const mostContextTokens = Math.min(config.contextTokens, MOST_CONTEXT_TOKENS);
  if (options.contextTokens !== null && options.contextTokens > mostContextTokens) {
    throw outOfRange('is longer than the model was trained for', {
      subject: 'contextTokens',
      expected: `at most ${mostContextTokens}`,
      found: String(options.contextTokens),
    });
  }
  const pageTokens = addon.kvPageTokens;
  if (options.kvCacheTokens !== null && options.kvCacheTokens > MOST_KV_PAGES * pageTokens) {
    throw outOfRange('is more than a KV cache can hold', {
      subject: 'kvCacheTokens',
      expected: `at most ${MOST_KV_PAGES * pageTokens}`,
      found: String(options.kvCacheTokens),
    });
  }

  const spec: EngineSpec = {
    hiddenSize: config.hiddenSize,
    intermediateSize: config.intermediateSize,
    layers: config.layers,
    heads: config.heads,
    kvHeads: config.kvHeads,
    headDim: config.headDim,
    vocabSize: config.vocabSize,
    rmsNormEps: config.rmsNormEps,
    inverseFrequencies: inverseFrequencies(config),
    interleavedRotary: checkpoint.rotaryLayout === 'interleaved',
    maxPositions: mostContextTokens,
    kv: 'f32',
    activations: 'f32',
    kvPages: 1,
    maxStepTokens: gpu === null ? MAX_STEP_TOKENS.cpu : MAX_STEP_TOKENS.gpu,
    threads: options.threads ?? cpuInfo().defaultThreads,
    gpu: gpu?.index ?? null,
    tensors: {
      embedding: matrix(tensors.embedding, false),
      layers: tensors.layers.map((layer) => ({
        attentionNorm: vector(layer.attentionNorm),
        q: matrix(layer.q),
        k: matrix(layer.k),
        v: matrix(layer.v),
        o: matrix(layer.o),
        feedForwardNorm: vector(layer.feedForwardNorm),
        gate: matrix(layer.gate),
        up: matrix(layer.up),
        down: matrix(layer.down),
      })),
      finalNorm: vector(tensors.finalNorm),
      ...(tensors.head && { head: matrix(tensors.head, false) }),
    },
  };

  spec.activations = activationsFor(spec, options, place);
  spec.kv = options.kv === 'auto' ? automaticKv(spec) : options.kv;
  const { weightsBytes, kvBytes: pageBytes, workspaceBytes } = estimate(spec);
  const leftBytes = Math.max(0, availableBytes - weightsBytes - workspaceBytes);
  const leftPages = Math.floor(leftBytes / pageBytes);
  let contextTokens = options.contextTokens ?? mostContextTokens;
  const warnings: string[] = [];
  if (options.contextTokens === null && options.kvCacheTokens === null) {
    const fittingTokens = Math.max(leftPages * pageTokens, SHORTEST_DEFAULT_CONTEXT);
    if (fittingTokens < mostContextTokens) {
      contextTokens = fittingTokens;
      const wholeBytes = Math.ceil(mostContextTokens / pageTokens) * pageBytes;
      warnings.push(
        `${checkpoint.name}: the context is ${contextTokens} tokens long instead of ` +
          `${mostContextTokens}, which would take a KV cache of ${formatBytes(wholeBytes)}: of ` +
          `${formatBytes(availableBytes)} available, ${formatBytes(leftBytes)} are left beside ` +
          'the weights. Choose contextTokens yourself, or smaller weights.',
      );
    }
  }
  const contextPages = Math.ceil(contextTokens / pageTokens);
  spec.maxPositions = contextTokens;
  if (options.kvCacheTokens !== null) {
    spec.kvPages = Math.ceil(options.kvCacheTokens / pageTokens);
  } else {
    const mostPages =
      gpu === null
        ? Math.min(
            DEFAULT_CONTEXTS * contextPages,
            Math.floor((DEFAULT_KV_SHARE * availableBytes) / pageBytes),
          )
        : Math.min(MOST_GPU_CONTEXTS * contextPages, MOST_KV_PAGES);
    spec.kvPages = Math.max(contextPages, Math.min(mostPages, leftPages));
  }

  return {
    spec,
    place,
    contextTokens,
    kvCacheTokens: spec.kvPages * pageTokens,
    weights: describeFormats(spec),
    memory: estimate(spec),
    fileBytes: allTensors(spec).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    warnings,
  };
}

/**
 * On a GPU the type of activations, which is the one that its fast kernels take. On the CPU f16, which
 * loses less than the rounding of any weights but f32.
 */
function automaticKv({ gpu, activations, tensors }: EngineSpec): 'f32' | 'f16' | 'bf16' {
  if (gpu !== null) return activations === 'bf16' ? 'bf16' : 'f16';
  return tensors.layers[0]!.q.format.type === 'f32' ? 'f32' : 'f16';
}

function activationsFor(
  spec: EngineSpec,
  { activations }: ResolvedLoadOptions,
  { gpu }: Place,
): Activations {
  const quantized = allTensors(spec).some(({ format }) => 'group' in format);
  if (activations === 'int8' && !quantized) {
    throw invalidArgument('has a meaning for quantized weights only', {
      subject: 'activations',
      expected: 'weights "int8" or "int4", or a file that has some',
      found: `activations "int8" with weights ${describeFormats(spec)}`,
    });
  }
  if (gpu !== null) {
    if (activations === 'int8') return 'int8';
    const isBf16 = multipliedTensors(spec).every(({ format }) => format.type === 'bf16');
    return isBf16 ? 'bf16' : 'f16';
  }
  return quantized && activations !== 'f32' ? 'int8' : 'f32';
}

function estimate(spec: EngineSpec): ModelMemory {
  try {
    return native().estimate(spec);
  } catch (error) {
    throw fromNative(error);
  }
}

/**
 * The embedding and the output head touch every token directly: with `int4` they are kept in int8,
 * unless the file itself has 4 bits.
 */
function matrixFormat(
  source: TensorSource,
  { weights, weightGroup, zeroPoints, activations }: ResolvedLoadOptions,
  isLayer: boolean,
): WeightFormat {
  if (weights === 'auto') {
    const isExact = activations === 'f32' && source.type === 'Q6_K';
    return isExact ? { type: 'f32' } : AUTO_FORMATS[source.type];
  }
  if (weights !== 'int8' && weights !== 'int4') return { type: weights };
  const type = weights === 'int4' && !isLayer && source.type !== 'Q4_0' ? 'int8' : weights;
  return { type, group: weightGroup, zeroPoints };
}

function engineTensor(source: TensorSource, format: WeightFormat): EngineTensor {
  const [rows, cols] =
    source.shape.length === 1 ? [1, source.shape[0]!] : [source.shape[0]!, source.shape[1]!];
  const { name, type, file, offset, sizeBytes } = source;
  return { name, type, rows, cols, file, offset, sizeBytes, format };
}

function allTensors({ tensors }: EngineSpec): EngineTensor[] {
  return [
    tensors.embedding,
    ...tensors.layers.flatMap((layer) => Object.values(layer) as EngineTensor[]),
    tensors.finalNorm,
    ...(tensors.head ? [tensors.head] : []),
  ];
}

function layerMatrices(layer: EngineLayer): EngineTensor[] {
  return [layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down];
}

/** The matrices of all multiplications, the output head's (or the tied embedding's) included. */
function multipliedTensors({ tensors }: EngineSpec): EngineTensor[] {
  return [...tensors.layers.flatMap(layerMatrices), tensors.head ?? tensors.embedding];
}

function describeFormats({ tensors, gpu, activations }: EngineSpec): string {
  const onGpu = activations === 'bf16' ? 'bf16' : 'f16';
  const names = tensors.layers.flatMap(layerMatrices).map(({ format }) => {
    if ('group' in format) return `${format.type} (group ${format.group})`;
    return gpu === null ? format.type : onGpu;
  });
  return [...new Set(names)].join(', ');
}

/** Memory that can be had without swapping, the limits of containers included. */
export function availableMemoryBytes(): number {
  return process.availableMemory?.() ?? freemem();
}

/** The CPU, with the memory that the process can have now. */
export function cpuPlace(availableBytes: number = availableMemoryBytes()): Place {
  return { gpu: null, availableBytes };
}

/** Bytes that a plan takes. */
export function neededBytes({ memory }: LoadPlan): number {
  return memory.weightsBytes + memory.kvBytes + memory.workspaceBytes;
}

/** @throws ALTIPLANO_OUT_OF_MEMORY if the plan takes more than was available, with the numbers */
export function checkMemory(plan: LoadPlan, path: string): void {
  const { weightsBytes, kvBytes, workspaceBytes } = plan.memory;
  const { gpu, availableBytes } = plan.place;
  const needed = neededBytes(plan);
  if (needed <= availableBytes) return;
  throw new AltiplanoError('ALTIPLANO_OUT_OF_MEMORY', 'the model does not fit into memory', {
    subject: path,
    expected:
      `${formatBytes(needed)}: weights (${plan.weights}) ${formatBytes(weightsBytes)}, ` +
      `KV cache (${plan.kvCacheTokens} tokens, ${plan.spec.kv}) ${formatBytes(kvBytes)}, ` +
      `workspace ${formatBytes(workspaceBytes)}`,
    found:
      `${formatBytes(availableBytes)} available` +
      (gpu === null ? '' : ` on cuda:${gpu.index} (${gpu.name})`),
    hint: 'Smaller weights ("int8", "int4"), kv "int8", contextTokens or kvCacheTokens take less',
  });
}
