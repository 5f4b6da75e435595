/** The reader's side by itself: pieces, back-pressure, results and failures. */
import { describe, expect, test } from '@jest/globals';
import { type GenerationResult, Output } from '../../lib/generation/output.js';
import { rejectionsDuring } from './rejections.js';

const MOST_UNREAD = 64;
const FEW_UNREAD = 32;

const resultOf = (text: string): GenerationResult => ({
  text,
  tokens: [],
  finishReason: 'stop',
  promptTokens: 1,
  completionTokens: 0,
  seed: 0,
  timings: {
    queueMs: 0,
    prefillMs: 0,
    decodeMs: 0,
    prefillTokensPerSecond: 0,
    decodeTokensPerSecond: 0,
  },
});

async function collect(output: Output): Promise<string[]> {
  const pieces: string[] = [];
  for await (const piece of output) pieces.push(piece);
  return pieces;
}

const never = () => {
  throw new Error('the reader did not leave');
};

describe('iteration', () => {
  test('yields what was written before it began and what comes later; empty text is no piece', async () => {
    const output = new Output(never);
    output.write('a');
    output.write('');
    const pieces = collect(output);
    await undefined;
    output.write('b');
    output.write('c');
    const result = resultOf('abc');
    output.end(result);
    output.write('behind the end');
    expect(await pieces).toEqual(['a', 'b', 'c']);
    expect(await output.result).toBe(result);
  });

  test('of an output that ended before', async () => {
    const output = new Output(never);
    output.write('all');
    output.end(resultOf('all'));
    expect(await collect(output)).toEqual(['all']);
  });

  test('several calls of next wait in order', async () => {
    const output = new Output(never);
    const iterator = output[Symbol.asyncIterator]();
    const reads = [iterator.next(), iterator.next(), iterator.next(), iterator.next()];
    output.write('a');
    output.write('b');
    output.end(resultOf('ab'));
    expect(await Promise.all(reads)).toEqual([
      { done: false, value: 'a' },
      { done: false, value: 'b' },
      { done: true, value: undefined },
      { done: true, value: undefined },
    ]);
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
  });

  test('is possible once', async () => {
    const output = new Output(never);
    output.end(resultOf(''));
    await collect(output);
    expect(() => output[Symbol.asyncIterator]()).toThrow(TypeError);
    expect(() => output[Symbol.asyncIterator]()).toThrow(/once/);
  });

  test('left early tells the request, once, and not after its end', async () => {
    let leaves = 0;
    const output = new Output(() => {
      leaves++;
      output.end(resultOf('a'));
    });
    output.write('a');
    output.write('b');
    for await (const piece of output) {
      expect(piece).toBe('a');
      break;
    }
    expect(leaves).toBe(1);

    const ended = new Output(never);
    ended.write('a');
    ended.end(resultOf('a'));
    for await (const _ of ended) break;
    expect(await ended.result).toMatchObject({ text: 'a' });
  });
});

describe('back-pressure', () => {
  const fill = (output: Output, pieces: number) => {
    for (let i = 0; i < pieces; i++) output.write('x');
  };

  test(`begins at ${MOST_UNREAD} unread pieces and ends at ${FEW_UNREAD}`, async () => {
    const output = new Output(never);
    let resumes = 0;
    output.onResume(() => resumes++);
    const iterator = output[Symbol.asyncIterator]();
    fill(output, MOST_UNREAD - 1);
    expect(output.isFull).toBe(false);
    fill(output, 1);
    expect(output.isFull).toBe(true);
    expect(resumes).toBe(0);
    for (let i = MOST_UNREAD - 1; i > FEW_UNREAD; i--) await iterator.next();
    expect(output.isFull).toBe(true);
    await iterator.next();
    expect(output.isFull).toBe(false);
    expect(resumes).toBe(1);
    await iterator.next();
    expect(resumes).toBe(1); // it was not full
    fill(output, MOST_UNREAD - FEW_UNREAD);
    expect(output.isFull).toBe(false);
    fill(output, 1);
    expect(output.isFull).toBe(true);
  });

  test('does not hold for those who do not iterate', () => {
    const output = new Output(never);
    void output.result;
    fill(output, 10 * MOST_UNREAD);
    expect(output.isFull).toBe(false);
  });

  test('holds for what was written before the iteration began', async () => {
    const output = new Output(never);
    fill(output, MOST_UNREAD + 10);
    const iterator = output[Symbol.asyncIterator]();
    expect(output.isFull).toBe(true);
    for (let i = MOST_UNREAD + 9; i > FEW_UNREAD; i--) await iterator.next();
    expect(output.isFull).toBe(true);
    await iterator.next();
    expect(output.isFull).toBe(false);
  });

  test('ends with the output', () => {
    const output = new Output(never);
    output[Symbol.asyncIterator]();
    fill(output, MOST_UNREAD);
    output.end(resultOf(''));
    expect(output.isFull).toBe(false);
  });
});

describe('failure', () => {
  const failure = new Error('failed');

  test('comes behind the pieces, once', async () => {
    const output = new Output(never);
    const rejections = await rejectionsDuring(async () => {
      const iterator = output[Symbol.asyncIterator]();
      output.write('a');
      output.fail(failure);
      expect(await iterator.next()).toEqual({ done: false, value: 'a' });
      await expect(iterator.next()).rejects.toBe(failure);
      expect(await iterator.next()).toEqual({ done: true, value: undefined });
    });
    expect(rejections).toEqual([]); // the iteration reported it
    await expect(output.result).rejects.toBe(failure);
  });

  test('ends a read that waits', async () => {
    const output = new Output(never);
    const rejections = await rejectionsDuring(async () => {
      const read = collect(output);
      output.fail(failure);
      await expect(read).rejects.toBe(failure);
    });
    expect(rejections).toEqual([]);
  });

  test('is an unhandled rejection if nobody reads or awaits', async () => {
    const rejections = await rejectionsDuring(async () => {
      new Output(never).fail(failure);
    });
    expect(rejections).toEqual([failure]);
  });

  test('is none if somebody awaits the result', async () => {
    const output = new Output(never);
    const rejections = await rejectionsDuring(async () => {
      const outcome = output.result.catch((error: unknown) => error);
      output.fail(failure);
      expect(await outcome).toBe(failure);
    });
    expect(rejections).toEqual([]);
  });
});

test('a generation is no thenable: await gives the generation itself', async () => {
  const output = new Output(never);
  expect('then' in output).toBe(false);
  expect(await output).toBe(output);
  expect(output.result).toBe(output.result);
});
