/** `altiplano generate`: continues a prompt, or answers a conversation, and prints the text. */
import { Command } from 'commander';
import type { ChatMessage, Generation, Llama } from '../index.js';
import type { CliContext } from './context.js';
import { EXIT_OK, interruptible, UsageError } from './failure.js';
import {
  addJson,
  addModelOptions,
  addSamplingOptions,
  integer,
  type ModelFlags,
  type SamplingFlags,
  samplingOptions,
} from './flags.js';
import { readText, textArgument } from './input.js';
import { loadModel } from './loading.js';
import { printable, write, writeJson } from './output.js';
import type { Finish } from './program.js';

interface GenerateFlags extends ModelFlags, SamplingFlags {
  messages?: string;
  logprobs?: number;
  json?: boolean;
}

const DETAILS = `
PROMPT is continued as plain text: no chat format is added, and nothing in it is a special token.
Without PROMPT, or with "-", it is read from standard input; one newline at its end is left out.
Ctrl-C stops; what came so far stays printed.

Examples:
  altiplano generate "Once upon a time" --max-tokens 40
  altiplano generate "2, 4, 6," --temperature 0 --stop "." --json
  git log --oneline | altiplano generate --model llama-2-7b.gguf --weights int8
  echo '[{"role":"user","content":"What is the capital of Peru?"}]' | altiplano generate --messages -
`;

export function generateCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('generate')
    .summary('continue a text')
    .description('Continues a text and prints what follows it, as it is generated.')
    .argument('[PROMPT]', 'the text to continue; "-" reads standard input')
    .option(
      '--messages <file>',
      'answer a conversation instead: a JSON array of {"role", "content"}; "-" reads standard input',
    );
  addSamplingOptions(command);
  command.option(
    '--logprobs <n>',
    'with --json: log-probabilities of the tokens, with this many alternatives',
    integer({ min: 0, max: 20 }),
  );
  addModelOptions(command);
  return addJson(
    command,
    'text, tokens (ids generated), promptTokens, completionTokens, finishReason, seed, timings',
  )
    .addHelpText('after', DETAILS)
    .action(async (prompt: string | undefined, flags: GenerateFlags) => {
      finish(await generate(context, prompt, flags));
    });
}

/** Runs the command. @returns the exit code */
export function generate(
  context: CliContext,
  prompt: string | undefined,
  flags: GenerateFlags,
): Promise<number> {
  if (prompt !== undefined && flags.messages !== undefined) {
    throw new UsageError('PROMPT and --messages exclude each other: give one of them');
  }
  if (flags.logprobs !== undefined && !flags.json) {
    throw new UsageError('--logprobs is printed as JSON only: add --json');
  }
  return interruptible(context, async (signal) => {
    const start = await readTask(context, prompt, flags, signal);
    const model = await loadModel(context, flags, signal);
    try {
      const generation = start(model, signal);
      if (flags.json) await printJson(context, generation, model.info.loadMs);
      else await printText(context, generation, signal);
      return EXIT_OK;
    } finally {
      await model.dispose();
    }
  });
}

/** Reads prompt or messages before the model is loaded, so that a mistake costs no time. */
async function readTask(
  context: CliContext,
  prompt: string | undefined,
  flags: GenerateFlags,
  signal: AbortSignal,
): Promise<(model: Llama, signal: AbortSignal) => Generation> {
  const { logprobs } = flags;
  const options = { ...samplingOptions(flags), ...(logprobs !== undefined && { logprobs }) };
  if (flags.messages !== undefined) {
    const messages = parseMessages(await readText(context, flags.messages, signal), flags.messages);
    return (model, signal) => model.chat(messages, { ...options, signal });
  }
  const { text, fromStdin } = await textArgument(context, 'PROMPT', prompt, signal);
  // `echo` and editors end the last line; a model would take that as the end of a paragraph.
  const cleaned = fromStdin ? text.replace(/\r?\n$/, '') : text;
  return (model, signal) => model.generate(cleaned, { ...options, signal });
}

/** The roles and the order of the messages are checked by the library. */
function parseMessages(text: string, file: string): ChatMessage[] {
  const subject = file === '-' ? 'standard input' : file;
  const expected = 'expected a JSON array of {"role": …, "content": …}';
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ''));
  } catch (error) {
    throw new UsageError(`--messages ${subject}: ${expected}, found ${(error as Error).message}`);
  }
  const isMessage = (item: unknown) =>
    typeof (item as ChatMessage | null)?.role === 'string' &&
    typeof (item as ChatMessage).content === 'string';
  if (!Array.isArray(value)) throw new UsageError(`--messages ${subject}: ${expected}`);
  const wrong = value.findIndex((item) => !isMessage(item));
  if (wrong >= 0) {
    throw new UsageError(
      `--messages ${subject}: ${expected}, found ${JSON.stringify(value[wrong])?.slice(0, 80)} as number ${wrong + 1}`,
    );
  }
  return value as ChatMessage[];
}

async function printText(
  context: CliContext,
  generation: Generation,
  signal: AbortSignal,
): Promise<void> {
  const { stdout } = context;
  let last = '';
  try {
    for await (const text of generation) {
      if (text !== '') last = text;
      await write(stdout, printable(stdout, text));
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  const nothingCame = last === '' && signal.aborted;
  if (!nothingCame && !last.endsWith('\n')) await write(stdout, '\n');
}

async function printJson(
  context: CliContext,
  generation: Generation,
  loadMs: number,
): Promise<void> {
  const { text, tokens, promptTokens, completionTokens, finishReason, seed, timings, logprobs } =
    await generation.result;
  await writeJson(context, {
    text,
    tokens,
    promptTokens,
    completionTokens,
    finishReason,
    seed,
    timings: { loadMs, ...timings },
    logprobs,
  });
}
