/**
 * Refusals of the tokenizer that the readers of files come before: no file reaches them (see
 * hostile.test.ts), a caller with a source of its own does.
 */
import { describe, expect, test } from '@jest/globals';
import type { Vocabulary } from '../../lib/checkpoint/types.js';
import { Tokenizer } from '../../lib/tokenizer/index.js';
import { TINY_PIECES } from '../fixtures/tiny-model.js';

const fromVocabulary = (changes: Partial<Vocabulary>) =>
  Tokenizer.fromSource({
    kind: 'vocabulary',
    file: 'made.gguf',
    vocabulary: {
      model: 'llama',
      pieces: TINY_PIECES.map(({ text }) => text),
      scores: Float32Array.from(TINY_PIECES, ({ score }) => score),
      types: Int32Array.from(TINY_PIECES, ({ type }) => type),
      ...changes,
    },
  });

describe('a vocabulary from elsewhere', () => {
  test('a sound one is taken', async () => {
    expect((await fromVocabulary({})).vocabSize).toBe(TINY_PIECES.length);
  });

  test.each([
    ['another model', { model: 'gpt2' }, 'ALTIPLANO_TOKENIZER_UNSUPPORTED', /another kind/],
    [
      'too few scores',
      { scores: new Float32Array(3) },
      'ALTIPLANO_TOKENIZER_INVALID',
      /differ in number/,
    ],
    [
      'a stray id',
      { bosId: 5000 },
      'ALTIPLANO_TOKENIZER_INVALID',
      /bosId is not the id of a token/,
    ],
  ] as const)('%s', async (_, changes, code, message) => {
    await expect(fromVocabulary(changes)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});
