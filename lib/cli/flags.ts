/** Options that several commands share, and parsers that check what was typed. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ChatOptions, LoadOptions } from '../index.js';

interface Range {
  min: number;
  /** Default: no bound. */
  max?: number;
}

function within(kind: string, value: string, parsed: number, { min, max }: Range): number {
  if (value.trim() !== '' && parsed >= min && parsed <= (max ?? Number.MAX_SAFE_INTEGER)) {
    return parsed;
  }
  const bounds =
    max === Number.MAX_SAFE_INTEGER
      ? ''
      : max === undefined
        ? ` of at least ${min}`
        : ` from ${min} to ${max}`;
  throw new InvalidArgumentError(`Expected ${kind}${bounds}.`);
}

/** A parser for whole numbers in a range. */
export function integer(range: Range): (value: string) => number {
  return (value) =>
    within('a whole number', value, /^[+-]?\d+$/.test(value) ? Number(value) : Number.NaN, range);
}

/** A parser for numbers in a range. */
export function decimal(range: Range): (value: string) => number {
  return (value) => within('a number', value, Number(value), range);
}

const collect = (value: string, previous: string[] | undefined) => [...(previous ?? []), value];

/** Adds `--model`. */
export function addModelPath(command: Command): Command {
  return command.option(
    '-m, --model <path>',
    'a Hugging Face folder or a .gguf file (default: the demo model that comes with the package)',
  );
}

export interface ModelFlags {
  model?: string;
  weights?: LoadOptions['weights'];
  activations?: LoadOptions['activations'];
  kv?: LoadOptions['kv'];
  contextTokens?: number;
  threads?: number;
  device?: LoadOptions['device'];
}

/** Adds the options that decide what memory a model takes. */
export function addMemoryOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--weights <type>',
        'format of the weights in memory; "auto" keeps the file\'s (default: auto)',
      ).choices(['auto', 'f32', 'f16', 'bf16', 'int8', 'int4']),
    )
    .addOption(
      new Option('--kv <type>', 'element type of the KV cache (default: auto)').choices([
        'auto',
        'f32',
        'f16',
        'bf16',
        'int8',
      ]),
    )
    .option(
      '--context-tokens <n>',
      "longest sequence, prompt and answer together (default: the model's own)",
      integer({ min: 1 }),
    )
    .option(
      '--device <device>',
      'where the model runs: auto, cpu, cuda, or a GPU such as cuda:1 (default: auto)',
      device,
    );
}

/** A parser for devices. */
function device(value: string): string {
  if (/^(auto|cpu|cuda(:\d{1,3})?)$/.test(value)) return value;
  throw new InvalidArgumentError('Expected auto, cpu, cuda, or a GPU such as cuda:1.');
}

/** Adds the options of commands that load a model. */
export function addModelOptions(command: Command): Command {
  return addMemoryOptions(addModelPath(command))
    .addOption(
      new Option(
        '--activations <type>',
        'what int8 and int4 weights are multiplied with: rounded to int8, or exact (default: auto: int8)',
      ).choices(['auto', 'int8', 'f32']),
    )
    .option(
      '--threads <n>',
      'worker threads (default: the physical cores that this process may use)',
      integer({ min: 1, max: 1024 }),
    );
}

/** The options for `Llama.load` that the flags ask for. */
export function loadOptions(flags: ModelFlags): LoadOptions {
  const { weights, activations, kv, contextTokens, threads, device } = flags;
  return defined({ weights, activations, kv, contextTokens, threads, device });
}

export interface SamplingFlags {
  maxTokens?: number;
  temperature?: number;
  topP?: number;
  topK?: number;
  minP?: number;
  repetitionPenalty?: number;
  frequencyPenalty?: number;
  presencePenalty?: number;
  seed?: number;
  stop?: string[];
}

/** Adds the options of commands that generate text. */
export function addSamplingOptions(command: Command): Command {
  const model = "the model's generation_config.json, or else";
  return command
    .option(
      '--max-tokens <n>',
      'the most tokens to generate (default: what fits the context)',
      integer({ min: 1 }),
    )
    .option(
      '--temperature <t>',
      `0 always takes the likeliest token, 1 samples as the model was trained (default: ${model} 0.6)`,
      decimal({ min: 0, max: 100 }),
    )
    .option(
      '--top-p <p>',
      `sample from the likeliest tokens that make up this probability (default: ${model} 0.9)`,
      decimal({ min: 0, max: 1 }),
    )
    .option(
      '--top-k <n>',
      `sample from this many tokens at most; 0 is no limit (default: ${model} 0)`,
      integer({ min: 0 }),
    )
    .option(
      '--min-p <p>',
      'drop tokens less likely than this share of the likeliest one (default: 0)',
      decimal({ min: 0, max: 1 }),
    )
    .option(
      '--repetition-penalty <x>',
      `divide the logits of tokens that occurred by this; 1 is off (default: ${model} 1)`,
      decimal({ min: 0.01, max: 100 }),
    )
    .option(
      '--frequency-penalty <x>',
      'lower the logit of a token by this for each time it was generated (default: 0)',
      decimal({ min: -2, max: 2 }),
    )
    .option(
      '--presence-penalty <x>',
      'lower the logit of a token by this once it was generated (default: 0)',
      decimal({ min: -2, max: 2 }),
    )
    .option(
      '--seed <n>',
      'the same seed gives the same text (default: a random one)',
      integer({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER }),
    )
    .option(
      '--stop <text>',
      'end before this text would appear; may be given several times',
      collect,
    );
}

/** The options for `chat` and `generate` that the flags ask for. */
export function samplingOptions(flags: SamplingFlags): ChatOptions {
  const { maxTokens, temperature, topP, topK, minP, seed, stop } = flags;
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = flags;
  return defined({
    maxTokens,
    temperature,
    topP,
    topK,
    minP,
    repetitionPenalty,
    frequencyPenalty,
    presencePenalty,
    seed,
    stop,
  });
}

/** Adds `--json`. */
export function addJson(command: Command, what: string): Command {
  return command.option('--json', `print one JSON object: ${what}`);
}

function defined<T extends object>(options: T): T {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as T;
}
