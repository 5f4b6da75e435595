/**
 * Just enough of the Protocol Buffers wire format to read a SentencePiece model
 * (https://protobuf.dev/programming-guides/encoding/). Every length is checked against the bytes that
 * are really there, so that a damaged file ends in a typed error, never in a huge allocation.
 */

import { AltiplanoError } from '../errors.js';

/** Wire types; groups (3 and 4) are deprecated and do not occur in these files. */
export const WIRE_VARINT = 0;
export const WIRE_FIXED64 = 1;
export const WIRE_BYTES = 2;
export const WIRE_FIXED32 = 5;

/** A varint holds at most 64 bits, seven in each byte. */
const MAX_VARINT_BYTES = 10;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Walks over the fields of one message:
 *
 *     while (reader.nextField()) {
 *       if (reader.field === 1) name = reader.string();
 *       else reader.skip();
 *     }
 *
 * Each field must be consumed by exactly one of the value methods. Values of the wrong wire type and
 * lengths beyond the message are `ALTIPLANO_TOKENIZER_INVALID`.
 */
export class ProtobufReader {
  /** Number of the current field. */
  field = 0;
  private wireType = 0;
  private position: number;
  private readonly end: number;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly file: string,
    start = 0,
    end = bytes.length,
  ) {
    this.position = start;
    this.end = end;
  }

  /** Moves to the next field; false at the end of the message. */
  nextField(): boolean {
    if (this.position === this.end) return false;
    const tag = this.rawVarint();
    // A tag has 32 bits; the cap also keeps the arithmetic exact.
    if (tag > 0xffffffff || tag < 8) throw this.damaged('a field tag that does not exist');
    this.field = Math.floor(tag / 8);
    this.wireType = tag % 8;
    return true;
  }

  /** An unsigned integer. Above 2^53 the low bits are lost, which no field that we read needs. */
  varint(): number {
    this.expect(WIRE_VARINT);
    return this.rawVarint();
  }

  /** An `int32`: negative numbers are stored as 64-bit two's complement. */
  int32(): number {
    this.expect(WIRE_VARINT);
    let low = 0;
    for (let index = 0; index < MAX_VARINT_BYTES; index++) {
      const byte = this.byte();
      if (index < 5) low |= (byte & 0x7f) << (7 * index);
      if (byte < 0x80) return low;
    }
    throw this.damaged('a number that does not end');
  }

  bool(): boolean {
    return this.varint() !== 0;
  }

  float32(): number {
    this.expect(WIRE_FIXED32);
    const start = this.take(4);
    return new DataView(this.bytes.buffer, this.bytes.byteOffset + start, 4).getFloat32(0, true);
  }

  string(): string {
    this.expect(WIRE_BYTES);
    const length = this.rawVarint();
    const start = this.take(length);
    try {
      return utf8.decode(this.bytes.subarray(start, start + length));
    } catch (cause) {
      throw this.damaged(`field ${this.field} is not UTF-8 text`, cause);
    }
  }

  /** A nested message, or a field of raw bytes of which only the length matters. */
  message(): ProtobufReader {
    this.expect(WIRE_BYTES);
    const length = this.rawVarint();
    const start = this.take(length);
    return new ProtobufReader(this.bytes, this.file, start, start + length);
  }

  /** Bytes left in this message. */
  get remainingBytes(): number {
    return this.end - this.position;
  }

  /** Passes over a field of any wire type. */
  skip(): void {
    switch (this.wireType) {
      case WIRE_VARINT:
        this.rawVarint();
        return;
      case WIRE_FIXED64:
        this.take(8);
        return;
      case WIRE_BYTES:
        this.take(this.rawVarint());
        return;
      case WIRE_FIXED32:
        this.take(4);
        return;
      default:
        throw this.damaged(`field ${this.field} has wire type ${this.wireType}`);
    }
  }

  private expect(wireType: number): void {
    if (this.wireType !== wireType) {
      throw this.damaged(
        `field ${this.field} has wire type ${this.wireType} instead of ${wireType}`,
      );
    }
  }

  private rawVarint(): number {
    let value = 0;
    let scale = 1;
    for (let index = 0; index < MAX_VARINT_BYTES; index++) {
      const byte = this.byte();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
    throw this.damaged('a number that does not end');
  }

  private byte(): number {
    return this.bytes[this.take(1)];
  }

  /** Moves on by `count` bytes and gives the position before. */
  private take(count: number): number {
    const start = this.position;
    if (count > this.end - start) {
      throw this.damaged(
        `${count} bytes are announced at byte ${start}, ${this.end - start} are left`,
      );
    }
    this.position += count;
    return start;
  }

  private damaged(message: string, cause?: unknown): AltiplanoError {
    return new AltiplanoError('ALTIPLANO_TOKENIZER_INVALID', `damaged: ${message}`, {
      subject: this.file,
      cause,
    });
  }
}
