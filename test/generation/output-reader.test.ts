/** What readers may do with a generation besides reading it to its end. */
import { describe, expect, test } from '@jest/globals';
import { type GenerationResult, Output } from '../../lib/generation/output.js';

const result: GenerationResult = {
  text: '',
  tokens: [],
  finishReason: 'stop',
  promptTokens: 1,
  completionTokens: 0,
  seed: 1,
  timings: {
    queueMs: 0,
    prefillMs: 0,
    decodeMs: 0,
    prefillTokensPerSecond: 0,
    decodeTokensPerSecond: 0,
  },
};

function fill(output: Output, pieces: number): void {
  for (let i = 0; i < pieces; i++) output.write(`${i} `);
}

describe('reading', () => {
  test('who asks for the result in the middle of an iteration does not wait for ever', async () => {
    const output = new Output(() => {});
    let resumed = 0;
    output.onResume(() => resumed++);
    const read: string[] = [];
    let whole: Promise<GenerationResult> | undefined;
    const reading = (async () => {
      for await (const piece of output) {
        read.push(piece);
        whole ??= output.result;
        await whole;
      }
    })();
    fill(output, 100);
    expect(output.isFull).toBe(true);
    await new Promise(setImmediate);
    expect(output.isFull).toBe(false);
    expect(resumed).toBe(1);
    output.end(result);
    await reading;
    expect(read).toHaveLength(100);
  });

  test('a result asked for before the iteration leaves back-pressure as it is', () => {
    const output = new Output(() => {});
    void output.result;
    output[Symbol.asyncIterator]();
    fill(output, 100);
    expect(output.isFull).toBe(true);
  });

  test('an iterator can be peeked into and then iterated', async () => {
    const output = new Output(() => {});
    const iterator = output[Symbol.asyncIterator]();
    fill(output, 3);
    output.end(result);
    expect(await iterator.next()).toEqual({ done: false, value: '0 ' });
    const rest: string[] = [];
    for await (const piece of iterator) rest.push(piece);
    expect(rest).toEqual(['1 ', '2 ']);
  });

  test('after leaving nothing comes, not even what leaving brought out', async () => {
    const output: Output = new Output(() => {
      output.write('held back');
      output.end(result);
    });
    const iterator = output[Symbol.asyncIterator]();
    fill(output, 2);
    await iterator.return?.();
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });
});

describe('failing', () => {
  test('of several reads that wait, the first reports the failure and the others end', async () => {
    const output = new Output(() => {});
    const iterator = output[Symbol.asyncIterator]();
    const reads = [iterator.next(), iterator.next()];
    output.fail(new Error('broken'));
    const outcomes = await Promise.allSettled([...reads, iterator.next()]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
    await expect(output.result).rejects.toThrow('broken');
  });

  test('a failure stands behind the pieces that came before it', async () => {
    const output = new Output(() => {});
    const iterator = output[Symbol.asyncIterator]();
    fill(output, 1);
    output.fail(new Error('broken'));
    expect(await iterator.next()).toEqual({ done: false, value: '0 ' });
    await expect(iterator.next()).rejects.toThrow('broken');
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });
});
