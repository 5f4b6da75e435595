import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import {
  PieceType,
  parseSentencePieceModel,
  type SentencePieceVocabulary,
  Tokenizer,
} from '../../lib/tokenizer/index.js';
import { referenceEncode } from './reference.js';
import {
  DEMO_MODEL,
  type Entry,
  LLAMA2_FOLDER,
  pick,
  randomOf,
  randomText,
  tokenizerOf,
  vocabularyOf,
} from './vocabularies.js';

const demoGolden = JSON.parse(readFileSync(resolve('models/demo/golden.json'), 'utf8'));
const hasLlama2 = existsSync(LLAMA2_FOLDER);
const llama2Test = hasLlama2 ? describe : describe.skip;

llama2Test('Llama 2 (needs ../shared/tokenizers/llama2)', () => {
  const { cases }: { cases: { text: string; ids: number[]; decoded: string }[] } = hasLlama2
    ? JSON.parse(readFileSync(join(LLAMA2_FOLDER, 'cases.json'), 'utf8'))
    : { cases: [] };

  test('every case of the SentencePiece library, both ways', async () => {
    const tokenizer = await Tokenizer.load(LLAMA2_FOLDER);
    expect(cases.length).toBeGreaterThan(300);
    for (const { text, ids, decoded } of cases) {
      expect({ text, ids: tokenizer.encode(text) }).toEqual({ text, ids });
      expect({ text, decoded: tokenizer.decode(ids) }).toEqual({ text, decoded });
    }
  });

  test('the start of a conversation is as everyone knows it', async () => {
    const tokenizer = await Tokenizer.load(join(LLAMA2_FOLDER, 'tokenizer.model'));
    const ids = [tokenizer.bosId, ...tokenizer.encode('[INST]')];
    expect(ids).toEqual([1, 518, 25580, 29962]);
    expect(tokenizer.eosId).toBe(2);
    expect(tokenizer.unkId).toBe(0);
    expect(tokenizer.vocabSize).toBe(32000);
  });
});

describe('the demo model', () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await Tokenizer.load(DEMO_MODEL);
  });

  test('prompts have the golden ids', () => {
    expect(demoGolden.cases.length).toBeGreaterThan(0);
    for (const { prompt, ids } of demoGolden.cases) {
      if (ids.indexOf(1, 1) >= 0) continue; // a conversation: see the tests of lib/chat
      expect([tokenizer.bosId, ...tokenizer.encode(prompt)]).toEqual(ids);
    }
  });

  test('knows its pieces', () => {
    expect(tokenizer.vocabSize).toBe(2048);
    expect(tokenizer.piece(262)).toBe('INST');
    expect(tokenizer.idOf('INST')).toBe(262);
    expect(tokenizer.idOf('no such piece')).toBeUndefined();
    expect([0, 1, 2, 3, 262].map((id) => tokenizer.isControl(id))).toEqual([
      false,
      true,
      true,
      false,
      false,
    ]);
  });

  test('text is never read as a control token', () => {
    const ids = tokenizer.encode('<s>a</s><unk><0x0A>');
    for (const id of ids) expect(id).toBeGreaterThan(258);
    expect(tokenizer.decode(ids)).toBe('<s>a</s><unk><0x0A>');
  });

  test('half a surrogate pair is U+FFFD', () => {
    for (const text of ['\ud83d', 'a\ude00b', '\ude00\ud83d', '😀\ud83d']) {
      const replaced = Buffer.from(text).toString();
      expect(tokenizer.encode(text)).toEqual(tokenizer.encode(replaced));
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(replaced);
    }
  });

  test('arguments of the wrong kind are typed errors', () => {
    const code = (run: () => unknown) => {
      try {
        run();
      } catch (error) {
        return (error as { code: string }).code;
      }
      return 'no error';
    };
    expect(code(() => tokenizer.encode(5 as never))).toBe('ALTIPLANO_INVALID_ARGUMENT');
    expect(code(() => tokenizer.encodeWithSpecial(null as never))).toBe(
      'ALTIPLANO_INVALID_ARGUMENT',
    );
    for (const id of [-1, 2048, 1.5, Number.NaN, '5' as never]) {
      expect(code(() => tokenizer.decode([id]))).toBe('ALTIPLANO_OUT_OF_RANGE');
      expect(code(() => tokenizer.piece(id))).toBe('ALTIPLANO_OUT_OF_RANGE');
      expect(code(() => tokenizer.isControl(id))).toBe('ALTIPLANO_OUT_OF_RANGE');
    }
  });

  test('equals the textbook on random text, short and long, and decodes it', () => {
    const vocabulary = parseSentencePieceModel(readFileSync(DEMO_MODEL), DEMO_MODEL);
    const random = randomOf(11);
    for (let round = 0; round < 400; round++) {
      const text = randomText(random, Math.floor(random() * (round % 20 === 0 ? 600 : 60)));
      const wellFormed = Buffer.from(text).toString();
      const ids = tokenizer.encode(text);
      expect({ text, ids }).toEqual({ text, ids: referenceEncode(vocabulary, wellFormed) });
      expect(tokenizer.decode(ids)).toBe(wellFormed.replaceAll('▁', ' '));
    }
  });
});

describe('made vocabularies equal the textbook', () => {
  /** Pieces from few letters, so that merges overlap, tie and cross in every way. */
  function randomEntries(random: () => number, types: readonly number[]): Entry[] {
    const letters = ['a', 'b', 'c', '▁', 'é', '日', '😀'].slice(0, 2 + Math.floor(random() * 6));
    const entries = new Map<string, Entry>();
    for (const letter of letters) {
      // Some letters are no pieces, and reach the vocabulary only within longer ones.
      if (random() < 0.8) entries.set(letter, [letter, -100, PieceType.normal]);
    }
    for (let count = 5 + Math.floor(random() * 40); count > 0; count--) {
      let piece = '';
      for (let left = 2 + Math.floor(random() * 4); left > 0; left--)
        piece += pick(random, letters);
      entries.set(piece, [piece, -Math.floor(random() * 12), pick(random, types)]);
    }
    return [...entries.values()];
  }

  const n = PieceType.normal;
  test.each<[string, number[], Partial<SentencePieceVocabulary>]>([
    ['plain', [n], {}],
    ['without byte fallback', [n], { byteFallback: false }],
    ['without a dummy prefix', [n], { addSpacePrefix: false }],
    ['with extra spaces removed', [n], { removeExtraWhitespaces: true }],
    ['with user-defined pieces', [n, n, n, PieceType.userDefined], {}],
    ['with unused pieces', [n, n, PieceType.unused], {}],
    ['with everything', [n, n, PieceType.unused, PieceType.userDefined], { byteFallback: false }],
  ])('%s', async (_, types, settings) => {
    const random = randomOf(types.length + Object.keys(settings).length * 100 + 7);
    const alphabet = ['a', 'b', 'c', ' ', ' ', 'é', '日', '😀', 'z', 'q', '▁'];
    for (let round = 0; round < 60; round++) {
      const vocabulary = vocabularyOf(randomEntries(random, types), settings);
      const tokenizer = await tokenizerOf(vocabulary);
      for (let sample = 0; sample < 12; sample++) {
        const letters = alphabet.slice(0, 2 + Math.floor(random() * 10));
        const length = Math.floor(random() * (sample === 0 ? 150 : 25));
        const text = Array.from({ length }, () => pick(random, letters)).join('');
        const ids = tokenizer.encode(text);
        const expected = referenceEncode(vocabulary, text);
        if (ids.join() !== expected.join()) {
          const pieces = vocabulary.pieces.slice(settings.byteFallback === false ? 3 : 259);
          throw new Error(`${JSON.stringify(text)}: ${ids} for ${expected}, with ${pieces}`);
        }
      }
    }
  });

  test('of user-defined pieces the longest is taken, and it never merges', async () => {
    const tokenizer = await tokenizerOf(
      vocabularyOf([
        ['▁', -1, n],
        ['a', -1, n],
        ['b', -1, n],
        ['ab', -1, n],
        ['aba', -1, PieceType.userDefined],
        ['<tool>', 0, PieceType.userDefined],
        ['<tool>a', 0, PieceType.userDefined],
      ]),
    );
    const pieces = (text: string) => tokenizer.encode(text).map((id) => tokenizer.piece(id));
    expect(pieces('abab<tool>ab')).toEqual(['▁', 'aba', 'b', '<tool>a', 'b']);
    expect(pieces('ab<tool>b')).toEqual(['▁', 'ab', '<tool>', 'b']);
  });
});
