/**
 * Reads a Hugging Face `tokenizer.json` and decides how to run it: one in Llama 2's style is the same
 * SentencePiece BPE written as merges and runs on our own code, with the same ids as the
 * tokenizer.model; every other kind goes to `@huggingface/tokenizers`.
 */

import { parseJson } from '../checkpoint/json.js';
import { show } from '../errors.js';
import { MAX_JSON_FILE_VALUES, MAX_MERGES, MAX_VOCABULARY_SIZE } from './limits.js';
import type { MergeRule } from './merge-table.js';
import {
  byteOfPiece,
  PieceType,
  type SentencePieceVocabulary,
  SPACE_SYMBOL,
  tokenizerInvalid,
} from './vocabulary.js';

export type JsonObject = { [key: string]: unknown };

/** An entry of `added_tokens`. */
export interface AddedToken {
  id: number;
  content: string;
  special: boolean;
  lstrip: boolean;
  rstrip: boolean;
}

export type ParsedTokenizerJson =
  | { kind: 'sentencepiece'; vocabulary: SentencePieceVocabulary; rules: MergeRule[] }
  | { kind: 'other'; json: JsonObject; addedTokens: AddedToken[] };

/** What `tokenizer_config.json` says, as far as it matters here. */
export interface TokenizerConfig {
  bosToken?: string;
  eosToken?: string;
}

/**
 * Reads and checks a tokenizer.json.
 * @param bytes the whole file
 * @param file its name, for messages
 * @param config the special tokens' names; by default `<s>` and `</s>` where they exist
 * @throws `ALTIPLANO_TOKENIZER_INVALID`
 */
export function parseTokenizerJson(
  bytes: Uint8Array,
  file: string,
  config: TokenizerConfig = {},
): ParsedTokenizerJson {
  const json = parseJsonObject(bytes, file);
  const model = json.model;
  if (!isObject(model)) throw tokenizerInvalid(file, 'it has no "model" object');
  const addedTokens = readAddedTokens(json.added_tokens, file);
  const prefix = llamaStylePrefix(json, model);
  if (prefix === undefined) return { kind: 'other', json, addedTokens };

  const { pieces, idOf } = readPieces(model.vocab, addedTokens, file);
  const types = new Int32Array(pieces.length).fill(PieceType.normal);
  pieces.forEach((piece, id) => {
    if (byteOfPiece(piece) !== undefined) types[id] = PieceType.byte;
  });
  for (const token of addedTokens) {
    types[token.id] = token.special ? PieceType.control : PieceType.userDefined;
  }
  const unkId = typeof model.unk_token === 'string' ? idOf.get(model.unk_token) : undefined;
  if (unkId !== undefined) types[unkId] = PieceType.unknown;
  const bosId = idOf.get(config.bosToken ?? '<s>');
  const eosId = idOf.get(config.eosToken ?? '</s>');
  const vocabulary: SentencePieceVocabulary = {
    model: 'llama',
    pieces,
    scores: new Float32Array(pieces.length),
    types,
    byteFallback: true,
    addSpacePrefix: prefix !== 'none',
    prefixScheme: prefix === 'first' ? 'first' : 'every',
    ...(bosId !== undefined && { bosId }),
    ...(eosId !== undefined && { eosId }),
    ...(unkId !== undefined && { unkId }),
  };
  return { kind: 'sentencepiece', vocabulary, rules: readMerges(model.merges, idOf, file) };
}

/** Reads `tokenizer_config.json`: tokens are strings or objects with `content`. */
export function parseTokenizerConfig(bytes: Uint8Array, file: string): TokenizerConfig {
  const json = parseJsonObject(bytes, file);
  const tokenText = (name: string): string | undefined => {
    const token = json[name];
    if (token === undefined || token === null) return undefined;
    if (typeof token === 'string') return token;
    if (isObject(token) && typeof token.content === 'string') return token.content;
    throw tokenizerInvalid(file, `${name} is neither a string nor an object with "content"`);
  };
  const bosToken = tokenText('bos_token');
  const eosToken = tokenText('eos_token');
  return {
    ...(bosToken !== undefined && { bosToken }),
    ...(eosToken !== undefined && { eosToken }),
  };
}

function parseJsonObject(bytes: Uint8Array, file: string): JsonObject {
  const json = parseJson(bytes, file, {
    maxValues: MAX_JSON_FILE_VALUES,
    refuse: tokenizerInvalid,
  });
  if (!isObject(json)) throw tokenizerInvalid(file, 'it is not a JSON object');
  return json;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isTokenId(value: unknown): value is number {
  return (
    Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_VOCABULARY_SIZE
  );
}

function readAddedTokens(value: unknown, file: string): AddedToken[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw tokenizerInvalid(file, '"added_tokens" is not an array');
  const seenIds = new Set<number>();
  const seenContents = new Set<string>();
  return value.map((token: unknown, index) => {
    if (!isObject(token) || typeof token.content !== 'string' || token.content === '') {
      throw tokenizerInvalid(file, `added token ${index} has no content`);
    }
    const { id, content } = token;
    if (!isTokenId(id)) {
      throw tokenizerInvalid(file, `added token ${index} has no valid id`, {
        expected: `an integer from 0 to ${MAX_VOCABULARY_SIZE - 1}`,
        found: show(id),
      });
    }
    if (seenIds.has(id) || seenContents.has(content)) {
      throw tokenizerInvalid(file, `added token ${index} repeats an earlier one`, {
        found: `${show(content)}, id ${id}`,
      });
    }
    seenIds.add(id);
    seenContents.add(content);
    const flag = (name: string): boolean => token[name] === true;
    return {
      id,
      content,
      special: flag('special'),
      lstrip: flag('lstrip'),
      rstrip: flag('rstrip'),
    };
  });
}

/**
 * How Llama 2's style puts the dummy prefix before text: a normalizer that prepends U+2581 and
 * replaces spaces, or (newer) a Metaspace pre-tokenizer that does not split. Undefined for other
 * kinds. Hugging Face's Metaspace leaves the prefix out where text begins with a space; SentencePiece
 * does not, and we follow it, so that all forms of the same tokenizer give the same ids.
 */
function llamaStylePrefix(
  json: JsonObject,
  model: JsonObject,
): 'every' | 'first' | 'none' | undefined {
  const sameModel =
    model.type === 'BPE' &&
    model.byte_fallback === true &&
    !model.continuing_subword_prefix &&
    !model.end_of_word_suffix &&
    !model.dropout &&
    !model.ignore_merges;
  if (!sameModel || !isLlamaStyleDecoder(json.decoder)) return undefined;
  const normalizers = sequence(json.normalizer, 'normalizers');
  const preTokenizers = sequence(json.pre_tokenizer, 'pretokenizers');
  let prepends = false;
  let replaces = false;
  for (const step of normalizers) {
    if (step.type === 'Prepend' && step.prepend === SPACE_SYMBOL && !prepends && !replaces) {
      prepends = true;
    } else if (step.type === 'Replace' && isSpaceReplacement(step)) {
      replaces = true;
    } else {
      return undefined;
    }
  }
  if (preTokenizers.length === 0) return replaces ? (prepends ? 'every' : 'none') : undefined;
  const [metaspace] = preTokenizers;
  const plain =
    preTokenizers.length === 1 &&
    normalizers.length === 0 &&
    metaspace.type === 'Metaspace' &&
    metaspace.replacement === SPACE_SYMBOL &&
    metaspace.split === false;
  if (!plain) return undefined;
  switch (metaspace.prepend_scheme ?? (metaspace.add_prefix_space === false ? 'never' : 'always')) {
    case 'always':
      return 'every';
    case 'first':
      return 'first';
    case 'never':
      return 'none';
    default:
      return undefined;
  }
}

/** A null, single or `Sequence` step as a list. */
function sequence(step: unknown, listName: string): JsonObject[] {
  if (!isObject(step)) return [];
  if (step.type !== 'Sequence') return [step];
  const list = step[listName];
  return Array.isArray(list) ? list.filter(isObject) : [step];
}

function isSpaceReplacement(step: JsonObject): boolean {
  return isObject(step.pattern) && step.pattern.String === ' ' && step.content === SPACE_SYMBOL;
}

function isLlamaStyleDecoder(decoder: unknown): boolean {
  const known = ['Replace', 'ByteFallback', 'Fuse', 'Strip', 'Metaspace'];
  return sequence(decoder, 'decoders').every((step) => known.includes(String(step.type)));
}

function readPieces(
  vocab: unknown,
  addedTokens: readonly AddedToken[],
  file: string,
): { pieces: string[]; idOf: Map<string, number> } {
  if (!isObject(vocab)) throw tokenizerInvalid(file, '"model.vocab" is not an object');
  const idOf = new Map<string, number>();
  for (const [piece, id] of Object.entries(vocab)) {
    if (!isTokenId(id)) {
      throw tokenizerInvalid(file, `the id of token ${show(piece)} is not valid`, {
        expected: `an integer from 0 to ${MAX_VOCABULARY_SIZE - 1}`,
        found: show(id),
      });
    }
    idOf.set(piece, id);
  }
  for (const { id, content } of addedTokens) {
    const known = idOf.get(content);
    if (known !== undefined && known !== id) {
      throw tokenizerInvalid(
        file,
        `added token ${show(content)} has another id in the vocabulary`,
        {
          found: `${id} and ${known}`,
        },
      );
    }
    idOf.set(content, id);
  }
  const pieces: (string | undefined)[] = new Array(idOf.size).fill(undefined);
  for (const [piece, id] of idOf) {
    if (id >= pieces.length) {
      throw tokenizerInvalid(file, 'the token ids have gaps', {
        expected: `ids below ${pieces.length}`,
        found: `${id} for ${show(piece)}`,
      });
    }
    if (pieces[id] !== undefined) {
      throw tokenizerInvalid(file, `two tokens have the id ${id}`, {
        found: `${show(pieces[id])} and ${show(piece)}`,
      });
    }
    pieces[id] = piece;
  }
  // Ids are distinct and below their number, so none is missing.
  return { pieces: pieces as string[], idOf };
}

/** Merges are "left right" strings or [left, right] pairs. */
function readMerges(value: unknown, idOf: Map<string, number>, file: string): MergeRule[] {
  if (!Array.isArray(value)) throw tokenizerInvalid(file, '"model.merges" is not an array');
  if (value.length > MAX_MERGES) {
    throw tokenizerInvalid(file, 'too many merges', {
      expected: `at most ${MAX_MERGES}`,
      found: String(value.length),
    });
  }
  const seen = new Set<number>();
  return value.map((merge: unknown, index) => {
    const parts = typeof merge === 'string' ? merge.split(' ') : merge;
    if (!Array.isArray(parts) || parts.length !== 2) {
      throw tokenizerInvalid(file, `merge ${index} is not a pair`, { found: show(merge) });
    }
    const idOfPart = (piece: unknown): number => {
      const id = typeof piece === 'string' && piece !== '' ? idOf.get(piece) : undefined;
      if (id === undefined) {
        throw tokenizerInvalid(file, `merge ${index} is about a token that does not exist`, {
          found: show(piece),
        });
      }
      return id;
    };
    const left = idOfPart(parts[0]);
    const right = idOfPart(parts[1]);
    const merged = idOfPart(`${parts[0]}${parts[1]}`);
    const pair = left * MAX_VOCABULARY_SIZE + right;
    if (seen.has(pair)) {
      throw tokenizerInvalid(file, `merge ${index} repeats an earlier one`, { found: show(merge) });
    }
    seen.add(pair);
    return { left, right, merged };
  });
}
