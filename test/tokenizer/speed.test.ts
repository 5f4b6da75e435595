import { beforeAll, describe, expect, test } from '@jest/globals';
import { PieceType, Tokenizer } from '../../lib/tokenizer/index.js';
import { type MergeRule, mergesOfRules } from '../../lib/tokenizer/merge-table.js';
import {
  type Entry,
  llama2Json,
  pick,
  randomOf,
  tokenizerOf,
  vocabularyOf,
  withFolder,
} from './vocabularies.js';

const MEGABYTE = 1_000_000;

/** Far above what it takes (up to 1 s), far below what quadratic time would take (hours). */
const LIMIT_MS = 10_000;

function randomLetters(first: number, range: number, count: number): string {
  const random = randomOf(first);
  let text = '';
  for (let left = count; left > 0; left--) {
    text += String.fromCodePoint(first + Math.floor(random() * range));
  }
  return text;
}

describe('a megabyte of text without spaces takes no more than seconds', () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await withFolder({ 'tokenizer.json': llama2Json() }, Tokenizer.load);
  });

  test.each<[string, () => string]>([
    ['one letter', () => 'a'.repeat(MEGABYTE)],
    ['two letters', () => 'ab'.repeat(MEGABYTE / 2)],
    ['random letters', () => randomLetters(0x61, 26, MEGABYTE)],
    ['Chinese', () => randomLetters(0x4e00, 0x5000, MEGABYTE / 3)],
    ['emoji', () => '😀👩‍👧'.repeat(MEGABYTE / 15)],
    ['newlines', () => '\n'.repeat(MEGABYTE)],
    ['spaces', () => ' '.repeat(MEGABYTE)],
    ['U+0000', () => '\0'.repeat(MEGABYTE)],
  ])('%s', (_, make) => {
    const text = make();
    const start = performance.now();
    const ids = tokenizer.encode(text);
    expect(performance.now() - start).toBeLessThan(LIMIT_MS);
    expect(tokenizer.decode(ids)).toBe(text);
    expect(performance.now() - start).toBeLessThan(2 * LIMIT_MS);
  });
});

describe('merges that are learnt from the pieces', () => {
  test('tokens that are long and many take no more than seconds', async () => {
    const lengths = Array.from({ length: 1024 }, (_, index) => index + 1);
    const runs = lengths.map((length): Entry => ['x'.repeat(length), -length, PieceType.normal]);
    const long = lengths.map(
      (length): Entry => [`${'x'.repeat(1000)}${length}`, 0, PieceType.normal],
    );
    const start = performance.now();
    const tokenizer = await tokenizerOf(
      vocabularyOf([...runs, ...long], { addSpacePrefix: false }),
    );
    const text = 'x'.repeat(MEGABYTE / 4);
    const ids = tokenizer.encode(text);
    expect(performance.now() - start).toBeLessThan(LIMIT_MS);
    expect(ids.length).toBeLessThan(text.length / 100);
    expect(tokenizer.decode(ids)).toBe(text);
  });

  test('a text with more pairs than are kept gets the same ids every time', async () => {
    const letters = Array.from({ length: 300 }, (_, index) => String.fromCharCode(0x4e00 + index));
    const pairs = letters.flatMap((left) => letters.map((right) => left + right));
    const tokenizer = await tokenizerOf(
      vocabularyOf(
        [...letters, ...pairs].map((piece): Entry => [piece, 0, PieceType.normal]),
        { addSpacePrefix: false },
      ),
    );
    const random = randomOf(3);
    // A pair of pieces is looked up and found to be no piece, nearly always for the first time.
    const parts = Array.from({ length: 200_000 }, () => pick(random, pairs));
    const expected = parts.map((part) => tokenizer.idOf(part));
    const start = performance.now();
    for (let round = 0; round < 2; round++) {
      const ids = tokenizer.encode(parts.join(''));
      expect(ids.length).toBe(expected.length);
      expect(ids.findIndex((id, index) => id !== expected[index])).toBe(-1);
    }
    expect(performance.now() - start).toBeLessThan(LIMIT_MS);
  });
});

test('ids that were chosen against a fixed hash do not slow the merges down', () => {
  // Pairs that a hash of two products, a common choice, would all put into the same place.
  const [a, b] = [0x9e3779b1, 0x85ebca6b];
  let inverse = 1;
  for (let round = 0; round < 5; round++) {
    inverse = Math.imul(inverse, 2 - Math.imul(b, inverse));
  }
  const rules: MergeRule[] = [];
  for (let left = 0; rules.length < 300_000; left++) {
    const right = Math.imul(inverse, Math.imul(left, a));
    if (right >= 0) rules.push({ left, right, merged: left });
  }
  const start = performance.now();
  const table = mergesOfRules(vocabularyOf([]), rules);
  const wrong = rules.filter(
    ({ left, right, merged }) => table.mergedAt(table.find(left, right)) !== merged,
  );
  expect(wrong).toEqual([]);
  expect(performance.now() - start).toBeLessThan(LIMIT_MS);
});
