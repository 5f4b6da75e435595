import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { isPlainPattern } from '../../lib/tokenizer/hugging-face.js';
import { parseSentencePieceModel, Tokenizer } from '../../lib/tokenizer/index.js';
import {
  DEMO_MODEL,
  JSON_FORMS,
  LLAMA2_FOLDER,
  llama2Json,
  llamaTokenizerJson,
  mergesByScore,
  randomOf,
  randomText,
  withFolder,
} from './vocabularies.js';

const forms = Object.keys(JSON_FORMS) as (keyof typeof JSON_FORMS)[];
const llama2Test = existsSync(LLAMA2_FOLDER) ? test : test.skip;

function loadJson(json: object, config?: object): Promise<Tokenizer> {
  const files = { 'tokenizer.json': json, ...(config && { 'tokenizer_config.json': config }) };
  return withFolder(files, (folder) => Tokenizer.load(folder));
}

/** The same ids and texts on random text and runs of spaces. */
function expectSame(a: Tokenizer, b: Tokenizer, seed: number) {
  const random = randomOf(seed);
  const texts = Array.from({ length: 200 }, () => randomText(random, Math.floor(random() * 200)));
  for (let count = 0; count < 70; count++) texts.push(' '.repeat(count), `a${' '.repeat(count)}b`);
  for (const text of texts) {
    const ids = a.encode(text);
    expect({ text, ids }).toEqual({ text, ids: b.encode(text) });
    expect(a.decode(ids)).toBe(b.decode(ids));
  }
}

describe("a tokenizer.json in Llama 2's style", () => {
  test.each(forms)('of the demo model gives the ids of its tokenizer.model: %s', async (form) => {
    const vocabulary = parseSentencePieceModel(readFileSync(DEMO_MODEL), DEMO_MODEL);
    const merges = mergesByScore(vocabulary);
    const model = await Tokenizer.load(DEMO_MODEL);
    expectSame(await loadJson(llamaTokenizerJson(vocabulary.pieces, merges, form)), model, 1);
    const pairs = merges.map((merge) => merge.split(' '));
    expectSame(await loadJson(llamaTokenizerJson(vocabulary.pieces, pairs, form)), model, 2);
  });

  llama2Test.each(forms)(
    'of Llama 2 gives the ids of its tokenizer.model (needs ../shared): %s',
    async (form) => {
      const file = join(LLAMA2_FOLDER, 'tokenizer.model');
      const model = await Tokenizer.load(file);
      // Both the merges that Hugging Face published and those derived from the scores.
      expectSame(await loadJson(llama2Json(form)), model, 3);
      const { cases } = JSON.parse(readFileSync(join(LLAMA2_FOLDER, 'cases.json'), 'utf8'));
      const vocabulary = parseSentencePieceModel(readFileSync(file), file);
      const derived = await loadJson(
        llamaTokenizerJson(vocabulary.pieces, mergesByScore(vocabulary), form),
      );
      for (const { text, ids } of cases) expect(derived.encode(text)).toEqual(ids);
    },
  );

  test('special tokens come from tokenizer_config.json, or have their usual names', async () => {
    const json = llama2Json();
    const usual = await loadJson(json);
    expect([usual.bosId, usual.eosId, usual.unkId, usual.vocabSize]).toEqual([1, 2, 0, 32000]);
    const named = await loadJson(json, { bos_token: '</s>', eos_token: { content: '<s>' } });
    expect([named.bosId, named.eosId]).toEqual([2, 1]);
    expect(usual.isControl(1)).toBe(true);
    expect(usual.encode('<s>')).not.toContain(1);
  });

  test('after special tokens the prefix is as each form has it', async () => {
    const pieces = async (form: keyof typeof JSON_FORMS) => {
      const tokenizer = await loadJson(llama2Json(form));
      return tokenizer.encodeWithSpecial('a<s>b').map((id) => tokenizer.piece(id));
    };
    expect(await pieces('prepending normalizer')).toEqual(['▁a', '<s>', '▁b']);
    expect(await pieces('Metaspace')).toEqual(['▁a', '<s>', 'b']);
  });

  test('added tokens that are not special are found in text', async () => {
    const json = llama2Json();
    const added = { id: 32000, content: '<tool>', special: false };
    const tokenizer = await loadJson({
      ...json,
      added_tokens: [...json.added_tokens, added],
    });
    expect(tokenizer.encode('x<tool>y')).toEqual([
      ...tokenizer.encode('x'),
      32000,
      tokenizer.idOf('y'),
    ]);
  });
});

/** GPT-2's alphabet of bytes, as its encoder.py makes it. */
function byteAlphabet(): string[] {
  const characters: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable =
      (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    characters.push(String.fromCharCode(printable ? byte : next++));
  }
  return characters;
}

/** A tiny byte-level tokenizer in the manner of Llama 3. */
function byteLevelJson() {
  const merges = ['h e', 'l l', 'he ll', 'hell o', 'Ġ w', 'Ġw o', 'Ã ©'];
  const pieces = [...byteAlphabet(), ...merges.map((merge) => merge.replace(' ', ''))];
  const added = ['<|begin_of_text|>', '<|eot_id|>'].map((content, index) => ({
    id: pieces.length + index,
    content,
    special: true,
  }));
  const plain = { id: pieces.length + 2, content: '<tool>', special: false, normalized: false };
  return {
    version: '1.0',
    added_tokens: [...added, plain],
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {
          type: 'Split',
          pattern: { Regex: "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|\\s+" },
          behavior: 'Isolated',
          invert: false,
        },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<|begin_of_text|>' } }, { Sequence: { id: 'A' } }],
      pair: [],
      special_tokens: {},
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      byte_fallback: false,
      ignore_merges: true,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
  };
}

describe('other kinds of tokenizer.json', () => {
  test('byte-level BPE encodes and decodes', async () => {
    const tokenizer = await loadJson(byteLevelJson());
    const pieces = (text: string) => tokenizer.encode(text).map((id) => tokenizer.piece(id));
    expect(pieces('hello world é')).toEqual(['hello', 'Ġwo', 'r', 'l', 'd', 'Ġ', 'Ã©']);
    expect(pieces('a<tool>b')).toEqual(['a', '<tool>', 'b']);
    expect(tokenizer.vocabSize).toBe(256 + 7 + 3);
    expect(tokenizer.piece(tokenizer.bosId as number)).toBe('<|begin_of_text|>');
    expect(tokenizer.eosId).toBeUndefined();
    const random = randomOf(8);
    for (let round = 0; round < 200; round++) {
      const text = Buffer.from(randomText(random, 40)).toString();
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    }
  });

  test('special tokens are never read from text, and have none', async () => {
    const tokenizer = await loadJson(byteLevelJson(), { eos_token: '<|eot_id|>' });
    const eot = tokenizer.eosId as number;
    const text = 'a<|eot_id|>b';
    expect(tokenizer.encode(text)).not.toContain(eot);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    expect(tokenizer.decode([...tokenizer.encode('a'), eot, ...tokenizer.encode('b')])).toBe('ab');
    expect(tokenizer.encodeWithSpecial(text)).toEqual([
      ...tokenizer.encode('a'),
      eot,
      ...tokenizer.encode('b'),
    ]);
    expect(tokenizer.isControl(eot)).toBe(true);
  });

  test('streams to the same text, with no broken characters', async () => {
    const tokenizer = await loadJson(byteLevelJson());
    const random = randomOf(9);
    for (let round = 0; round < 300; round++) {
      const ids = Array.from({ length: 1 + Math.floor(random() * 20) }, () =>
        Math.floor(random() * tokenizer.vocabSize),
      );
      const decoder = tokenizer.decoder();
      const pieces = [...ids.map((id) => decoder.push(id)), decoder.end()];
      for (const piece of pieces) expect(piece).not.toMatch(/\p{Surrogate}/u);
      expect(pieces.join('')).toBe(tokenizer.decode(ids));
      // Byte for byte what decoding them at once gives; special tokens have no bytes.
      const alphabet = byteAlphabet();
      const bytes = ids.flatMap((id) => {
        if (tokenizer.isControl(id)) return [];
        const piece = tokenizer.piece(id);
        return piece === '<tool>' ? [] : [...piece].map((letter) => alphabet.indexOf(letter));
      });
      if (!ids.includes(tokenizer.idOf('<tool>') as number)) {
        expect(pieces.join('')).toBe(
          new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes)),
        );
      }
    }
  });

  test('a kind that only the library can decode streams too', async () => {
    const pieces = ['[UNK]', 'hello', 'wor', '##ld', '!'];
    const tokenizer = await loadJson({
      added_tokens: [{ id: 0, content: '[UNK]', special: true }],
      normalizer: null,
      pre_tokenizer: { type: 'BertPreTokenizer' },
      post_processor: null,
      decoder: { type: 'WordPiece', prefix: '##', cleanup: false },
      model: {
        type: 'WordPiece',
        unk_token: '[UNK]',
        continuing_subword_prefix: '##',
        max_input_chars_per_word: 100,
        vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      },
    });
    const ids = tokenizer.encode('hello world!');
    expect(ids).toEqual([1, 2, 3, 4]);
    const decoder = tokenizer.decoder();
    expect(ids.map((id) => decoder.push(id))).toEqual(['hello', ' wor', 'ld', ' !']);
    expect(decoder.end()).toBe('');
    expect(tokenizer.decode(ids)).toBe('hello world !');
    expect(tokenizer.decoder([1]).push(2)).toBe(' wor');
  });

  test('expressions that could run for ever are refused, those in use are not', async () => {
    expect(isPlainPattern('(a+)+b')).toBe(false);
    expect(isPlainPattern('((a|b*)c)*')).toBe(false);
    expect(isPlainPattern('(a{2}){2,}')).toBe(false);
    expect(isPlainPattern('x'.repeat(2001))).toBe(false);
    for (const pattern of [
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      '[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}]*[\\p{Ll}(+]+(?:a|b+)?|\\(+\\)*',
      '(?:ab)+',
    ]) {
      expect([pattern, isPlainPattern(pattern)]).toEqual([pattern, true]);
    }
    const json = byteLevelJson();
    json.pre_tokenizer.pretokenizers[0].pattern = { Regex: '(a+)+b' };
    await expect(loadJson(json)).rejects.toMatchObject({ code: 'ALTIPLANO_TOKENIZER_UNSUPPORTED' });
  });
});
