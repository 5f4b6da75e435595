import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import {
  PieceType,
  parseSentencePieceModel,
  parseTokenizerConfig,
  parseTokenizerJson,
  type SentencePieceVocabulary,
  Tokenizer,
} from '../../lib/tokenizer/index.js';
import {
  BPE_TRAINER,
  bytesField,
  floatField,
  IDENTITY_NORMALIZER,
  intField,
  type Piece,
  pieceField,
  sentencePieceBytes,
} from '../fixtures/sentencepiece-writer.js';
import {
  BYTE_PIECES,
  DEMO_MODEL,
  llamaTokenizerJson,
  randomOf,
  tokenizerOf,
  vocabularyOf,
  withFolder,
} from './vocabularies.js';

const INVALID = 'ALTIPLANO_TOKENIZER_INVALID';
const UNSUPPORTED = 'ALTIPLANO_TOKENIZER_UNSUPPORTED';

const special: Piece[] = [
  { text: '<unk>', score: 0, type: 2 },
  { text: '<s>', score: 0, type: 3 },
  { text: '</s>', score: 0, type: 3 },
];
const byteTokens: Piece[] = BYTE_PIECES.map((text) => ({ text, score: 0, type: 6 }));
const words: Piece[] = [
  { text: 'a', score: -2, type: 1 },
  { text: 'b', score: -3, type: 1 },
  { text: 'ab', score: -1, type: 1 },
];
const sound = [...special, ...byteTokens, ...words];

/** The error of parsing these bytes. */
function refusal(bytes: Uint8Array): { code?: string; message?: string } {
  try {
    parseSentencePieceModel(bytes, 'some.model');
  } catch (error) {
    return error as { code: string; message: string };
  }
  return {};
}

describe('a damaged tokenizer.model', () => {
  test('the unharmed one is read', () => {
    const { pieces, scores, types, bosId, eosId, unkId } = parseSentencePieceModel(
      sentencePieceBytes(sound),
      'some.model',
    );
    expect(pieces.slice(-3)).toEqual(['a', 'b', 'ab']);
    expect([...scores.slice(-3)]).toEqual([-2, -3, -1]);
    expect(types[5]).toBe(PieceType.byte);
    expect({ bosId, eosId, unkId }).toEqual({ bosId: 1, eosId: 2, unkId: 0 });
  });

  test.each<[string, Uint8Array, RegExp]>([
    ['empty', new Uint8Array(), /trainer_spec is missing/],
    ['no trainer_spec', Buffer.concat(sound.map(pieceField)), /trainer_spec is missing/],
    [
      'no normalizer_spec',
      Buffer.concat([...sound.map(pieceField), bytesField(2, BPE_TRAINER)]),
      /normalizer_spec is missing/,
    ],
    ['no tokens', sentencePieceBytes([]), /number of tokens/],
    ['a length of 2^62', Buffer.from('0affffffffffffffff3f', 'hex'), /are announced/],
    ['a length one too large', Buffer.from('0a050a03616263', 'hex').subarray(0, 6), /announced/],
    ['a number that does not end', Buffer.from('ff'.repeat(12), 'hex'), /does not end/],
    ['field number 0', Buffer.from('0200', 'hex'), /field tag/],
    ['a group', Buffer.from('0b', 'hex'), /wire type 3/],
    ['a skipped group', Buffer.from('5b', 'hex'), /wire type 3/],
    ['a piece that is a number', intField(1, 5), /wire type 0 instead of 2/],
    ['a score that is text', bytesField(1, bytesField(2, 'high')), /wire type 2 instead of 5/],
    ['a piece that is not UTF-8', bytesField(1, bytesField(1, Buffer.of(0xff))), /not UTF-8/],
    [
      'a piece without text',
      sentencePieceBytes([...sound, { text: '', score: 0, type: 1 }]),
      /is empty/,
    ],
    [
      'a huge piece',
      sentencePieceBytes([...sound, { text: 'x'.repeat(1025), score: 0, type: 1 }]),
      /too long/,
    ],
    [
      'a NaN score',
      sentencePieceBytes([...sound, { text: 'x', score: Number.NaN, type: 1 }]),
      /finite/,
    ],
    [
      'an infinite score',
      sentencePieceBytes([...sound, { text: 'x', score: Infinity, type: 1 }]),
      /finite/,
    ],
    ['type 7', sentencePieceBytes([...sound, { text: 'x', score: 0, type: 7 }]), /unknown type/],
    ['type 0', sentencePieceBytes([...sound, { text: 'x', score: 0, type: 0 }]), /unknown type/],
    ['a piece twice', sentencePieceBytes([...sound, words[0]]), /repeats token/],
    [
      'two unknown tokens',
      sentencePieceBytes([...sound, { text: '?', score: 0, type: 2 }]),
      /both the unknown/,
    ],
    ['no unknown token', sentencePieceBytes(sound.slice(1)), /no unknown token/],
    ['a byte missing', sentencePieceBytes([...special, ...byteTokens.slice(1), ...words]), /255/],
    ['no byte tokens', sentencePieceBytes([...special, ...words]), /256 byte tokens/],
    [
      'a byte token of another name',
      sentencePieceBytes([...sound, { text: '<0xag>', score: 0, type: 6 }]),
      /no byte token/,
    ],
    [
      'byte tokens without byte fallback',
      sentencePieceBytes(sound, intField(3, 2)),
      /byte_fallback is off/,
    ],
  ])('%s', (_, bytes, message) => {
    expect(refusal(bytes)).toMatchObject({
      code: INVALID,
      message: expect.stringMatching(message),
    });
  });

  test.each<[string, Uint8Array, Uint8Array, RegExp]>([
    ['a unigram model', intField(3, 1), IDENTITY_NORMALIZER, /found unigram/],
    ['a unigram model by default', intField(35, 1), IDENTITY_NORMALIZER, /found unigram/],
    ['a word model', intField(3, 3), IDENTITY_NORMALIZER, /found word/],
    ['a model of type 9', intField(3, 9), IDENTITY_NORMALIZER, /found type 9/],
    [
      'white space as suffix',
      Buffer.concat([BPE_TRAINER, intField(24, 1)]),
      IDENTITY_NORMALIZER,
      /treat_whitespace_as_suffix/,
    ],
    [
      'normalisation',
      BPE_TRAINER,
      Buffer.concat([bytesField(1, 'nmt_nfkc'), bytesField(2, 'table')]),
      /found nmt_nfkc/,
    ],
    ['unescaped spaces', BPE_TRAINER, intField(5, 0), /escape_whitespaces/],
  ])('%s is refused by name', (_, trainer, normalizer, message) => {
    expect(refusal(sentencePieceBytes(sound, trainer, normalizer))).toMatchObject({
      code: UNSUPPORTED,
      message: expect.stringMatching(message),
    });
  });

  test('a denormalizer is refused by name', () => {
    const bytes = Buffer.concat([sentencePieceBytes(sound), bytesField(5, bytesField(2, 'table'))]);
    expect(refusal(bytes)).toMatchObject({ code: UNSUPPORTED });
  });

  test('fields of other numbers are passed over', () => {
    const bytes = Buffer.concat([
      bytesField(4, 'self test'),
      floatField(100, 1),
      intField(101, 2 ** 40),
      Buffer.from('b10600000000000000ff', 'hex'), // 64 bits in field 102
      sentencePieceBytes(sound),
    ]);
    expect(parseSentencePieceModel(bytes, 'some.model').pieces).toHaveLength(sound.length);
  });

  test('every truncation of a small model, and many changed bytes, give a typed error or a vocabulary', async () => {
    const bytes = sentencePieceBytes(sound);
    for (let length = 0; length < bytes.length; length += 7) {
      expect(refusal(bytes.subarray(0, length)).code).toBe(INVALID);
    }
    const random = randomOf(21);
    let refused = 0;
    for (let round = 0; round < 1500; round++) {
      const changed = Buffer.from(bytes);
      for (let left = 1 + Math.floor(random() * 3); left > 0; left--) {
        changed[Math.floor(random() * changed.length)] = Math.floor(random() * 256);
      }
      const { code } = refusal(changed);
      if (code !== undefined) {
        refused++;
        expect([INVALID, UNSUPPORTED]).toContain(code);
        continue;
      }
      const tokenizer = await tokenizerOf(parseSentencePieceModel(changed, 'some.model'));
      expect(tokenizer.decode(tokenizer.encode('ab ba'))).toMatch(/./);
    }
    expect(refused).toBeGreaterThan(100);
  });
});

describe('a damaged vocabulary (GGUF)', () => {
  const entry: [string, number, number][] = [['a', -1, PieceType.normal]];
  test.each<[string, Partial<SentencePieceVocabulary>, string]>([
    ['too few scores', { scores: new Float32Array(3) }, INVALID],
    ['too many types', { types: new Int32Array(999).fill(1) }, INVALID],
    ['BOS out of range', { bosId: 260 }, INVALID],
    ['EOS out of range', { eosId: -1 }, INVALID],
    ['an unknown id that is no integer', { unkId: 0.5 }, INVALID],
    [
      'half a surrogate pair',
      { pieces: [...vocabularyOf(entry).pieces.slice(1), '\ud800'] },
      INVALID,
    ],
    ['another kind', { model: 'gpt2' }, UNSUPPORTED],
  ])('%s', async (_, change, code) => {
    await expect(tokenizerOf({ ...vocabularyOf(entry), ...change })).rejects.toMatchObject({
      code,
    });
  });

  test('text needs an unknown token or byte tokens', async () => {
    const vocabulary = vocabularyOf(entry, { byteFallback: false });
    vocabulary.types[0] = PieceType.normal;
    await expect(tokenizerOf({ ...vocabulary, unkId: undefined })).rejects.toMatchObject({
      code: INVALID,
    });
  });
});

describe('a damaged tokenizer.json', () => {
  const pieces = ['<unk>', '<s>', '</s>', ...BYTE_PIECES, 'a', 'b', 'ab', 'aba'];
  const sane = () => llamaTokenizerJson(pieces, ['a b', 'ab a']);
  const parse = (json: unknown) =>
    parseTokenizerJson(Buffer.from(JSON.stringify(json)), 'some.json');

  test('the unharmed one is read', () => {
    const parsed = parse(sane());
    expect(parsed.kind).toBe('sentencepiece');
    expect(parsed).toMatchObject({ rules: [{ merged: 261 }, { merged: 262 }] });
  });

  test.each<[string, (json: ReturnType<typeof sane>) => unknown]>([
    ['an array', () => []],
    ['null', () => null],
    ['no model', (json) => ({ ...json, model: undefined })],
    ['a vocabulary that is text', (json) => ({ ...json, model: { ...json.model, vocab: 'a' } })],
    ['ids that are text', (json) => ({ ...json, model: { ...json.model, vocab: { a: '1' } } })],
    ['a negative id', (json) => ({ ...json, model: { ...json.model, vocab: { a: -1 } } })],
    ['an absurd id', (json) => ({ ...json, model: { ...json.model, vocab: { a: 2 ** 31 } } })],
    [
      'the same id twice',
      (json) => ({ ...json, model: { ...json.model, vocab: { a: 3, b: 3, c: 4 } } }),
    ],
    ['ids with gaps', (json) => ({ ...json, model: { ...json.model, vocab: { a: 9 } } })],
    ['merges that are text', (json) => ({ ...json, model: { ...json.model, merges: 'a b' } })],
    ['a merge of three', (json) => ({ ...json, model: { ...json.model, merges: ['a b a'] } })],
    ['a merge of one', (json) => ({ ...json, model: { ...json.model, merges: [['a']] } })],
    [
      'a merge with nothing',
      (json) => ({ ...json, model: { ...json.model, merges: [['', 'a']] } }),
    ],
    [
      'a merge that makes no token',
      (json) => ({ ...json, model: { ...json.model, merges: ['b a'] } }),
    ],
    [
      'a merge of unknown tokens',
      (json) => ({ ...json, model: { ...json.model, merges: ['a z'] } }),
    ],
    ['a merge twice', (json) => ({ ...json, model: { ...json.model, merges: ['a b', 'a b'] } })],
    ['added tokens that are an object', (json) => ({ ...json, added_tokens: {} })],
    [
      'an added token without text',
      (json) => ({ ...json, added_tokens: [{ id: 1, content: '' }] }),
    ],
    ['an added token without id', (json) => ({ ...json, added_tokens: [{ content: 'x' }] })],
    [
      'an added token with another id',
      (json) => ({ ...json, added_tokens: [{ id: 7, content: 'a' }] }),
    ],
    [
      'an added token twice',
      (json) => ({ ...json, added_tokens: [...json.added_tokens, ...json.added_tokens] }),
    ],
  ])('%s', (_, damage) => {
    expect(() => parse(damage(sane()))).toThrow(expect.objectContaining({ code: INVALID }));
  });

  test('what is no JSON, or no UTF-8', () => {
    for (const bytes of [Buffer.from('{"model":'), Buffer.of(0xff, 0xfe), Buffer.alloc(0)]) {
      expect(() => parseTokenizerJson(bytes, 'some.json')).toThrow(
        expect.objectContaining({ code: INVALID }),
      );
    }
    const deep = Buffer.from(`${'['.repeat(100_000)}${']'.repeat(100_000)}`);
    expect(() => parseTokenizerJson(deep, 'some.json')).toThrow(
      expect.objectContaining({ code: INVALID }),
    );
  });

  test('a byte token that is missing', async () => {
    const fewer = pieces.filter((piece) => piece !== '<0x41>');
    const json = llamaTokenizerJson(fewer, ['a b']);
    await withFolder({ 'tokenizer.json': json }, async (folder) => {
      await expect(Tokenizer.load(folder)).rejects.toMatchObject({ code: INVALID });
    });
  });

  test.each<[string, object]>([
    ['a model without vocabulary', { type: 'WordPiece' }],
    ['an empty vocabulary', { type: 'WordPiece', vocab: {} }],
    ['a wrong id', { type: 'BPE', vocab: { a: 1e9 }, merges: [] }],
    ['a Unigram list of numbers', { type: 'Unigram', vocab: [1, 2] }],
    ['a BPE without merges', { type: 'BPE', vocab: { a: 0 } }],
  ])('of another kind: %s', async (_, model) => {
    const json = { added_tokens: [], pre_tokenizer: { type: 'Whitespace' }, model };
    await withFolder({ 'tokenizer.json': json }, async (folder) => {
      await expect(Tokenizer.load(folder)).rejects.toMatchObject({ code: INVALID });
    });
  });

  test('of a kind that nobody knows is refused by name', async () => {
    const json = { pre_tokenizer: null, model: { type: 'Nonsense', vocab: { a: 0 } } };
    await withFolder({ 'tokenizer.json': json }, async (folder) => {
      await expect(Tokenizer.load(folder)).rejects.toMatchObject({
        code: UNSUPPORTED,
        found: '"Nonsense"',
      });
    });
  });

  test('a damaged tokenizer_config.json', () => {
    for (const text of ['[]', '{', '{"bos_token": 5}', '{"eos_token": {"id": 2}}']) {
      expect(() => parseTokenizerConfig(Buffer.from(text), 'c.json')).toThrow(
        expect.objectContaining({ code: INVALID }),
      );
    }
  });
});

describe('files', () => {
  test('that are not there', async () => {
    for (const path of ['no/such/folder', 'no/such/tokenizer.model', 'no/such/tokenizer.json']) {
      await expect(Tokenizer.load(path)).rejects.toMatchObject({
        code: 'ALTIPLANO_FILE_NOT_FOUND',
      });
    }
    await withFolder({}, async (folder) => {
      await expect(Tokenizer.load(folder)).rejects.toMatchObject({
        code: 'ALTIPLANO_FILE_NOT_FOUND',
      });
    });
  });

  test('of unknown names, and no paths at all', async () => {
    await withFolder({ 'vocab.txt': 'a' }, async (folder) => {
      await expect(Tokenizer.load(`${folder}/vocab.txt`)).rejects.toMatchObject({
        code: UNSUPPORTED,
      });
    });
    for (const path of ['', 5, undefined]) {
      await expect(Tokenizer.load(path as string)).rejects.toMatchObject({
        code: 'ALTIPLANO_INVALID_ARGUMENT',
      });
    }
  });

  test('of a folder with both, tokenizer.model is taken', async () => {
    const files = { 'tokenizer.model': readFileSync(DEMO_MODEL), 'tokenizer.json': 'not JSON' };
    await withFolder(files, async (folder) => {
      expect((await Tokenizer.load(folder)).vocabSize).toBe(2048);
    });
  });

  test('far too large are not read', async () => {
    await withFolder({ 'tokenizer.model': 'x' }, async (folder) => {
      const { truncateSync } = await import('node:fs');
      truncateSync(`${folder}/tokenizer.model`, 2 ** 40); // a hole: takes no space on disk
      await expect(Tokenizer.load(folder)).rejects.toMatchObject({ code: INVALID });
    });
  });
});
