/**
 * The step loop: continuous batching over a paged KV cache, as in vLLM (Kwon et al., "Efficient
 * Memory Management for Large Language Model Serving with PagedAttention", 2023). All sequences that
 * have pages share each step. Arrivals wait for pages, the oldest first, but only as long as there are
 * too few for them; a running sequence that gets no page pushes the youngest one back, which is
 * recomputed later. Logits do not depend on the batch, so that none of this changes a text.
 *
 * Two steps are under way at once, so that the device, or the processor's threads, do not wait for
 * JavaScript: the next one is planned and submitted before the answers of the running one are there.
 * It goes on with prompts, and with sequences whose next token is the best of its row: the plan then
 * says "what row r of the step before chose". If another sequence must see its row first, the next
 * step waits for it, for two smaller steps would read all weights twice. A token that was computed for
 * a sequence that has ended meanwhile is thrown away; a step that computes nothing else is cancelled.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AltiplanoError } from '../errors.js';
import { fromNative, type NativeEngine, type StepPlan } from '../native.js';
import { LEAST_PROMPT_TOKENS, Pace } from './pace.js';
import { PagePool } from './pages.js';
import { buildPlan, type Stretch, splitResult } from './plan.js';
import type { Task } from './task.js';

export interface SchedulerOptions {
  pages: number;
  pageTokens: number;
  vocabSize: number;
  /** The most tokens in one step. */
  maxStepTokens: number;
  /** Steps that may be under way at once. Default 1. */
  stepsInFlight?: 1 | 2;
}

/**
 * Sampling for many sequences, from whole rows or with penalties over a long text, takes tens of
 * milliseconds a step: after this long the event loop gets its turn.
 */
const SYNCHRONOUS_MS = 4;

/** A task with its place in the KV cache. */
interface Sequence {
  task: Task;
  /** Arrival number: the age that preemption goes by. */
  arrival: number;
  pages: number[];
  /** Tokens whose keys and values are in the cache, or will be after the steps under way. */
  cachedTokens: number;
  /** Steps under way that it waits for an answer of. */
  awaitedAnswers: number;
  /** The last row that it wants of the last step that computes something of it. */
  lastRow: number;
  hasStarted: boolean;
}

interface StepItem extends Stretch {
  sequence: Sequence;
}

/** A step that was submitted. */
interface Flight {
  items: readonly StepItem[];
  plan: StepPlan;
  answer: ReturnType<NativeEngine['step']>;
  submittedAt: number;
  /** The step before failed, and this one may have gone on with what that should have computed. */
  isVoid: boolean;
}

export interface SchedulerStats {
  runningSequences: number;
  waitingSequences: number;
  freePages: number;
  pages: number;
  /** Steps so far. */
  steps: number;
  /** The most sequences that shared one step. */
  mostSequencesInStep: number;
  /** How often a running sequence was pushed back. */
  preemptions: number;
}

export class Scheduler {
  readonly #engine: NativeEngine;
  readonly #options: SchedulerOptions;
  readonly #pool: PagePool;
  /** In order of arrival; the pushed back ones are first again. */
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  readonly #sequences = new Map<Task, Sequence>();
  /** The oldest first. */
  #flights: Flight[] = [];
  #loop: Promise<void> | undefined;
  /** Whether something came or changed since the loop last looked. */
  #isWoken = false;
  #closed: { reason: unknown } | undefined;
  #arrivals = 0;
  #steps = 0;
  #mostSequencesInStep = 0;
  #preemptions = 0;
  readonly #pace = new Pace();

  constructor(engine: NativeEngine, options: SchedulerOptions) {
    this.#engine = engine;
    this.#options = options;
    this.#pool = new PagePool(options.pages);
  }

  get stats(): SchedulerStats {
    return {
      runningSequences: this.#running.length,
      waitingSequences: this.#waiting.length,
      freePages: this.#pool.freePages,
      pages: this.#pool.size,
      steps: this.#steps,
      mostSequencesInStep: this.#mostSequencesInStep,
      preemptions: this.#preemptions,
    };
  }

  /** Tokens of one sequence that the whole cache could hold. */
  get capacityTokens(): number {
    return this.#pool.size * this.#options.pageTokens;
  }

  /** Queues a task, which must fit into {@link capacityTokens}; fails it after {@link close}. */
  add(task: Task): void {
    if (this.#closed !== undefined) {
      task.fail(this.#closed.reason);
      return;
    }
    const sequence: Sequence = {
      task,
      arrival: this.#arrivals++,
      pages: [],
      cachedTokens: 0,
      awaitedAnswers: 0,
      lastRow: 0,
      hasStarted: false,
    };
    this.#sequences.set(task, sequence);
    this.#waiting.push(sequence);
    task.onResume(() => this.#wake());
    this.#wake();
  }

  /**
   * Takes a task out, wherever it is; its pages are free at once. (A step that still writes to them
   * ends before any later step starts.) Steps that compute nothing else any more are cancelled.
   */
  remove(task: Task): void {
    const sequence = this.#sequences.get(task);
    if (sequence === undefined) return;
    this.#drop(sequence);
    this.#wake(); // its pages may let others in
  }

  /** Fails every task, those to come as well, and resolves when no step runs any more. */
  async close(reason: unknown): Promise<void> {
    this.#closed ??= { reason };
    for (const { task } of [...this.#sequences.values()]) {
      this.remove(task);
      task.fail(reason);
    }
    await this.#loop;
  }

  #drop(sequence: Sequence): void {
    this.#sequences.delete(sequence.task);
    removeFrom(this.#waiting, sequence);
    removeFrom(this.#running, sequence);
    this.#releasePages(sequence);
    const items = this.#flights.flatMap((flight) => flight.items);
    if (
      items.some((item) => item.sequence === sequence) &&
      items.every((item) => !this.#sequences.has(item.sequence.task))
    ) {
      this.#engine.cancel();
    }
  }

  #releasePages(sequence: Sequence): void {
    for (const page of sequence.pages) this.#pool.release(page);
    sequence.pages = [];
    sequence.cachedTokens = 0;
  }

  #wake(): void {
    this.#isWoken = true;
    this.#loop ??= this.#run().finally(() => {
      this.#loop = undefined;
      // Something may have come while the loop ended.
      if (this.#isWoken) this.#wake();
    });
  }

  async #run(): Promise<void> {
    await undefined; // callers of the same turn of the event loop share the first step
    try {
      for (;;) {
        while (this.#canSubmit()) {
          this.#isWoken = false;
          this.#admit();
          const items = this.#planStep();
          if (items.length === 0) break;
          this.#submit(items);
        }
        const flight = this.#flights[0];
        if (flight === undefined) return;
        await this.#finish(flight);
      }
    } catch (error) {
      for (const sequence of [...this.#sequences.values()]) this.#fail(sequence, error);
      await Promise.allSettled(this.#flights.map(({ answer }) => answer));
      this.#flights = [];
    }
  }

  /** Whether the next step can be planned, for all sequences. */
  #canSubmit(): boolean {
    if (this.#flights.length === 0) return true;
    if (this.#flights.length >= (this.#options.stepsInFlight ?? 1)) return false;
    if (this.#flights.some(({ isVoid }) => isVoid)) return false;
    if (this.#flights.some(({ items }) => this.#pace.isLong(items))) return false;
    return this.#running.every(
      (s) => s.task.isPaused || !isAwaiting(s) || s.task.ahead() !== undefined,
    );
  }

  /**
   * Lets waiting sequences in that find pages for all of their tokens, the oldest first. One that
   * needs more than there is does not hold up those behind it; it gets their pages back as soon as
   * that is enough, so that it is overtaken, but never for good.
   */
  #admit(): void {
    for (const sequence of [...this.#waiting]) {
      // One that was pushed back while a step computed it first gets its answer.
      if (sequence.awaitedAnswers > 0) continue;
      if (sequence.task.isPaused || !this.#makeRoom(sequence)) continue;
      removeFrom(this.#waiting, sequence);
      this.#running.push(sequence);
      this.#running.sort((a, b) => a.arrival - b.arrival);
    }
  }

  /** Gives an arrival its pages; those who do not run anyway and younger ones are pushed back. */
  #makeRoom(sequence: Sequence): boolean {
    const yielding = this.#running.filter((s) => s.task.isPaused || s.arrival > sequence.arrival);
    const yielded = yielding.reduce((pages, s) => pages + s.pages.length, 0);
    const tokens = sequence.task.tokens.length;
    if (this.#missingPages(sequence, tokens) > this.#pool.freePages + yielded) return false;
    while (!this.#reserve(sequence, tokens)) {
      const victim = yielding.findLast((s) => s.task.isPaused) ?? yielding[yielding.length - 1]!;
      removeFrom(yielding, victim);
      this.#preempt(victim);
    }
    return true;
  }

  #missingPages(sequence: Sequence, tokens: number): number {
    return Math.ceil(tokens / this.#options.pageTokens) - sequence.pages.length;
  }

  /** Gives a sequence pages for `tokens` tokens; all or none. */
  #reserve(sequence: Sequence, tokens: number): boolean {
    const missing = this.#missingPages(sequence, tokens);
    if (missing > this.#pool.freePages) return false;
    for (let i = 0; i < missing; i++) sequence.pages.push(this.#pool.allocate()!);
    return true;
  }

  /** What the next step computes: the next token of each sequence first, then prompts. */
  #planStep(): StepItem[] {
    const items: StepItem[] = [];
    const { maxStepTokens } = this.#options;
    const isPrompt = (s: Sequence) => !s.task.isPaused && uncached(s) > 1;
    // Prompts get on however many sequences decode.
    let budget = this.#running.some(isPrompt)
      ? maxStepTokens - Math.min(LEAST_PROMPT_TOKENS, maxStepTokens >> 1)
      : maxStepTokens;
    const decoding = this.#running.filter(
      (s) => !s.task.isPaused && (uncached(s) === 1 || goesAhead(s)),
    );
    // Where not all fit into a step, those that came last start the next one.
    if (decoding.length > budget)
      decoding.push(...decoding.splice(0, this.#steps % decoding.length));
    for (const sequence of decoding) {
      if (budget === 0) break;
      if (!this.#running.includes(sequence) || !this.#growPages(sequence)) continue;
      items.push(this.#item(sequence, 1));
      budget--;
    }
    const prompts = this.#running.filter(isPrompt);
    const left = prompts.reduce((sum, sequence) => sum + uncached(sequence), 0);
    const promptBudget = this.#pace.promptTokens(left, items.length > 0, maxStepTokens);
    budget = Math.min(maxStepTokens - items.length, promptBudget);
    for (const [sequence, tokens] of sharePrompts(prompts, budget)) {
      items.push(this.#item(sequence, tokens));
    }
    // A preemption for a later sequence may have taken the pages of an earlier item.
    return items.filter((item) => item.sequence.pages.length > 0);
  }

  #item(sequence: Sequence, count: number): StepItem {
    const { task, pages, cachedTokens: begin, lastRow } = sequence;
    const ahead = isAwaiting(sequence) ? task.ahead() : undefined;
    if (typeof ahead === 'object') {
      const rows = [{ position: begin, request: ahead }];
      return { sequence, begin, pages, tokens: [-(lastRow + 1)], rows };
    }
    const tokens = task.tokens.slice(begin, begin + count);
    return { sequence, begin, pages, tokens, rows: task.wanted(begin, begin + count) };
  }

  /** Makes room for the next token of a running sequence, pushing others back if need be. */
  #growPages(sequence: Sequence): boolean {
    const tokens = sequence.task.tokens.length + Number(isAwaiting(sequence));
    while (!this.#reserve(sequence, tokens)) {
      // Those whose reader is behind go first, then the youngest.
      const victim =
        this.#running.findLast((s) => s.task.isPaused) ?? this.#running[this.#running.length - 1]!;
      this.#preempt(victim);
      if (victim === sequence) return false;
    }
    return true;
  }

  #preempt(sequence: Sequence): void {
    this.#preemptions++;
    this.#releasePages(sequence);
    removeFrom(this.#running, sequence);
    this.#waiting.push(sequence);
    this.#waiting.sort((a, b) => a.arrival - b.arrival);
  }

  #submit(items: readonly StepItem[]): void {
    let row = -1;
    for (const { sequence, begin, tokens, rows } of items) {
      if (!sequence.hasStarted) sequence.task.started();
      sequence.hasStarted = true;
      sequence.cachedTokens = begin + tokens.length;
      row += rows.length;
      if (rows.length > 0) {
        sequence.awaitedAnswers++;
        sequence.lastRow = row;
      }
    }
    const plan = buildPlan(items, this.#options.pageTokens);
    const submittedAt = performance.now();
    const answer = this.#engine.step(plan);
    answer.catch(() => {}); // `#finish` hears of it, when it is this step's turn
    this.#flights.push({ items, plan, answer, submittedAt, isVoid: false });
  }

  /** Waits for the oldest step and hands out its answers. */
  async #finish(flight: Flight): Promise<void> {
    const { items, plan, answer } = flight;
    let results: ReturnType<typeof splitResult> | undefined;
    try {
      results = splitResult(plan, await answer, this.#options.vocabSize);
    } catch (thrown) {
      const error = fromNative(thrown);
      // Only steps whose tasks have all been removed or have ended are cancelled.
      if ((error as Partial<AltiplanoError>).code !== 'ALTIPLANO_ABORTED' && !flight.isVoid) {
        for (const { sequence } of items) this.#fail(sequence, error);
        for (const other of this.#flights) other.isVoid = other !== flight;
      }
    }
    removeFrom(this.#flights, flight);
    for (const { sequence, rows } of items) {
      if (rows.length > 0) sequence.awaitedAnswers--;
    }
    if (flight.isVoid) {
      // Those that had nothing to do with the failure are computed again.
      for (const { sequence } of items)
        if (this.#running.includes(sequence)) this.#preempt(sequence);
    } else if (results !== undefined) {
      this.#steps++;
      this.#mostSequencesInStep = Math.max(this.#mostSequencesInStep, items.length);
      this.#pace.learn(items, flight.submittedAt);
      await this.#handOut(items, results);
    }
  }

  async #handOut(
    items: readonly StepItem[],
    results: ReturnType<typeof splitResult>,
  ): Promise<void> {
    let row = 0;
    let turnEnds = performance.now() + SYNCHRONOUS_MS;
    for (const { sequence, rows } of items) {
      if (performance.now() >= turnEnds) {
        await nextTurn(); // tasks may be added and removed meanwhile
        turnEnds = performance.now() + SYNCHRONOUS_MS;
      }
      const answers = results.slice(row, row + rows.length);
      row += rows.length;
      if (!this.#sequences.has(sequence.task)) continue; // removed meanwhile
      if (answers.length > 0) this.#deliver(sequence, answers);
    }
  }

  #deliver(sequence: Sequence, answers: ReturnType<typeof splitResult>): void {
    let verdict: ReturnType<Task['accept']>;
    try {
      verdict = sequence.task.accept(answers);
    } catch (error) {
      this.#fail(sequence, error);
      return;
    }
    if (verdict === 'done') this.#drop(sequence);
    // Unless it has been pushed back, and all of it is computed again.
    else if (verdict === 'again' && sequence.pages.length > 0) sequence.cachedTokens--;
  }

  #fail(sequence: Sequence, error: unknown): void {
    if (!this.#sequences.has(sequence.task)) return;
    this.#drop(sequence);
    sequence.task.fail(error);
  }
}

/**
 * How many tokens of each prompt a step computes. They share evenly, so that none waits for a longer
 * one to end; what the short ones leave goes to the others.
 * @param prompts in order of arrival
 */
function sharePrompts(prompts: readonly Sequence[], budget: number): Map<Sequence, number> {
  const shares = new Map<Sequence, number>();
  // With too little for all, the oldest come first: they are sure to get on.
  const order =
    budget < prompts.length ? prompts : prompts.toSorted((a, b) => uncached(a) - uncached(b));
  let left = budget;
  for (const [i, sequence] of order.entries()) {
    if (left === 0) break;
    const tokens = Math.min(uncached(sequence), Math.ceil(left / (order.length - i)));
    shares.set(sequence, tokens);
    left -= tokens;
  }
  return shares;
}

/** Tokens that are known but not computed. Below zero where a step has gone ahead. */
function uncached(sequence: Sequence): number {
  return sequence.task.tokens.length - sequence.cachedTokens;
}

/** Whether all known tokens are computed, and the next one hangs on the step under way. */
function isAwaiting(sequence: Sequence): boolean {
  return sequence.awaitedAnswers > 0 && uncached(sequence) <= 0;
}

/** Whether a step can compute the next token although it is not known yet. */
function goesAhead(sequence: Sequence): boolean {
  return isAwaiting(sequence) && typeof sequence.task.ahead() === 'object';
}

function removeFrom<T>(array: T[], item: T): void {
  const index = array.indexOf(item);
  if (index !== -1) array.splice(index, 1);
}
