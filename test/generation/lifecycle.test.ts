/** The ends that come from outside: aborts, readers that leave, dispose, and loads that do not end. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AltiplanoError, type GenerateOptions, Llama, type LoadProgress } from '../../lib/index.js';
import { rejectionsDuring } from './rejections.js';

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Long, and the same each time. */
const long: GenerateOptions = { temperature: 0, seed: 0, ignoreEos: true, maxTokens: 400 };
const PROMPT = 'Once upon a time';

function expectIdle({ stats }: Llama) {
  expect(stats).toMatchObject({
    runningSequences: 0,
    waitingSequences: 0,
    freePages: stats.pages,
  });
}

describe('abort', () => {
  let llama: Llama;
  let whole: { text: string; tokens: number[] };
  beforeAll(async () => {
    llama = await Llama.load(undefined, { kvCacheTokens: 1024 });
    whole = await llama.generate(PROMPT, long).result;
  });
  afterAll(() => llama.dispose());

  test('before the call: an empty result, and no step', async () => {
    const { steps } = llama.stats;
    const reason = new Error('too late');
    const generation = llama.generate(PROMPT, { ...long, signal: AbortSignal.abort(reason) });
    const pieces = [];
    for await (const piece of generation) pieces.push(piece);
    expect(pieces).toEqual([]);
    expect(await generation.result).toMatchObject({
      finishReason: 'abort',
      text: '',
      tokens: [],
      completionTokens: 0,
      timings: { prefillTokensPerSecond: 0, decodeTokensPerSecond: 0 },
    });
    expect(llama.stats.steps).toBe(steps);
    expectIdle(llama);
  });

  test('before the first step', async () => {
    const controller = new AbortController();
    const generation = llama.generate(PROMPT, { ...long, signal: controller.signal });
    controller.abort();
    expectIdle(llama);
    expect(await generation.result).toMatchObject({ finishReason: 'abort', text: '' });
  });

  test('while queued', async () => {
    // This one takes the whole cache.
    const ids = Array.from({ length: 1000 }, (_, i) => 300 + (i % 1000));
    const first = llama.generate(ids, { ...long, maxTokens: 24 });
    const controller = new AbortController();
    const queued = llama.generate(PROMPT, { ...long, signal: controller.signal });
    await turn();
    expect(llama.stats).toMatchObject({ runningSequences: 1, waitingSequences: 1 });
    controller.abort();
    expect(llama.stats.waitingSequences).toBe(0);
    expect(await queued.result).toMatchObject({ finishReason: 'abort', text: '' });
    expect((await first.result).finishReason).toBe('length');
    expectIdle(llama);
  });

  test('in the middle of a prefill: the pages are free at once', async () => {
    const ids = Array.from({ length: 1000 }, (_, i) => 300 + (i % 1000));
    const controller = new AbortController();
    const { steps } = llama.stats;
    const generation = llama.generate(ids, { ...long, signal: controller.signal });
    while (llama.stats.steps === steps) await turn(); // a part of the prompt is done
    expect(llama.stats.freePages).toBeLessThan(llama.stats.pages);
    controller.abort();
    expectIdle(llama);
    expect(await generation.result).toMatchObject({
      finishReason: 'abort',
      text: '',
      promptTokens: 1000,
    });
    expect(llama.stats.steps - steps).toBeLessThan(4); // 256 tokens a step at most: not all of it
    // The model is as good as before.
    expect((await llama.generate(PROMPT, long).result).text).toBe(whole.text);
  });

  test('between tokens: the text so far, and the pages are free at once', async () => {
    const controller = new AbortController();
    const generation = llama.generate(PROMPT, { ...long, signal: controller.signal });
    let text = '';
    let pieces = 0;
    for await (const piece of generation) {
      text += piece;
      if (++pieces === 10) {
        controller.abort();
        expectIdle(llama);
      }
    }
    const result = await generation.result;
    expect(result.finishReason).toBe('abort');
    expect(result.text).toBe(text);
    expect(whole.text.startsWith(text)).toBe(true);
    expect(result.tokens).toEqual(whole.tokens.slice(0, result.tokens.length));
    expect(result.tokens.length).toBeGreaterThanOrEqual(10);
    expect(result.tokens.length).toBeLessThan(whole.tokens.length);
    expectIdle(llama);
  });

  test('of one does not disturb the others', async () => {
    const controllers = Array.from({ length: 6 }, () => new AbortController());
    const generations = controllers.map(({ signal }, i) =>
      llama.generate(PROMPT, { ...long, maxTokens: 40 + i, signal }),
    );
    let pieces = 0;
    for await (const _ of generations[0]!) {
      pieces++;
      if (pieces === 3) controllers[1]!.abort();
      if (pieces === 5) controllers[3]!.abort();
      if (pieces === 7) controllers[5]!.abort();
    }
    for (const [i, { result }] of generations.entries()) {
      const { finishReason, tokens } = await result;
      expect(finishReason).toBe(i % 2 === 1 ? 'abort' : 'length');
      expect(tokens).toEqual(whole.tokens.slice(0, tokens.length));
      if (i % 2 === 0) expect(tokens).toHaveLength(40 + i);
    }
    expectIdle(llama);
  });

  test('after the end changes nothing, and the signal is let go', async () => {
    const controller = new AbortController();
    let listeners = 0;
    const { signal } = controller;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    const { result } = llama.generate(PROMPT, { ...long, maxTokens: 3, signal });
    expect(listeners).toBe(1);
    expect((await result).finishReason).toBe('length');
    expect(listeners).toBe(0);
    controller.abort();
    expect((await result).finishReason).toBe('length');
  });

  test('by leaving the iteration early', async () => {
    const generation = llama.generate(PROMPT, long);
    let text = '';
    for await (const piece of generation) {
      text += piece;
      if (text.length > 20) break;
    }
    expectIdle(llama);
    const result = await generation.result;
    expect(result.finishReason).toBe('abort');
    expect(result.text.startsWith(text)).toBe(true);
    expect(whole.text.startsWith(result.text)).toBe(true);
  });

  test('by an error in the body of the loop', async () => {
    const generation = llama.generate(PROMPT, long);
    const read = async () => {
      for await (const _ of generation) throw new Error('in the loop');
    };
    await expect(read()).rejects.toThrow('in the loop');
    expectIdle(llama);
    expect((await generation.result).finishReason).toBe('abort');
  });

  test('of a perplexity', async () => {
    const controller = new AbortController();
    const reason = new Error('changed my mind');
    const text = 'The cat sat. '.repeat(300);
    const started = llama.perplexity(text, {
      signal: controller.signal,
      onProgress: () => controller.abort(reason),
    });
    await expect(started).rejects.toMatchObject({
      name: 'AbortError',
      code: 'ALTIPLANO_ABORTED',
      cause: reason,
    });
    expectIdle(llama);
    await expect(llama.perplexity(text, { signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ALTIPLANO_ABORTED',
    });
  });
});

describe('dispose', () => {
  const disposed = expect.objectContaining({ code: 'ALTIPLANO_DISPOSED' });

  test('while requests run and wait: they reject, and so does all that comes later', async () => {
    const llama = await Llama.load(undefined, { kvCacheTokens: 512 });
    const running = [1, 2, 3].map(() => llama.generate(PROMPT, long).result);
    const iterated = llama.generate(PROMPT, long);
    const reading = (async () => {
      for await (const _ of iterated);
    })();
    const scoring = llama.perplexity('The cat sat. '.repeat(100));
    const outcomes = Promise.allSettled([...running, reading, scoring]);
    while (llama.stats.steps < 3) await turn();
    const disposal = llama.dispose();
    expect(llama.dispose()).toBe(disposal);
    for (const outcome of await outcomes) {
      expect(outcome).toEqual({ status: 'rejected', reason: disposed });
    }
    await disposal;
    await llama.dispose();
    await llama[Symbol.asyncDispose]();
    expectIdle(llama);
    expect(() => llama.generate(PROMPT)).toThrow(disposed);
    expect(() => llama.chat([{ role: 'user', content: 'Hello!' }])).toThrow(disposed);
    await expect(llama.perplexity('The cat')).rejects.toEqual(disposed);
    // What needs no weights goes on.
    expect(llama.tokenizer.decode(llama.tokenizer.encode(PROMPT))).toBe(PROMPT);
    expect(llama.chatTokens([{ role: 'user', content: 'Hello!' }])[0]).toBe(1);
    expect(llama.info.weights).toBe('bf16');
  });

  test('a request that nobody reads or awaits is then an unhandled rejection', async () => {
    const llama = await Llama.load();
    const rejections = await rejectionsDuring(async () => {
      llama.generate(PROMPT, long);
      const iterated = llama.generate(PROMPT, long);
      const reading = (async () => {
        for await (const _ of iterated);
      })();
      await turn();
      await Promise.all([llama.dispose(), expect(reading).rejects.toEqual(disposed)]);
    });
    expect(rejections).toEqual([disposed]); // the first one only
  });

  test('await using: the scope of the model is its life', async () => {
    const llama = await Llama.load();
    const dispose = llama[Symbol.asyncDispose].bind(llama);
    expect((await llama.generate(PROMPT, { ...long, maxTokens: 2 }).result).tokens).toHaveLength(2);
    expect(await dispose()).toBeUndefined();
    expect(() => llama.generate(PROMPT)).toThrow(disposed);
  });
});

describe('load', () => {
  test('reports its progress: the plan first, never backwards, ready last', async () => {
    const reports: LoadProgress[] = [];
    const llama = await Llama.load(undefined, { onProgress: (report) => reports.push(report) });
    expect(reports[0]).toMatchObject({ phase: 'plan', doneBytes: 0 });
    const { totalBytes, memory } = reports[0]!;
    expect(reports.at(-1)).toEqual({ phase: 'ready', doneBytes: totalBytes, totalBytes, memory });
    expect(totalBytes).toBe(2 * 4_196_608); // every parameter in bf16
    for (const [i, report] of reports.entries()) {
      if (i > 0 && i < reports.length - 1) expect(report.phase).toBe('weights');
      expect(report.doneBytes).toBeGreaterThanOrEqual(reports[i - 1]?.doneBytes ?? 0);
      expect(report).toMatchObject({ totalBytes, memory });
    }
    expect(llama.info.memory).toEqual(memory);
    await llama.dispose();
  });

  const abortError = (reason: unknown) => ({
    name: 'AbortError',
    code: 'ALTIPLANO_ABORTED',
    cause: reason,
  });

  test('can be aborted before it starts, and when the plan is known', async () => {
    const reason = new Error('no');
    await expect(
      Llama.load(undefined, { signal: AbortSignal.abort(reason) }),
    ).rejects.toMatchObject(abortError(reason));
    const controller = new AbortController();
    const phases: string[] = [];
    const loading = Llama.load(undefined, {
      signal: controller.signal,
      onProgress: ({ phase }) => {
        phases.push(phase);
        controller.abort(reason);
      },
    });
    await expect(loading).rejects.toMatchObject(abortError(reason));
    expect(phases).toEqual(['plan']);
  });

  test('can be aborted at any time: it rejects, or it was done before', async () => {
    let aborts = 0;
    for (let ms = 0; ms < 60; ms += 4) {
      const controller = new AbortController();
      const loading = Llama.load(undefined, { weights: 'int4', signal: controller.signal });
      setTimeout(() => controller.abort('stop'), ms);
      try {
        const llama = await loading;
        expect(await llama.generate(PROMPT, { ...long, maxTokens: 1 }).result).toMatchObject({
          finishReason: 'length',
        });
        await llama.dispose();
      } catch (error) {
        expect(error).toMatchObject(abortError('stop'));
        expect(error).toBeInstanceOf(AltiplanoError);
        aborts++;
      }
    }
    expect(aborts).toBeGreaterThan(0);
  });

  test('fails with what onProgress throws', async () => {
    for (const wanted of ['plan', 'ready']) {
      const error = new Error(`in onProgress: ${wanted}`);
      const loading = Llama.load(undefined, {
        onProgress: ({ phase }) => {
          if (phase === wanted) throw error;
        },
      });
      await expect(loading).rejects.toBe(error);
    }
  });

  test('refuses what does not fit into memory, with the numbers, before anything is allocated', async () => {
    const reports: LoadProgress[] = [];
    const before = process.memoryUsage().rss;
    const loading = Llama.load(undefined, {
      kv: 'f32',
      kvCacheTokens: 2 ** 28,
      onProgress: (report) => reports.push(report),
    });
    const error = (await loading.catch((thrown: unknown) => thrown)) as AltiplanoError;
    expect(error).toBeInstanceOf(AltiplanoError);
    expect(error).toMatchObject({ code: 'ALTIPLANO_OUT_OF_MEMORY' });
    // 2 x 4 layers x 2 heads x 64 numbers of 4 bytes for each of the tokens.
    expect(error.expected).toMatch(/KV cache \(268435456 tokens, f32\) 1\.0 TiB/);
    expect(error.expected).toMatch(/weights \(bf16\) 8\.\d+ MiB/);
    expect(error.found).toMatch(/^[\d.e+]+ [KMGT]iB available$/);
    expect(error.hint).toMatch(/kvCacheTokens/);
    expect(reports.map(({ phase }) => phase)).toEqual(['plan']);
    expect(reports[0]!.memory.kvBytes).toBe(2 ** 40);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * 2 ** 20);
  });

  test('of many models at once, and their end in any order', async () => {
    const models = await Promise.all(
      [1, 2, 3].map((threads) => Llama.load(undefined, { threads })),
    );
    const options = { ...long, maxTokens: 20 };
    const results = await Promise.all(
      models.map(async (model, i) => {
        const { tokens } = await model.generate(PROMPT, options).result;
        if (i !== 1) await model.dispose();
        return tokens;
      }),
    );
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
    expect((await models[1]!.generate(PROMPT, options).result).tokens).toEqual(results[0]);
    await models[1]!.dispose();
  });
});
