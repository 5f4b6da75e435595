/** A context without a process: streams that collect text, Ctrl-C on demand, a model that echoes. */
import { PassThrough, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CliContext, Library } from '../../lib/cli/context.js';
import { AltiplanoError } from '../../lib/errors.js';
import type { ChatMessage } from '../../lib/index.js';
import type { GenerateOptions } from '../../lib/options.js';

class Collector extends Writable {
  text = '';
  isTTY = false;
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

export interface FakeContext extends CliContext {
  stdin: PassThrough & { isTTY?: boolean };
  stdout: Collector;
  stderr: Collector;
  env: Record<string, string | undefined>;
  interrupt(): void;
  warn(warning: Error): void;
  closeOutput(code: string): void;
  exits: number[];
  model: FakeModel;
}

/** A context whose standard input holds `input`. */
export function fakeContext(input = '', model = new FakeModel()): FakeContext {
  const interrupts = new Set<() => void>();
  const warnings = new Set<(warning: Error) => void>();
  const closed = new AbortController();
  const stdin = new PassThrough();
  stdin.end(input);
  const context: FakeContext = {
    stdin,
    stdout: new Collector(),
    stderr: new Collector(),
    env: {},
    outputClosed: closed.signal,
    onInterrupt(listener) {
      interrupts.add(listener);
      return () => interrupts.delete(listener);
    },
    onWarning: (listener) => warnings.add(listener),
    exitNow: (exitCode) => context.exits.push(exitCode),
    library: async () =>
      ({
        Llama: {
          load: async (source: string | undefined, options: object) => {
            model.loaded = { source, options };
            if (model.failure !== undefined) throw model.failure;
            return model;
          },
        },
      }) as unknown as Library,
    interrupt: () => {
      for (const listener of interrupts) listener();
    },
    warn: (warning) => {
      for (const listener of warnings) listener(warning);
    },
    closeOutput: (code) => closed.abort(Object.assign(new Error(`write ${code}`), { code })),
    exits: [],
    model,
  };
  return context;
}

/** Answers with `reply` word by word; a token is a character. */
export class FakeModel {
  loaded?: { source: string | undefined; options: object };
  /** What loading throws. */
  failure?: Error;
  disposed = 0;
  readonly requests: { prompt: string | readonly ChatMessage[]; options: GenerateOptions }[] = [];
  reply: (prompt: string) => string = (prompt) => `re: ${prompt}`;
  /** Called after each piece. */
  onPiece: (piece: string) => void = () => {};
  info = {
    name: 'fake',
    weights: 'f32',
    activations: 'f32',
    kv: 'f32',
    threads: 1,
    contextTokens: 1000,
    kvCacheTokens: 1000,
    loadMs: 7,
  };

  chatTokens(messages: readonly ChatMessage[]): number[] {
    for (const { content } of messages) {
      if (!content.includes('[INST]')) continue;
      throw new AltiplanoError('ALTIPLANO_CHAT_INJECTION', 'a message contains [INST]');
    }
    return messages.flatMap(({ content }) => Array.from(content, () => 5));
  }

  chat(messages: readonly ChatMessage[], options: GenerateOptions) {
    this.chatTokens(messages);
    return this.run(messages, messages.at(-1)!.content, options);
  }

  generate(prompt: string, options: GenerateOptions) {
    return this.run(prompt, prompt, options);
  }

  private run(prompt: string | readonly ChatMessage[], last: string, options: GenerateOptions) {
    this.requests.push({ prompt: structuredClone(prompt), options });
    const { onPiece, reply } = this;
    let text = '';
    let finish: (result: object) => void = () => {};
    const result = new Promise<object>((resolve) => {
      finish = resolve;
    });
    const pieces = reply(last).split(/(?<= )/);
    async function* iterate() {
      for (const piece of pieces) {
        await sleep(1);
        if (options.signal?.aborted) break;
        text += piece;
        yield piece;
        onPiece(piece);
      }
      finish(outcome());
    }
    const outcome = () => ({
      text: text || pieces.join(''),
      tokens: [10, 11],
      promptTokens: 3,
      completionTokens: 2,
      finishReason: options.signal?.aborted ? 'abort' : 'stop',
      seed: 9,
      timings: { prefillTokensPerSecond: 100, decodeTokensPerSecond: 50 },
    });
    const iterator = iterate();
    // Like a real request, it runs whether or not somebody iterates.
    if (options.maxTokens === 1) finish(outcome());
    return { result, [Symbol.asyncIterator]: () => iterator };
  }

  async dispose(): Promise<void> {
    this.disposed++;
  }
}
