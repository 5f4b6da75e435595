/** `altiplano chat`: a conversation in the terminal, or over lines of standard input. */
import { createInterface } from 'node:readline';
import { Command } from 'commander';
import { AltiplanoError } from '../errors.js';
import type { Llama } from '../index.js';
import { type Asked, ask } from './ask.js';
import type { CliContext } from './context.js';
import { Conversation } from './conversation.js';
import {
  EXIT_FAILURE,
  EXIT_INTERRUPTED,
  EXIT_OK,
  interruptible,
  reportError,
  UsageError,
} from './failure.js';
import {
  addModelOptions,
  addSamplingOptions,
  type ModelFlags,
  type SamplingFlags,
  samplingOptions,
} from './flags.js';
import { loadModel } from './loading.js';
import { plural, printable, styles, write } from './output.js';
import type { Finish } from './program.js';

interface ChatFlags extends ModelFlags, SamplingFlags {
  system?: string;
}

const COMMANDS = `/help          this list
/system TEXT   set the system message (without TEXT: remove it) and start over
/reset         forget the conversation and start over
/exit          leave (also Ctrl-D)
Ctrl-C stops an answer; at the prompt it leaves. The part that came stays in the conversation.
Pasted lines are one message; a line that ends in \\ goes on in the next. Up and down: history.
`;

const DETAILS = `
In a terminal:
${COMMANDS.replace(/^/gm, '  ').trimEnd()}

When standard input is no terminal, each of its lines is a message, empty lines are skipped, commands
have no meaning, and only the answers go to standard output. A message that is refused is reported on
standard error; the conversation goes on, and the exit code is 1 in the end.

When the context is full, the oldest turns are dropped; a note says so. A quarter of the context
(at most 512 tokens, or --max-tokens) is kept free for the answer.

Examples:
  altiplano chat
  altiplano chat --system "Answer in one word." --temperature 0
  altiplano chat --model ~/models/llama-2-7b-chat --weights int8
  printf 'My name is Mia.\\nWhat is my name?\\n' | altiplano chat
`;

export function chatCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('chat')
    .summary('talk with the model')
    .description('Holds a conversation with the model.')
    .option('--system <text>', 'system message: who the model is and how it answers');
  addModelOptions(addSamplingOptions(command));
  return command.addHelpText('after', DETAILS).action(async (flags: ChatFlags) => {
    finish(await chat(context, flags));
  });
}

/** Runs the command. @returns the exit code */
export async function chat(context: CliContext, flags: ChatFlags): Promise<number> {
  let model: Llama | undefined;
  const loaded = await interruptible(context, async (signal) => {
    model = await loadModel(context, flags, signal);
    return EXIT_OK;
  });
  if (model === undefined) return loaded;
  try {
    if (loaded !== EXIT_OK) return loaded;
    const session = new Session(context, model, flags);
    return await (context.stdin.isTTY ? session.talk() : session.answerLines());
  } finally {
    await model.dispose();
  }
}

class Session {
  private readonly conversation: Conversation;
  /** Tokens of the context that requests of this session can use. */
  private readonly contextTokens: number;

  constructor(
    private readonly context: CliContext,
    private readonly model: Llama,
    private readonly flags: ChatFlags,
  ) {
    this.contextTokens = Math.min(model.info.contextTokens, model.info.kvCacheTokens);
    this.conversation = new Conversation();
    if (flags.system !== undefined) this.setSystem(flags.system);
  }

  /** Refuses a system message that no request could contain. */
  private setSystem(system: string): void {
    const trial = new Conversation(system);
    const tokens = this.model.chatTokens(trial.messages('Hello')).length;
    if (tokens >= this.contextTokens) {
      throw new UsageError(
        `the system message has ${tokens} tokens, more than the context of ${this.contextTokens} can hold`,
      );
    }
    this.conversation.system = system;
    this.conversation.turns.length = 0;
  }

  private note(text: string): void {
    const { dim } = styles(this.context, this.context.stderr);
    this.context.stderr.write(`${dim(text)}\n`);
  }

  /** Standard input is no terminal: one message a line. */
  answerLines(): Promise<number> {
    return interruptible(this.context, async (signal) => {
      let exitCode = EXIT_OK;
      const lines = createInterface({ input: this.context.stdin, crlfDelay: Infinity, signal });
      for await (const line of lines) {
        if (signal.aborted) break;
        if (line.trim() === '') continue;
        if (!(await this.answer(line, signal))) exitCode = EXIT_FAILURE;
      }
      return exitCode;
    });
  }

  /** Standard input is a terminal. */
  async talk(): Promise<number> {
    const { context } = this;
    // Between and during questions the terminal is not in raw mode: Ctrl-C arrives as a signal.
    let interrupt = () => context.exitNow(EXIT_INTERRUPTED);
    const leave = interrupt;
    const forget = context.onInterrupt(() => interrupt());
    const history: string[] = [];
    this.greet();
    try {
      for (;;) {
        const asked = await this.ask(history);
        if (asked.kind === 'end') return EXIT_OK;
        if (asked.kind === 'interrupt') return EXIT_INTERRUPTED;
        const text = asked.text.trim();
        if (text === '/exit' || text === '/quit') return EXIT_OK;
        if (text === '' || this.command(text, asked.text)) continue;
        const stop = new AbortController();
        interrupt = () => {
          stop.abort();
          interrupt = leave;
        };
        await this.answer(asked.text, AbortSignal.any([stop.signal, context.outputClosed]));
        interrupt = leave;
        if (context.outputClosed.aborted) return EXIT_OK;
      }
    } finally {
      forget();
    }
  }

  private greet(): void {
    const { name, weights, kv, threads } = this.model.info;
    this.note(
      `${name} · weights ${weights} · KV cache ${kv} · ${plural(threads, 'thread')} · ` +
        `context ${plural(this.contextTokens, 'token')}\n` +
        'Type a message and press Enter. /help shows more, Ctrl-D leaves.',
    );
  }

  private async ask(history: string[]): Promise<Asked> {
    const { stdin, stdout, stderr } = this.context;
    // Answers may go to a file while the conversation is typed in a terminal.
    const output = stdout.isTTY ? stdout : stderr;
    const { prompt, dim } = styles(this.context, output);
    const asked = await ask({
      input: stdin,
      output,
      prompt: prompt('> '),
      continuation: dim('. '),
      history,
    });
    if (asked.kind !== 'message') await write(output, '\n');
    return asked;
  }

  /** Carries out a command; false if `text` is none. A space in front makes it a message. */
  private command(text: string, typed: string): boolean {
    if (!typed.startsWith('/')) return false;
    const [name, ...rest] = text.split(/\s+/);
    switch (name) {
      case '/help':
        this.note(COMMANDS.trimEnd());
        return true;
      case '/reset':
        this.conversation.turns.length = 0;
        this.note('The conversation starts over.');
        return true;
      case '/system':
        this.changeSystem(text.slice('/system'.length).trim(), rest.length === 0);
        return true;
      default:
        this.note(
          `There is no command ${name}: /help shows them. To send it as a message, put a space before it.`,
        );
        return true;
    }
  }

  private changeSystem(system: string, remove: boolean): void {
    if (remove) {
      this.conversation.system = undefined;
      this.conversation.turns.length = 0;
      this.note('No system message; the conversation starts over.');
      return;
    }
    try {
      this.setSystem(system);
      this.note('The system message is set; the conversation starts over.');
    } catch (error) {
      reportError(this.context, error, false);
    }
  }

  /**
   * Answers `user` and keeps the turn. An answer that was stopped is kept as far as it came; a
   * message that was refused, or stopped before its answer began, is not.
   * @returns false if the message was refused; the reason has been reported
   */
  private async answer(user: string, signal: AbortSignal): Promise<boolean> {
    const { stdout } = this.context;
    let text = '';
    try {
      this.makeRoom(user);
      const options = { ...samplingOptions(this.flags), signal };
      const generation = this.model.chat(this.conversation.messages(user), options);
      try {
        for await (const piece of generation) {
          text += piece;
          await write(stdout, printable(stdout, piece));
        }
      } catch (error) {
        if (!signal.aborted) throw error;
      }
      await write(stdout, text.endsWith('\n') ? '' : '\n');
      if (!signal.aborted && (await generation.result).finishReason === 'length') {
        this.note('[The answer ends here: --max-tokens or the end of the context is reached.]');
      }
    } catch (error) {
      if (!(error instanceof AltiplanoError) && !(error instanceof UsageError)) throw error;
      if (text !== '') await write(stdout, '\n');
      reportError(this.context, error, false);
      return false;
    }
    if (text.trim() !== '') this.keep(user, text);
    if (signal.aborted && !this.context.outputClosed.aborted) {
      this.note(
        text.trim() === ''
          ? '[Stopped before the answer began; your message is forgotten.]'
          : '[Stopped. What came so far stays in the conversation.]',
      );
    }
    return true;
  }

  /** Keeps a turn, unless no later request could contain it. */
  private keep(user: string, assistant: string): void {
    const { turns } = this.conversation;
    turns.push({ user, assistant });
    try {
      this.model.chatTokens(this.conversation.messages('Hello'));
    } catch (error) {
      if (!(error instanceof AltiplanoError)) throw error;
      turns.pop();
      this.note(`[This turn is left out of the conversation: ${error.message}]`);
    }
  }

  private makeRoom(user: string): void {
    const { maxTokens = 512 } = this.flags;
    const alone = new Conversation(this.conversation.system).messages(user);
    // Too long even without earlier turns: the library says so, and the turns stay.
    if (this.model.chatTokens(alone).length >= this.contextTokens) return;
    const reserve = Math.min(maxTokens, Math.floor(this.contextTokens / 4));
    const dropped = this.conversation.makeRoom(
      user,
      this.contextTokens - reserve,
      (messages) => this.model.chatTokens(messages).length,
    );
    if (dropped > 0) {
      this.note(
        `[The context of ${plural(this.contextTokens, 'token')} is full: ` +
          `${dropped === 1 ? 'the oldest turn was' : `the ${dropped} oldest turns were`} dropped.]`,
      );
    }
  }
}
