/**
 * UTF-8, character by character. Decoding is as SentencePiece decodes byte tokens: each byte that is
 * not part of a valid character becomes one U+FFFD. (`TextDecoder` makes one of each longest valid
 * beginning.)
 */

const REPLACEMENT = '\ufffd';

/** Number of bytes that a leading byte announces; 0 for a byte that cannot lead. */
function announcedLength(byte: number): number {
  if (byte < 0x80) return 1;
  if (byte >= 0xc2 && byte <= 0xdf) return 2;
  if (byte >= 0xe0 && byte <= 0xef) return 3;
  if (byte >= 0xf0 && byte <= 0xf4) return 4;
  return 0;
}

/** Whether `second` may follow `first`: excludes overlong forms, surrogates, and above U+10FFFF. */
function maySecond(first: number, second: number): boolean {
  if (first === 0xe0) return second >= 0xa0 && second <= 0xbf;
  if (first === 0xed) return second >= 0x80 && second <= 0x9f;
  if (first === 0xf0) return second >= 0x90 && second <= 0xbf;
  if (first === 0xf4) return second >= 0x80 && second <= 0x8f;
  return second >= 0x80 && second <= 0xbf;
}

const ASCII = Array.from({ length: 0x80 }, (_, code) => String.fromCharCode(code));

const { fromCodePoint } = String;

/** The bytes of one character. */
export function utf8BytesOf(codePoint: number): number[] {
  const tail = (shift: number) => 0x80 | ((codePoint >> shift) & 0x3f);
  if (codePoint < 0x80) return [codePoint];
  if (codePoint < 0x800) return [0xc0 | (codePoint >> 6), tail(0)];
  if (codePoint < 0x10000) return [0xe0 | (codePoint >> 12), tail(6), tail(0)];
  return [0xf0 | (codePoint >> 18), tail(12), tail(6), tail(0)];
}

/** The character of a valid sequence of bytes. */
function textOfCharacter(bytes: readonly number[]): string {
  if (bytes.length === 1) return ASCII[bytes[0]];
  let codePoint = bytes[0] & (0xff >> (bytes.length + 1));
  for (let index = 1; index < bytes.length; index++) {
    codePoint = (codePoint << 6) | (bytes[index] & 0x3f);
  }
  return fromCodePoint(codePoint);
}

export class Utf8Decoder {
  /** The beginning of a character, so far valid: at most three bytes. */
  private pending: number[] = [];

  /** Adds a byte and gives the text that is now certain. */
  push(byte: number): string {
    const { pending } = this;
    if (byte < 0x80 && pending.length === 0) return ASCII[byte];
    pending.push(byte);
    let text = '';
    while (pending.length > 0) {
      const length = announcedLength(pending[0]);
      if (length === 0 || !this.validSoFar()) {
        text += REPLACEMENT;
        pending.shift();
      } else if (pending.length < length) {
        break;
      } else {
        text += textOfCharacter(pending);
        pending.length = 0;
      }
    }
    return text;
  }

  /** One U+FFFD for each byte of an unfinished character. */
  end(): string {
    const text = REPLACEMENT.repeat(this.pending.length);
    this.pending.length = 0;
    return text;
  }

  private validSoFar(): boolean {
    const { pending } = this;
    if (pending.length > 1 && !maySecond(pending[0], pending[1])) return false;
    for (let index = 2; index < pending.length; index++) {
      if ((pending[index] & 0xc0) !== 0x80) return false;
    }
    return true;
  }
}
