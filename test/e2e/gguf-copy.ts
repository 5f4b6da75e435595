/** Turns a Hugging Face folder into a GGUF file, as llama.cpp's converter would, in any file type. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '../../lib/checkpoint/index.js';
import { parseSentencePieceModel } from '../../lib/tokenizer/sentencepiece-model.js';
import { type GgufTensor, type GgufValue, ggufBytes } from '../fixtures/gguf-writer.js';
import { readWeights } from './checkpoint-copies.js';
import { GGUF_CODECS, GGUF_DECODERS, type GgufType } from './gguf-types.js';

/** Names in GGUF files by those in Hugging Face's. */
function ggufName(name: string): string {
  const inLayer: Record<string, string> = {
    input_layernorm: 'attn_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    post_attention_layernorm: 'ffn_norm',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
  };
  const [, layer, part] = /^model\.layers\.(\d+)\.(.*)\.weight$/.exec(name) ?? [];
  if (part !== undefined) return `blk.${layer}.${inLayer[part]!}.weight`;
  return {
    'model.embed_tokens.weight': 'token_embd.weight',
    'model.norm.weight': 'output_norm.weight',
    'lm_head.weight': 'output.weight',
  }[name]!;
}

/**
 * Rows of q or k from Hugging Face's order (first halves of all pairs, then second halves) to that
 * of GGUF (pair by pair), within each head.
 */
function interleave(values: Float32Array, headDim: number, cols: number): Float32Array {
  const out = new Float32Array(values.length);
  const half = headDim / 2;
  for (let row = 0; row * cols < values.length; row++) {
    const inHead = row % headDim;
    const from = row - inHead + Math.floor(inHead / 2) + (inHead % 2) * half;
    out.set(values.subarray(from * cols, (from + 1) * cols), row * cols);
  }
  return out;
}

/**
 * Writes a GGUF file with the folder's weights.
 * @param typeOf the file type of each matrix, by its GGUF name; vectors are F32, and so are matrices
 *   whose rows are no whole number of blocks
 * @param isDecoded write what the types stand for, in F32, instead of the types themselves
 */
export async function writeGguf(
  folder: string,
  file: string,
  typeOf: (name: string) => GgufType,
  isDecoded = false,
): Promise<string> {
  const { config } = await openCheckpoint(folder);
  const u32 = (value: number): GgufValue => ({ type: 'u32', value });
  const f32 = (value: number): GgufValue => ({ type: 'f32', value });
  const tokenizerFile = join(folder, 'tokenizer.model');
  const vocabulary = parseSentencePieceModel(readFileSync(tokenizerFile), tokenizerFile);
  const keys: [string, GgufValue][] = [
    ['general.architecture', { type: 'string', value: 'llama' }],
    ['llama.context_length', u32(config.contextTokens)],
    ['llama.embedding_length', u32(config.hiddenSize)],
    ['llama.block_count', u32(config.layers)],
    ['llama.feed_forward_length', u32(config.intermediateSize)],
    ['llama.rope.dimension_count', u32(config.headDim)],
    ['llama.attention.key_length', u32(config.headDim)],
    ['llama.attention.value_length', u32(config.headDim)],
    ['llama.rope.freq_base', f32(config.ropeTheta)],
    ['llama.attention.head_count', u32(config.heads)],
    ['llama.attention.head_count_kv', u32(config.kvHeads)],
    ['llama.attention.layer_norm_rms_epsilon', f32(config.rmsNormEps)],
    ['llama.vocab_size', u32(config.vocabSize)],
    ['tokenizer.ggml.model', { type: 'string', value: 'llama' }],
    ['tokenizer.ggml.tokens', { type: 'array', of: 'string', values: vocabulary.pieces }],
    ['tokenizer.ggml.scores', { type: 'array', of: 'f32', values: [...vocabulary.scores] }],
    ['tokenizer.ggml.token_type', { type: 'array', of: 'i32', values: [...vocabulary.types] }],
    ['tokenizer.ggml.bos_token_id', u32(1)],
    ['tokenizer.ggml.eos_token_id', u32(2)],
    ['tokenizer.ggml.unknown_token_id', u32(0)],
  ];
  const tensors = readWeights(folder).map(({ name, shape, values }): GgufTensor => {
    const isRotary = /\.[qk]_proj\./.test(name);
    const data = isRotary ? interleave(values, config.headDim, shape[1]!) : values;
    const inFile = ggufName(name);
    const wanted = shape.length === 1 ? 'F32' : typeOf(inFile);
    const type = shape.at(-1)! % GGUF_CODECS[wanted].blockElements === 0 ? wanted : 'F32';
    const encoded = GGUF_CODECS[type].encode(data);
    if (isDecoded && type in GGUF_DECODERS) {
      const decoded = GGUF_DECODERS[type as keyof typeof GGUF_DECODERS](encoded);
      return { name: inFile, shape, typeId: 0, data: new Uint8Array(decoded.buffer) };
    }
    return { name: inFile, shape, typeId: GGUF_CODECS[type].typeId, data: encoded };
  });
  writeFileSync(file, ggufBytes({ keys, tensors }));
  return file;
}
