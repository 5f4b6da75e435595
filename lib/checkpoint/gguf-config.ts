/** GGUF metadata as a Llama configuration. */
import { show } from '../errors.js';
import { CONFIG_LIMITS, checkConfig, ROPE_SCALING_LIMITS } from './config-limits.js';
import type { GgufMetadata } from './gguf-metadata.js';
import { invalid, unsupported } from './refuse.js';
import type { LlamaConfig, RopeScaling } from './types.js';

const SPLIT_NAME = /-\d{5}-of-\d{5}\.gguf$/i;

/**
 * Refuses GGUF files that are no whole Llama model.
 *
 * @throws ALTIPLANO_CHECKPOINT_UNSUPPORTED, ALTIPLANO_CHECKPOINT_INVALID
 */
export function checkGgufKind(metadata: GgufMetadata): void {
  const { subject } = metadata;
  if (SPLIT_NAME.test(subject) || (metadata.number('split.count') ?? 0) > 1) {
    throw unsupported(subject, 'GGUF files split into parts are not supported', {
      hint: 'Join them with llama.cpp: llama-gguf-split --merge FIRST_PART JOINED.gguf',
    });
  }
  const architecture = metadata.string('general.architecture');
  if (architecture === undefined) throw invalid(subject, 'general.architecture is missing');
  if (architecture !== 'llama') {
    throw unsupported(subject, `architecture ${show(architecture)} is not supported`, {
      expected: '"llama"',
    });
  }
  const experts = metadata.number('llama.expert_count') ?? 0;
  if (experts !== 0) {
    throw unsupported(subject, 'mixtures of experts are not supported', {
      found: `llama.expert_count ${experts}`,
    });
  }
}

function readRopeScaling(metadata: GgufMetadata): RopeScaling {
  const kind = metadata.string('llama.rope.scaling.type') ?? 'none';
  // Files of before llama.rope.scaling.* say how positions are stretched under an older name.
  const factor =
    metadata.number('llama.rope.scaling.factor') ?? metadata.number('llama.rope.scale_linear') ?? 1;
  const isLinear = kind === 'linear' || !metadata.has('llama.rope.scaling.type');
  if (!isLinear && kind !== 'none') {
    throw unsupported(metadata.subject, `RoPE scaling of type ${show(kind)} is not supported`, {
      expected: '"linear" or "none"',
    });
  }
  const { minimum, maximum } = ROPE_SCALING_LIMITS;
  if (!(factor >= minimum && factor <= maximum)) {
    throw invalid(metadata.subject, 'llama.rope.scaling.factor is out of range', {
      expected: `a number from ${minimum} to ${maximum}`,
      found: `${factor}`,
    });
  }
  return isLinear && factor !== 1 ? { kind: 'linear', factor } : { kind: 'none' };
}

/** The number of tokens is the vocabulary's; files without a tokenizer say it themselves. */
function readVocabSize(metadata: GgufMetadata): number {
  const key = CONFIG_LIMITS.vocabSize.gguf;
  const tokens = metadata.strings('tokenizer.ggml.tokens')?.length;
  const stated = metadata.number(key);
  if (tokens === undefined) return metadata.requiredNumber(key);
  if (stated !== undefined && stated !== tokens) {
    throw invalid(metadata.subject, `${key} contradicts tokenizer.ggml.tokens`, {
      expected: `${tokens}`,
      found: `${stated}`,
    });
  }
  return tokens;
}

/**
 * Reads the configuration. Defaults as in llama.cpp: `head_count_kv` the heads, `key_length` the
 * embedding length over the heads, `rope.freq_base` 10000.
 *
 * @param tiedEmbeddings whether the file has no output head of its own
 * @throws ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED
 */
export function readGgufConfig(metadata: GgufMetadata, tiedEmbeddings: boolean): LlamaConfig {
  const required = (key: keyof typeof CONFIG_LIMITS) =>
    metadata.requiredNumber(CONFIG_LIMITS[key].gguf);
  const optional = (key: keyof typeof CONFIG_LIMITS) => metadata.number(CONFIG_LIMITS[key].gguf);

  const hiddenSize = required('hiddenSize');
  const heads = required('heads');
  const config: LlamaConfig = {
    hiddenSize,
    intermediateSize: required('intermediateSize'),
    layers: required('layers'),
    heads,
    kvHeads: optional('kvHeads') ?? heads,
    headDim: optional('headDim') ?? hiddenSize / heads,
    vocabSize: readVocabSize(metadata),
    contextTokens: required('contextTokens'),
    rmsNormEps: required('rmsNormEps'),
    ropeTheta: optional('ropeTheta') ?? 10000,
    ropeScaling: readRopeScaling(metadata),
    tiedEmbeddings,
  };
  checkConfig(config, metadata.subject, 'gguf');
  for (const key of ['llama.attention.value_length', 'llama.rope.dimension_count']) {
    const value = metadata.number(key) ?? config.headDim;
    if (value !== config.headDim) {
      throw unsupported(metadata.subject, `${key} other than the head dimension`, {
        expected: `${config.headDim}`,
        found: `${value}`,
      });
    }
  }
  return config;
}
