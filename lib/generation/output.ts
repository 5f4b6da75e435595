/**
 * The reader's side of a request: text pieces by asynchronous iteration, with back-pressure, and the
 * result as a promise.
 */
import { invalidArgument } from '../errors.js';
import type { TokenLogprobs } from '../sampling/types.js';

export type FinishReason =
  /** The model ended its text, or a stop string came up. */
  | 'stop'
  /** `maxTokens` or the end of the context. */
  | 'length'
  /** The caller's signal, or an iteration that was left early. */
  | 'abort';

export interface GenerationTimings {
  /** From the call until the request ran for the first time, in milliseconds. */
  queueMs: number;
  /** From then until the first token. */
  prefillMs: number;
  /** From the first token until the last. */
  decodeMs: number;
  /** Prompt tokens over `prefillMs`; 0 if there was no first token. */
  prefillTokensPerSecond: number;
  /** Tokens after the first over `decodeMs`; 0 if there were none. */
  decodeTokensPerSecond: number;
}

export interface GenerationResult {
  /** All of the text; the pieces of the iteration add up to it. */
  text: string;
  /** The ids generated, without the end-of-sequence id. */
  tokens: number[];
  finishReason: FinishReason;
  promptTokens: number;
  /** Length of `tokens`. */
  completionTokens: number;
  /** The seed that was used. */
  seed: number;
  timings: GenerationTimings;
  /** One entry per token, if the option `logprobs` was set. */
  logprobs?: TokenLogprobs[];
}

/**
 * A running request. Iterate it (once) for the text as it comes, or await `result`. While an
 * iteration has many unread pieces, the request pauses; leaving the iteration early aborts it.
 */
export interface Generation extends AsyncIterable<string> {
  /**
   * Resolves when the request ends, `abort` included; rejects if it fails. Who asks for it in the
   * middle of an iteration may be waiting for it there, where nobody reads: the request then pauses
   * no more.
   */
  readonly result: Promise<GenerationResult>;
}

/**
 * Unread pieces at which a request pauses, and at which it goes on: far apart, since a request that
 * pauses may lose its place in the KV cache to others and be computed again.
 */
const MOST_UNREAD_PIECES = 64;
const FEW_UNREAD_PIECES = 32;

type Waiter = { resolve(result: IteratorResult<string>): void; reject(error: unknown): void };

export class Output implements Generation {
  readonly #result: Promise<GenerationResult>;
  #settle!: { resolve(result: GenerationResult): void; reject(error: unknown): void };
  readonly #pieces: string[] = [];
  readonly #waiters: Waiter[] = [];
  #isIterated = false;
  #isClosed = false;
  #isBehind = false;
  /** Whether the reader may wait for the result instead of reading. */
  #isAwaited = false;
  #failure: { error: unknown } | undefined;
  #resume: () => void = () => {};
  readonly #onLeave: () => void;

  /** @param onLeave called when the reader leaves the iteration early */
  constructor(onLeave: () => void) {
    this.#onLeave = onLeave;
    this.#result = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
  }

  get result(): Promise<GenerationResult> {
    const wasFull = this.isFull;
    if (this.#isIterated) this.#isAwaited = true;
    if (wasFull) this.#resume();
    return this.#result;
  }

  /** True while the reader is behind. Who does not iterate is never behind. */
  get isFull(): boolean {
    return this.#isBehind && this.#isIterated && !this.#isAwaited && !this.#isClosed;
  }

  onResume(resume: () => void): void {
    this.#resume = resume;
  }

  /** Adds text; empty text is no piece. */
  write(text: string): void {
    if (text === '' || this.#isClosed) return;
    const waiter = this.#waiters.shift();
    if (waiter === undefined) this.#pieces.push(text);
    else waiter.resolve({ done: false, value: text });
    if (this.#pieces.length >= MOST_UNREAD_PIECES) this.#isBehind = true;
  }

  end(result: GenerationResult): void {
    this.#close();
    this.#settle.resolve(result);
  }

  fail(error: unknown): void {
    this.#failure = { error };
    // The iteration reports it: a result that nobody reads is then no unhandled rejection.
    if (this.#isIterated) this.#result.catch(() => {});
    this.#settle.reject(error);
    this.#close();
  }

  #close(): void {
    this.#isClosed = true;
    const waiters = this.#waiters.splice(0);
    const failure = waiters.length > 0 ? this.#takeFailure() : undefined;
    if (failure !== undefined) waiters.shift()!.reject(failure.error);
    for (const waiter of waiters) waiter.resolve({ done: true, value: undefined });
  }

  /** The failure is reported once, then the iteration is over. */
  #takeFailure(): { error: unknown } | undefined {
    const failure = this.#failure;
    this.#failure = undefined;
    return failure;
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<string> {
    if (this.#isIterated) {
      throw invalidArgument('a generation can be iterated once only', {
        hint: 'Await "result" for the whole text',
      });
    }
    this.#isIterated = true;
    if (this.#failure !== undefined) this.#result.catch(() => {});
    return {
      next: () => this.#next(),
      return: async () => {
        if (!this.#isClosed) this.#onLeave();
        this.#pieces.length = 0; // what leaving brought out is not read any more either
        this.#failure = undefined;
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #next(): Promise<IteratorResult<string>> {
    const wasFull = this.isFull;
    const piece = this.#pieces.shift();
    if (piece !== undefined) {
      if (this.#pieces.length <= FEW_UNREAD_PIECES) this.#isBehind = false;
      if (wasFull && !this.isFull) this.#resume();
      return Promise.resolve({ done: false, value: piece });
    }
    const failure = this.#takeFailure();
    if (failure !== undefined) return Promise.reject(failure.error);
    if (this.#isClosed) return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }
}
