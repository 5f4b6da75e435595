/** `generation_config.json` and the chat template of a Hugging Face folder: what goes beside weights. */
import { join } from 'node:path';
import * as v from 'valibot';
import { pathKind, readJsonFile, readSmallFile } from './files.js';
import { checkTokenIds, idList, parseWith, tokenIds } from './hf-config.js';
import { invalid } from './refuse.js';
import type { GenerationDefaults, LlamaConfig } from './types.js';

// Ranges are those of the sampling options: what could not be asked for cannot be a default either.
const generationSchema = v.object({
  do_sample: v.nullish(v.boolean()),
  temperature: v.nullish(v.pipe(v.number(), v.minValue(0), v.maxValue(100))),
  top_p: v.nullish(v.pipe(v.number(), v.minValue(0), v.maxValue(1))),
  top_k: v.nullish(v.pipe(v.number(), v.integer(), v.minValue(0))),
  repetition_penalty: v.nullish(v.pipe(v.number(), v.gtValue(0), v.maxValue(100))),
  eos_token_id: tokenIds,
});

/**
 * Reads `generation_config.json`, if the folder has one. `do_sample: false` means temperature 0;
 * ids of end tokens are added to those of `config.json`.
 *
 * @throws ALTIPLANO_CHECKPOINT_INVALID for values of the wrong kind or out of range
 */
export async function readGenerationDefaults(
  folder: string,
  config: LlamaConfig,
  configEosIds: readonly number[],
): Promise<GenerationDefaults> {
  const file = join(folder, 'generation_config.json');
  const present = (await pathKind(file)) !== undefined;
  const raw = present ? parseWith(generationSchema, await readJsonFile(file), file) : {};
  const eosIds = [...configEosIds, ...checkTokenIds(idList(raw.eos_token_id), config, file)];
  const defaults: GenerationDefaults = {};
  const temperature = raw.do_sample === false ? 0 : raw.temperature;
  if (temperature != null) defaults.temperature = temperature;
  if (raw.top_p != null) defaults.topP = raw.top_p;
  if (raw.top_k != null) defaults.topK = raw.top_k;
  if (raw.repetition_penalty != null) defaults.repetitionPenalty = raw.repetition_penalty;
  if (eosIds.length > 0) defaults.eosTokenIds = [...new Set(eosIds)];
  return defaults;
}

const tokenizerConfigSchema = v.object({
  chat_template: v.nullish(
    v.union([v.string(), v.array(v.object({ name: v.string(), template: v.string() }))]),
  ),
});

/**
 * The folder's chat template: `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`
 * (of several, the one named "default").
 *
 * @returns Jinja source, or undefined if there is none
 * @throws ALTIPLANO_CHECKPOINT_INVALID
 */
export async function readChatTemplate(folder: string): Promise<string | undefined> {
  const jinjaFile = join(folder, 'chat_template.jinja');
  if ((await pathKind(jinjaFile)) !== undefined) {
    const bytes = await readSmallFile(jinjaFile);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch (cause) {
      throw invalid(jinjaFile, 'not valid UTF-8', { cause });
    }
  }
  const configFile = join(folder, 'tokenizer_config.json');
  if ((await pathKind(configFile)) === undefined) return undefined;
  const raw = parseWith(tokenizerConfigSchema, await readJsonFile(configFile), configFile);
  const template = raw.chat_template ?? undefined;
  if (!Array.isArray(template)) return template;
  return template.find(({ name }) => name === 'default')?.template;
}
