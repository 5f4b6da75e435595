/** The step loop: who shares which step, who waits, who is pushed back, and that no text changes. */
import { describe, expect, test } from '@jest/globals';
import type { GenerateTask } from '../../lib/generation/generate-task.js';
import { Scheduler } from '../../lib/generation/scheduler.js';
import { ScoreTask } from '../../lib/generation/score-task.js';
import { AltiplanoError, type GenerationResult } from '../../lib/index.js';
import type { GenerateOptions } from '../../lib/options.js';
import {
  FakeEngine,
  fakeGreedy,
  fakeLogits,
  fakePrompt,
  fakeTask,
  lengthsOf,
  PAGE_TOKENS,
  sequencesOf,
  settle,
  textOf,
  VOCAB,
} from './fake-engine.js';

function setUp({ pages = 100, maxStepTokens = 256 } = {}) {
  const engine = new FakeEngine(pages);
  const scheduler = new Scheduler(engine, {
    pages,
    pageTokens: PAGE_TOKENS,
    vocabSize: VOCAB,
    maxStepTokens,
  });
  /** Adds a request for `count` tokens. */
  const submit = (prompt: readonly number[], count: number, options?: GenerateOptions) => {
    const task = fakeTask(prompt, count, (self) => scheduler.remove(self), options);
    scheduler.add(task);
    return task;
  };
  return { engine, scheduler, submit };
}

async function expectGreedy(task: GenerateTask, prompt: readonly number[], count: number) {
  const { tokens, text, finishReason } = await task.output.result;
  expect(tokens).toEqual(fakeGreedy(prompt, count));
  expect(text).toBe(textOf(tokens));
  expect(finishReason).toBe('length');
}

/** Nothing is left behind. */
function expectIdle({ stats }: Scheduler) {
  expect(stats).toMatchObject({
    runningSequences: 0,
    waitingSequences: 0,
    freePages: stats.pages,
  });
}

describe('sharing steps', () => {
  test('requests of one turn share the first step and all that follow', async () => {
    const { engine, scheduler, submit } = setUp();
    const prompts = [3, 7, 1, 12].map((length, i) => fakePrompt(length, i));
    const tasks = prompts.map((prompt) => submit(prompt, 10));
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, 10)));
    expect(engine.plans.map(sequencesOf)).toEqual(Array(10).fill(4));
    expect(lengthsOf(engine.plans[0]!).sort((a, b) => a - b)).toEqual([1, 3, 7, 12]);
    expect(scheduler.stats).toMatchObject({ steps: 10, mostSequencesInStep: 4, preemptions: 0 });
    expectIdle(scheduler);
  });

  test('a late arrival joins the step after the one that runs', async () => {
    const { engine, submit } = setUp();
    engine.isHeld = true;
    const first = submit(fakePrompt(5, 1), 6);
    await settle();
    engine.release(); // the prompt
    await settle();
    expect(engine.plans).toHaveLength(2); // the first token is being followed up
    const second = submit(fakePrompt(6, 2), 3);
    await settle();
    expect(engine.plans).toHaveLength(2);
    engine.isHeld = false;
    engine.release();
    await Promise.all([
      expectGreedy(first, fakePrompt(5, 1), 6),
      expectGreedy(second, fakePrompt(6, 2), 3),
    ]);
    expect(engine.plans.map(lengthsOf)).toEqual([[5], [1], [1, 6], [1, 1], [1, 1], [1]]);
  });

  test('a long prompt is cut, and those who decode get a token in each of its steps', async () => {
    const { engine, submit } = setUp({ maxStepTokens: 16 });
    const decoding = submit(fakePrompt(2, 1), 30);
    await settle();
    const before = engine.plans.length;
    const prompt = fakePrompt(100, 2);
    const long = submit(prompt, 2);
    await Promise.all([
      expectGreedy(decoding, fakePrompt(2, 1), 30),
      expectGreedy(long, prompt, 2),
    ]);
    const shared = engine.plans.slice(before).filter((plan) => sequencesOf(plan) === 2);
    expect(shared.length).toBeGreaterThanOrEqual(7); // 100 tokens, at most 15 a step
    for (const plan of shared) {
      expect(lengthsOf(plan)[0]).toBe(1);
      expect(plan.tokens.length).toBeLessThanOrEqual(16);
    }
  });

  test('only rows that are needed are asked for', async () => {
    const { engine, submit } = setUp({ maxStepTokens: 16 });
    await expectGreedy(submit(fakePrompt(40, 3), 2), fakePrompt(40, 3), 2);
    expect(engine.plans.map((plan) => plan.rows.length)).toEqual([0, 0, 1, 1]);
  });

  test('more sequences than fit into a step take turns, and none starves', async () => {
    const { engine, scheduler, submit } = setUp({ maxStepTokens: 4 });
    const prompts = Array.from({ length: 10 }, (_, i) => fakePrompt(1, i));
    const tasks = prompts.map((prompt) => submit(prompt, 12));
    let finished = 0;
    const leastWhenFirstEnds = Promise.race(tasks.map((task) => task.output.result)).then(() =>
      Math.min(...tasks.map((task) => task.tokens.length)),
    );
    for (const task of tasks) void task.output.result.then(() => finished++);
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, 12)));
    expect(finished).toBe(10);
    for (const plan of engine.plans) expect(plan.tokens.length).toBeLessThanOrEqual(4);
    expect(await leastWhenFirstEnds).toBeGreaterThan(3);
    expectIdle(scheduler);
  });

  test('scores and texts share steps as well', async () => {
    const { scheduler, submit, engine } = setUp({ maxStepTokens: 16 });
    const text = fakePrompt(50, 9);
    const scored: number[] = [];
    const score = new ScoreTask(text, (tokens) => scored.push(tokens));
    scheduler.add(score);
    const task = submit(fakePrompt(3, 1), 8);
    const sum = await score.negativeLogLikelihood;
    await expectGreedy(task, fakePrompt(3, 1), 8);
    let expected = 0;
    for (let i = 1; i < text.length; i++) {
      const logits = fakeLogits(text.slice(0, i));
      const total = logits.reduce((all, logit) => all + Math.exp(logit), 0);
      expected += Math.log(total) - logits[text[i]!]!;
    }
    expect(sum).toBeCloseTo(expected, 6);
    expect(scored.at(-1)).toBe(text.length - 1);
    expect(scored).toEqual([...scored].sort((a, b) => a - b));
    expect(engine.plans.some((plan) => sequencesOf(plan) === 2)).toBe(true);
    expectIdle(scheduler);
  });
});

describe('pages', () => {
  test('who finds no pages waits, in order, and gets the same text', async () => {
    const { engine, scheduler, submit } = setUp({ pages: 6 }); // 24 tokens
    const prompts = Array.from({ length: 6 }, (_, i) => fakePrompt(11, i)); // 3 pages each
    const tasks = prompts.map((prompt) => submit(prompt, 2));
    const order: number[] = [];
    tasks.forEach((task, i) => void task.output.result.then(() => order.push(i)));
    await settle(1);
    expect(scheduler.stats).toMatchObject({ runningSequences: 2, waitingSequences: 4 });
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, 2)));
    expect(order).toEqual([0, 1, 2, 3, 4, 5]);
    expect(scheduler.stats.preemptions).toBe(0);
    for (const plan of engine.plans) expect(sequencesOf(plan)).toBeLessThanOrEqual(2);
    expectIdle(scheduler);
  });

  test('one that needs more pages than are free does not hold up those behind it', async () => {
    const { scheduler, submit } = setUp({ pages: 8 }); // 32 tokens
    const prompts = [16, 23, 3].map((length, i) => fakePrompt(length, i)); // 4, 6 and 1 pages
    const counts = [12, 2, 2];
    const order: string[] = [];
    const tasks = prompts.map((prompt, i) => submit(prompt, counts[i]!));
    tasks.forEach((task, i) => {
      void task.output.result.then(() => order.push(['running', 'large', 'small'][i]!));
    });
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, counts[i]!)));
    expect(order).toEqual(['small', 'running', 'large']);
    expect(scheduler.stats.preemptions).toBe(0);
    expectIdle(scheduler);
  });

  test('the overtaken one gets its pages back from those who overtook it', async () => {
    const { scheduler, submit } = setUp({ pages: 8 });
    const prompts = [5, 27, 3].map((length, i) => fakePrompt(length, i)); // 2, 7 and 1 pages
    const counts = [11, 3, 25];
    const order: string[] = [];
    const tasks = prompts.map((prompt, i) => submit(prompt, counts[i]!));
    tasks.forEach((task, i) => {
      void task.output.result.then(() => order.push(['running', 'large', 'small'][i]!));
    });
    await tasks[0]!.output.result;
    expect(tasks[2]!.tokens.length).toBeGreaterThan(8); // holds 3 pages or more: too many for the large one
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, counts[i]!)));
    expect(order).toEqual(['running', 'large', 'small']);
    expect(scheduler.stats.preemptions).toBe(1);
    expectIdle(scheduler);
  });

  test('the youngest is pushed back when pages run out, with the same text in the end', async () => {
    const { scheduler, submit } = setUp({ pages: 8 }); // 32 tokens
    const prompts = [0, 1, 2].map((i) => fakePrompt(5, i));
    // Each becomes 24 tokens: only one can reach its end at a time.
    const tasks = prompts.map((prompt) => submit(prompt, 20));
    const order: number[] = [];
    tasks.forEach((task, i) => void task.output.result.then(() => order.push(i)));
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, 20)));
    expect(scheduler.stats.preemptions).toBeGreaterThan(0);
    expect(order).toEqual([0, 1, 2]);
    expectIdle(scheduler);
  });

  test('sampling, penalties and log-probabilities survive being pushed back', async () => {
    const options = (i: number): GenerateOptions => ({
      temperature: 0.8,
      topP: 0.95,
      seed: i,
      logprobs: 2,
      repetitionPenalty: 1.1,
      frequencyPenalty: 0.5,
    });
    const prompts = Array.from({ length: 5 }, (_, i) => fakePrompt(3 + i, i));
    const roomy = setUp();
    const expected: GenerationResult[] = [];
    for (const [i, prompt] of prompts.entries()) {
      expected.push(await roomy.submit(prompt, 20, options(i)).output.result);
    }
    const tight = setUp({ pages: 8, maxStepTokens: 7 });
    const found = await Promise.all(
      prompts.map((prompt, i) => tight.submit(prompt, 20, options(i)).output.result),
    );
    expect(tight.scheduler.stats.preemptions).toBeGreaterThan(0);
    found.forEach(({ timings: _, ...result }, i) => {
      const { timings: __, ...alone } = expected[i]!;
      expect(result).toEqual(alone);
      expect(result.tokens).toHaveLength(20);
    });
    expectIdle(tight.scheduler);
  });

  test('scores survive being pushed back: no token counts twice', async () => {
    const alone = setUp();
    const text = fakePrompt(30, 4);
    const reference = new ScoreTask(text, () => {});
    alone.scheduler.add(reference);
    const { scheduler, submit } = setUp({ pages: 9, maxStepTokens: 5 }); // 36 tokens
    const older = submit(fakePrompt(4, 1), 30);
    await settle(2);
    const scored: number[] = [];
    const score = new ScoreTask(text, (tokens) => scored.push(tokens));
    scheduler.add(score);
    expect(await score.negativeLogLikelihood).toBeCloseTo(await reference.negativeLogLikelihood, 9);
    await expectGreedy(older, fakePrompt(4, 1), 30);
    expect(scored).toEqual([...scored].sort((a, b) => a - b));
    expectIdle(scheduler);
  });

  test('one that fills the whole cache to its last token reaches its end', async () => {
    const { scheduler, submit } = setUp({ pages: 5 }); // 20 tokens
    expect(scheduler.capacityTokens).toBe(20);
    // The last token's keys and values are never computed: 21 tokens.
    const prompts = [1, 2, 3].map((i) => fakePrompt(2, i));
    const tasks = prompts.map((prompt) => submit(prompt, 19));
    await Promise.all(tasks.map((task, i) => expectGreedy(task, prompts[i]!, 19)));
    expectIdle(scheduler);
  });
});

describe('removing', () => {
  test('while it waits', async () => {
    const { engine, scheduler, submit } = setUp({ pages: 3 });
    const first = submit(fakePrompt(9, 1), 3);
    const second = submit(fakePrompt(9, 2), 3);
    await settle(1);
    expect(scheduler.stats.waitingSequences).toBe(1);
    second.abort();
    expect(scheduler.stats.waitingSequences).toBe(0);
    expect(await second.output.result).toMatchObject({
      finishReason: 'abort',
      text: '',
      tokens: [],
    });
    await expectGreedy(first, fakePrompt(9, 1), 3);
    expect(engine.cancels).toBe(0);
    expectIdle(scheduler);
  });

  test('in a step of its own: the step is cancelled, and the pages are free at once', async () => {
    const { engine, scheduler, submit } = setUp({ maxStepTokens: 16 });
    engine.isHeld = true;
    const task = submit(fakePrompt(60, 1), 3);
    await settle();
    engine.release();
    await settle();
    expect(engine.plans.map(lengthsOf)).toEqual([[16], [15]]); // in the middle of its prompt
    task.abort();
    expect(engine.cancels).toBe(1);
    expectIdle(scheduler);
    expect(await task.output.result).toMatchObject({ finishReason: 'abort', completionTokens: 0 });
    await settle();
    expect(engine.isRunning).toBe(false);

    engine.isHeld = false; // and the scheduler goes on
    await expectGreedy(submit(fakePrompt(5, 2), 4), fakePrompt(5, 2), 4);
    expectIdle(scheduler);
  });

  test('in a step with others: nothing is cancelled, and the others do not notice', async () => {
    const { engine, scheduler, submit } = setUp();
    engine.isHeld = true;
    const prompts = [1, 2, 3].map((i) => fakePrompt(4 + i, i));
    const [a, b, c] = prompts.map((prompt) => submit(prompt, 8)) as [
      GenerateTask,
      GenerateTask,
      GenerateTask,
    ];
    await settle();
    engine.release();
    await settle();
    b.abort();
    expect(engine.cancels).toBe(0);
    expect(await b.output.result).toMatchObject({
      finishReason: 'abort',
      tokens: fakeGreedy(prompts[1]!, 1),
    });
    engine.isHeld = false;
    engine.release();
    await Promise.all([expectGreedy(a, prompts[0]!, 8), expectGreedy(c, prompts[2]!, 8)]);
    expectIdle(scheduler);
  });

  test('all of a step, one after the other: the last one cancels it', async () => {
    const { engine, scheduler, submit } = setUp();
    engine.isHeld = true;
    const tasks = [1, 2].map((i) => submit(fakePrompt(4, i), 8));
    await settle();
    tasks[0]!.abort();
    expect(engine.cancels).toBe(0);
    tasks[1]!.abort();
    expect(engine.cancels).toBe(1);
    expectIdle(scheduler);
    await settle();
    expect(engine.isRunning).toBe(false);
  });

  test('pages of one that leaves let the next one in at once, though a step still runs', async () => {
    const { engine, scheduler, submit } = setUp({ pages: 6 });
    engine.isHeld = true;
    const staying = submit(fakePrompt(7, 1), 6);
    const leaving = submit(fakePrompt(7, 2), 6);
    await settle();
    const next = submit(fakePrompt(11, 3), 4);
    leaving.abort();
    engine.isHeld = false;
    engine.release(); // this step wrote to pages that `next` now has
    await Promise.all([
      expectGreedy(staying, fakePrompt(7, 1), 6),
      expectGreedy(next, fakePrompt(11, 3), 4),
    ]);
    expectIdle(scheduler);
  });

  test('twice, or after the end, does nothing', async () => {
    const { scheduler, submit } = setUp();
    const task = submit(fakePrompt(3, 1), 2);
    const result = await task.output.result;
    task.abort();
    scheduler.remove(task);
    expect(await task.output.result).toBe(result);
    expect(result.finishReason).toBe('length');
    expectIdle(scheduler);
  });
});

describe('readers that are behind', () => {
  test('pause their request at 64 pieces; others go on', async () => {
    const { scheduler, submit } = setUp({ pages: 200 });
    const slow = submit(fakePrompt(3, 1), 150);
    const reader = slow.output[Symbol.asyncIterator]();
    const other = submit(fakePrompt(4, 2), 150);
    await expectGreedy(other, fakePrompt(4, 2), 150);
    const { steps } = scheduler.stats;
    await settle(20);
    expect(scheduler.stats).toMatchObject({ steps, runningSequences: 1 });
    expect(slow.tokens).toHaveLength(3 + 64);

    let text = '';
    const read = async (pieces: number) => {
      for (let i = 0; i < pieces; i++) text += (await reader.next()).value;
      await settle(80);
    };
    await read(31);
    expect(slow.tokens).toHaveLength(3 + 64);
    await read(1);
    expect(slow.tokens).toHaveLength(3 + 64 + 32); // 64 pieces are unread again
    for (;;) {
      const { done, value } = await reader.next();
      if (done) break;
      text += value;
    }
    expect(text).toBe(textOf(fakeGreedy(fakePrompt(3, 1), 150)));
    await expectGreedy(slow, fakePrompt(3, 1), 150);
    expectIdle(scheduler);
  });

  test('lose their pages to others who need them, and get the same text in the end', async () => {
    const { scheduler, submit } = setUp({ pages: 50 }); // 200 tokens
    const slow = submit(fakePrompt(3, 1), 150);
    const reader = slow.output[Symbol.asyncIterator]();
    await settle(100);
    expect(slow.tokens).toHaveLength(3 + 64);
    // Two arrivals that need nearly all pages, one after the other.
    for (const seed of [2, 3]) {
      await expectGreedy(submit(fakePrompt(150, seed), 20), fakePrompt(150, seed), 20);
    }
    expect(scheduler.stats).toMatchObject({ waitingSequences: 1, runningSequences: 0 });
    expect(scheduler.stats.freePages).toBe(50);
    expect(scheduler.stats.preemptions).toBe(1);
    let text = '';
    for (;;) {
      const { done, value } = await reader.next();
      if (done) break;
      text += value;
    }
    expect(text).toBe(textOf(fakeGreedy(fakePrompt(3, 1), 150)));
    expectIdle(scheduler);
  });

  test('are pushed back before those who read', async () => {
    const { scheduler, submit } = setUp({ pages: 34 }); // 136 tokens
    const slow = submit(fakePrompt(3, 1), 120); // the older one
    slow.output[Symbol.asyncIterator]();
    await settle(100);
    expect(slow.tokens).toHaveLength(67); // 17 pages
    await expectGreedy(submit(fakePrompt(3, 2), 100), fakePrompt(3, 2), 100);
    expect(scheduler.stats).toMatchObject({ preemptions: 1, waitingSequences: 1 });
    slow.abort();
    expectIdle(scheduler);
  });
});

describe('failures', () => {
  test('a step that fails ends its sequences with the error, and no others', async () => {
    const { engine, scheduler, submit } = setUp({ pages: 3 });
    const error = Object.assign(new Error('logits'), { code: 'ALTIPLANO_NUMERIC' });
    engine.nextError = error;
    const failing = submit(fakePrompt(9, 1), 3);
    const waiting = submit(fakePrompt(9, 2), 3);
    const rejection: unknown = await failing.output.result.catch((thrown) => thrown);
    expect(rejection).toBeInstanceOf(AltiplanoError);
    expect(rejection).toMatchObject({ code: 'ALTIPLANO_NUMERIC', cause: error });
    await expectGreedy(waiting, fakePrompt(9, 2), 3);
    expectIdle(scheduler);
  });

  test('a task whose sampling throws fails alone', async () => {
    const { scheduler, submit } = setUp();
    const bans = Object.fromEntries(Array.from({ length: VOCAB }, (_, id) => [id, -Infinity]));
    const failing = submit(fakePrompt(5, 1), 3, { logitBias: bans });
    const other = submit(fakePrompt(5, 2), 3);
    await expect(failing.output.result).rejects.toMatchObject({ code: 'ALTIPLANO_OUT_OF_RANGE' });
    await expectGreedy(other, fakePrompt(5, 2), 3);
    expectIdle(scheduler);
  });

  test('close fails all who run and wait, and resolves when no step runs', async () => {
    const { engine, scheduler, submit } = setUp({ pages: 3 });
    engine.isHeld = true;
    const tasks = [1, 2].map((i) => submit(fakePrompt(9, i), 3));
    await settle();
    const reason = new AltiplanoError('ALTIPLANO_DISPOSED', 'gone');
    const closed = scheduler.close(reason);
    for (const task of tasks) await expect(task.output.result).rejects.toBe(reason);
    await closed;
    expect(engine.isRunning).toBe(false);
    expect(engine.cancels).toBe(1);
    expectIdle(scheduler);
  });
});

test('an idle scheduler runs no steps', async () => {
  const { engine, submit } = setUp();
  await expectGreedy(submit(fakePrompt(3, 1), 2), fakePrompt(3, 1), 2);
  const steps = engine.plans.length;
  await settle(20);
  expect(engine.plans).toHaveLength(steps);
});
