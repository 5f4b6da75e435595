/** Who gets how much of a step, and what a busy step leaves to the rest of the process. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { Scheduler, type SchedulerOptions } from '../../lib/generation/scheduler.js';
import type { Task } from '../../lib/generation/task.js';
import type { NativeEngine, StepPlan } from '../../lib/native.js';

/** Answers every row with nothing but its place; keeps how many tokens each sequence had. */
class FakeEngine implements NativeEngine {
  readonly steps: number[][] = [];
  async load() {}
  progress() {
    return { doneBytes: 0, totalBytes: 0 };
  }
  cancel() {}
  async dispose() {}
  async step({ sequenceStarts, rows }: StepPlan) {
    this.steps.push(Array.from(sequenceStarts.subarray(1), (end, s) => end - sequenceStarts[s]!));
    await sleep(0);
    return {
      candidateIds: new Int32Array(0),
      candidateLogits: new Float32Array(0),
      logSumExp: new Float64Array(rows.length),
      scaledLogSumExp: new Float64Array(rows.length),
      idLogits: new Float32Array(0),
      fullLogits: new Float32Array(0),
      finite: new Uint8Array(rows.length).fill(1),
    };
  }
}

/** Generates `newTokens` tokens after a prompt; each choice may take some time. */
class FakeTask implements Task {
  readonly tokens: number[];
  readonly mostTokens: number;
  readonly ended: Promise<void>;
  isPaused = false;
  hasEnded = false;
  failure: unknown;
  #end!: () => void;

  constructor(
    promptTokens: number,
    newTokens: number,
    private readonly onToken: () => void = () => {},
  ) {
    this.tokens = Array.from({ length: promptTokens }, () => 1);
    this.mostTokens = promptTokens + newTokens;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  onResume() {}
  ahead(): undefined {}
  started() {}
  wanted(_begin: number, end: number) {
    if (end < this.tokens.length) return [];
    const request = {
      candidates: 0,
      ids: new Int32Array(0),
      inverseTemperature: 1,
      fullRow: false,
    };
    return [{ position: end - 1, request }];
  }
  accept() {
    this.onToken();
    this.tokens.push(2);
    if (this.tokens.length < this.mostTokens) return 'more' as const;
    this.hasEnded = true;
    this.#end();
    return 'done' as const;
  }
  fail(error: unknown) {
    this.failure = error;
    this.#end();
  }
}

function setUp(options: Partial<SchedulerOptions> = {}) {
  const engine = new FakeEngine();
  const scheduler = new Scheduler(engine, {
    pages: 4096,
    pageTokens: 4,
    vocabSize: 8,
    maxStepTokens: 64,
    ...options,
  });
  return { engine, scheduler };
}

describe('shares of a step', () => {
  test('a prompt gets on while more sequences decode than fit into a step', async () => {
    const { scheduler } = setUp({ maxStepTokens: 8 });
    const talkers = Array.from({ length: 40 }, () => new FakeTask(1, 200));
    for (const task of talkers) scheduler.add(task);
    await sleep(20);
    const late = new FakeTask(30, 1);
    scheduler.add(late);
    await late.ended;
    expect(late.hasEnded).toBe(true);
    expect(talkers.some(({ hasEnded }) => hasEnded)).toBe(false);
    await scheduler.close(new Error('over'));
  });

  test('a short prompt does not wait for a long one to end', async () => {
    const { engine, scheduler } = setUp();
    const long = new FakeTask(2000, 1);
    scheduler.add(long);
    await sleep(5);
    const short = new FakeTask(10, 1);
    scheduler.add(short);
    await short.ended;
    expect(long.hasEnded).toBe(false);
    await long.ended;
    // What the short one does not need is the long one's.
    expect(engine.steps.filter((shares) => shares.length === 2)).toEqual([[10, 53]]);
  });

  test('a lone prompt is cut into even steps: no last one reads all weights for a few tokens', async () => {
    const { engine, scheduler } = setUp();
    const first = new FakeTask(64, 1); // from here on the speed is known
    scheduler.add(first);
    await first.ended;
    for (const [prompt, shares] of [
      [65, [33, 32]],
      [130, [44, 43, 43]],
      [64, [64]],
    ] as const) {
      engine.steps.length = 0;
      const task = new FakeTask(prompt, 1);
      scheduler.add(task);
      await task.ended;
      expect(engine.steps.flat()).toEqual(shares);
    }
  });

  test('with more prompts than a step has tokens, the oldest get on', async () => {
    const { engine, scheduler } = setUp({ maxStepTokens: 4 });
    const tasks = Array.from({ length: 6 }, (_, i) => new FakeTask(9 - i, 1));
    for (const task of tasks) scheduler.add(task);
    await Promise.all(tasks.map(({ ended }) => ended));
    expect(engine.steps[0]).toEqual([1, 1, 1, 1]);
    expect(tasks.every(({ hasEnded }) => hasEnded)).toBe(true);
    expect(scheduler.stats.freePages).toBe(scheduler.stats.pages);
  });

  test('a step with much to choose lets the event loop run in between', async () => {
    const { scheduler } = setUp();
    let timersBetween = 0;
    const spin = () => {
      const end = performance.now() + 5;
      while (performance.now() < end);
    };
    const tasks = Array.from({ length: 16 }, () => new FakeTask(1, 1, spin));
    const timer = setInterval(() => timersBetween++, 1);
    for (const task of tasks) scheduler.add(task);
    await Promise.all(tasks.map(({ ended }) => ended));
    clearInterval(timer);
    expect(scheduler.stats.steps).toBe(1);
    expect(timersBetween).toBeGreaterThanOrEqual(8);
  });

  test('tasks may leave between two answers of a step', async () => {
    const { scheduler } = setUp();
    const accepted: number[] = [];
    const tasks = Array.from(
      { length: 8 },
      (_, i) =>
        new FakeTask(1, 2, () => {
          accepted.push(i);
          const end = performance.now() + 5;
          while (performance.now() < end);
          if (accepted.length === 1) setImmediate(() => scheduler.remove(tasks[7]!));
        }),
    );
    for (const task of tasks) scheduler.add(task);
    await Promise.all(tasks.slice(0, 7).map(({ ended }) => ended));
    expect(accepted).not.toContain(7);
    expect(scheduler.stats.freePages).toBe(scheduler.stats.pages);
  });
});

describe('the end', () => {
  test('a closed scheduler fails what comes later', async () => {
    const { engine, scheduler } = setUp();
    const reason = new Error('disposed');
    await scheduler.close(reason);
    const late = new FakeTask(3, 1);
    scheduler.add(late);
    await late.ended;
    expect(late.failure).toBe(reason);
    expect(engine.steps).toEqual([]);
  });

  test('a sequence that can not be planned does not keep the process busy', async () => {
    const { engine, scheduler } = setUp({ pages: 2 });
    const tooLong = new FakeTask(100, 1); // callers check this; a defect must not stop the event loop
    scheduler.add(tooLong);
    await sleep(5);
    expect(engine.steps).toEqual([]);
    const reason = new Error('disposed');
    await scheduler.close(reason);
    expect(tooLong.failure).toBe(reason);
  });
});
