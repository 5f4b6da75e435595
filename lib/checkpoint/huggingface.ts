/** A Hugging Face folder: `config.json`, safetensors in one file or in shards, tokenizer files. */
import { join, resolve } from 'node:path';
import { AltiplanoError, show } from '../errors.js';
import { assembleTensors, type TensorMap } from './assemble.js';
import { epsilonWarning } from './config-limits.js';
import { pathKind, readJsonFile } from './files.js';
import { readHuggingFaceConfig } from './hf-config.js';
import { readChatTemplate, readGenerationDefaults } from './hf-generation.js';
import { isObject } from './json.js';
import { HUGGING_FACE_NAMES } from './names.js';
import { invalid, throwIfAborted } from './refuse.js';
import { readSafetensors } from './safetensors.js';
import type { Checkpoint, TensorSource, TokenizerSource } from './types.js';

export const SINGLE_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

/** A tensor's name and the shard that holds it. */
type WeightMap = ReadonlyMap<string, string>;

/** Shards lie in the folder itself: a name with a separator could lead out of it. */
function isPlainFileName(name: unknown): name is string {
  return (
    typeof name === 'string' &&
    name.endsWith('.safetensors') &&
    !name.includes('/') &&
    !name.includes('\\') &&
    !name.includes('\0')
  );
}

async function readWeightMap(indexFile: string): Promise<WeightMap> {
  const index = await readJsonFile(indexFile);
  const entries = isObject(index) ? index.weight_map : undefined;
  if (!isObject(entries)) {
    throw invalid(indexFile, 'weight_map is no object', { found: show(entries) });
  }
  const weightMap = new Map<string, string>();
  for (const [tensor, shard] of Object.entries(entries)) {
    if (!isPlainFileName(shard)) {
      throw invalid(indexFile, `the shard of tensor ${show(tensor)} is no file of this folder`, {
        expected: 'a file name that ends in .safetensors, without a path',
        found: show(shard),
      });
    }
    weightMap.set(tensor, shard);
  }
  return weightMap;
}

/** Reads all shards and checks that each holds what the weight map says of it. */
async function readShards(
  folder: string,
  weightMap: WeightMap,
  signal: AbortSignal | undefined,
): Promise<TensorMap> {
  const tensors = new Map<string, TensorSource>();
  const shardOf = new Map<string, string>();
  for (const shard of new Set(weightMap.values())) {
    throwIfAborted(signal);
    for (const tensor of await readSafetensors(join(folder, shard))) {
      const other = shardOf.get(tensor.name);
      if (other !== undefined) {
        throw invalid(folder, `tensor ${show(tensor.name)} is in two shards`, {
          found: `${other} and ${shard}`,
        });
      }
      tensors.set(tensor.name, tensor);
      shardOf.set(tensor.name, shard);
    }
  }
  for (const [tensor, shard] of weightMap) {
    if (shardOf.get(tensor) !== shard) {
      throw invalid(join(folder, shard), `tensor ${show(tensor)} is missing`, {
        hint: `${INDEX_FILE} says that it is here.`,
      });
    }
  }
  return tensors;
}

async function readOneFile(folder: string, name: string): Promise<TensorMap> {
  const tensors = await readSafetensors(join(folder, name));
  return new Map(tensors.map((tensor) => [tensor.name, tensor]));
}

async function readTensors(
  folder: string,
  weightsFile: string | undefined,
  signal: AbortSignal | undefined,
): Promise<TensorMap> {
  const indexFile = join(folder, INDEX_FILE);
  const single = weightsFile ?? SINGLE_FILE;
  const singleKind = await pathKind(join(folder, single));
  const indexKind = await pathKind(indexFile);
  if (indexKind === undefined || (singleKind !== undefined && weightsFile === undefined)) {
    return readOneFile(folder, single);
  }
  const weightMap = await readWeightMap(indexFile);
  // A file that was named and is no shard stands alone.
  const standsAlone = weightsFile !== undefined && ![...weightMap.values()].includes(weightsFile);
  return standsAlone ? readOneFile(folder, weightsFile) : readShards(folder, weightMap, signal);
}

async function findTokenizer(folder: string): Promise<TokenizerSource | undefined> {
  const model = join(folder, 'tokenizer.model');
  if ((await pathKind(model)) === 'file') return { kind: 'sentencepiece', file: model };
  const json = join(folder, 'tokenizer.json');
  if ((await pathKind(json)) !== 'file') return undefined;
  const configFile = join(folder, 'tokenizer_config.json');
  const hasConfig = (await pathKind(configFile)) === 'file';
  return { kind: 'tokenizer-json', file: json, ...(hasConfig && { configFile }) };
}

/** The folder's name; in the Hugging Face cache (`models--org--name/snapshots/hash`) the model's. */
function modelName(folder: string): string {
  const parts = resolve(folder).split(/[\\/]/);
  const cached = parts.at(-2) === 'snapshots' ? parts.at(-3) : undefined;
  return cached?.startsWith('models--')
    ? cached.slice('models--'.length).replaceAll('--', '/')
    : (parts.at(-1) ?? folder);
}

/**
 * Opens a Hugging Face folder that has a `config.json`.
 *
 * @param weightsFile the name of a safetensors file in it, if the caller named one
 * @throws ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED, ALTIPLANO_FILE_NOT_FOUND,
 *   ALTIPLANO_FILE_READ, ALTIPLANO_ABORTED
 */
export async function openHuggingFace(
  path: string,
  folder: string,
  weightsFile: string | undefined,
  signal: AbortSignal | undefined,
): Promise<Checkpoint> {
  const configFile = join(folder, 'config.json');
  const { config, eosTokenIds } = readHuggingFaceConfig(await readJsonFile(configFile), configFile);
  const generation = await readGenerationDefaults(folder, config, eosTokenIds);
  const chatTemplate = await readChatTemplate(folder);
  const tokenizer = await findTokenizer(folder);
  const sources = await readTensors(folder, weightsFile, signal);
  const tensors = assembleTensors(folder, config, sources, HUGGING_FACE_NAMES);
  const name = modelName(folder);
  const warning = epsilonWarning(config, name);
  return {
    path,
    format: 'safetensors',
    name,
    config,
    rotaryLayout: 'halves',
    tensors,
    generation,
    ...(tokenizer !== undefined && { tokenizer }),
    ...(chatTemplate !== undefined && { chatTemplate }),
    warnings: warning === undefined ? [] : [warning],
  };
}

/** The error for a folder with neither safetensors nor GGUF weights. */
export function noWeights(folder: string, names: readonly string[]): AltiplanoError {
  const pickled = names.find((name) => /\.(bin|pth|pt|ckpt)$/.test(name));
  if (pickled !== undefined) {
    return new AltiplanoError(
      'ALTIPLANO_CHECKPOINT_UNSUPPORTED',
      `the weights are in PyTorch's format (${show(pickled)})`,
      {
        subject: folder,
        expected: 'safetensors or GGUF',
        hint: 'Most models are published as safetensors too; otherwise convert them.',
      },
    );
  }
  return new AltiplanoError('ALTIPLANO_FILE_NOT_FOUND', 'no checkpoint in this folder', {
    subject: folder,
    expected: `config.json with ${SINGLE_FILE} or ${INDEX_FILE}, or one .gguf file`,
  });
}
