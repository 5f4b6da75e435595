/** Two steps under way: what goes ahead of the answers, what waits for them, and that no text changes. */
import { describe, expect, test } from '@jest/globals';
import type { GenerateTask } from '../../lib/generation/generate-task.js';
import { Scheduler } from '../../lib/generation/scheduler.js';
import { ScoreTask } from '../../lib/generation/score-task.js';
import type { GenerateOptions } from '../../lib/options.js';
import {
  FakeEngine,
  fakeGreedy,
  fakePrompt,
  fakeTask,
  PAGE_TOKENS,
  sequencesOf,
  settle,
  VOCAB,
} from './fake-engine.js';

function setUp({ pages = 100, maxStepTokens = 256, stepsInFlight = 2 as 1 | 2 } = {}) {
  const engine = new FakeEngine(pages, stepsInFlight);
  const scheduler = new Scheduler(engine, {
    pages,
    pageTokens: PAGE_TOKENS,
    vocabSize: VOCAB,
    maxStepTokens,
    stepsInFlight,
  });
  const submit = (prompt: readonly number[], count: number, options?: GenerateOptions) => {
    const task = fakeTask(prompt, count, (self) => scheduler.remove(self), options);
    scheduler.add(task);
    return task;
  };
  return { engine, scheduler, submit };
}

const tokensOf = async (task: GenerateTask) => (await task.output.result).tokens;

/** Steps with a token that the step before chose. */
const aheadOf = ({ plans }: FakeEngine) =>
  plans.filter((plan) => plan.tokens.some((id) => id < 0)).length;

function expectIdle({ stats }: Scheduler) {
  expect(stats).toMatchObject({
    runningSequences: 0,
    waitingSequences: 0,
    freePages: stats.pages,
  });
}

const sampled = { temperature: 0.7, topK: 20, seed: 3 } as const;

describe('going ahead', () => {
  test('greedy sequences are a step ahead, and no step is computed in vain at the end', async () => {
    const { engine, scheduler, submit } = setUp();
    const prompts = [3, 7, 1].map((length, i) => fakePrompt(length, i));
    const tasks = prompts.map((prompt) => submit(prompt, 10));
    for (const [i, task] of tasks.entries()) {
      expect(await tokensOf(task)).toEqual(fakeGreedy(prompts[i]!, 10));
    }
    expect(engine.plans).toHaveLength(10);
    expect(aheadOf(engine)).toBe(9);
    expectIdle(scheduler);
  });

  test('the next step is there before the answers of the running one', async () => {
    const { engine, submit } = setUp();
    engine.isHeld = true;
    const task = submit(fakePrompt(5, 1), 4);
    await settle();
    expect(engine.plans).toHaveLength(2);
    expect([...engine.plans[1]!.tokens]).toEqual([-1]);
    expect([...engine.plans[1]!.positions]).toEqual([5]);
    engine.isHeld = false;
    engine.release();
    expect(await tokensOf(task)).toEqual(fakeGreedy(fakePrompt(5, 1), 4));
  });

  test('rows are told apart where sequences come and go', async () => {
    const { engine, submit } = setUp();
    const counts = [2, 9, 4, 7, 1];
    const prompts = counts.map((_, i) => fakePrompt(3 + i, i));
    const tasks = counts.map((count, i) => submit(prompts[i]!, count));
    await settle(3);
    const late = submit(fakePrompt(6, 9), 5);
    for (const [i, task] of tasks.entries()) {
      expect(await tokensOf(task)).toEqual(fakeGreedy(prompts[i]!, counts[i]!));
    }
    expect(await tokensOf(late)).toEqual(fakeGreedy(fakePrompt(6, 9), 5));
    expect(aheadOf(engine)).toBeGreaterThan(5);
  });

  test('prompts in several steps, and likelihoods', async () => {
    const { engine, scheduler, submit } = setUp({ maxStepTokens: 8 });
    const prompt = fakePrompt(50, 1);
    const task = submit(prompt, 6);
    const text = fakePrompt(40, 2);
    const score = new ScoreTask(text, () => {});
    scheduler.add(score);
    expect(await tokensOf(task)).toEqual(fakeGreedy(prompt, 6));
    const together = await score.negativeLogLikelihood;
    const alone = new ScoreTask(text, () => {});
    const other = setUp({ stepsInFlight: 1 });
    other.scheduler.add(alone);
    expect(together).toBeCloseTo(await alone.negativeLogLikelihood, 6);
    await settle();
    expectIdle(scheduler);
    expect(engine.plans.length).toBeGreaterThan(10);
  });

  test('random arrivals with little memory: every text is what it is alone', async () => {
    const { engine, scheduler, submit } = setUp({ pages: 14, maxStepTokens: 12 });
    const requests = Array.from({ length: 24 }, (_, i) => ({
      prompt: fakePrompt(1 + ((i * 7) % 19), i),
      count: 1 + ((i * 5) % 17),
      options: i % 6 === 5 ? sampled : undefined,
    }));
    const tasks: GenerateTask[] = [];
    for (const { prompt, count, options } of requests) {
      tasks.push(submit(prompt, count, options));
      await settle(1);
    }
    for (const [i, task] of tasks.entries()) {
      const { prompt, count, options } = requests[i]!;
      const expected = options
        ? await tokensOf(setUp({ stepsInFlight: 1 }).submit(prompt, count, options))
        : fakeGreedy(prompt, count);
      expect(await tokensOf(task)).toEqual(expected);
    }
    await settle();
    expect(scheduler.stats.preemptions).toBeGreaterThan(0);
    expect(aheadOf(engine)).toBeGreaterThan(10);
    expectIdle(scheduler);
  });
});

describe('waiting for answers', () => {
  test.each<[string, GenerateOptions]>([
    ['sampling', sampled],
    ['a penalty', { repetitionPenalty: 1.3 }],
    ['a bias', { logitBias: { 5: 2 } }],
  ])('%s: the next step waits for its row', async (_, options) => {
    const { engine, submit } = setUp();
    const prompt = fakePrompt(4, 1);
    const task = submit(prompt, 8, options);
    const expected = await tokensOf(setUp({ stepsInFlight: 1 }).submit(prompt, 8, options));
    expect(await tokensOf(task)).toEqual(expected);
    expect(aheadOf(engine)).toBe(0);
  });

  test('one that must see its row is not left behind by those that need not', async () => {
    const { engine, submit } = setUp();
    const greedy = submit(fakePrompt(4, 1), 8);
    const other = submit(fakePrompt(4, 2), 8, sampled);
    await Promise.all([greedy.output.result, other.output.result]);
    expect(engine.plans.map(sequencesOf)).toEqual(Array(8).fill(2));
  });
});

describe('nothing is planned behind a long step, which arrivals would have to wait for', () => {
  test('decoding', async () => {
    const { engine, submit } = setUp();
    engine.isHeld = true;
    const task = submit(fakePrompt(5, 1), 8);
    await settle();
    engine.release();
    await settle();
    expect(engine.plans).toHaveLength(3); // the prompt, and two steps under way
    await new Promise((resolve) => setTimeout(resolve, 170));
    engine.release();
    await settle();
    expect(engine.plans).toHaveLength(3); // the step before took longer than 150 ms
    engine.release();
    await settle();
    expect(engine.plans).toHaveLength(5);
    engine.isHeld = false;
    engine.release();
    expect(await tokensOf(task)).toEqual(fakeGreedy(fakePrompt(5, 1), 8));
  });

  test('a prompt whose duration is not known', async () => {
    const { engine, submit } = setUp();
    engine.isHeld = true;
    const task = submit(fakePrompt(100, 1), 2);
    await settle();
    expect(engine.plans).toHaveLength(1);
    engine.isHeld = false;
    engine.release();
    expect(await tokensOf(task)).toEqual(fakeGreedy(fakePrompt(100, 1), 2));
  });
});

describe('ends', () => {
  test('a text that stops early throws the token ahead away and cancels its step', async () => {
    const { engine, scheduler, submit } = setUp();
    const prompt = fakePrompt(4, 1);
    const third = String.fromCharCode(0x4e00 + fakeGreedy(prompt, 3)[2]!);
    const { tokens, finishReason } = await submit(prompt, 20, { stop: [third] }).output.result;
    expect(tokens).toEqual(fakeGreedy(prompt, 3));
    expect(finishReason).toBe('stop');
    await settle();
    expect(engine.plans).toHaveLength(4);
    expect(engine.cancels).toBe(1);
    expectIdle(scheduler);

    // The same beside one that goes on: its step is kept.
    const other = submit(fakePrompt(4, 2), 12);
    const again = submit(prompt, 20, { stop: [third] });
    expect(await tokensOf(again)).toEqual(fakeGreedy(prompt, 3));
    expect(await tokensOf(other)).toEqual(fakeGreedy(fakePrompt(4, 2), 12));
    expect(engine.cancels).toBe(1);
    expectIdle(scheduler);
  });

  test('leaving cancels both steps, but not those of others', async () => {
    const { engine, scheduler, submit } = setUp();
    engine.isHeld = true;
    const task = submit(fakePrompt(4, 1), 20);
    await settle();
    expect(engine.plans).toHaveLength(2);
    task.abort();
    expect(engine.cancels).toBe(1);
    engine.isHeld = false;
    await settle();
    expectIdle(scheduler);

    engine.isHeld = true;
    const a = submit(fakePrompt(4, 2), 6);
    const b = submit(fakePrompt(4, 3), 6);
    await settle();
    a.abort();
    expect(engine.cancels).toBe(1);
    engine.isHeld = false;
    engine.release();
    expect(await tokensOf(b)).toEqual(fakeGreedy(fakePrompt(4, 3), 6));
    expectIdle(scheduler);
  });

  test('a step that fails ends its sequences; one that only the step behind has goes on', async () => {
    const { engine, scheduler, submit } = setUp();
    engine.isHeld = true;
    const first = submit(fakePrompt(4, 1), 6);
    await settle();
    engine.nextError = new Error('the device is gone');
    engine.release();
    await settle(); // the third step, which will fail
    const second = submit(fakePrompt(5, 2), 6);
    engine.release();
    await settle(); // the fourth, with both
    expect(engine.plans.map(sequencesOf)).toEqual([1, 1, 1, 2]);
    engine.isHeld = false;
    engine.release();
    await expect(first.output.result).rejects.toThrow('the device is gone');
    expect(await tokensOf(second)).toEqual(fakeGreedy(fakePrompt(5, 2), 6));
    expectIdle(scheduler);
  });

  test('closing waits for both', async () => {
    const { engine, scheduler, submit } = setUp();
    const task = submit(fakePrompt(4, 1), 50);
    await settle(2);
    expect(engine.isRunning).toBe(true);
    await scheduler.close(new Error('closed'));
    expect(engine.isRunning).toBe(false);
    await expect(task.output.result).rejects.toThrow('closed');
  });
});
