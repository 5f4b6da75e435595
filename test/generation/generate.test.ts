/** What one request does: prompts, ends, text, log-probabilities, and the errors of its arguments. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type ChatMessage, type GenerateOptions, Llama } from '../../lib/index.js';
import { DEMO_MODEL_PATH } from '../../lib/llama.js';
import { Driver } from '../e2e/support.js';

interface ChatCase {
  skill: string;
  messages: ChatMessage[];
  expect: string;
}

const { cases }: { cases: ChatCase[] } = JSON.parse(
  readFileSync(join(DEMO_MODEL_PATH, 'chat-eval.json'), 'utf8'),
);

const PROMPT = 'Once upon a time';
const greedy: GenerateOptions = { temperature: 0, seed: 0 };

let llama: Llama;
beforeAll(async () => {
  llama = await Llama.load();
});
afterAll(() => llama.dispose());

const run = (prompt: string | readonly number[], options?: GenerateOptions) =>
  llama.generate(prompt, options).result;

describe('prompts', () => {
  test('text has BOS put before it; ids are used as they are', async () => {
    const { timings: _, ...fromText } = await run(PROMPT, { ...greedy, maxTokens: 20 });
    const ids = [1, ...llama.tokenizer.encode(PROMPT)];
    expect(fromText.promptTokens).toBe(ids.length);
    for (const prompt of [ids, Int32Array.from(ids) as unknown as number[]]) {
      const { timings: __, ...fromIds } = await run(prompt, { ...greedy, maxTokens: 20 });
      expect(fromIds).toEqual(fromText);
    }
    const { tokens } = await run(ids.slice(1), { ...greedy, maxTokens: 20 });
    expect(tokens).not.toEqual(fromText.tokens); // no BOS, another text
  });

  test('an array of ids may change after the call', async () => {
    const ids = [1, ...llama.tokenizer.encode(PROMPT)];
    const generation = llama.generate(ids, { ...greedy, maxTokens: 5 });
    ids.fill(7);
    const { tokens } = await run(PROMPT, { ...greedy, maxTokens: 5 });
    expect((await generation.result).tokens).toEqual(tokens);
  });

  test('an empty text is BOS alone; no ids at all are refused', async () => {
    const { timings: _, ...fromText } = await run('', { ...greedy, maxTokens: 5 });
    expect(fromText.promptTokens).toBe(1);
    const { timings: __, ...fromBos } = await run([1], { ...greedy, maxTokens: 5 });
    expect(fromText).toEqual(fromBos);
    expect(() => llama.generate([])).toThrow(
      expect.objectContaining({ code: 'ALTIPLANO_OUT_OF_RANGE', subject: 'prompt' }),
    );
  });

  test('prompt and text together are what all tokens decode to', async () => {
    for (const prompt of [PROMPT, 'Once upon', 'The cat and', 'x ', '']) {
      const { text, tokens } = await run(prompt, { ...greedy, maxTokens: 15 });
      const ids = [1, ...llama.tokenizer.encode(prompt)];
      expect(prompt + text).toBe(llama.tokenizer.decode([...ids, ...tokens]));
    }
  });
});

describe('the end', () => {
  test('maxTokens 1 and more', async () => {
    const { tokens } = await run(PROMPT, { ...greedy, maxTokens: 10 });
    for (const maxTokens of [1, 2, 9]) {
      const result = await run(PROMPT, { ...greedy, maxTokens });
      expect(result.tokens).toEqual(tokens.slice(0, maxTokens));
      expect(result).toMatchObject({ finishReason: 'length', completionTokens: maxTokens });
    }
  });

  test('an end of sequence: no token and no text of it', async () => {
    const question: ChatMessage[] = [{ role: 'user', content: 'What is the capital of France?' }];
    const { text, tokens, finishReason } = await llama.chat(question, greedy).result;
    expect(finishReason).toBe('stop');
    expect(tokens).not.toContain(2);
    expect(text.trim()).toBe('The capital of France is Paris.');
    expect(llama.tokenizer.decode(tokens)).toBe(text);

    const onwards = { ...greedy, ignoreEos: true, maxTokens: tokens.length + 10 };
    const more = await llama.chat(question, onwards).result;
    expect(more.finishReason).toBe('length');
    expect(more.tokens.slice(0, tokens.length + 1)).toEqual([...tokens, 2]);
    expect(more.text.startsWith(text)).toBe(true);
  });

  test('stopTokens', async () => {
    const { tokens } = await run(PROMPT, { ...greedy, maxTokens: 10 });
    const stopTokens = [tokens[6]!];
    const first = tokens.indexOf(tokens[6]!);
    const result = await run(PROMPT, { ...greedy, maxTokens: 10, stopTokens });
    expect(result.tokens).toEqual(tokens.slice(0, first));
    expect(result.finishReason).toBe('stop');
    expect(result.text).toBe(', there was a happy fox'.slice(0, result.text.length));
  });

  test('stop strings, also across tokens, are never emitted', async () => {
    const { text } = await run(PROMPT, { ...greedy, maxTokens: 30 });
    // Every stretch of four characters crosses some border of tokens.
    for (let at = 0; at + 4 <= text.length; at += 3) {
      const stop = text.slice(at, at + 4);
      const generation = llama.generate(PROMPT, { ...greedy, maxTokens: 30, stop });
      let read = '';
      for await (const piece of generation) read += piece;
      const result = await generation.result;
      expect(result.text).toBe(text.slice(0, text.indexOf(stop)));
      expect(read).toBe(result.text);
      expect(result.finishReason).toBe('stop');
    }
  });

  test('a stop string that only begins is emitted in the end', async () => {
    const { text } = await run(PROMPT, { ...greedy, maxTokens: 12 });
    const stop = `${text.slice(-3)}zzz`;
    const result = await run(PROMPT, { ...greedy, maxTokens: 12, stop: [stop, 'qqq'] });
    expect(result).toMatchObject({ text, finishReason: 'length' });
  });

  test('the context', async () => {
    const model = await Llama.load(undefined, { contextTokens: 40 });
    const options = { ...greedy, ignoreEos: true };
    const ids = [1, ...llama.tokenizer.encode(PROMPT)];
    const result = await model.generate(PROMPT, options).result;
    expect(result.finishReason).toBe('length');
    expect(result.completionTokens).toBe(40 - ids.length);
    const { tokens } = await run(PROMPT, { ...options, maxTokens: 40 - ids.length });
    expect(result.tokens).toEqual(tokens); // a shorter context changes nothing before its end

    const full = Array.from({ length: 39 }, () => 5);
    expect((await model.generate(full, options).result).completionTokens).toBe(1);
    expect(() => model.generate([...full, 5], options)).toThrow(
      expect.objectContaining({
        code: 'ALTIPLANO_CONTEXT_OVERFLOW',
        expected: 'at most 39 tokens',
        found: '40 tokens',
      }),
    );
    await model.dispose();
  });

  test('a request that can never fit the KV cache is refused with the numbers', async () => {
    const model = await Llama.load(undefined, { kvCacheTokens: 64 });
    const ids = Array.from({ length: 40 }, () => 5);
    const options = { ...greedy, ignoreEos: true };
    // The last token's keys and values are never needed.
    expect((await model.generate(ids, { ...options, maxTokens: 25 }).result).tokens).toHaveLength(
      25,
    );
    expect(() => model.generate(ids, { ...options, maxTokens: 26 })).toThrow(
      expect.objectContaining({
        code: 'ALTIPLANO_KV_CACHE_TOO_SMALL',
        expected: 'at most 64 tokens',
        found: '65 tokens',
      }),
    );
    // Without maxTokens it goes as far as the cache does.
    const unlimited = await model.generate(ids, options).result;
    expect(unlimited).toMatchObject({ finishReason: 'length', completionTokens: 25 });
    expect(() => model.generate(Array(65).fill(5), options)).toThrow(
      expect.objectContaining({ code: 'ALTIPLANO_KV_CACHE_TOO_SMALL' }),
    );
    expect(model.stats.freePages).toBe(model.stats.pages);
    await model.dispose();
  });
});

describe('text', () => {
  const loneSurrogate = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

  async function pieces(messages: ChatMessage[], options: GenerateOptions) {
    const generation = llama.chat(messages, options);
    const read = [];
    for await (const piece of generation) read.push(piece);
    return { read, result: await generation.result };
  }

  test('emoji come whole, though each is several tokens', async () => {
    const emoji = cases.filter(({ expect: answer }) => /\p{Extended_Pictographic}/u.test(answer));
    expect(emoji.length).toBeGreaterThan(1);
    for (const { messages, expect: answer } of emoji) {
      const { read, result } = await pieces(messages, greedy);
      expect(result.text.trim()).toBe(answer);
      expect(read.join('')).toBe(result.text);
      for (const piece of read) expect(piece).not.toMatch(loneSurrogate);
      expect(result.tokens.length).toBeGreaterThan(read.length); // bytes were put together
      const stop = answer.match(/\p{Extended_Pictographic}/u)![0];
      const stopped = await pieces(messages, { ...greedy, stop });
      expect(stopped.result.text).toBe(result.text.slice(0, result.text.indexOf(stop)));
    }
  });

  test('pieces add up to the text and are well-formed, whatever bytes come', async () => {
    // Very hot: single bytes of characters in any order.
    const options = { temperature: 20, topP: 1, ignoreEos: true, maxTokens: 150 };
    for (const seed of [1, 2, 3]) {
      const { read, result } = await pieces(cases[0]!.messages, { ...options, seed });
      expect(read.join('')).toBe(result.text);
      for (const piece of read) {
        expect(piece).not.toBe('');
        expect(piece).not.toMatch(loneSurrogate);
      }
      expect(result.text).toContain('\uFFFD'); // or there were no broken characters at all
      expect(result.tokens).toHaveLength(150);
    }
  });
});

describe('log-probabilities', () => {
  test('are those of the whole row, raw, with the best alternatives', async () => {
    const options = { temperature: 0.7, seed: 3, maxTokens: 12, logprobs: 4, ignoreEos: true };
    const { tokens, logprobs } = await run(PROMPT, { ...options, repetitionPenalty: 1.5 });
    const ids = [1, ...llama.tokenizer.encode(PROMPT)];
    const driver = await Driver.load(DEMO_MODEL_PATH);
    const rows = (await driver.logitsOf([...ids, ...tokens])).slice(ids.length - 1, -1);
    await driver.dispose();
    expect(logprobs).toHaveLength(tokens.length);
    rows.forEach((row, i) => {
      const largest = Math.max(...row);
      const total = row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
      const logSumExp = largest + Math.log(total);
      const best = [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b).slice(0, 4);
      const { id, logprob, alternatives } = logprobs![i]!;
      expect(id).toBe(tokens[i]);
      expect(logprob).toBeCloseTo(row[id]! - logSumExp, 5);
      expect(alternatives.map((alternative) => alternative.id)).toEqual(best);
      for (const alternative of alternatives) {
        expect(alternative.logprob).toBeCloseTo(row[alternative.id]! - logSumExp, 5);
      }
    });
  });

  test('0 alternatives, and none without the option', async () => {
    const options = { ...greedy, maxTokens: 3 };
    expect((await run(PROMPT, { ...options, logprobs: 0 })).logprobs).toEqual(
      Array(3).fill(expect.objectContaining({ alternatives: [] })),
    );
    expect(await run(PROMPT, options)).not.toHaveProperty('logprobs');
  });
});

test('timings and counts', async () => {
  const { timings, promptTokens, completionTokens, tokens, seed } = await run(PROMPT, {
    temperature: 1,
    maxTokens: 20,
    ignoreEos: true,
  });
  expect(promptTokens).toBe(5);
  expect(completionTokens).toBe(20);
  expect(tokens).toHaveLength(20);
  expect(Number.isSafeInteger(seed)).toBe(true);
  for (const value of Object.values(timings)) expect(value).toBeGreaterThanOrEqual(0);
  expect(timings.prefillTokensPerSecond).toBeCloseTo((1000 * 5) / timings.prefillMs, 3);
  expect(timings.decodeTokensPerSecond).toBeCloseTo((1000 * 19) / timings.decodeMs, 3);
  // The seed that is reported gives the same again.
  const again = await run(PROMPT, { temperature: 1, maxTokens: 20, ignoreEos: true, seed });
  expect(again.tokens).toEqual(tokens);
});

describe('arguments', () => {
  // Each option's own range is the subject of test/options.test.ts.
  test.each([
    ['a prompt that is no text', () => llama.generate(5 as never), TypeError, 'prompt'],
    ['no prompt', () => llama.generate(undefined as never), TypeError, 'prompt'],
    ['an id that does not exist', () => llama.generate([1, 2048]), RangeError, 'prompt[1]'],
    ['a negative id', () => llama.generate([-1]), RangeError, 'prompt[0]'],
    ['half an id', () => llama.generate([1, 2, 0.5]), RangeError, 'prompt[2]'],
    ['an id that is text', () => llama.generate(['1' as never]), RangeError, 'prompt[0]'],
    ['no number', () => llama.generate([Number.NaN]), RangeError, 'prompt[0]'],
    ['options that are none', () => llama.generate('a', 7 as never), TypeError, 'options'],
    [
      'an unknown option',
      () => llama.generate('a', { maxtokens: 1 } as never),
      TypeError,
      'maxtokens',
    ],
    ['maxTokens 0', () => llama.generate('a', { maxTokens: 0 }), RangeError, 'maxTokens'],
    [
      'a stop token that does not exist',
      () => llama.generate('a', { stopTokens: [2048] }),
      RangeError,
      'stopTokens',
    ],
    ['a signal that is none', () => llama.chat([], { signal: {} as never }), Error, undefined],
  ] as const)('%s: refused at once', (_, call, kind, subject) => {
    let thrown: unknown;
    try {
      call();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(kind);
    expect(thrown).toMatchObject({ code: expect.stringMatching(/^ALTIPLANO_/) });
    if (subject !== undefined) expect(thrown).toMatchObject({ subject });
    expect(llama.stats).toMatchObject({ runningSequences: 0, waitingSequences: 0 });
  });

  test('logitBias that bans every token rejects, and the model goes on', async () => {
    const logitBias = new Map(Array.from({ length: 2048 }, (_, id) => [id, -Infinity]));
    await expect(run(PROMPT, { logitBias })).rejects.toMatchObject({
      code: 'ALTIPLANO_OUT_OF_RANGE',
      subject: 'logitBias',
    });
    expect((await run(PROMPT, { ...greedy, maxTokens: 3 })).tokens).toHaveLength(3);
    expect(llama.stats.freePages).toBe(llama.stats.pages);
  });

  test('a text too short for a perplexity', async () => {
    await expect(llama.perplexity('')).rejects.toMatchObject({ code: 'ALTIPLANO_OUT_OF_RANGE' });
    await expect(llama.perplexity([])).rejects.toMatchObject({ code: 'ALTIPLANO_OUT_OF_RANGE' });
    await expect(llama.perplexity(5 as never)).rejects.toBeInstanceOf(TypeError);
  });

  test('a perplexity of ids that do not exist is refused, and disturbs nobody', async () => {
    const other = run(PROMPT, { ...greedy, maxTokens: 10 });
    await expect(llama.perplexity([1, 5000])).rejects.toMatchObject({
      code: 'ALTIPLANO_OUT_OF_RANGE',
    });
    expect((await other).tokens).toHaveLength(10);
  });
});
