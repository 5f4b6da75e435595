/**
 * Other kinds of tokenizer.json, by `@huggingface/tokenizers`. Special tokens are taken out before
 * the library sees the file, so that no text is ever parsed for them. Byte-level vocabularies (GPT-2,
 * Llama 3) are decoded here, byte by byte, which makes streaming exact.
 */

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { show } from '../errors.js';
import { type Codec, type ContextDecoder, checkTokenId, type SpecialToken } from './codec.js';
import { MAX_PATTERN_LENGTH, MAX_VOCABULARY_SIZE } from './limits.js';
import {
  type AddedToken,
  isObject,
  type JsonObject,
  type TokenizerConfig,
} from './tokenizer-json.js';
import { tokenizerInvalid, tokenizerUnsupported } from './vocabulary.js';

const REPLACEMENT = '\ufffd';

const MODEL_TYPES = ['BPE', 'WordPiece', 'Unigram'];

/** The names under which tokenizers without a `tokenizer_config.json` know BOS and EOS. */
const USUAL_BOS = ['<s>', '<|begin_of_text|>', '<|startoftext|>'];
const USUAL_EOS = ['</s>', '<|end_of_text|>', '<|endoftext|>'];

export class HuggingFaceCodec implements Codec {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly unkId: number | undefined;
  readonly specialTokens: ReadonlyMap<string, SpecialToken>;
  private readonly library: HuggingFaceTokenizer;
  private readonly pieces: (string | undefined)[];
  private readonly ids: ReadonlyMap<string, number>;
  private readonly controlIds: ReadonlySet<number>;
  private readonly addedIds: ReadonlySet<number>;
  private readonly byteLevel: boolean;

  /** @throws `ALTIPLANO_TOKENIZER_INVALID`, `ALTIPLANO_TOKENIZER_UNSUPPORTED` */
  constructor(
    json: JsonObject,
    addedTokens: readonly AddedToken[],
    config: TokenizerConfig,
    file: string,
  ) {
    const { type } = json.model as JsonObject;
    if (!MODEL_TYPES.includes(type as string)) {
      throw tokenizerUnsupported(file, 'a model of another type', {
        expected: MODEL_TYPES.join(', '),
        found: show(type),
      });
    }
    this.ids = readIds(json, addedTokens, file);
    const size = [...this.ids.values()].reduce((largest, id) => Math.max(largest, id), -1) + 1;
    this.vocabSize = size;
    this.pieces = new Array<string | undefined>(size).fill(undefined);
    for (const [piece, id] of this.ids) this.pieces[id] = piece;
    this.specialTokens = new Map(
      addedTokens
        .filter((token) => token.special)
        .map(({ content, id, lstrip, rstrip }) => [
          content,
          { id, stripBefore: lstrip, stripAfter: rstrip },
        ]),
    );
    this.controlIds = new Set([...this.specialTokens.values()].map((token) => token.id));
    this.addedIds = new Set(addedTokens.map((token) => token.id));
    const named = (name: string | undefined, usual: readonly string[]): number | undefined =>
      name !== undefined
        ? this.ids.get(name)
        : usual.map((piece) => this.ids.get(piece)).find((id) => id !== undefined);
    this.bosId = named(config.bosToken, USUAL_BOS);
    this.eosId = named(config.eosToken, USUAL_EOS);
    const unkToken = (json.model as JsonObject).unk_token;
    this.unkId = typeof unkToken === 'string' ? this.ids.get(unkToken) : undefined;
    this.byteLevel = hasByteLevelDecoder(json.decoder);
    refuseSlowPatterns(json, file);
    const ordinary = {
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      ...json,
      added_tokens: (Array.isArray(json.added_tokens) ? json.added_tokens : []).filter(
        (token: JsonObject) => token.special !== true,
      ),
    };
    try {
      this.library = new HuggingFaceTokenizer(ordinary, { clean_up_tokenization_spaces: false });
    } catch (cause) {
      throw tokenizerInvalid(file, '@huggingface/tokenizers cannot use it', {
        found: cause instanceof Error ? cause.message : String(cause),
        cause,
      });
    }
  }

  encode(text: string): number[] {
    if (text.length === 0) return [];
    const { ids } = this.library.encode(text, { add_special_tokens: false });
    // A text that the vocabulary cannot express and that has no unknown token leaves holes.
    return ids.filter((id: number | undefined) => id !== undefined);
  }

  piece(id: number): string {
    return this.pieces[id] ?? '';
  }

  idOf(piece: string): number | undefined {
    return this.ids.get(piece);
  }

  isControl(id: number): boolean {
    return this.controlIds.has(id);
  }

  decoder(): ContextDecoder {
    return this.byteLevel ? this.byteLevelDecoder() : this.wholeTextDecoder();
  }

  private byteLevelDecoder(): ContextDecoder {
    const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
    return {
      push: (id) => {
        checkTokenId(id, this.vocabSize);
        if (this.controlIds.has(id)) return '';
        const piece = this.piece(id);
        if (this.addedIds.has(id)) return utf8.decode() + piece;
        return utf8.decode(bytesOfPiece(piece), { stream: true });
      },
      flush: () => {
        utf8.decode();
      },
      end: () => utf8.decode(),
    };
  }

  /**
   * For vocabularies whose decoding we do not know: decodes everything anew for each token, which
   * costs the square of the length, and gives what was added.
   */
  private wholeTextDecoder(): ContextDecoder {
    let ids: number[] = [];
    let given = '';
    const added = (text: string): string => {
      if (!text.startsWith(given)) return '';
      const piece = text.slice(given.length);
      given = text;
      return piece;
    };
    const decodeAll = () => (ids.length === 0 ? '' : this.library.decode(ids));
    return {
      push: (id) => {
        checkTokenId(id, this.vocabSize);
        if (this.controlIds.has(id)) return '';
        ids.push(id);
        const text = decodeAll();
        // U+FFFD at the end may yet become a character.
        let end = text.length;
        while (end > 0 && text[end - 1] === REPLACEMENT) end--;
        return end > given.length ? added(text.slice(0, end)) : '';
      },
      flush: () => {
        given = decodeAll();
      },
      end: () => {
        const piece = added(decodeAll());
        ids = [];
        given = '';
        return piece;
      },
    };
  }
}

/** Ids by piece, of the model's vocabulary (an object, or Unigram's list) and the added tokens. */
function readIds(
  json: JsonObject,
  addedTokens: readonly AddedToken[],
  file: string,
): Map<string, number> {
  const { vocab } = json.model as JsonObject;
  const ids = new Map<string, number>();
  if (Array.isArray(vocab)) {
    vocab.forEach((entry: unknown, id) => {
      const piece = Array.isArray(entry) ? entry[0] : entry;
      if (typeof piece !== 'string') throw tokenizerInvalid(file, `token ${id} is not a string`);
      ids.set(piece, id);
    });
  } else if (isObject(vocab)) {
    for (const [piece, id] of Object.entries(vocab)) ids.set(piece, id as number);
  } else {
    throw tokenizerInvalid(file, '"model.vocab" is neither an object nor an array');
  }
  for (const { content, id } of addedTokens) ids.set(content, id);
  const seen = new Set<number>();
  for (const [piece, id] of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= MAX_VOCABULARY_SIZE || seen.has(id)) {
      throw tokenizerInvalid(file, 'a token id is not valid or not unique', {
        found: `${show(id)} for ${show(piece)}`,
      });
    }
    seen.add(id);
  }
  if (ids.size === 0) throw tokenizerInvalid(file, 'the vocabulary is empty');
  return ids;
}

function hasByteLevelDecoder(decoder: unknown): boolean {
  if (!isObject(decoder)) return false;
  if (decoder.type === 'Sequence' && Array.isArray(decoder.decoders)) {
    return decoder.decoders.length === 1 && hasByteLevelDecoder(decoder.decoders[0]);
  }
  return decoder.type === 'ByteLevel';
}

/** GPT-2's alphabet: a printable character for each byte (bytes_to_unicode of its encoder.py). */
const BYTE_OF_CHARACTER: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    map.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return map;
})();

function bytesOfPiece(piece: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of piece) {
    const byte = BYTE_OF_CHARACTER.get(character);
    if (byte === undefined) bytes.push(...Buffer.from(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/**
 * A pattern such as `(a+)+b` can take longer than the universe lives. No known tokenizer repeats a
 * group that itself repeats something, so such patterns are refused.
 */
function refuseSlowPatterns(value: unknown, file: string): void {
  const pending: unknown[] = [value];
  while (pending.length > 0) {
    const current = pending.pop();
    if (Array.isArray(current)) {
      // The vocabulary and the merges are long and hold no patterns.
      if (current.length < 1000) pending.push(...current);
    } else if (isObject(current)) {
      const pattern = current.Regex;
      if (typeof pattern === 'string' && !isPlainPattern(pattern)) {
        throw tokenizerUnsupported(file, 'a regular expression with nested repetition', {
          found: show(pattern),
        });
      }
      for (const [name, member] of Object.entries(current)) {
        if (name !== 'vocab' && name !== 'merges' && typeof member === 'object')
          pending.push(member);
      }
    }
  }
}

/** Whether no group with a repetition inside is itself repeated without bound. */
export function isPlainPattern(pattern: string): boolean {
  if (pattern.length > MAX_PATTERN_LENGTH) return false;
  const groups: boolean[] = [];
  let repeats = false;
  for (let index = 0; index < pattern.length; index++) {
    const character = pattern[index];
    if (character === '\\') {
      index++;
    } else if (character === '[') {
      while (index < pattern.length && pattern[index] !== ']') {
        if (pattern[index] === '\\') index++;
        index++;
      }
    } else if (character === '(') {
      groups.push(repeats);
      repeats = false;
      if (pattern[index + 1] === '?') index++;
    } else if (character === ')') {
      const unbounded = /^([*+]|\{\d+,\})/.test(pattern.slice(index + 1, index + 12));
      if (unbounded && repeats) return false;
      repeats ||= groups.pop() ?? false;
    } else if (character === '*' || character === '+' || character === '{') {
      repeats = true;
    }
  }
  return true;
}
