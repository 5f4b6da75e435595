/** `config.json` of a Hugging Face folder: what Llama models say, and what is refused by name. */
import * as v from 'valibot';
import { show } from '../errors.js';
import { CONFIG_LIMITS, checkConfig, ROPE_SCALING_LIMITS } from './config-limits.js';
import { isObject } from './json.js';
import { invalid, unsupported } from './refuse.js';
import type { LlamaConfig, RopeScaling } from './types.js';

const tokenId = v.pipe(v.number(), v.integer(), v.minValue(0));

/** One id, or several, or none. */
export const tokenIds = v.nullish(v.union([tokenId, v.array(tokenId)]));

const configSchema = v.object({
  architectures: v.nullish(v.array(v.string())),
  model_type: v.nullish(v.string()),
  hidden_size: v.number(),
  intermediate_size: v.number(),
  num_hidden_layers: v.number(),
  num_attention_heads: v.number(),
  num_key_value_heads: v.nullish(v.number()),
  head_dim: v.nullish(v.number()),
  vocab_size: v.number(),
  max_position_embeddings: v.number(),
  rms_norm_eps: v.number(),
  rope_theta: v.nullish(v.number()),
  rope_scaling: v.nullish(v.record(v.string(), v.unknown())),
  rope_parameters: v.nullish(v.record(v.string(), v.unknown())),
  tie_word_embeddings: v.nullish(v.boolean()),
  hidden_act: v.nullish(v.string()),
  attention_bias: v.nullish(v.boolean()),
  mlp_bias: v.nullish(v.boolean()),
  sliding_window: v.nullish(v.unknown()),
  quantization_config: v.nullish(v.unknown()),
  eos_token_id: tokenIds,
});

type RawConfig = v.InferOutput<typeof configSchema>;

function requireObject(value: unknown, subject: string): Record<string, unknown> {
  if (!isObject(value)) {
    throw invalid(subject, 'no JSON object', { found: show(value) });
  }
  return value;
}

/**
 * Checks a parsed JSON value against a schema for an object.
 *
 * @throws ALTIPLANO_CHECKPOINT_INVALID that names the first field at fault
 */
export function parseWith<const Schema extends v.GenericSchema>(
  schema: Schema,
  value: unknown,
  subject: string,
): v.InferOutput<Schema> {
  requireObject(value, subject);
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (!result.success) {
    const issue = result.issues[0];
    throw invalid(subject, `${v.getDotPath(issue)} is wrong`, {
      expected: issue.expected ?? undefined,
      found: issue.received.slice(0, 80),
    });
  }
  return result.output;
}

function checkArchitecture(subject: string, value: unknown): void {
  const { architectures, model_type: modelType } = requireObject(value, subject);
  // Asked before everything else: another architecture has other fields.
  const claims = [
    ...(Array.isArray(architectures) ? architectures : []),
    ...(modelType == null ? [] : [modelType]),
  ];
  const stranger = claims.find((claim) => claim !== 'LlamaForCausalLM' && claim !== 'llama');
  if (stranger !== undefined) {
    throw unsupported(subject, `architecture ${show(stranger)} is not supported`, {
      expected: 'LlamaForCausalLM (model_type "llama")',
    });
  }
  if (claims.length === 0) {
    throw invalid(subject, 'no architecture', {
      expected: 'architectures ["LlamaForCausalLM"] or model_type "llama"',
    });
  }
}

function checkFeatures(subject: string, raw: RawConfig): void {
  if (raw.hidden_act != null && raw.hidden_act !== 'silu') {
    throw unsupported(subject, `hidden_act ${show(raw.hidden_act)} is not supported`, {
      expected: '"silu"',
    });
  }
  for (const key of ['attention_bias', 'mlp_bias'] as const) {
    if (raw[key]) throw unsupported(subject, `${key} is not supported`, { expected: 'false' });
  }
  if (raw.sliding_window != null) {
    throw unsupported(subject, 'sliding_window is not supported', {
      expected: 'null',
      found: show(raw.sliding_window),
    });
  }
  if (raw.quantization_config != null) {
    const quantization: unknown = raw.quantization_config;
    const method = isObject(quantization) ? quantization.quant_method : quantization;
    throw unsupported(subject, `quantization_config (${show(method)}) is not supported`, {
      hint: 'Use the original weights with the option weights: "int8" or "int4", or a GGUF file.',
    });
  }
}

function ropeNumber(subject: string, rope: Record<string, unknown>, key: string): number {
  const value = rope[key];
  const { minimum, maximum } = ROPE_SCALING_LIMITS;
  if (typeof value !== 'number' || !(value >= minimum && value <= maximum)) {
    throw invalid(subject, `${key} of the RoPE scaling is out of range`, {
      expected: `a number from ${minimum} to ${maximum}`,
      found: show(value),
    });
  }
  return value;
}

function readRopeScaling(
  subject: string,
  rope: Record<string, unknown>,
  contextTokens: number,
): RopeScaling {
  const kind = rope.rope_type ?? rope.type ?? 'default';
  switch (kind) {
    case 'default':
      return { kind: 'none' };
    case 'linear':
      return { kind: 'linear', factor: ropeNumber(subject, rope, 'factor') };
    case 'llama3': {
      const scaling = {
        kind: 'llama3' as const,
        factor: ropeNumber(subject, rope, 'factor'),
        lowFreqFactor: ropeNumber(subject, rope, 'low_freq_factor'),
        highFreqFactor: ropeNumber(subject, rope, 'high_freq_factor'),
        // As in transformers: without the original length, the context is the original one.
        originalContextTokens:
          rope.original_max_position_embeddings == null
            ? contextTokens
            : ropeNumber(subject, rope, 'original_max_position_embeddings'),
      };
      // The frequencies between the two are blended with weights over their difference.
      if (scaling.lowFreqFactor >= scaling.highFreqFactor) {
        throw invalid(subject, 'low_freq_factor must be below high_freq_factor', {
          found: `${scaling.lowFreqFactor} and ${scaling.highFreqFactor}`,
        });
      }
      return scaling;
    }
    default:
      throw unsupported(subject, `RoPE scaling of type ${show(kind)} is not supported`, {
        expected: '"linear", "llama3" or "default"',
      });
  }
}

/** A list of ids from one id, several or none. */
export function idList(ids: number | number[] | null | undefined): number[] {
  return ids == null ? [] : [ids].flat();
}

/** What `config.json` says. */
export interface HuggingFaceConfig {
  config: LlamaConfig;
  eosTokenIds: number[];
}

/**
 * Reads a parsed `config.json`.
 *
 * Defaults where transformers has the same: `num_key_value_heads` the heads, `head_dim` hidden size
 * over heads, `rope_theta` 10000, `tie_word_embeddings` false, `hidden_act` "silu". RoPE settings
 * are read from `rope_scaling` (with `rope_type` or the older `type`) or from `rope_parameters`
 * (transformers 5).
 *
 * @param subject the file, for messages
 * @throws ALTIPLANO_CHECKPOINT_UNSUPPORTED for features refused by name,
 *   ALTIPLANO_CHECKPOINT_INVALID for values that are missing, of the wrong kind or out of range
 */
export function readHuggingFaceConfig(value: unknown, subject: string): HuggingFaceConfig {
  checkArchitecture(subject, value);
  const raw = parseWith(configSchema, value, subject);
  checkFeatures(subject, raw);
  const rope = raw.rope_parameters ?? raw.rope_scaling ?? {};
  const ropeTheta = rope.rope_theta ?? raw.rope_theta ?? 10000;
  if (typeof ropeTheta !== 'number') {
    throw invalid(subject, 'rope_theta is no number', { found: show(ropeTheta) });
  }
  const config: LlamaConfig = {
    hiddenSize: raw.hidden_size,
    intermediateSize: raw.intermediate_size,
    layers: raw.num_hidden_layers,
    heads: raw.num_attention_heads,
    kvHeads: raw.num_key_value_heads ?? raw.num_attention_heads,
    headDim: raw.head_dim ?? raw.hidden_size / raw.num_attention_heads,
    vocabSize: raw.vocab_size,
    contextTokens: raw.max_position_embeddings,
    rmsNormEps: raw.rms_norm_eps,
    ropeTheta,
    ropeScaling: readRopeScaling(subject, rope, raw.max_position_embeddings),
    tiedEmbeddings: raw.tie_word_embeddings ?? false,
  };
  checkConfig(config, subject, 'huggingFace');
  return { config, eosTokenIds: checkTokenIds(idList(raw.eos_token_id), config, subject) };
}

/**
 * Refuses token ids outside the vocabulary.
 *
 * @throws ALTIPLANO_CHECKPOINT_INVALID
 */
export function checkTokenIds(ids: number[], config: LlamaConfig, subject: string): number[] {
  const stray = ids.find((id) => id >= config.vocabSize);
  if (stray !== undefined) {
    throw invalid(subject, 'eos_token_id is outside the vocabulary', {
      expected: `below ${CONFIG_LIMITS.vocabSize.huggingFace} ${config.vocabSize}`,
      found: String(stray),
    });
  }
  return ids;
}
