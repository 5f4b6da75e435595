/**
 * The vocabulary of a SentencePiece model, wherever it was read from, and the check that everything
 * behind it relies on.
 */

import type { Vocabulary } from '../checkpoint/types.js';
import { AltiplanoError, type ErrorDetails, show } from '../errors.js';
import { MAX_PIECE_LENGTH, MAX_VOCABULARY_SIZE } from './limits.js';

/** SentencePiece's types of pieces, as numbered in `sentencepiece_model.proto` and in GGUF. */
export const PieceType = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const;

/** U+2581, which stands for a space in pieces. */
export const SPACE_SYMBOL = '▁';

/** What `<unk>` decodes to unless the model says otherwise. */
export const DEFAULT_UNKNOWN_SURFACE = ' \u2047 ';

/** A {@link Vocabulary} with the settings that only SentencePiece and Hugging Face files have. */
export interface SentencePieceVocabulary extends Vocabulary {
  /** Runs of spaces become one, spaces at both ends go. Default false, as in Llama 2. */
  removeExtraWhitespaces?: boolean;
  /** Unknown characters become byte tokens. Default: true if there are byte tokens. */
  byteFallback?: boolean;
  /** What the unknown token decodes to. Default " ⁇ ". */
  unknownSurface?: string;
  /**
   * Which stretches of text between special tokens get the dummy prefix (only for text in which
   * special tokens are parsed). Default `every`.
   */
  prefixScheme?: 'every' | 'first';
}

/** An error about a damaged tokenizer file. */
export function tokenizerInvalid(
  file: string,
  message: string,
  details: ErrorDetails = {},
): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_TOKENIZER_INVALID', message, { subject: file, ...details });
}

/** An error about a sound tokenizer that is of another kind. */
export function tokenizerUnsupported(
  file: string,
  message: string,
  details: ErrorDetails = {},
): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_TOKENIZER_UNSUPPORTED', message, {
    subject: file,
    ...details,
  });
}

/** `<0x0A>` -> 10; undefined for anything else. Hexadecimal digits are upper case only. */
export function byteOfPiece(piece: string): number | undefined {
  const match = /^<0x([0-9A-F]{2})>$/.exec(piece);
  return match ? Number.parseInt(match[1], 16) : undefined;
}

export interface CheckedVocabulary {
  /** From piece to id, all types. */
  idOf: Map<string, number>;
  /** Id of the token of each byte; undefined without byte fallback. */
  byteIds: Int32Array | undefined;
  unkId: number | undefined;
}

/**
 * Checks a vocabulary: counts, types, scores, duplicates, byte tokens and special ids.
 * @throws `ALTIPLANO_TOKENIZER_INVALID`
 */
export function checkVocabulary(
  vocabulary: SentencePieceVocabulary,
  file: string,
): CheckedVocabulary {
  const { pieces, scores, types } = vocabulary;
  const count = pieces.length;
  if (count === 0 || count > MAX_VOCABULARY_SIZE) {
    throw tokenizerInvalid(file, 'the number of tokens cannot be right', {
      expected: `1 to ${MAX_VOCABULARY_SIZE}`,
      found: String(count),
    });
  }
  if (scores.length !== count || types.length !== count) {
    throw tokenizerInvalid(file, 'tokens, scores and types differ in number', {
      found: `${count} tokens, ${scores.length} scores, ${types.length} types`,
    });
  }
  const idOf = new Map<string, number>();
  const byteIds = new Int32Array(256).fill(-1);
  let byteCount = 0;
  let unkId = vocabulary.unkId;
  for (let id = 0; id < count; id++) {
    const piece = pieces[id];
    const type = types[id];
    checkPiece(piece, id, file);
    const earlier = idOf.get(piece);
    if (earlier !== undefined) {
      throw tokenizerInvalid(file, `token ${id} repeats token ${earlier}`, { found: show(piece) });
    }
    idOf.set(piece, id);
    if (type < PieceType.normal || type > PieceType.byte) {
      throw tokenizerInvalid(file, `token ${id} has an unknown type`, {
        expected: '1 to 6',
        found: String(type),
      });
    }
    if (!Number.isFinite(scores[id])) {
      throw tokenizerInvalid(file, `the score of token ${id} is not a finite number`, {
        found: String(scores[id]),
      });
    }
    if (type === PieceType.byte) {
      const byte = byteOfPiece(piece);
      if (byte === undefined) {
        throw tokenizerInvalid(file, `token ${id} is no byte token`, {
          expected: 'a piece like <0x0A>',
          found: show(piece),
        });
      }
      byteIds[byte] = id;
      byteCount++;
    }
    if (type === PieceType.unknown) {
      if (vocabulary.unkId === undefined && unkId !== undefined) {
        throw tokenizerInvalid(file, `tokens ${unkId} and ${id} are both the unknown token`);
      }
      unkId = id;
    }
  }
  for (const name of ['bosId', 'eosId', 'unkId'] as const) {
    const id = vocabulary[name];
    if (id !== undefined && !(Number.isInteger(id) && id >= 0 && id < count)) {
      throw tokenizerInvalid(file, `${name} is not the id of a token`, {
        expected: `0 to ${count - 1}`,
        found: String(id),
      });
    }
  }
  const byteFallback = vocabulary.byteFallback ?? byteCount > 0;
  if (byteFallback && byteCount !== 256) {
    throw tokenizerInvalid(file, 'byte fallback needs a token for each byte', {
      expected: '256 byte tokens',
      found: String(byteCount),
    });
  }
  if (!byteFallback && unkId === undefined) {
    throw tokenizerInvalid(
      file,
      'neither an unknown token nor byte tokens: text cannot be encoded',
    );
  }
  return { idOf, byteIds: byteFallback ? byteIds : undefined, unkId };
}

function checkPiece(piece: string, id: number, file: string): void {
  if (typeof piece !== 'string' || piece.length === 0) {
    throw tokenizerInvalid(file, `token ${id} is empty`);
  }
  if (piece.length > MAX_PIECE_LENGTH) {
    throw tokenizerInvalid(file, `token ${id} is too long`, {
      expected: `at most ${MAX_PIECE_LENGTH} characters`,
      found: String(piece.length),
    });
  }
  if (!piece.isWellFormed()) {
    throw tokenizerInvalid(file, `token ${id} is not Unicode text (it has half a surrogate pair)`);
  }
}
