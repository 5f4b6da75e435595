/**
 * All options that callers can give, their defaults and their ranges, in one place. `resolve…`
 * checks what a caller passed and fills in the rest; behind it no option is missing or wrong.
 */
import type { GenerationDefaults } from './checkpoint/types.js';
import type { DeviceName } from './devices.js';
import { AltiplanoError, invalidArgument, show } from './errors.js';
import type { KvType, WeightType } from './native.js';
import {
  checkOptions,
  checkValue,
  generateSchemas,
  isTokenId,
  loadSchemas,
} from './option-schemas.js';

/** Options of `generate`. Everything is optional; `undefined` counts as not given. */
export interface GenerateOptions {
  /** The most tokens to generate, an integer from 1. Default: up to the end of the context. */
  maxTokens?: number;
  /**
   * Divides the logits, 0 to 100; 0 (and anything below 1e-6) always takes the most likely token.
   * Default: the checkpoint's, else 0.6.
   */
  temperature?: number;
  /**
   * Nucleus: a token is kept while the probability of all better ones together is at most this,
   * 0 to 1; 1 keeps all. Default: the checkpoint's, else 0.9.
   */
  topP?: number;
  /** Keeps the best `topK` tokens, an integer from 0; 0 keeps all. Default: the checkpoint's, else 0. */
  topK?: number;
  /** Keeps tokens with at least this share of the best one's probability, 0 to 1. Default 0. */
  minP?: number;
  /**
   * Divides positive and multiplies negative logits of tokens that occur in the prompt or the
   * text so far (CTRL, arXiv:1909.05858), 0.01 to 100; 1 does nothing. Default: the checkpoint's,
   * else 1.
   */
  repetitionPenalty?: number;
  /** Subtracted from a token's logit for each time it was generated, -2 to 2. Default 0. */
  frequencyPenalty?: number;
  /** Subtracted once from the logit of each token that was generated, -2 to 2. Default 0. */
  presencePenalty?: number;
  /**
   * The penalties look back at this many tokens (prompt and generated together), an integer from 0.
   * Default: all.
   */
  penaltyTokens?: number;
  /**
   * Added to the logits of token ids: -1e6 to 1e6, or -Infinity to ban a token. Keys are ids,
   * as an object's names or a map's keys.
   */
  logitBias?: Readonly<Record<number | string, number>> | ReadonlyMap<number, number>;
  /** Any safe integer: the same seed gives the same text. Default: a random one, which is reported. */
  seed?: number;
  /** Generation ends before any of these (non-empty) strings, at most 128; they are not emitted. */
  stop?: string | readonly string[];
  /** Token ids that end generation, besides the checkpoint's end-of-sequence ids. */
  stopTokens?: readonly number[];
  /**
   * Go on after end-of-sequence ids, which then count as tokens without text; the caller's own
   * `stopTokens` still end generation. Default false.
   */
  ignoreEos?: boolean;
  /**
   * Report each token's log-probability, with this many alternatives (an integer, 0 to 20).
   * Default: report none.
   */
  logprobs?: number;
  /** Aborts the request, whether it waits or runs. */
  signal?: AbortSignal;
}

/** Options of `chat`: those of `generate`. */
export type ChatOptions = GenerateOptions;

/** {@link GenerateOptions} with every value decided. */
export interface ResolvedGenerateOptions {
  /** Infinity: up to the end of the context. */
  readonly maxTokens: number;
  /** 0: greedy. Never between 0 and 1e-6. */
  readonly temperature: number;
  readonly topP: number;
  /** 0: off. */
  readonly topK: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /** Infinity: all. */
  readonly penaltyTokens: number;
  /** Without zeros. */
  readonly logitBias: ReadonlyMap<number, number>;
  readonly seed: number;
  readonly stop: readonly string[];
  /**
   * The caller's and, unless `ignoreEos`, the checkpoint's, none twice. The tokenizer's own is not
   * among them.
   */
  readonly stopTokens: readonly number[];
  readonly ignoreEos: boolean;
  /** null: none. */
  readonly logprobs: number | null;
  readonly signal: AbortSignal | null;
}

/** What `onProgress` is told. */
export interface LoadProgress {
  /** `plan` comes first, before anything is allocated; `ready` comes last. */
  phase: 'plan' | 'weights' | 'ready';
  /** Bytes of weights read so far. */
  doneBytes: number;
  /** Bytes of weights to read. */
  totalBytes: number;
  /** Bytes that the model will hold once it is loaded. */
  memory: { weightsBytes: number; kvBytes: number; workspaceBytes: number };
}

/** Options of `load`. Everything is optional; `undefined` counts as not given. */
export interface LoadOptions {
  /**
   * How weights are kept in memory. Default `auto`: as the file has them, without loss; but Q6_K
   * becomes int8 (with {@link activations} `f32` it becomes f32, which is exact and takes five times
   * the file's bytes). On a GPU float weights are multiplied as f16, or as bf16 where all matrices
   * are bf16, and `f32` is not available.
   */
  weights?: 'auto' | WeightType;
  /** Weights that share a scale: 32, 64 or 128, for `int8` and `int4` only. Default 32. */
  weightGroup?: 32 | 64 | 128;
  /** Quantize with zero points, for `int8` and `int4` only. Default false. */
  zeroPoints?: boolean;
  /**
   * What activations are rounded to before they are multiplied with int8 and int4 weights: `int8`,
   * with a scale for every 32 of a token, which is several times faster; or `f32`, exact. Default
   * `auto`: `int8`. With other weights activations are always f32. On a GPU `auto` is bf16 if all
   * matrices are bf16, else f16; `int8` is for int8 weights, and `f32` is not available.
   */
  activations?: 'auto' | 'int8' | 'f32';
  /**
   * How keys and values are kept. `int8` takes half the memory of `f16`, with a small loss; `bf16`
   * has the range of f32 and fewer digits. Default `auto`: `f16`, and `f32` for f32 weights; on a
   * GPU the type of activations, `f16` or `bf16`. For other types a GPU has a
   * simple and slow attention only.
   */
  kv?: 'auto' | KvType;
  /**
   * The longest sequence, in tokens. Default: what the model was trained for, or, with a warning,
   * the longest that fits into memory.
   */
  contextTokens?: number;
  /** Tokens that the KV cache holds for all sequences together. Default: chosen for the context. */
  kvCacheTokens?: number;
  /** Worker threads, 1 to 1024. Default: the physical cores granted to the process. */
  threads?: number;
  /**
   * Where the model runs: `cpu`, `cuda` (the first GPU that can be used) or `cuda:1` (that one).
   * Default `auto`: a GPU if one can be used and the model fits, else the CPU. GPUs need an NVIDIA
   * driver of release 580 or later and compute capability 8.0 or later. Of a GPU of NVIDIA's that is
   * there but cannot be used `auto` warns, once in a process; where there is none it says nothing.
   */
  device?: DeviceName;
  /** Called now and then while the model loads. */
  onProgress?: (progress: LoadProgress) => void;
  /** Aborts loading. */
  signal?: AbortSignal;
}

/** {@link LoadOptions} with every value decided; null: for the loader to choose. */
export interface ResolvedLoadOptions {
  readonly weights: 'auto' | WeightType;
  readonly weightGroup: 32 | 64 | 128;
  readonly zeroPoints: boolean;
  readonly activations: 'auto' | 'int8' | 'f32';
  readonly kv: 'auto' | KvType;
  readonly contextTokens: number | null;
  readonly kvCacheTokens: number | null;
  readonly threads: number | null;
  readonly device: DeviceName;
  readonly onProgress: ((progress: LoadProgress) => void) | null;
  readonly signal: AbortSignal | null;
}

/** Llama 2 chat's own defaults where it has any; elsewhere the value that does nothing. */
export const GENERATE_DEFAULTS = {
  maxTokens: Number.POSITIVE_INFINITY,
  temperature: 0.6,
  topP: 0.9,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  penaltyTokens: Number.POSITIVE_INFINITY,
  ignoreEos: false,
  logprobs: null,
  signal: null,
} as const;

export const LOAD_DEFAULTS = {
  weights: 'auto',
  weightGroup: 32,
  zeroPoints: false,
  activations: 'auto',
  kv: 'auto',
  contextTokens: null,
  kvCacheTokens: null,
  threads: null,
  device: 'auto',
  onProgress: null,
  signal: null,
} as const satisfies ResolvedLoadOptions;

/** Temperatures below this are greedy: their inverse would leave float32's useful range. */
const SMALLEST_TEMPERATURE = 1e-6;

/**
 * Checks a caller's options and decides every value: the caller's, else the checkpoint's, else
 * {@link GENERATE_DEFAULTS}.
 * @param vocabSize token ids in options must be below it
 * @throws TypeError (ALTIPLANO_INVALID_ARGUMENT) unknown name or wrong type;
 *   RangeError (ALTIPLANO_OUT_OF_RANGE); ALTIPLANO_CHECKPOINT_INVALID if a value that the
 *   checkpoint brings is used and out of range
 */
export function resolveGenerateOptions(
  options: GenerateOptions | undefined,
  checkpointDefaults: GenerationDefaults,
  vocabSize: number,
): ResolvedGenerateOptions {
  const schemas = generateSchemas(vocabSize);
  const given = checkOptions(schemas, options);
  const fromCheckpoint = (
    name: 'temperature' | 'topP' | 'topK' | 'repetitionPenalty',
  ): number | undefined => {
    const value = checkpointDefaults[name];
    if (value === undefined || given[name] !== undefined) return undefined;
    return checkValue(
      schemas[name],
      `generation defaults of the checkpoint: ${name}`,
      value,
      (details) =>
        new AltiplanoError('ALTIPLANO_CHECKPOINT_INVALID', 'is out of range', {
          ...details,
          hint: `Pass the option "${name}" to override it`,
        }),
    );
  };
  const merged = {
    ...GENERATE_DEFAULTS,
    ...given,
    temperature:
      given.temperature ?? fromCheckpoint('temperature') ?? GENERATE_DEFAULTS.temperature,
    topP: given.topP ?? fromCheckpoint('topP') ?? GENERATE_DEFAULTS.topP,
    topK: given.topK ?? fromCheckpoint('topK') ?? GENERATE_DEFAULTS.topK,
    repetitionPenalty:
      given.repetitionPenalty ??
      fromCheckpoint('repetitionPenalty') ??
      GENERATE_DEFAULTS.repetitionPenalty,
  };
  // Some checkpoints name end-of-sequence ids beyond their vocabulary; those can never come up.
  const eosTokenIds = (checkpointDefaults.eosTokenIds ?? []).filter((id) =>
    isTokenId(id, vocabSize),
  );
  return {
    ...merged,
    temperature: merged.temperature < SMALLEST_TEMPERATURE ? 0 : merged.temperature,
    logitBias: new Map((given.logitBias ?? []).filter(([, bias]) => bias !== 0)),
    seed: given.seed ?? Math.floor(Math.random() * 2 ** 48),
    stop: given.stop ?? [],
    stopTokens: [
      ...new Set([...(given.stopTokens ?? []), ...(merged.ignoreEos ? [] : eosTokenIds)]),
    ],
  };
}

/**
 * Checks a caller's options for loading and fills in {@link LOAD_DEFAULTS}.
 * @throws TypeError (ALTIPLANO_INVALID_ARGUMENT) unknown name, wrong type, or options that
 *   contradict each other; RangeError (ALTIPLANO_OUT_OF_RANGE)
 */
export function resolveLoadOptions(options?: LoadOptions): ResolvedLoadOptions {
  const given = checkOptions(loadSchemas, options);
  const resolved: ResolvedLoadOptions = { ...LOAD_DEFAULTS, ...given };
  if (resolved.weights !== 'int8' && resolved.weights !== 'int4') {
    for (const name of ['weightGroup', 'zeroPoints'] as const) {
      if (given[name] === undefined) continue;
      throw invalidArgument('has a meaning for quantized weights only', {
        subject: name,
        expected: 'weights "int8" or "int4"',
        found: `weights ${show(resolved.weights)}`,
      });
    }
  }
  return resolved;
}
