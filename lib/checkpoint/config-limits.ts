/**
 * The sane range of every number in a configuration, whatever the format, with its name in both.
 * The bounds lie far above known models (in comments: the largest Llama); what they keep out would
 * overflow a product or ask for absurd amounts of memory.
 */
import { invalid, unsupported } from './refuse.js';
import type { LlamaConfig } from './types.js';

type NumericKey = {
  [Key in keyof LlamaConfig]: LlamaConfig[Key] extends number ? Key : never;
}[keyof LlamaConfig];

interface FieldLimit {
  minimum: number;
  maximum: number;
  integer: boolean;
  /** In `config.json`. */
  huggingFace: string;
  /** In GGUF metadata. */
  gguf: string;
}

const size = (maximum: number, huggingFace: string, gguf: string): FieldLimit => ({
  minimum: 1,
  maximum,
  integer: true,
  huggingFace,
  gguf,
});

export const CONFIG_LIMITS: Readonly<Record<NumericKey, FieldLimit>> = {
  hiddenSize: size(2 ** 17, 'hidden_size', 'llama.embedding_length'), // 16384
  intermediateSize: size(2 ** 20, 'intermediate_size', 'llama.feed_forward_length'), // 53248
  layers: size(1024, 'num_hidden_layers', 'llama.block_count'), // 126
  heads: size(2048, 'num_attention_heads', 'llama.attention.head_count'), // 128
  kvHeads: size(2048, 'num_key_value_heads', 'llama.attention.head_count_kv'), // 32
  headDim: size(1024, 'head_dim', 'llama.attention.key_length'), // 128
  vocabSize: size(2 ** 22, 'vocab_size', 'llama.vocab_size'), // 128256
  contextTokens: size(2 ** 27, 'max_position_embeddings', 'llama.context_length'), // 131072
  rmsNormEps: {
    minimum: 1e-12,
    maximum: 0.1,
    integer: false,
    huggingFace: 'rms_norm_eps',
    gguf: 'llama.attention.layer_norm_rms_epsilon',
  },
  ropeTheta: {
    minimum: 1,
    maximum: 1e12, // 500000
    integer: false,
    huggingFace: 'rope_theta',
    gguf: 'llama.rope.freq_base',
  },
};

/** Bounds of every number in `rope_scaling`: factors and lengths. */
export const ROPE_SCALING_LIMITS = { minimum: 1, maximum: 2 ** 27 };

/**
 * Refuses numbers out of range and combinations that make no sense.
 *
 * @param subject the file, for messages
 * @param naming whose names the message uses
 * @throws ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED
 */
export function checkConfig(
  config: LlamaConfig,
  subject: string,
  naming: 'huggingFace' | 'gguf',
): void {
  for (const key of Object.keys(CONFIG_LIMITS) as NumericKey[]) {
    const limit = CONFIG_LIMITS[key];
    const value = config[key];
    const wrongKind = limit.integer && !Number.isInteger(value);
    // Written so that NaN is refused too.
    if (wrongKind || !(value >= limit.minimum && value <= limit.maximum)) {
      throw invalid(subject, `${limit[naming]} is out of range`, {
        expected: `${limit.integer ? 'an integer' : 'a number'} from ${limit.minimum} to ${limit.maximum}`,
        found: String(value),
      });
    }
  }
  const { heads, kvHeads, headDim } = config;
  if (heads % kvHeads !== 0) {
    throw invalid(subject, 'the heads cannot be shared out evenly among the key-value heads', {
      expected: `${CONFIG_LIMITS.heads[naming]} divisible by ${CONFIG_LIMITS.kvHeads[naming]}`,
      found: `${heads} and ${kvHeads}`,
    });
  }
  if (headDim % 2 !== 0) {
    throw unsupported(subject, 'the rotary embedding needs an even head dimension', {
      found: String(headDim),
    });
  }
}

/**
 * A warning if a checkpoint that looks like Llama 2 has the epsilon of Llama 1: early uploads of
 * Llama 2 chat said 1e-6, which costs 0.07 perplexity.
 */
export function epsilonWarning(config: LlamaConfig, name: string): string | undefined {
  const looksLikeLlama2 =
    /llama-?2/i.test(name) ||
    (config.vocabSize === 32000 && config.contextTokens === 4096 && config.ropeTheta === 10000);
  if (!looksLikeLlama2 || Math.fround(config.rmsNormEps) !== Math.fround(1e-6)) return undefined;
  return (
    `${name}: rms_norm_eps is 1e-6 as in early uploads of Llama 2, where 1e-5 was right. ` +
    'The value of the file is used.'
  );
}
