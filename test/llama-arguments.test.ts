/** What callers may hand to a loaded model, and when loading gives up. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Llama } from '../lib/index.js';
import type { LoadProgress } from '../lib/options.js';

let llama: Llama;
beforeAll(async () => {
  llama = await Llama.load();
});
afterAll(() => llama.dispose());

describe('token ids', () => {
  test('may be a typed array, which is copied', async () => {
    const ids = Int32Array.from(llama.chatTokens([{ role: 'user', content: 'Hi' }]));
    const options = { temperature: 0, maxTokens: 4 };
    const { result } = llama.generate(Array.from(ids), options);
    const fromTyped = llama.generate(ids as unknown as number[], options).result;
    ids.fill(0);
    expect((await fromTyped).tokens).toEqual((await result).tokens);
  });

  test.each<[string, unknown, { code: string; subject: string }]>([
    ['text', ['1', 2], { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '[0]' }],
    [
      'a hole',
      Object.assign(new Array(3), { 0: 1, 2: 3 }),
      { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '[1]' },
    ],
    ['a fraction', [1, 2.5], { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '[1]' }],
    ['a negative id', [1, -1], { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '[1]' }],
    ['bigints', BigInt64Array.of(1n, 2n), { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '[0]' }],
    ['nothing', [], { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '' }],
    ['too many', new Array(2 ** 32 - 1), { code: 'ALTIPLANO_OUT_OF_RANGE', subject: '' }],
    ['no array', { length: 1, 0: 1 }, { code: 'ALTIPLANO_INVALID_ARGUMENT', subject: '' }],
  ])('%s is refused, and disturbs nobody', async (_name, ids, { code, subject }) => {
    const other = llama.generate('Once upon a time', { temperature: 0, maxTokens: 8 });
    expect(() => llama.generate(ids as number[])).toThrow(
      expect.objectContaining({ code, subject: `prompt${subject}` }),
    );
    await expect(llama.perplexity(ids as number[])).rejects.toMatchObject({
      code,
      subject: `text${subject}`,
    });
    expect(await other.result).toMatchObject({ finishReason: 'length' });
  });
});

describe('options', () => {
  test('of perplexity are checked', async () => {
    const wrong = (options: unknown) => llama.perplexity('a b', options as object);
    await expect(wrong(null)).rejects.toMatchObject({ code: 'ALTIPLANO_INVALID_ARGUMENT' });
    await expect(wrong({ windowTokens: 5 })).rejects.toThrow('windowTokens: is not an option');
    await expect(wrong({ signal: 5 })).rejects.toThrow('expected an AbortSignal');
    await expect(wrong({ onProgress: 'x' })).rejects.toThrow('expected a function');
    expect((await llama.perplexity('a b', { signal: undefined })).tokens).toBeGreaterThan(1);
  });

  test('stopTokens of the caller hold with ignoreEos, the checkpoint’s do not', async () => {
    const messages = [{ role: 'user' as const, content: 'What is the capital of France?' }];
    const options = { temperature: 0, maxTokens: 40, ignoreEos: true };
    const whole = await llama.chat(messages, options).result;
    expect(whole.tokens).toContain(llama.tokenizer.eosId);
    expect(whole.finishReason).toBe('length');
    const stopTokens = [whole.tokens[2]!];
    const cut = await llama.chat(messages, { ...options, stopTokens }).result;
    expect(cut.finishReason).toBe('stop');
    expect(cut.tokens).toEqual(whole.tokens.slice(0, whole.tokens.indexOf(stopTokens[0]!)));
  });
});

describe('loading gives up', () => {
  const phases: string[] = [];
  const loadUntil = (phase: string, act: () => void, signal?: AbortSignal) => {
    phases.length = 0;
    const onProgress = (progress: LoadProgress) => {
      phases.push(progress.phase);
      if (progress.phase === phase) act();
    };
    return Llama.load(undefined, { onProgress, ...(signal && { signal }) });
  };

  test('when the signal fires as the plan is told: nothing is read', async () => {
    const controller = new AbortController();
    const load = loadUntil('plan', () => controller.abort('too large'), controller.signal);
    await expect(load).rejects.toMatchObject({ name: 'AbortError', cause: 'too large' });
    expect(phases).toEqual(['plan']);
  });

  test('when the last report throws', async () => {
    const load = loadUntil('ready', () => {
      throw new Error('my own');
    });
    await expect(load).rejects.toThrow('my own');
  });
});
