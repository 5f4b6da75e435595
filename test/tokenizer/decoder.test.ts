import { beforeAll, describe, expect, test } from '@jest/globals';
import { PieceType, Tokenizer } from '../../lib/tokenizer/index.js';
import { DEMO_MODEL, randomOf, randomText, tokenizerOf, vocabularyOf } from './vocabularies.js';

let demo: Tokenizer;
beforeAll(async () => {
  demo = await Tokenizer.load(DEMO_MODEL);
});

/** Ids of these bytes in the demo vocabulary. */
const bytes = (...values: number[]) => values.map((value) => value + 3);

const isWellFormed = (text: string) => !/\p{Surrogate}/u.test(text);

describe('decoding', () => {
  test('drops the dummy prefix, and only that', () => {
    const hello = demo.encode('hello');
    expect(demo.decode(hello)).toBe('hello');
    expect(demo.decode([...hello, ...hello])).toBe('hello hello');
    expect(demo.decode(demo.encode('  hello  '))).toBe('  hello  ');
    expect(demo.decode([])).toBe('');
  });

  test('control tokens have no text and do not count as a beginning', () => {
    const hello = demo.encode('hello');
    expect(demo.decode([1, ...hello, 2])).toBe('hello');
    expect(demo.decode([...hello, 2, 1, ...hello])).toBe('hello hello');
    // A lone space is the dummy prefix, whatever follows.
    const space = demo.idOf('▁') as number;
    expect(demo.decode([space, 1, ...hello])).toBe(' hello');
  });

  test('the unknown token has a text of its own', () => {
    expect(demo.decode([0])).toBe(' \u2047 ');
  });

  // What the SentencePiece library gives: one U+FFFD for each byte that is no part of a character.
  test.each([
    ['a character', bytes(0xf0, 0x9f, 0x98, 0x80), '😀'],
    ['a beginning only', bytes(0xf0, 0x9f, 0x98), '\ufffd\ufffd\ufffd'],
    ['a continuation only', bytes(0x98, 0x41), '\ufffdA'],
    ['a beginning, then a letter', bytes(0xe6, 0x97, 0x41), '\ufffd\ufffdA'],
    ['a beginning, then a character', bytes(0xe6, 0xc3, 0xa9), '\ufffdé'],
    ['an overlong form', bytes(0xc0, 0x80), '\ufffd\ufffd'],
    ['an overlong form of three', bytes(0xe0, 0x80, 0x80), '\ufffd\ufffd\ufffd'],
    ['half a surrogate pair', bytes(0xed, 0xa0, 0x80), '\ufffd\ufffd\ufffd'],
    ['above U+10FFFF', bytes(0xf4, 0x90, 0x80, 0x80), '\ufffd\ufffd\ufffd\ufffd'],
    ['a control token between', [...bytes(0xc3), 1, ...bytes(0xa9)], '\ufffd\ufffd'],
    ['U+FEFF', bytes(0xef, 0xbb, 0xbf, 0x41), '\ufeffA'],
  ])('bytes: %s', (_, ids, text) => {
    expect(demo.decode(ids)).toBe(text);
  });

  test('without a dummy prefix the first space stays', async () => {
    const entries: [string, number, number][] = [['▁a', -1, PieceType.normal]];
    const kept = await tokenizerOf(vocabularyOf(entries, { addSpacePrefix: false }));
    expect(kept.decode([259])).toBe(' a');
    const dropped = await tokenizerOf(
      vocabularyOf([...entries, ['▁', -2, PieceType.normal]], { removeExtraWhitespaces: true }),
    );
    expect(dropped.decode([260, 260, 259, 259])).toBe('a a');
  });
});

describe('streaming', () => {
  test('pieces add up to the whole for random ids, and are never broken', () => {
    const random = randomOf(5);
    for (let round = 0; round < 500; round++) {
      const ids = Array.from({ length: Math.floor(random() * 40) }, () =>
        Math.floor(random() * (random() < 0.5 ? 259 : demo.vocabSize)),
      );
      const decoder = demo.decoder();
      const pieces = ids.map((id) => decoder.push(id));
      pieces.push(decoder.end());
      for (const piece of pieces) expect(isWellFormed(piece)).toBe(true);
      expect(pieces.join('')).toBe(demo.decode(ids));
    }
  });

  test('a character comes with its last byte', () => {
    const decoder = demo.decoder();
    const ids = bytes(...Buffer.from('é😀'));
    expect(ids.map((id) => decoder.push(id))).toEqual(['', 'é', '', '', '', '😀']);
    expect(decoder.end()).toBe('');
  });

  test('goes on from a context', () => {
    const random = randomOf(6);
    for (let round = 0; round < 200; round++) {
      const ids = [1, ...demo.encode(Buffer.from(randomText(random, 40)).toString())];
      const cut = Math.floor(random() * (ids.length + 1));
      const context = ids.slice(0, cut);
      // In the middle of a character the context has already been shown as U+FFFD.
      if (demo.decode(context).endsWith('\ufffd')) continue;
      const decoder = demo.decoder(context);
      const pieces = ids.slice(cut).map((id) => decoder.push(id));
      expect(demo.decode(context) + pieces.join('') + decoder.end()).toBe(demo.decode(ids));
    }
  });

  test('a continuation keeps its space, a beginning does not', () => {
    const [hello] = demo.encode('a');
    expect(demo.piece(hello)).toBe('▁a');
    expect(demo.decoder([hello]).push(hello)).toBe(' a');
    expect(demo.decoder([1]).push(hello)).toBe('a');
    expect(demo.decoder().push(hello)).toBe('a');
  });

  test('an unfinished character in the context is not taken up', () => {
    const [first, second] = bytes(...Buffer.from('é'));
    const decoder = demo.decoder([first]);
    expect(decoder.push(second) + decoder.end()).toBe('\ufffd');
  });

  test('ids that do not exist are refused', () => {
    for (const id of [-1, demo.vocabSize, 0.5]) {
      expect(() => demo.decoder().push(id)).toThrow(
        expect.objectContaining({ code: 'ALTIPLANO_OUT_OF_RANGE' }),
      );
    }
  });
});

test('every character survives as byte tokens', () => {
  for (let codePoint = 0; codePoint <= 0x10ffff; codePoint += codePoint < 0x3000 ? 1 : 61) {
    if (codePoint >= 0xd800 && codePoint <= 0xdfff) continue;
    const text = String.fromCodePoint(codePoint);
    const ids = bytes(...Buffer.from(text));
    if (demo.decode(ids) !== text) throw new Error(`U+${codePoint.toString(16)}`);
    const plain = demo.encode(text).slice(1);
    if (plain[0] <= 258 && plain.join() !== ids.join()) throw new Error(`${plain} for ${ids}`);
  }
  expect(demo.decode(bytes(...Buffer.from('\u{10ffff}')))).toBe('\u{10ffff}');
});
