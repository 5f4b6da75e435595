/** A request for text: sampling, decoding, stop conditions and the result, as a scheduler task. */
import { onAbort } from '../abort.js';
import type { ResolvedGenerateOptions } from '../options.js';
import {
  type RowRequest,
  type RowResult,
  Sampler,
  StopStrings,
  type TokenLogprobs,
} from '../sampling/index.js';
import type { StreamingDecoder } from '../tokenizer/index.js';
import { type FinishReason, type GenerationTimings, Output } from './output.js';
import type { WantedRow } from './plan.js';
import type { Task } from './task.js';

export interface GenerateTaskOptions {
  prompt: readonly number[];
  options: ResolvedGenerateOptions;
  vocabSize: number;
  /** The most tokens to generate, at least 1. */
  mostNewTokens: number;
  /** Ids that end the text. */
  endIds: ReadonlySet<number>;
  /** Absent without a tokenizer: the text is then empty. */
  decoder?: StreamingDecoder;
  /** Called when the reader leaves early or the signal fires: takes the task out of the scheduler. */
  remove: (task: GenerateTask) => void;
}

export class GenerateTask implements Task {
  readonly tokens: number[];
  readonly output: Output;
  readonly #setup: GenerateTaskOptions;
  readonly #sampler: Sampler;
  readonly #stops: StopStrings;
  readonly #generated: number[] = [];
  readonly #logprobs: TokenLogprobs[] = [];
  /** What is asked of the row that chooses the next token. */
  #request: RowRequest | undefined;
  #text: string[] = [];
  #isOver = false;
  readonly #submittedAt = performance.now();
  #startedAt = 0;
  #firstTokenAt = 0;
  readonly #stopListening: () => void;

  constructor(setup: GenerateTaskOptions) {
    this.#setup = setup;
    this.tokens = [...setup.prompt];
    this.#sampler = new Sampler(setup.options, setup.vocabSize);
    this.#stops = new StopStrings(setup.options.stop);
    this.output = new Output(() => this.abort());
    this.#stopListening = onAbort(setup.options.signal, () => this.abort());
  }

  get isPaused(): boolean {
    return this.output.isFull;
  }

  onResume(wake: () => void): void {
    this.output.onResume(wake);
  }

  started(): void {
    this.#startedAt = performance.now();
  }

  /** Ends the request where it is; what was generated so far is its result. */
  abort(): void {
    if (this.#isOver) return;
    this.#setup.remove(this);
    this.#finish('abort');
  }

  wanted(_begin: number, end: number): WantedRow[] {
    if (end < this.tokens.length) return [];
    this.#request ??= this.#nextRequest();
    return [{ position: end - 1, request: this.#request }];
  }

  ahead(): WantedRow['request'] | 'ends' | undefined {
    if (this.#generated.length + 1 >= this.#setup.mostNewTokens) return 'ends';
    return this.#sampler.takesBest ? this.#request : undefined;
  }

  #nextRequest(): RowRequest {
    return this.#sampler.request({ prompt: this.#setup.prompt, generated: this.#generated });
  }

  accept([row]: RowResult[]): 'more' | 'again' | 'done' {
    const choice = this.#sampler.choose(row!, this.#request!, this.#generated.length);
    if (choice === 'full-row') {
      this.#request = { ...this.#request!, fullRow: true };
      return 'again';
    }
    if (this.#generated.length === 0) this.#firstTokenAt = performance.now();

    const { endIds, mostNewTokens, decoder } = this.#setup;
    if (endIds.has(choice.id)) return this.#finish('stop');
    this.tokens.push(choice.id);
    this.#generated.push(choice.id);
    if (choice.logprobs !== undefined) this.#logprobs.push(choice.logprobs);
    const { text, stopped } = this.#stops.push(decoder?.push(choice.id) ?? '');
    this.#write(text);
    if (stopped) return this.#finish('stop');
    if (this.#generated.length >= mostNewTokens) return this.#finish('length');
    // Here rather than in `wanted`: between answers the scheduler lets the event loop run.
    this.#request = this.#nextRequest();
    return 'more';
  }

  #write(text: string): void {
    this.#text.push(text);
    this.output.write(text);
  }

  #finish(reason: FinishReason): 'done' {
    this.#isOver = true;
    this.#stopListening();
    // What waited for the rest of a character or of a stop string.
    const { text, stopped } = this.#stops.push(this.#setup.decoder?.end() ?? '');
    this.#write(text);
    if (!stopped) this.#write(this.#stops.end());
    this.output.end({
      text: this.#text.join(''),
      tokens: this.#generated,
      finishReason: reason,
      promptTokens: this.#setup.prompt.length,
      completionTokens: this.#generated.length,
      seed: this.#setup.options.seed,
      timings: this.#timings(),
      ...(this.#setup.options.logprobs === null ? {} : { logprobs: this.#logprobs }),
    });
    return 'done';
  }

  fail(error: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stopListening();
    this.output.fail(error);
  }

  #timings(): GenerationTimings {
    const now = performance.now();
    const startedAt = this.#startedAt || now;
    const firstTokenAt = this.#firstTokenAt || now;
    const perSecond = (count: number, ms: number) =>
      count > 0 && ms > 0 ? (1000 * count) / ms : 0;
    const prefillMs = firstTokenAt - startedAt;
    const decodeMs = now - firstTokenAt;
    return {
      queueMs: startedAt - this.#submittedAt,
      prefillMs,
      decodeMs,
      prefillTokensPerSecond:
        this.#firstTokenAt === 0 ? 0 : perSecond(this.#setup.prompt.length, prefillMs),
      decodeTokensPerSecond: perSecond(this.#generated.length - 1, decodeMs),
    };
  }
}
