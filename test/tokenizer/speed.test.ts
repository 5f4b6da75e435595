import { beforeAll, describe, expect, test } from '@jest/globals';
import { Tokenizer } from '../../lib/tokenizer/index.js';
import { llama2Json, randomOf, withFolder } from './vocabularies.js';

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
