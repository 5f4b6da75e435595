/** `altiplano inspect`: what a checkpoint contains and what memory it needs. Loads no weights. */

import { Command } from 'commander';
import type { Checkpoint, TensorSource, TokenizerSource } from '../checkpoint/types.js';
import { AltiplanoError } from '../errors.js';
import { formatBytes } from '../format-bytes.js';
import type { CliContext, Library } from './context.js';
import { EXIT_OK, interruptible, UsageError } from './failure.js';
import { addJson, addMemoryOptions, addModelPath, loadOptions, type ModelFlags } from './flags.js';
import { DEMO_MODEL } from './loading.js';
import { number, plural, table, write, writeJson } from './output.js';
import type { Finish } from './program.js';

interface InspectFlags extends ModelFlags {
  allTensors?: boolean;
  json?: boolean;
}

const DETAILS = `
Reads and checks the files as loading would, but no weights. The memory is what loading with the same
--weights, --kv and --context-tokens would take.

Examples:
  altiplano inspect
  altiplano inspect ~/models/llama-2-7b-chat
  altiplano inspect llama-2-7b.Q4_0.gguf --context-tokens 2048
  altiplano inspect model.gguf --json | jq '.tensors[] | .name'
`;

export function inspectCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('inspect')
    .summary('show what a checkpoint contains')
    .description("Shows a checkpoint's configuration, tensors and sizes, and the memory it needs.")
    .argument('[PATH]', 'a Hugging Face folder or a .gguf file; the same as --model');
  addMemoryOptions(addModelPath(command));
  command.option('--all-tensors', 'list every tensor instead of one line for all layers');
  return addJson(
    command,
    'path, name, format, config, parameters, sizeBytes, tensors, tokenizer, chatTemplate, generation, memory, warnings',
  )
    .addHelpText('after', DETAILS)
    .action(async (path: string | undefined, flags: InspectFlags) => {
      finish(await inspect(context, path, flags));
    });
}

/** Runs the command. @returns the exit code */
export function inspect(
  context: CliContext,
  argument: string | undefined,
  flags: InspectFlags,
): Promise<number> {
  if (argument !== undefined && flags.model !== undefined) {
    throw new UsageError('PATH and --model are the same: give one of them');
  }
  return interruptible(context, async (signal) => {
    const library = await context.library();
    const path = argument ?? flags.model ?? DEMO_MODEL;
    const checkpoint = await library.openCheckpoint(path, { signal });
    const tensors = allTensors(checkpoint);
    const facts = {
      path: checkpoint.path,
      name: checkpoint.name,
      format: checkpoint.format,
      config: checkpoint.config,
      parameters: sum(tensors, elements),
      sizeBytes: sum(tensors, (tensor) => tensor.sizeBytes),
      tensors,
      tokenizer: describeTokenizer(checkpoint),
      chatTemplate: checkpoint.chatTemplate ?? null,
      generation: checkpoint.generation,
      memory: await memory(library, path, flags),
      warnings: checkpoint.warnings,
    };
    if (flags.json) await writeJson(context, facts);
    else await write(context.stdout, report(facts, flags.allTensors === true));
    return EXIT_OK;
  });
}

type Memory = Awaited<ReturnType<Library['estimateMemory']>>;

/** The memory that loading would take; where the native addon is missing, why that is not known. */
async function memory(
  library: Library,
  path: string,
  flags: InspectFlags,
): Promise<Memory | { unknown: string }> {
  try {
    return await library.estimateMemory(path, loadOptions(flags));
  } catch (error) {
    if (!(error instanceof AltiplanoError) || error.code !== 'ALTIPLANO_NATIVE_MISSING')
      throw error;
    return { unknown: error.message };
  }
}

function allTensors({ tensors }: Checkpoint): TensorSource[] {
  const { embedding, layers, finalNorm, head } = tensors;
  return [
    embedding,
    ...layers.flatMap((layer) => Object.values(layer) as TensorSource[]),
    finalNorm,
    ...(head === undefined ? [] : [head]),
  ];
}

const elements = (tensor: TensorSource) =>
  tensor.shape.reduce((product, size) => product * size, 1);

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

function describeTokenizer({ tokenizer }: Checkpoint) {
  return tokenizer === undefined ? null : { kind: tokenizer.kind, file: tokenizer.file };
}

const TOKENIZER_KINDS: Readonly<Record<TokenizerSource['kind'], string>> = {
  sentencepiece: 'SentencePiece',
  'tokenizer-json': 'tokenizer.json',
  vocabulary: 'GGUF metadata',
};

interface Facts {
  path: string;
  name: string;
  format: string;
  config: Checkpoint['config'];
  parameters: number;
  sizeBytes: number;
  tensors: readonly TensorSource[];
  tokenizer: ReturnType<typeof describeTokenizer>;
  chatTemplate: string | null;
  generation: Checkpoint['generation'];
  memory: Memory | { unknown: string };
  warnings: readonly string[];
}

function report(facts: Facts, everyTensor: boolean): string {
  const { config, memory, tokenizer, chatTemplate } = facts;
  const heads =
    config.kvHeads === config.heads
      ? `${config.heads} heads`
      : `${config.heads} heads on ${config.kvHeads} key/value heads`;
  const settings = Object.entries(facts.generation).map(([name, value]) => `${name} ${value}`);
  const general = [
    ['name', facts.name],
    ['path', facts.path],
    ['format', facts.format],
    [
      'parameters',
      `${facts.parameters.toLocaleString('en-US')}, ${formatBytes(facts.sizeBytes)} on disk`,
    ],
    [
      'layers',
      `${config.layers}, hidden size ${config.hiddenSize}, feed-forward ${config.intermediateSize}`,
    ],
    ['attention', `${heads} of ${config.headDim}`],
    [
      'vocabulary',
      `${config.vocabSize}${config.tiedEmbeddings ? ', head tied to the embedding' : ''}`,
    ],
    ['context', plural(config.contextTokens, 'token')],
    ['rotary base', `${config.ropeTheta}${scaling(config.ropeScaling)}`],
    ['RMSNorm eps', String(Number(config.rmsNormEps.toPrecision(6)))],
    [
      'tokenizer',
      tokenizer === null ? 'none' : `${TOKENIZER_KINDS[tokenizer.kind]}, ${tokenizer.file}`,
    ],
    [
      'chat template',
      chatTemplate === null ? 'none: Llama 2 format' : `Jinja, ${chatTemplate.length} characters`,
    ],
    ['generation', settings.join(', ') || 'no defaults of its own'],
  ];
  const needed =
    'unknown' in memory
      ? [['memory', `not known: ${memory.unknown}`]]
      : [
          ['weights', `${formatBytes(memory.weightsBytes)}: ${memory.weights}`],
          [
            'KV cache',
            `${formatBytes(memory.kvBytes)}: ${plural(memory.kvCacheTokens, 'token')}, ${memory.kv}`,
          ],
          ['workspace', formatBytes(memory.workspaceBytes)],
          [
            'all',
            `${formatBytes(memory.totalBytes)} of ${formatBytes(memory.availableBytes)} available`,
          ],
        ];
  const rows = everyTensor
    ? facts.tensors.map((tensor) => tensorRow(tensor))
    : grouped(facts.tensors);
  const warnings = facts.warnings.map((warning) => `warning: ${warning}\n`).join('');
  return [
    table(general),
    `Memory once loaded\n${table(needed.map(([name, value]) => [`  ${name}`, value!]))}`,
    `Tensors\n${table([['  name', 'type', 'shape', 'size'], ...rows], [3])}`,
    ...(warnings === '' ? [] : [warnings]),
  ].join('\n');
}

function scaling(rope: Checkpoint['config']['ropeScaling']): string {
  return rope.kind === 'none' ? '' : `, ${rope.kind} scaling by ${number(rope.factor)}`;
}

function tensorRow(tensor: TensorSource, name = tensor.name, count = 1): string[] {
  const size = formatBytes(tensor.sizeBytes);
  const shape = `[${tensor.shape.join(', ')}]`;
  return [`  ${name}`, tensor.type, shape, count === 1 ? size : `${count} × ${size}`];
}

/** One row for tensors that differ in their layer number only: `layers.{0-31}.attn_q.weight`. */
function grouped(tensors: readonly TensorSource[]): string[][] {
  const groups = new Map<string, { tensor: TensorSource; layers: number[] }>();
  for (const tensor of tensors) {
    const layer = /\.(\d+)\./.exec(tensor.name)?.[1];
    const name = tensor.name.replace(/\.\d+\./, '.{}.');
    const key = JSON.stringify([name, tensor.type, tensor.shape]);
    const group = groups.get(key) ?? { tensor, layers: [] };
    if (layer !== undefined) group.layers.push(Number(layer));
    groups.set(key, group);
  }
  return [...groups.values()].map(({ tensor, layers }) => {
    const name = tensor.name.replace(/\.\d+\./, `.${ranges(layers)}.`);
    return tensorRow(tensor, name, Math.max(1, layers.length));
  });
}

/** [0, 1, 2, 5] as "{0-2,5}". */
function ranges(sorted: readonly number[]): string {
  const parts: [number, number][] = [];
  for (const value of sorted) {
    const last = parts.at(-1);
    if (last !== undefined && last[1] === value - 1) last[1] = value;
    else parts.push([value, value]);
  }
  return `{${parts.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(',')}}`;
}
