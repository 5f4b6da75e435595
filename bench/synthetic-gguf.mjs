/**
 * Writes a GGUF file of a real shape with random weights, to measure speed and memory with:
 *
 *   node bench/synthetic-gguf.mjs SHAPE TYPE FILE
 *
 * SHAPE: 1b (TinyLlama-1.1B), 7b, 13b; TYPE: q4_0, q8_0. As in the files of llama.cpp's own
 * quantizer, the output head of a q4_0 file is Q6_K. The vocabulary has Llama's size and special
 * tokens, but made up pieces. The same arguments give the same bytes.
 */
import { closeSync, openSync, renameSync, writeSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const SHAPES = {
  '1b': { hidden: 2048, intermediate: 5632, layers: 22, heads: 32, kvHeads: 4, context: 2048 },
  '7b': { hidden: 4096, intermediate: 11008, layers: 32, heads: 32, kvHeads: 32, context: 4096 },
  '13b': { hidden: 5120, intermediate: 13824, layers: 40, heads: 40, kvHeads: 40, context: 4096 },
};
const VOCABULARY = 32_000;
const ALIGNMENT = 32;

/**
 * Tensor types: their number in GGUF, and a block's weights, bytes, and where its f16 scale lies.
 * The other bytes are random, scales lie in [scaleBits, scaleBits + 0x400) so that weights have a
 * standard deviation of about 0.02, as trained ones have.
 */
const TYPES = {
  q4_0: { id: 2, weights: 32, bytes: 18, scaleAt: 0, scaleBits: 0x1a00 },
  q8_0: { id: 8, weights: 32, bytes: 34, scaleAt: 0, scaleBits: 0x0800 },
  // With random scales of 8 bits in each block; its f16 is below the normal numbers.
  q6_k: { id: 14, weights: 256, bytes: 210, scaleAt: 208, scaleBits: 0x00f5, sameScale: true },
  f32: { id: 0, weights: 1, bytes: 4 },
};

/** xorshift32 into a buffer whose length is a multiple of 4. @returns the state behind it */
function fillRandom(buffer, seed) {
  const words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length / 4);
  let x = seed;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return x;
}

const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
const f32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
};
const string = (text) => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);

/** Metadata values: their type's number, and bytes. */
const KINDS = {
  u32: [4, u32],
  i32: [5, u32],
  f32: [6, f32],
  bool: [7, (value) => Buffer.from([value ? 1 : 0])],
  string: [8, string],
};
function entry(key, kind, value) {
  const [id, encode] = KINDS[kind];
  if (!Array.isArray(value)) return Buffer.concat([string(key), u32(id), encode(value)]);
  return Buffer.concat([string(key), u32(9), u32(id), u64(value.length), ...value.map(encode)]);
}

/** Special tokens, a token for each byte, and pieces that are numbers in letters: a, b, ... */
function vocabulary() {
  const byte = (_, value) => `<0x${value.toString(16).toUpperCase().padStart(2, '0')}>`;
  const tokens = ['<unk>', '<s>', '</s>', ...Array.from({ length: 256 }, byte)];
  const types = [2, 3, 3, ...Array(256).fill(6)];
  for (let n = 0; tokens.length < VOCABULARY; n++) {
    let piece = '';
    for (let rest = n; rest >= 0; rest = Math.floor(rest / 26) - 1) {
      piece = String.fromCharCode(97 + (rest % 26)) + piece;
    }
    // Every other one begins a word: U+2581 is SentencePiece's space.
    tokens.push(n % 2 === 1 ? `\u2581${piece}` : piece);
    types.push(1);
  }
  return { tokens, types, scores: tokens.map((_, id) => (id < 259 ? 0 : 259 - id)) };
}

function metadata(shape, name) {
  const { tokens, types, scores } = vocabulary();
  return [
    entry('general.architecture', 'string', 'llama'),
    entry('general.name', 'string', name),
    entry('general.alignment', 'u32', ALIGNMENT),
    entry('llama.context_length', 'u32', shape.context),
    entry('llama.embedding_length', 'u32', shape.hidden),
    entry('llama.block_count', 'u32', shape.layers),
    entry('llama.feed_forward_length', 'u32', shape.intermediate),
    entry('llama.rope.dimension_count', 'u32', shape.hidden / shape.heads),
    entry('llama.rope.freq_base', 'f32', 10_000),
    entry('llama.attention.head_count', 'u32', shape.heads),
    entry('llama.attention.head_count_kv', 'u32', shape.kvHeads),
    entry('llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5),
    entry('llama.vocab_size', 'u32', VOCABULARY),
    entry('tokenizer.ggml.model', 'string', 'llama'),
    entry('tokenizer.ggml.tokens', 'string', tokens),
    entry('tokenizer.ggml.scores', 'f32', scores),
    entry('tokenizer.ggml.token_type', 'i32', types),
    entry('tokenizer.ggml.bos_token_id', 'u32', 1),
    entry('tokenizer.ggml.eos_token_id', 'u32', 2),
    entry('tokenizer.ggml.unknown_token_id', 'u32', 0),
    entry('tokenizer.ggml.add_bos_token', 'bool', true),
    entry('tokenizer.ggml.add_eos_token', 'bool', false),
  ];
}

/** Name, [rows, columns] or [length], type. */
function tensors({ hidden, intermediate, layers, heads, kvHeads }, type) {
  const kvSize = (hidden / heads) * kvHeads;
  const layer = (l) =>
    [
      ['attn_norm', [hidden], 'f32'],
      ['attn_q', [hidden, hidden], type],
      ['attn_k', [kvSize, hidden], type],
      ['attn_v', [kvSize, hidden], type],
      ['attn_output', [hidden, hidden], type],
      ['ffn_norm', [hidden], 'f32'],
      ['ffn_gate', [intermediate, hidden], type],
      ['ffn_up', [intermediate, hidden], type],
      ['ffn_down', [hidden, intermediate], type],
    ].map(([name, ...rest]) => [`blk.${l}.${name}.weight`, ...rest]);
  return [
    ['token_embd.weight', [VOCABULARY, hidden], type],
    ...Array.from({ length: layers }, (_, l) => layer(l)).flat(),
    ['output_norm.weight', [hidden], 'f32'],
    ['output.weight', [VOCABULARY, hidden], type === 'q4_0' ? 'q6_k' : type],
  ];
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);
const aligned = (bytes) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** A tensor's bytes, in pieces. */
function* data(shape, { weights, bytes, scaleAt, scaleBits, sameScale }, seed) {
  if (scaleAt === undefined) {
    const ones = new Float32Array(product(shape)).fill(1);
    yield Buffer.from(ones.buffer);
    return;
  }
  let [state, left] = [seed, product(shape) / weights];
  const piece = Buffer.from(new ArrayBuffer(bytes * 65_536));
  for (; left > 0; left -= 65_536) {
    state = fillRandom(piece, state);
    for (let at = scaleAt; at < piece.length; at += bytes) {
      const random = sameScale ? 0 : piece[at] | ((piece[at + 1] & 3) << 8);
      piece.writeUInt16LE(scaleBits + random, at);
    }
    yield piece.subarray(0, Math.min(left, 65_536) * bytes);
  }
}

/** @param shape numbers of `SHAPES` @param {'q4_0' | 'q8_0'} type */
export function writeSyntheticGguf(file, shape, type, name = 'synthetic') {
  const all = tensors(shape, type);
  const meta = metadata(shape, name);
  const sizeOf = ([, dims, t]) => (product(dims) / TYPES[t].weights) * TYPES[t].bytes;
  let offset = 0;
  const infos = all.map((tensor) => {
    const [tensorName, dims, t] = tensor;
    const info = [string(tensorName), u32(dims.length), ...dims.toReversed().map(u64)];
    info.push(u32(TYPES[t].id), u64(offset));
    offset += aligned(sizeOf(tensor));
    return Buffer.concat(info);
  });
  const counts = [Buffer.from('GGUF'), u32(3), u64(all.length), u64(meta.length)];
  const header = Buffer.concat([...counts, ...meta, ...infos]);
  const part = `${file}.part`;
  const out = openSync(part, 'w');
  try {
    const pad = (bytes) => writeSync(out, Buffer.alloc(aligned(bytes) - bytes));
    writeSync(out, header);
    pad(header.length);
    all.forEach((tensor, i) => {
      const [, dims, t] = tensor;
      for (const piece of data(dims, TYPES[t], i + 1)) writeSync(out, piece);
      pad(sizeOf(tensor));
    });
  } finally {
    closeSync(out);
  }
  renameSync(part, file);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [shape, type, file] = process.argv.slice(2);
  if (SHAPES[shape] === undefined || !['q4_0', 'q8_0'].includes(type) || file === undefined) {
    console.error('usage: node bench/synthetic-gguf.mjs 1b|7b|13b q4_0|q8_0 FILE');
    process.exit(2);
  }
  writeSyntheticGguf(file, SHAPES[shape], type, `synthetic ${shape}`);
}
