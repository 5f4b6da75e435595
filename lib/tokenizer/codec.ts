/** What one kind of tokenizer must be able to do; `Tokenizer` adds the rest. */

import { outOfRange, show } from '../errors.js';

const { isInteger } = Number;

/** Turns token ids into text one by one; made by `Tokenizer.decoder`. */
export interface StreamingDecoder {
  /**
   * Text that is certain once this token is known: possibly none, possibly with text held back
   * before. Always well-formed UTF-16.
   * @throws `ALTIPLANO_OUT_OF_RANGE` if `id` is no token
   */
  push(id: number): string;
  /** What was held back: an unfinished character becomes U+FFFD. The decoder starts afresh. */
  end(): string;
}

/** A decoder that can be told that everything so far was shown, unfinished characters included. */
export interface ContextDecoder extends StreamingDecoder {
  flush(): void;
}

/** A token that only templates may write as text. */
export interface SpecialToken {
  id: number;
  /** White space before it is dropped (`lstrip` of a tokenizer.json). */
  stripBefore: boolean;
  /** White space after it is dropped (`rstrip`). */
  stripAfter: boolean;
}

export interface Codec {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly unkId: number | undefined;
  /** Special tokens by their text. */
  readonly specialTokens: ReadonlyMap<string, SpecialToken>;
  /**
   * Ids of text that is well-formed UTF-16; nothing in it is a special token.
   * @param afterSpecial whether the text follows a special token
   */
  encode(text: string, afterSpecial: boolean): number[];
  /** The token as it stands in the vocabulary. `id` was checked. */
  piece(id: number): string;
  idOf(piece: string): number | undefined;
  isControl(id: number): boolean;
  decoder(): ContextDecoder;
}

/** @throws `ALTIPLANO_OUT_OF_RANGE` unless `id` is an integer from 0 to `vocabSize - 1` */
export function checkTokenId(id: number, vocabSize: number): void {
  if (!(isInteger(id) && id >= 0 && id < vocabSize)) {
    throw outOfRange('not a token id', {
      subject: 'id',
      expected: `an integer from 0 to ${vocabSize - 1}`,
      found: show(id),
    });
  }
}

/** Halves of surrogate pairs become U+FFFD, as `Buffer.from` does it. */
export function wellFormed(text: string): string {
  return text.toWellFormed();
}
