/**
 * A walk over a GGUF file's header that reads lengths and checks them, before anything is built
 * from it. `@huggingface/gguf`, which reads the values afterwards, has limits of its own, but pads
 * a file that ends early with zeros, cuts strings off at the end of what it has read so far, lets
 * the last of several equal keys win and drops a byte order mark from the start of strings. So this
 * walk decides whether the header is sound and where it ends, yields strings to the byte, and reads
 * arrays: a vocabulary takes the library ten times as long.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { show } from '../errors.js';
import { type OpenFile, readBytes } from './files.js';
import {
  MAX_GGUF_ARRAY_DEPTH,
  MAX_GGUF_ARRAY_ELEMENTS,
  MAX_GGUF_ARRAY_LENGTH,
  MAX_GGUF_DIMENSION,
  MAX_GGUF_DIMENSIONS,
  MAX_GGUF_HEADER_BYTES,
  MAX_GGUF_KEY_BYTES,
  MAX_GGUF_KEYS,
  MAX_GGUF_STRING_BYTES,
  MAX_GGUF_TENSOR_NAME_BYTES,
  MAX_GGUF_TENSORS,
} from './limits.js';
import { invalid, unsupported } from './refuse.js';

const STRING = 8;
const ARRAY = 9;
/** Bytes of a value by its type number; strings and arrays bring their length along. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, STRING, ARRAY, 8, 8, 8];
/** Arrays from this size on are read here and not by the library. */
const LONG_ARRAY_BYTES = 4096;
/** What is read at first; a Llama 2 header has about 0.7 MB. */
const FIRST_READ_BYTES = 2 ** 20;

/** Where a metadata value lies in the header. */
interface ValuePlace {
  type: number;
  offset: number;
}

export interface GgufLayout {
  /** From the start of the file to the end of the tensor list, no more. */
  header: Buffer;
  values: ReadonlyMap<string, ValuePlace>;
  /** The header with every long array empty, for `@huggingface/gguf`. */
  withoutLongArrays: Buffer;
}

/** An array of numbers, as its elements are. */
export type Numbers =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array;

/** Thrown and caught in this file: the walk went beyond the bytes that have been read. */
class OutOfBytes extends Error {}

class HeaderWalk {
  readonly values = new Map<string, ValuePlace>();
  /** Where the lengths of long arrays begin and their elements end. */
  readonly longArrays: { lengthAt: number; end: number }[] = [];
  offset = 0;
  private arrayElements = 0;
  private readonly bytes: Buffer;
  private readonly subject: string;

  constructor(bytes: Buffer, subject: string) {
    this.bytes = bytes;
    this.subject = subject;
  }

  private skip(length: number): number {
    const start = this.offset;
    if (length > this.bytes.length - start) throw new OutOfBytes();
    this.offset += length;
    return start;
  }

  private u32(): number {
    return this.bytes.readUInt32LE(this.skip(4));
  }

  /**
   * A 64-bit count or length with a limit. Not as a BigInt, as a vocabulary has one for each piece.
   * @param what names it, without words that would have to be put together each time
   */
  private count(what: string, limit: number, key?: string): number {
    const at = this.skip(8);
    const value = this.bytes.readUInt32LE(at) + this.bytes.readUInt32LE(at + 4) * 2 ** 32;
    if (value > limit) {
      throw invalid(this.subject, `${what}${key === undefined ? '' : show(key)} is too large`, {
        expected: `at most ${limit}`,
        found: `${this.bytes.readBigUInt64LE(at)}`,
      });
    }
    return value;
  }

  private text(what: string, limit: number): string {
    const length = this.count(`the length of ${what}`, limit);
    const start = this.skip(length);
    return decodeUtf8(this.bytes.subarray(start, start + length), this.subject, what);
  }

  /** Returns the number of tensors and of keys. */
  private preamble(): [number, number] {
    const magic = this.skip(4);
    if (this.bytes.toString('latin1', magic, magic + 4) !== 'GGUF') {
      throw invalid(this.subject, 'not a GGUF file', { expected: 'to start with "GGUF"' });
    }
    const version = this.u32();
    if (version !== 0 && (version & 0xffff) === 0) {
      throw unsupported(this.subject, 'big-endian GGUF files are not supported');
    }
    if (version !== 2 && version !== 3) {
      throw unsupported(this.subject, `GGUF version ${version} is not supported`, {
        expected: '2 or 3',
      });
    }
    return [
      this.count('the number of tensors', MAX_GGUF_TENSORS),
      this.count('the number of metadata keys', MAX_GGUF_KEYS),
    ];
  }

  private value(type: number, key: string, depth: number): void {
    const size = VALUE_BYTES[type];
    if (size === undefined) {
      throw invalid(this.subject, `the value of ${show(key)} has an unknown type`, {
        expected: `at most ${VALUE_BYTES.length - 1}`,
        found: `${type}`,
      });
    }
    if (type === STRING) this.skip(this.count('a string in ', MAX_GGUF_STRING_BYTES, key));
    else if (type === ARRAY) this.array(key, depth + 1);
    else this.skip(size);
  }

  private array(key: string, depth: number): void {
    if (depth > MAX_GGUF_ARRAY_DEPTH) {
      throw invalid(this.subject, `arrays in ${show(key)} are nested too deeply`, {
        expected: `at most ${MAX_GGUF_ARRAY_DEPTH} levels`,
      });
    }
    const type = this.u32();
    const length = this.count('an array in ', MAX_GGUF_ARRAY_LENGTH, key);
    this.arrayElements += length;
    if (this.arrayElements > MAX_GGUF_ARRAY_ELEMENTS) {
      throw invalid(this.subject, 'the arrays in the metadata are too long', {
        expected: `at most ${MAX_GGUF_ARRAY_ELEMENTS} elements together`,
      });
    }
    for (let i = 0; i < length; i++) this.value(type, key, depth);
    // An empty array's type is read by nobody, but the reader of the values insists on a known one.
    if (length === 0 && VALUE_BYTES[type] === undefined) {
      throw invalid(this.subject, `an array in ${show(key)} has an unknown type`, {
        found: `${type}`,
      });
    }
  }

  private metadata(): void {
    const key = this.text('a metadata key', MAX_GGUF_KEY_BYTES);
    if (this.values.has(key)) {
      throw invalid(this.subject, 'the same metadata key twice', { found: show(key) });
    }
    const type = this.u32();
    const place = { type, offset: this.offset };
    this.values.set(key, place);
    this.value(type, key, 0);
    if (type === ARRAY && this.offset - place.offset >= LONG_ARRAY_BYTES) {
      this.longArrays.push({ lengthAt: place.offset + 4, end: this.offset });
    }
  }

  private tensor(): void {
    const name = this.text('a tensor name', MAX_GGUF_TENSOR_NAME_BYTES);
    const dimensions = this.u32();
    if (dimensions < 1 || dimensions > MAX_GGUF_DIMENSIONS) {
      throw invalid(this.subject, `tensor ${show(name)} has an impossible number of dimensions`, {
        expected: `1 to ${MAX_GGUF_DIMENSIONS}`,
        found: `${dimensions}`,
      });
    }
    for (let i = 0; i < dimensions; i++) {
      this.count(`a dimension of tensor ${show(name)}`, MAX_GGUF_DIMENSION);
    }
    this.skip(12); // type (4 bytes), offset (8 bytes): read by the caller's reader
  }

  run(): void {
    const [tensors, keys] = this.preamble();
    for (let i = 0; i < keys; i++) this.metadata();
    for (let i = 0; i < tensors; i++) this.tensor();
  }
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function decodeUtf8(bytes: Uint8Array, subject: string, what: string): string {
  try {
    return UTF8.decode(bytes);
  } catch (cause) {
    throw invalid(subject, `${what} is not valid UTF-8`, { cause });
  }
}

/** Walks the first bytes of a file; undefined if they do not hold the whole header. */
function walk(bytes: Buffer, subject: string): GgufLayout | undefined {
  const header = new HeaderWalk(bytes, subject);
  try {
    header.run();
  } catch (error) {
    if (error instanceof OutOfBytes) return undefined;
    throw error;
  }
  const parts: Buffer[] = [];
  let start = 0;
  for (const { lengthAt, end } of header.longArrays) {
    parts.push(bytes.subarray(start, lengthAt), Buffer.alloc(8));
    start = end;
  }
  parts.push(bytes.subarray(start, header.offset));
  return {
    header: bytes.subarray(0, header.offset),
    values: header.values,
    withoutLongArrays: Buffer.concat(parts),
  };
}

/**
 * Reads and checks a GGUF file's header: version 2 or 3, little endian, complete, within the limits
 * of `limits.ts`, no key twice.
 *
 * @throws ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED, ALTIPLANO_FILE_READ
 */
export async function readGgufLayout(file: OpenFile): Promise<GgufLayout> {
  const available = Math.min(file.sizeBytes, MAX_GGUF_HEADER_BYTES);
  // Most of the file is weights: read more only when the header asks for it.
  for (let length = FIRST_READ_BYTES; ; length *= 4) {
    const bytes = await readBytes(file, 0, Math.min(length, available));
    const layout = walk(bytes, file.path);
    if (layout !== undefined) return layout;
    if (bytes.length === available) break;
  }
  if (file.sizeBytes > MAX_GGUF_HEADER_BYTES) {
    throw invalid(file.path, 'the header is too long', {
      expected: `at most ${MAX_GGUF_HEADER_BYTES} bytes`,
    });
  }
  throw invalid(file.path, 'the file ends inside its header', {
    found: `${file.sizeBytes} bytes`,
    hint: 'The file is cut off: get it again.',
  });
}

/**
 * A metadata value that is a string, or an array of strings, exactly as in the file.
 *
 * @returns undefined if there is no such key or its value is of another kind
 * @throws ALTIPLANO_CHECKPOINT_INVALID for strings that are not UTF-8
 */
export function readGgufStrings(
  layout: GgufLayout,
  key: string,
  subject: string,
): string[] | undefined {
  const { header } = layout;
  const place = layout.values.get(key);
  if (place === undefined) return undefined;
  let { offset } = place;
  let length = 1;
  if (place.type === ARRAY) {
    if (header.readUInt32LE(offset) !== STRING) return undefined;
    length = Number(header.readBigUInt64LE(offset + 4));
    offset += 12;
  } else if (place.type !== STRING) {
    return undefined;
  }
  if (length > 1) {
    const strings = decodeStringsAtOnce(header, offset, length);
    if (strings !== undefined) return strings;
  }
  return Array.from({ length }, () => {
    const start = offset + 8;
    offset = start + Number(header.readBigUInt64LE(offset));
    return decodeUtf8(header.subarray(start, offset), subject, key);
  });
}

/**
 * Decodes strings that stand one after the other, each behind its length in 64 bits. Lengths below
 * 128 are text themselves, eight characters that end no unfinished one: then one call decodes all
 * of it, where a call for each piece of a vocabulary takes five times as long.
 * @returns undefined if a string is longer, or is not UTF-8
 */
function decodeStringsAtOnce(header: Buffer, first: number, count: number): string[] | undefined {
  const lengths = new Uint8Array(count);
  let end = first;
  for (let i = 0; i < count; i++) {
    const length = header[end];
    if (length >= 128 || header[end + 1] !== 0 || header[end + 2] !== 0 || header[end + 3] !== 0) {
      return undefined;
    }
    lengths[i] = length;
    end += 8 + length;
  }
  let text: string;
  try {
    text = UTF8.decode(header.subarray(first, end));
  } catch {
    return undefined;
  }
  const strings: string[] = new Array(count);
  let from = first;
  let at = 0; // where `from` is in the text
  for (let i = 0; i < count; i++) {
    from += 8;
    const start = at + 8;
    at = start;
    for (const next = from + lengths[i]; from < next; from++) {
      const byte = header[from];
      if (byte < 0x80 || byte >= 0xc0) at += byte < 0xf0 ? 1 : 2; // a character begins
    }
    strings[i] = text.slice(start, at);
  }
  return strings;
}

/** Elements of an array by their type number; undefined for types that are no JavaScript numbers. */
const ELEMENTS = [
  Uint8Array,
  Int8Array,
  Uint16Array,
  Int16Array,
  Uint32Array,
  Int32Array,
  Float32Array,
  undefined, // boolean
  undefined, // string
  undefined, // array
  undefined, // 64-bit integers
  undefined,
  Float64Array,
];

/**
 * A metadata value that is an array of numbers of up to 32 bits, or of floats.
 *
 * @returns undefined if there is no such key or its value is of another kind
 */
export function readGgufNumbers(layout: GgufLayout, key: string): Numbers | undefined {
  const { header } = layout;
  const place = layout.values.get(key);
  if (place?.type !== ARRAY) return undefined;
  const Elements = ELEMENTS[header.readUInt32LE(place.offset)];
  if (Elements === undefined) return undefined;
  const length = Number(header.readBigUInt64LE(place.offset + 4));
  const start = place.offset + 12;
  const bytes = header.subarray(start, start + length * Elements.BYTES_PER_ELEMENT);
  // A copy, as elements of the file are not aligned; both are little-endian.
  return new Elements(new Uint8Array(bytes).buffer);
}
