/** Loading a model: what is refused on the way, warnings, and callers who stop it. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { estimateMemory, Llama } from '../lib/llama.js';
import type { LoadProgress } from '../lib/options.js';
import { safetensorsBytes, safetensorsFile } from './fixtures/safetensors-writer.js';
import { sentencePieceBytes } from './fixtures/sentencepiece-writer.js';
import {
  type Files,
  type Sizes,
  TINY_PIECES,
  TINY_TOKENS,
  TINY_VOCAB_SIZE,
  tinyConfig,
  tinyFolder,
  tinyTensors,
  writeFiles,
} from './fixtures/tiny-model.js';

const root = mkdtempSync(join(tmpdir(), 'altiplano-load-'));
let folders = 0;
afterAll(() => rmSync(root, { recursive: true }));
afterEach(() => {
  jest.restoreAllMocks();
});

async function folderOf(files: Files): Promise<string> {
  const folder = join(root, `${folders++}`);
  await writeFiles(folder, files);
  return folder;
}

const error = (code: string, message: RegExp = /./) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

/** Warnings that were emitted since. */
function warnings(): string[] {
  const seen: string[] = [];
  jest.spyOn(process, 'emitWarning').mockImplementation((warning, type) => {
    expect(type).toBe('AltiplanoWarning');
    seen.push(String(warning));
  });
  return seen;
}

const OPTIONS = { threads: 1 };
const GREEDY = { temperature: 0, maxTokens: 3, ignoreEos: true };

describe('a sound model', () => {
  let llama: Llama;
  beforeAll(async () => {
    llama = await Llama.load(await folderOf(tinyFolder()), OPTIONS);
  });
  afterAll(() => llama.dispose());

  test('generates what the equations say', async () => {
    expect((await llama.generate([1, 100, 262], GREEDY).result).tokens).toEqual(TINY_TOKENS.F32);
  });

  test.each([
    ['nothing', [], 'ALTIPLANO_OUT_OF_RANGE', /prompt: is empty/],
    ['an id too large', [1, TINY_VOCAB_SIZE], 'ALTIPLANO_OUT_OF_RANGE', /prompt\[1\].*0 to 287/],
    ['a negative id', [-1], 'ALTIPLANO_OUT_OF_RANGE', /prompt\[0\]/],
    ['half an id', [0.5], 'ALTIPLANO_OUT_OF_RANGE', /prompt\[0\]/],
    ['too many ids', Array(64).fill(1), 'ALTIPLANO_CONTEXT_OVERFLOW', /at most 63 tokens.*64/],
    ['an object', {}, 'ALTIPLANO_INVALID_ARGUMENT', /text or token ids/],
  ])('refuses a prompt of %s', (_, prompt, code, message) => {
    expect(() => llama.generate(prompt as number[])).toThrow(error(code, message));
  });
});

describe('arguments', () => {
  test.each([[''], [5], [null], [{}]])('the source %p is refused', async (source) => {
    const refused = error('ALTIPLANO_INVALID_ARGUMENT', /source: must be a path/);
    await expect(Llama.load(source as string)).rejects.toEqual(refused);
    await expect(estimateMemory(source as string)).rejects.toEqual(refused);
  });

  test('a request that the cache could never hold is refused', async () => {
    const llama = await Llama.load(await folderOf(tinyFolder()), { ...OPTIONS, kvCacheTokens: 32 });
    try {
      const prompt = Array(30).fill(5);
      expect(() => llama.generate(prompt, { maxTokens: 10 })).toThrow(
        error('ALTIPLANO_KV_CACHE_TOO_SMALL', /at most 32 tokens, found 39 tokens/),
      );
      const { tokens } = await llama.generate(prompt, GREEDY).result;
      expect(tokens).toHaveLength(3);
    } finally {
      await llama.dispose();
    }
  });

  test('without a tokenizer there is no text', async () => {
    const { 'tokenizer.model': _, ...files } = tinyFolder();
    const llama = await Llama.load(await folderOf(files), OPTIONS);
    try {
      const refused = error('ALTIPLANO_TOKENIZER_UNSUPPORTED', /brings no tokenizer.*token ids/);
      expect(() => llama.tokenizer).toThrow(refused);
      expect(() => llama.generate('text')).toThrow(refused);
      expect(() => llama.chat([{ role: 'user', content: 'text' }])).toThrow(refused);
      const { text, tokens } = await llama.generate([1, 100, 262], GREEDY).result;
      expect({ text, tokens }).toEqual({ text: '', tokens: TINY_TOKENS.F32 });
    } finally {
      await llama.dispose();
    }
  });

  test('after dispose everything is refused', async () => {
    const llama = await Llama.load(await folderOf(tinyFolder()), OPTIONS);
    const running = llama.generate([1], { maxTokens: 60, ignoreEos: true }).result;
    const disposed = error('ALTIPLANO_DISPOSED');
    await Promise.all([llama.dispose(), expect(running).rejects.toEqual(disposed)]);
    await llama.dispose();
    expect(() => llama.generate([1])).toThrow(disposed);
    expect(() => llama.chat([{ role: 'user', content: 'a' }])).toThrow(disposed);
    await expect(llama.perplexity([1, 2])).rejects.toEqual(disposed);
  });
});

describe('a vocabulary and a tokenizer of different sizes', () => {
  test('ids that the tokenizer lacks have no text', async () => {
    const sizes: Partial<Sizes> = { vocabSize: TINY_VOCAB_SIZE + 40 };
    const llama = await Llama.load(
      await folderOf({
        ...tinyFolder(),
        'config.json': JSON.stringify(tinyConfig({}, sizes)),
        'model.safetensors': safetensorsBytes(tinyTensors('F32', sizes)),
      }),
      OPTIONS,
    );
    try {
      const padding = TINY_VOCAB_SIZE + 12;
      const a = llama.tokenizer.idOf('a')!;
      const only = (id: number) => ({ ...GREEDY, logitBias: { [id]: 1e6 } });
      const first = await llama.generate([1, padding, a], only(padding)).result;
      expect(first.tokens).toEqual([padding, padding, padding]);
      expect(first.text).toBe('');
      const second = await llama.generate([1, padding, a], only(a)).result;
      expect(second.text).toBe('aaa');
    } finally {
      await llama.dispose();
    }
  });

  test('text with tokens that the model lacks is refused', async () => {
    const pieces = [...TINY_PIECES, { text: 'xy', score: 1, type: 1 }];
    const llama = await Llama.load(
      await folderOf({ ...tinyFolder(), 'tokenizer.model': sentencePieceBytes(pieces) }),
      OPTIONS,
    );
    try {
      expect(() => llama.generate('xy')).toThrow(
        error('ALTIPLANO_OUT_OF_RANGE', /prompt\[\d\]: is not a token of this model/),
      );
      expect((await llama.generate('an', GREEDY).result).tokens).toHaveLength(3);
    } finally {
      await llama.dispose();
    }
  });
});

describe('memory', () => {
  const pretend = (bytes: number) => jest.spyOn(process, 'availableMemory').mockReturnValue(bytes);
  const longContext = () =>
    folderOf(
      tinyFolder({
        'config.json': JSON.stringify(tinyConfig({ max_position_embeddings: 131_072 })),
      }),
    );

  test('too little of it is an error with the numbers, before anything is allocated', async () => {
    const folder = await folderOf(tinyFolder());
    const { totalBytes } = await estimateMemory(folder, OPTIONS);
    pretend(1e5);
    const phases: string[] = [];
    await expect(
      Llama.load(folder, { ...OPTIONS, onProgress: ({ phase }) => phases.push(phase) }),
    ).rejects.toEqual(error('ALTIPLANO_OUT_OF_MEMORY', /weights .*KV cache .*97\.7 KiB available/));
    expect(phases).toEqual(['plan']);
    expect(totalBytes).toBeGreaterThan(1e5);
  });

  test('too little for a whole context shortens it, with a warning', async () => {
    const seen = warnings();
    const folder = await longContext();
    pretend(8 * 2 ** 20);
    const estimate = await estimateMemory(folder, OPTIONS);
    const llama = await Llama.load(folder, OPTIONS);
    try {
      const { contextTokens, kvCacheTokens, memory } = llama.info;
      expect(seen).toEqual([
        expect.stringMatching(/the context is \d+ tokens long instead of 131072/),
      ]);
      expect(contextTokens % 32).toBe(0);
      expect(contextTokens).toBeGreaterThan(16_384);
      expect(contextTokens).toBe(kvCacheTokens);
      const { weightsBytes, kvBytes, workspaceBytes } = memory;
      expect(weightsBytes + kvBytes + workspaceBytes).toBeLessThanOrEqual(8 * 2 ** 20);
      expect(estimate).toMatchObject({ contextTokens, kvCacheTokens, availableBytes: 8 * 2 ** 20 });
      expect((await llama.generate([1, 100, 262], GREEDY).result).tokens).toEqual(TINY_TOKENS.F32);
    } finally {
      await llama.dispose();
    }
  });

  test('a context that the caller chose is not shortened', async () => {
    const seen = warnings();
    const folder = await longContext();
    pretend(8 * 2 ** 20);
    await expect(Llama.load(folder, { ...OPTIONS, contextTokens: 131_072 })).rejects.toEqual(
      error('ALTIPLANO_OUT_OF_MEMORY', /KV cache \(131072 tokens, f32\) 32\.0 MiB/),
    );
    expect(seen).toEqual([]);
  });
});

describe('stopping', () => {
  /** 384 MiB of zeros that take no room on the disk: quantizing them takes much more than 50 ms. */
  let large: string;
  const LARGE = { ...OPTIONS, weights: 'int4', zeroPoints: true } as const;

  beforeAll(async () => {
    const [hidden, inner, vocab] = [1024, 32768, 8];
    const sizes = { hiddenSize: hidden, intermediateSize: inner, layers: 1, vocabSize: vocab };
    const heads = { heads: 1, kvHeads: 1, headDim: 8 };
    let end = 0;
    const shapes = tinyTensors('F32', { ...heads, layers: 1, vocabSize: vocab }).map(
      ({ name, shape }) => {
        const size = (length: number) => (length === 32 ? hidden : length === 64 ? inner : length);
        return [name, shape.map(size)] as const;
      },
    );
    const header = Object.fromEntries(
      shapes.map(([name, shape]) => {
        const begin = end;
        end += 4 * shape.reduce((product, size) => product * size, 1);
        return [name, { dtype: 'F32', shape, data_offsets: [begin, end] }];
      }),
    );
    const bytes = safetensorsFile(JSON.stringify(header), new Uint8Array());
    large = await folderOf({
      'config.json': JSON.stringify(tinyConfig({}, { ...sizes, ...heads })),
    });
    writeFileSync(join(large, 'model.safetensors'), bytes);
    truncateSync(join(large, 'model.safetensors'), bytes.length + end);
  });

  test('progress runs from the plan to all bytes', async () => {
    const reports: LoadProgress[] = [];
    const llama = await Llama.load(large, { ...LARGE, onProgress: (p) => reports.push(p) });
    await llama.dispose();
    const done = reports.map(({ doneBytes }) => doneBytes);
    expect(reports[0]).toMatchObject({ phase: 'plan', doneBytes: 0 });
    expect(reports.at(-1)).toMatchObject({ phase: 'ready', doneBytes: reports[0]!.totalBytes });
    expect(reports.filter(({ phase }) => phase === 'weights').length).toBeGreaterThan(0);
    expect(done).toEqual([...done].sort((a, b) => a - b));
  });

  test('a signal that has fired', async () => {
    await expect(Llama.load(large, { signal: AbortSignal.abort('why') })).rejects.toEqual(
      expect.objectContaining({ code: 'ALTIPLANO_ABORTED', name: 'AbortError', cause: 'why' }),
    );
  });

  test.each(['plan', 'weights'])('a signal that fires in the phase "%s"', async (phase) => {
    const controller = new AbortController();
    const phases: string[] = [];
    const loading = Llama.load(large, {
      ...LARGE,
      signal: controller.signal,
      onProgress: (progress) => {
        phases.push(progress.phase);
        if (progress.phase === phase) controller.abort();
      },
    });
    await expect(loading).rejects.toEqual(error('ALTIPLANO_ABORTED', /loading .* was aborted/));
    expect(phases.at(-1)).toBe(phase);
  });

  test.each(['plan', 'weights'])('a callback that throws in the phase "%s"', async (phase) => {
    const own = new Error('mine');
    const loading = Llama.load(large, {
      ...LARGE,
      onProgress: (progress) => {
        if (progress.phase === phase) throw own;
      },
    });
    await expect(loading).rejects.toBe(own);
  });
});
