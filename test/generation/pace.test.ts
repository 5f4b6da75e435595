/** How much a step takes on, by a clock that only the tests move. */
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { Pace } from '../../lib/generation/pace.js';

beforeEach(() => {
  jest.useFakeTimers({ now: 0 });
});
afterEach(() => {
  jest.useRealTimers();
});

const work = (...tokens: number[]) => tokens.map((count) => ({ tokens: Array(count).fill(1) }));

/** A step that took `ms`. */
function learn(pace: Pace, items: ReturnType<typeof work>, ms: number): void {
  const submittedAt = performance.now();
  jest.advanceTimersByTime(ms);
  pace.learn(items, submittedAt);
}

test('while the speed is not known, prompts begin with few tokens and nothing waits behind them', () => {
  const pace = new Pace();
  expect(pace.promptTokens(1000, false, 2048)).toBe(64);
  expect(pace.isLong(work(64))).toBe(true);
  expect(pace.isLong(work(1))).toBe(false);
});

test('prompts get 150 ms beside others, 4 s in even steps alone', () => {
  const pace = new Pace();
  learn(pace, work(64), 320);
  expect(pace.promptTokens(1000, true, 2048)).toBe(30);
  expect(pace.promptTokens(1000, false, 2048)).toBe(1000);
  expect(pace.promptTokens(2000, false, 2048)).toBe(667);
  expect(pace.promptTokens(1000, false, 256)).toBe(250);
  learn(pace, work(64), 6400); // a moving average
  expect(pace.promptTokens(1000, true, 2048)).toBe(16);
});

test('a step is long from 150 ms on, prompts and decoding together', () => {
  const pace = new Pace();
  learn(pace, work(100), 1000);
  expect(pace.isLong(work(14))).toBe(false);
  expect(pace.isLong(work(16))).toBe(true);
  learn(pace, work(1, 1), 100);
  expect(pace.isLong(work(1, 1))).toBe(false);
  expect(pace.isLong(work(1, 6))).toBe(true);
  learn(pace, work(1), 200);
  expect(pace.isLong(work(1))).toBe(true);
});

test('answers that waited for JavaScript together teach nothing', () => {
  const pace = new Pace();
  learn(pace, work(100), 1000);
  const [first, second] = [work(1), work(20)];
  const submittedAt = performance.now();
  jest.advanceTimersByTime(300);
  pace.learn(first, submittedAt);
  pace.learn(second, submittedAt);
  expect(pace.promptTokens(1000, true, 2048)).toBe(16);
  expect(pace.promptTokens(400, false, 2048)).toBe(400);
  expect(pace.promptTokens(800, false, 2048)).toBe(400);
});
