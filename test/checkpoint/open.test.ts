/** What opening a checkpoint yields, for sound files. What is refused: hostile.test.ts. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from '@jest/globals';
import { openCheckpoint } from '../../lib/checkpoint/index.js';
import type { LayerTensors } from '../../lib/checkpoint/types.js';
import { ggufBytes } from '../fixtures/gguf-writer.js';
import { safetensorsBytes } from '../fixtures/safetensors-writer.js';
import {
  type Files,
  type Json,
  TINY,
  TINY_PIECES,
  TINY_VOCAB_SIZE,
  tinyConfig,
  tinyFolder,
  tinyGguf,
  tinyGgufFolder,
  tinyShardedFolder,
  tinyTensors,
  writeFiles,
} from '../fixtures/tiny-model.js';

const root = mkdtempSync(join(tmpdir(), 'altiplano-open-'));
afterAll(() => rmSync(root, { recursive: true }));

let folders = 0;

/** Writes files into a new folder and returns its path. */
async function written(files: Files, name = `folder-${folders++}`): Promise<string> {
  const folder = join(root, name);
  await writeFiles(folder, files);
  return folder;
}

const opened = async (files: Files) => openCheckpoint(await written(files));
const withConfig = (changes: Json) =>
  opened(tinyFolder({ 'config.json': JSON.stringify(tinyConfig(changes)) }));

const TINY_CONFIG = {
  ...TINY,
  vocabSize: TINY_VOCAB_SIZE,
  ropeTheta: 10000,
  ropeScaling: { kind: 'none' },
  tiedEmbeddings: false,
};

describe('Hugging Face folders', () => {
  test('one file: configuration, tensors, generation, tokenizer, template', async () => {
    const folder = await written(tinyFolder());
    const checkpoint = await openCheckpoint(folder);
    expect(checkpoint).toMatchObject({
      path: folder,
      format: 'safetensors',
      config: TINY_CONFIG,
      rotaryLayout: 'halves',
      generation: { temperature: 0.7, topP: 0.8, eosTokenIds: [2] },
      tokenizer: { kind: 'sentencepiece', file: join(folder, 'tokenizer.model') },
      chatTemplate: '{{ messages[0].content }}',
      warnings: [],
    });
    const { embedding, layers, head } = checkpoint.tensors;
    expect(layers).toHaveLength(TINY.layers);
    expect(embedding.shape).toEqual([TINY_VOCAB_SIZE, TINY.hiddenSize]);
    expect(head?.name).toBe('lm_head.weight');
  });

  test('offsets point at the right bytes', async () => {
    const folder = await written(tinyFolder());
    const { tensors } = await openCheckpoint(folder);
    const bytes = safetensorsBytes(tinyTensors(), { format: 'pt' });
    const byName = new Map(tinyTensors().map((tensor) => [tensor.name, tensor]));
    const all = [
      tensors.embedding,
      tensors.finalNorm,
      ...tensors.layers.flatMap((layer: LayerTensors) => Object.values(layer)),
    ];
    expect(all).toHaveLength(2 + 9 * TINY.layers);
    for (const { name, offset, sizeBytes, file } of all) {
      expect(file).toBe(join(folder, 'model.safetensors'));
      const data = byName.get(name)?.data as Uint8Array;
      expect(bytes.subarray(offset, offset + sizeBytes).equals(data)).toBe(true);
    }
  });

  test('shards: every tensor from its file, also when one shard is named', async () => {
    const folder = await written(tinyShardedFolder());
    const checkpoint = await openCheckpoint(folder);
    const first = join(folder, 'model-00001-of-00002.safetensors');
    const second = join(folder, 'model-00002-of-00002.safetensors');
    expect(checkpoint.tensors.embedding).toMatchObject({ file: first, type: 'BF16' });
    expect(checkpoint.tensors.finalNorm).toMatchObject({ file: second, type: 'F32' });
    expect((await openCheckpoint(second)).tensors).toEqual(checkpoint.tensors);
  });

  test('a safetensors file beside the folder’s own is opened alone', async () => {
    const other = safetensorsBytes(tinyTensors('BF16'));
    const folder = await written(tinyFolder({ 'other.safetensors': other }));
    expect((await openCheckpoint(join(folder, 'other.safetensors'))).tensors.embedding.type).toBe(
      'BF16',
    );
    expect((await openCheckpoint(folder)).tensors.embedding.type).toBe('F32');
    const shards = await written(tinyShardedFolder({ 'other.safetensors': other }));
    expect((await openCheckpoint(join(shards, 'other.safetensors'))).tensors.finalNorm.file).toBe(
      join(shards, 'other.safetensors'),
    );
  });

  test('the Hugging Face cache: links to blobs, the name of the model', async () => {
    const { 'model.safetensors': weights, ...others } = tinyFolder();
    const repository = await written({ 'blobs/abc': weights as Uint8Array }, 'models--org--tiny');
    const snapshot = join(repository, 'snapshots', '0123');
    await writeFiles(snapshot, others);
    symlinkSync('../../blobs/abc', join(snapshot, 'model.safetensors'));
    const checkpoint = await openCheckpoint(snapshot);
    expect(checkpoint.name).toBe('org/tiny');
    expect(checkpoint.tensors.embedding.file).toBe(join(repository, 'blobs', 'abc'));
    const named = await openCheckpoint(join(snapshot, 'model.safetensors'));
    expect(named.tensors).toEqual(checkpoint.tensors);
  });

  test('defaults where transformers has the same', async () => {
    const plain = await withConfig({ head_dim: null, rope_theta: undefined, hidden_act: null });
    expect(plain.config).toEqual(TINY_CONFIG);
    const config = tinyConfig({ num_key_value_heads: undefined, tie_word_embeddings: undefined });
    const q = (name: string) =>
      tinyTensors().find((tensor) => tensor.name === name.replace(/[kv]_proj/, 'q_proj'));
    const tensors = tinyTensors().map((tensor) => ({
      ...tensor,
      ...q(tensor.name),
      name: tensor.name,
    }));
    const equalHeads = await opened(
      tinyFolder({
        'config.json': JSON.stringify(config),
        'model.safetensors': safetensorsBytes(tensors),
      }),
    );
    expect(equalHeads.config).toEqual({ ...TINY_CONFIG, kvHeads: TINY.heads });
  });

  test('RoPE settings: old names, new names, transformers 5', async () => {
    const scaling = async (changes: Json) => (await withConfig(changes)).config.ropeScaling;
    const numbers = { factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
    expect(await scaling({ rope_scaling: { type: 'linear', factor: 2 } })).toEqual({
      kind: 'linear',
      factor: 2,
    });
    expect(await scaling({ rope_scaling: { rope_type: 'default' } })).toEqual({ kind: 'none' });
    const llama3 = {
      kind: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContextTokens: 32,
    };
    const settings = { rope_type: 'llama3', ...numbers, original_max_position_embeddings: 32 };
    expect(await scaling({ rope_scaling: settings })).toEqual(llama3);
    const { config } = await withConfig({
      rope_theta: undefined,
      rope_parameters: { ...settings, rope_theta: 5e5 },
    });
    expect(config).toMatchObject({ ropeScaling: llama3, ropeTheta: 5e5 });
  });

  test('a tied head: stored or not, the embedding counts', async () => {
    const stored = await withConfig({ tie_word_embeddings: true });
    expect(stored.tensors.head).toBeUndefined();
    const absent = await opened(
      tinyFolder({
        'config.json': JSON.stringify(tinyConfig({ tie_word_embeddings: true })),
        'model.safetensors': safetensorsBytes(
          tinyTensors().filter(({ name }) => name !== 'lm_head.weight'),
        ),
      }),
    );
    expect(absent.tensors.head).toBeUndefined();
    expect(absent.config.tiedEmbeddings).toBe(true);
  });

  test('generation_config.json: do_sample false means temperature 0; ids are collected', async () => {
    const { generation } = await opened(
      tinyFolder({
        'generation_config.json': JSON.stringify({
          do_sample: false,
          temperature: 0.6,
          top_k: 50,
          repetition_penalty: 1.1,
          eos_token_id: [2, 7],
        }),
      }),
    );
    expect(generation).toEqual({
      temperature: 0,
      topK: 50,
      repetitionPenalty: 1.1,
      eosTokenIds: [2, 7],
    });
  });

  test('chat templates: the file wins, of several the default', async () => {
    const several = JSON.stringify({
      chat_template: [
        { name: 'tools', template: 'a' },
        { name: 'default', template: 'b' },
      ],
    });
    const folder = tinyFolder({ 'tokenizer_config.json': several });
    expect((await opened(folder)).chatTemplate).toBe('b');
    expect((await opened({ ...folder, 'chat_template.jinja': 'c' })).chatTemplate).toBe('c');
    const { chatTemplate } = await opened(tinyFolder({ 'tokenizer_config.json': '{}' }));
    expect(chatTemplate).toBeUndefined();
  });

  test('tokenizer.model is preferred; tokenizer.json comes with its config', async () => {
    const { 'tokenizer.model': model, ...others } = tinyFolder({ 'tokenizer.json': '{}' });
    const folder = await written(others);
    expect((await openCheckpoint(folder)).tokenizer).toEqual({
      kind: 'tokenizer-json',
      file: join(folder, 'tokenizer.json'),
      configFile: join(folder, 'tokenizer_config.json'),
    });
    await writeFiles(folder, { 'tokenizer.model': model as Uint8Array });
    expect((await openCheckpoint(folder)).tokenizer?.kind).toBe('sentencepiece');
  });

  test('a Llama 2 checkpoint with the epsilon of Llama 1 is warned about', async () => {
    const config = JSON.stringify(tinyConfig({ rms_norm_eps: 1e-6 }));
    const files = tinyFolder({ 'config.json': config });
    const named = await openCheckpoint(await written(files, 'Llama-2-tiny'));
    expect(named.warnings).toEqual([expect.stringContaining('1e-6')]);
    expect(named.config.rmsNormEps).toBe(1e-6);
    expect((await openCheckpoint(await written(files, 'other'))).warnings).toEqual([]);
    const right = await openCheckpoint(await written(tinyFolder(), 'Llama-2-right'));
    expect(right.warnings).toEqual([]);
  });
});

describe('GGUF files', () => {
  test('configuration, tensors, vocabulary, template', async () => {
    const folder = await written(tinyGgufFolder());
    const checkpoint = await openCheckpoint(folder);
    expect(checkpoint).toMatchObject({
      path: join(folder, 'tiny.gguf'),
      format: 'gguf',
      name: 'tiny',
      config: { ...TINY_CONFIG, rmsNormEps: Math.fround(1e-5) },
      rotaryLayout: 'interleaved',
      generation: { eosTokenIds: [2] },
      tokenizer: {
        kind: 'vocabulary',
        vocabulary: { model: 'llama', bosId: 1, eosId: 2, unkId: 0 },
      },
      chatTemplate: '{{ messages[0].content }}',
    });
    const { tokenizer } = checkpoint;
    if (tokenizer?.kind !== 'vocabulary') throw new Error('no vocabulary');
    expect(tokenizer.vocabulary.pieces).toEqual(TINY_PIECES.map(({ text }) => text));
    expect([...tokenizer.vocabulary.scores]).toEqual(TINY_PIECES.map(({ score }) => score));
    expect([...tokenizer.vocabulary.types]).toEqual(TINY_PIECES.map(({ type }) => type));
    expect(checkpoint.tensors.layers[0]?.k).toMatchObject({
      type: 'Q8_0',
      shape: [TINY.kvHeads * TINY.headDim, TINY.hiddenSize],
      sizeBytes: (TINY.kvHeads * TINY.headDim * TINY.hiddenSize * 34) / 32,
    });
  });

  test('offsets point at the right bytes, with other alignments too', async () => {
    for (const alignment of [8, 32, 4096]) {
      const file = {
        ...tinyGguf({ 'general.alignment': { type: 'u32', value: alignment } }),
        alignment,
      };
      const bytes = ggufBytes(file);
      const { tensors } = await opened({ 'tiny.gguf': bytes });
      const { name, offset, sizeBytes } = tensors.layers[1]?.down ?? tensors.embedding;
      const data = file.tensors.find((tensor) => tensor.name === name)?.data as Uint8Array;
      expect(bytes.subarray(offset, offset + sizeBytes).equals(data)).toBe(true);
    }
  });

  test('strings to the byte: byte order marks, and long ones across what is read at once', async () => {
    const pieces = TINY_PIECES.map(({ text }, id) => (id === 280 ? '\uFEFF' : text));
    // @huggingface/gguf reads 2,000,000 bytes at a time.
    const template = `\uFEFF${'x'.repeat(1_990_000)}end`;
    const { tokenizer, chatTemplate } = await opened(
      tinyGgufFolder({
        'tokenizer.ggml.tokens': { type: 'array', of: 'string', values: pieces },
        'tokenizer.chat_template': { type: 'string', value: template },
        'general.license': { type: 'string', value: 'y'.repeat(100_000) },
      }),
    );
    if (tokenizer?.kind !== 'vocabulary') throw new Error('no vocabulary');
    expect(tokenizer.vocabulary.pieces[280]).toBe('\uFEFF');
    expect(chatTemplate === template).toBe(true);
  });

  test.each([
    ['all decoded at once', 'é', 127],
    ['one too long for that', 'é', 128],
    ['a long one of two-byte characters', 'é'.repeat(200), 5],
  ])('pieces of every length in bytes: %s', async (_, other, length) => {
    const pieces = TINY_PIECES.map(({ text }, id) => {
      if (id === 279) return other;
      if (id === 280) return '😀▁語';
      return id === 281 ? 'x'.repeat(length) : text;
    });
    const values = { type: 'array', of: 'string', values: pieces } as const;
    const { tokenizer } = await opened(tinyGgufFolder({ 'tokenizer.ggml.tokens': values }));
    expect(tokenizer).toMatchObject({ vocabulary: { pieces } });
  });

  test('a piece that goes on in the length of the next one is no UTF-8', async () => {
    // 0xc3, then a length of 0xa9: together they would be "é".
    const pieces = TINY_PIECES.map(({ text }, id) => {
      if (id === 280) return Buffer.from([0xc3]);
      return id === 281 ? 'x'.repeat(0xa9) : text;
    });
    const values = { type: 'array', of: 'string', values: pieces } as const;
    await expect(opened(tinyGgufFolder({ 'tokenizer.ggml.tokens': values }))).rejects.toMatchObject(
      { code: 'ALTIPLANO_CHECKPOINT_INVALID' },
    );
  });

  test('without an output head the embedding is tied', async () => {
    const file = tinyGguf();
    const tensors = file.tensors.filter(({ name }) => name !== 'output.weight');
    const { config, tensors: found } = await opened({ 'a.gguf': ggufBytes({ ...file, tensors }) });
    expect(config.tiedEmbeddings).toBe(true);
    expect(found.head).toBeUndefined();
  });

  test('another kind of tokenizer: a warning, and no tokenizer', async () => {
    const checkpoint = await opened(
      tinyGgufFolder({ 'tokenizer.ggml.model': { type: 'string', value: 'gpt2' } }),
    );
    expect(checkpoint.tokenizer).toBeUndefined();
    expect(checkpoint.warnings).toEqual([expect.stringContaining('"gpt2"')]);
  });
});

describe('opening', () => {
  test('an aborted signal stops it', async () => {
    const reason = new Error('enough');
    const opening = openCheckpoint(await written(tinyFolder()), {
      signal: AbortSignal.abort(reason),
    });
    await expect(opening).rejects.toMatchObject({ code: 'ALTIPLANO_ABORTED', cause: reason });
  });

  test.each([[''], ['a\0b'], [5], [null], [undefined]])('no path: %p', async (path) => {
    await expect(openCheckpoint(path as string)).rejects.toMatchObject({
      code: 'ALTIPLANO_INVALID_ARGUMENT',
    });
  });
});

const shared = fileURLToPath(new URL('../../../shared', import.meta.url));
const hasNumpy = spawnSync('python3', ['-c', 'import numpy'], { stdio: 'ignore' }).status === 0;
const withNumpy = hasNumpy ? test : test.skip;
const withShared = existsSync(join(shared, 'models')) ? describe : describe.skip;

withShared('the models of ../shared', () => {
  test.each([
    ['demo-chat', 'BF16', 2048],
    ['random-gqa8', 'F16', 512],
    ['stories260K', 'F32', 512],
  ])('%s', async (name, type, vocabSize) => {
    const checkpoint = await openCheckpoint(join(shared, 'models', name));
    expect(checkpoint.config.vocabSize).toBe(vocabSize);
    expect(checkpoint.tensors.embedding.type).toBe(type);
    expect(checkpoint.warnings).toEqual([]);
  });

  withNumpy.each(['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q6_k'])(
    'converted to GGUF: %s',
    async (type) => {
      const file = join(root, `${type}.gguf`);
      const tool = join(shared, 'tools', 'make_gguf.py');
      execFileSync('python3', [tool, 'hf', join(shared, 'models', 'demo-chat'), type, file]);
      const { config, tensors } = await openCheckpoint(file);
      const original = await openCheckpoint(join(shared, 'models', 'demo-chat'));
      expect(config).toEqual({ ...original.config, rmsNormEps: Math.fround(1e-5) });
      expect(tensors.layers[3]?.down.type).toBe(type.toUpperCase());
      expect(tensors.layers[3]?.down.shape).toEqual(original.tensors.layers[3]?.down.shape);
    },
  );
});
