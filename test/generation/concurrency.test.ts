/** Several callers on the demo model: each gets bitwise what it gets alone, whatever happens around. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  type ChatMessage,
  type GenerateOptions,
  type Generation,
  type GenerationResult,
  Llama,
} from '../../lib/index.js';
import { DEMO_MODEL_PATH } from '../../lib/llama.js';
import { resolveGenerateOptions } from '../../lib/options.js';
import { Sampler } from '../../lib/sampling/index.js';
import { Driver, generator, newSequence } from '../e2e/support.js';

const { cases }: { cases: { messages: ChatMessage[]; expect: string }[] } = JSON.parse(
  readFileSync(join(DEMO_MODEL_PATH, 'chat-eval.json'), 'utf8'),
);

let llama: Llama;
beforeAll(async () => {
  llama = await Llama.load();
});
afterAll(() => llama.dispose());

/** A request of some kind, which can be made again. */
type Request = (model: Llama, signal?: AbortSignal) => Generation;

const generate =
  (prompt: string | number[], options: GenerateOptions): Request =>
  (model, signal) =>
    model.generate(prompt, signal ? { ...options, signal } : options);

const chat =
  (messages: ChatMessage[], options: GenerateOptions): Request =>
  (model, signal) =>
    model.chat(messages, signal ? { ...options, signal } : options);

/** All that a request gives but times: to be compared to the last bit. */
function withoutTimings({ timings: _, ...rest }: GenerationResult) {
  return rest;
}

async function alone(requests: readonly Request[], model = llama) {
  const results = [];
  for (const request of requests) results.push(withoutTimings(await request(model).result));
  return results;
}

/** Requests that differ in length and in every kind of option. */
const various: Request[] = [
  generate('Once upon a time', { temperature: 0, seed: 0, maxTokens: 40, logprobs: 3 }),
  generate('Once upon a time', { temperature: 0.8, seed: 1, maxTokens: 60, logprobs: 5 }),
  generate('Once upon a time', { temperature: 0.8, seed: 2, maxTokens: 60 }),
  generate('The', { temperature: 1.5, topP: 1, seed: 3, maxTokens: 50, logprobs: 0 }),
  generate('The capital of', {
    temperature: 0.7,
    topP: 1,
    seed: 4,
    maxTokens: 30,
    ignoreEos: true,
  }),
  generate([1, 100, 200, 300], { temperature: 1, topK: 20, seed: 5, maxTokens: 33 }),
  generate('A cat and a dog', { temperature: 0.9, minP: 0.05, seed: -6, maxTokens: 25 }),
  generate('One day', {
    temperature: 1,
    seed: 7,
    maxTokens: 45,
    repetitionPenalty: 1.2,
    frequencyPenalty: 0.4,
    presencePenalty: 0.3,
    penaltyTokens: 20,
    logitBias: { 500: 2, 501: -Infinity },
    logprobs: 1,
  }),
  chat(cases[0]!.messages, { temperature: 0, seed: 8, maxTokens: 60 }),
  chat(cases[75]!.messages, { temperature: 0.9, seed: 9, maxTokens: 60, stop: ['e', ' a'] }),
];

describe('the same, alone and together', () => {
  test('tokens, text, reasons and log-probabilities of various requests', async () => {
    const expected = await alone(various);
    const model = await Llama.load();
    const together = await Promise.all(various.map((request) => request(model).result));
    expect(together.map(withoutTimings)).toEqual(expected);
    expect(model.stats.mostSequencesInStep).toBe(various.length);
    // Seeds matter, or the comparison says little.
    expect(expected[1]!.text).not.toBe(expected[2]!.text);
    await model.dispose();
  });

  test('for any number of threads', async () => {
    const expected = await alone(various);
    for (const threads of [1, 3]) {
      const model = await Llama.load(undefined, { threads });
      const together = await Promise.all(various.map((request) => request(model).result));
      expect(together.map(withoutTimings)).toEqual(expected);
      await model.dispose();
    }
  });

  test('late arrivals join a running batch', async () => {
    const model = await Llama.load();
    const options = { temperature: 0.8, seed: 1, ignoreEos: true, maxTokens: 120 };
    const long = generate('Once upon a time', options);
    const [expected] = await alone([long]);
    const generation = long(model);
    const late: Promise<GenerationResult>[] = [];
    let pieces = 0;
    let text = '';
    for await (const piece of generation) {
      text += piece;
      pieces++;
      if (pieces % 15 === 0 && late.length < various.length) {
        late.push(various[late.length]!(model).result);
      }
    }
    expect(late.length).toBeGreaterThan(3);
    expect(text).toBe(expected!.text);
    expect(withoutTimings(await generation.result)).toEqual(expected);
    const found = (await Promise.all(late)).map(withoutTimings);
    expect(found).toEqual(await alone(various.slice(0, late.length)));
    expect(model.stats.mostSequencesInStep).toBeGreaterThan(1);
    await model.dispose();
  });

  test('perplexity beside texts', async () => {
    const text = 'Once upon a time, there was a kind cat named Zoe. '.repeat(8);
    const expected = await llama.perplexity(text);
    const [found] = await Promise.all([
      llama.perplexity(text),
      ...various.map((request) => request(llama).result),
    ]);
    expect(found).toEqual(expected);
  });
});

describe('a KV cache that is too small for all', () => {
  test('waiting and preemption, with the same results in the end', async () => {
    const expected = await alone(various);
    // Room for the longest request, hardly more.
    const model = await Llama.load(undefined, { kvCacheTokens: 224 });
    expect(model.stats.pages).toBe(7);
    const together = Promise.all(various.map((request) => request(model).result));
    await new Promise((resolve) => setImmediate(resolve));
    expect(model.stats.waitingSequences).toBeGreaterThan(0);
    expect((await together).map(withoutTimings)).toEqual(expected);
    expect(model.stats.preemptions).toBeGreaterThan(0);
    expect(model.stats.freePages).toBe(model.stats.pages);
    await model.dispose();
  });

  test('a reader that never reads blocks nobody', async () => {
    const options = { temperature: 0, seed: 0, ignoreEos: true, maxTokens: 120 };
    const request = generate('Once upon a time', options);
    const other = generate('The capital of France is', { ...options, maxTokens: 100 });
    const [expected, expectedOther] = await alone([request, other]);
    const model = await Llama.load(undefined, { kvCacheTokens: 128 });
    const generation = request(model);
    const reader = generation[Symbol.asyncIterator]();
    let text = (await reader.next()).value as string;
    for (let i = 0; i < 2; i++) {
      expect(withoutTimings(await other(model).result)).toEqual(expectedOther);
    }
    // It was pushed back, but keeps what it has; when it is read at last, it goes on.
    expect(model.stats).toMatchObject({ waitingSequences: 1, runningSequences: 0 });
    expect(model.stats.preemptions).toBeGreaterThan(0);
    for (;;) {
      const { done, value } = await reader.next();
      if (done) break;
      text += value;
    }
    expect(text).toBe(expected!.text);
    expect(withoutTimings(await generation.result)).toEqual(expected);
    await model.dispose();
  });
});

describe('the whole row', () => {
  /** What the sampler chooses when it always has the whole row. */
  async function fromWholeRows(prompt: number[], options: GenerateOptions, count: number) {
    const driver = await Driver.load(DEMO_MODEL_PATH);
    const { vocabSize } = driver.spec;
    const sampler = new Sampler(resolveGenerateOptions(options, {}, vocabSize), vocabSize);
    const sequence = newSequence();
    const generated: number[] = [];
    let next = prompt;
    while (generated.length < count) {
      const request = { ...sampler.request({ prompt, generated }), fullRow: true };
      const step = [{ sequence, tokens: next, rows: 'last' as const }];
      const [rows] = await driver.step(step, request.inverseTemperature);
      const { fullLogits } = rows![0]!;
      const idLogits = Float32Array.from(request.ids, (id) => fullLogits![id]!);
      const choice = sampler.choose({ ...rows![0]!, idLogits }, request, generated.length);
      if (choice === 'full-row') throw new Error('a whole row was refused');
      generated.push(choice.id);
      next = [choice.id];
    }
    await driver.dispose();
    return generated;
  }

  test('is asked for where candidates do not settle the choice, and gives the same', async () => {
    // The whole tail counts, which 256 candidates of 2048 do not always settle.
    const options = { temperature: 0.89, topP: 1, topK: 0, minP: 0, ignoreEos: true };
    const model = await Llama.load();
    let fallbacks = 0;
    for (const seed of [1, 2, 3, 4]) {
      // Nonsense: the model is unsure what follows.
      const prompt = Array.from({ length: 12 }, (_, i) => 1 + ((i * 613 + seed * 97) % 2047));
      const before = model.stats.steps;
      const maxTokens = 60;
      const { tokens } = await model.generate(prompt, { ...options, seed, maxTokens }).result;
      fallbacks += model.stats.steps - before - maxTokens; // a step more for each
      expect(tokens).toEqual(await fromWholeRows(prompt, { ...options, seed }, maxTokens));
    }
    expect(fallbacks).toBeGreaterThan(0);
    await model.dispose();
  });
});

describe('anything at any time', () => {
  test('random requests, arrivals, readers and aborts: who is not aborted gets what it gets alone', async () => {
    const random = generator(2024);
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
    const planned = Array.from({ length: 20 }, (_, i) => {
      const isAborted = i % 4 === 0;
      const options: GenerateOptions = {
        temperature: pick([0, 0.5, 0.8, 1.2]),
        topP: pick([0.5, 0.9, 1]),
        topK: pick([0, 0, 5, 40]),
        minP: pick([0, 0, 0.02]),
        repetitionPenalty: pick([1, 1, 1.3]),
        presencePenalty: pick([0, 0, 0.5]),
        seed: i,
        maxTokens: isAborted ? 80 : 1 + Math.floor(random() * 60),
        ignoreEos: isAborted || random() < 0.5,
        stop: isAborted ? [] : pick([[], [], ['. '], ['the']]),
        ...(random() < 0.5 ? { logprobs: Math.floor(random() * 4) } : {}),
      };
      const isChat = random() < 0.5;
      const length = 1 + Math.floor(random() * 120);
      const prompt = Array.from({ length }, () => 3 + Math.floor(random() * 2040));
      return {
        request: isChat ? chat(pick(cases).messages, options) : generate(prompt, options),
        delayMs: random() * 300,
        /** Undefined: let it run. */
        abortMs: isAborted ? i * 3 : undefined,
        isIterated: random() < 0.5,
      };
    });
    const expected = await alone(planned.map(({ request }) => request));

    const model = await Llama.load(undefined, { kvCacheTokens: 450, threads: 2 });
    const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    const found = await Promise.all(
      planned.map(async ({ request, delayMs, abortMs, isIterated }) => {
        await sleep(delayMs);
        const controller = new AbortController();
        const generation = request(model, controller.signal);
        if (abortMs !== undefined) setTimeout(() => controller.abort(), abortMs);
        let text = '';
        if (isIterated) {
          for await (const piece of generation) {
            text += piece;
            if (random() < 0.1) await sleep(5);
          }
        }
        const result = await generation.result;
        if (isIterated) expect(text).toBe(result.text);
        return withoutTimings(result);
      }),
    );

    let aborts = 0;
    found.forEach((result, i) => {
      if (result.finishReason === 'abort') {
        aborts++;
        expect(planned[i]!.abortMs).toBeDefined();
        expect(result.tokens).toEqual(expected[i]!.tokens.slice(0, result.tokens.length));
        expect(expected[i]!.text.startsWith(result.text)).toBe(true);
      } else {
        expect(result).toEqual(expected[i]);
      }
    });
    expect(aborts).toBeGreaterThan(0);
    expect(model.stats.mostSequencesInStep).toBeGreaterThan(1);
    expect(model.stats).toMatchObject({
      runningSequences: 0,
      waitingSequences: 0,
      freePages: model.stats.pages,
    });
    await model.dispose();
  });
});
