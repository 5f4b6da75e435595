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

  /** A 64-bit count or length with a limit; above 2^53 it only needs to be above the limit. */
  private count(what: string, limit: number): number {
    const value = this.bytes.readBigUInt64LE(this.skip(8));
    if (value > BigInt(limit)) {
      throw invalid(this.subject, `${what} is too large`, {
        expected: `at most ${limit}`,
        found: `${value}`,
      });
    }
    return Number(value);
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
    if (type === STRING) this.skip(this.count(`a string in ${show(key)}`, MAX_GGUF_STRING_BYTES));
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
    const length = this.count(`an array in ${show(key)}`, MAX_GGUF_ARRAY_LENGTH);
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
  return Array.from({ length }, () => {
    const start = offset + 8;
    offset = start + Number(header.readBigUInt64LE(offset));
    return decodeUtf8(header.subarray(start, offset), subject, key);
  });
}

/** Elements of an array by their type number; undefined for types that are no JavaScript numbers. */
const ELEMENT_READERS: readonly (((bytes: Buffer, offset: number) => number) | undefined)[] = [
  (bytes, offset) => bytes.readUInt8(offset),
  (bytes, offset) => bytes.readInt8(offset),
  (bytes, offset) => bytes.readUInt16LE(offset),
  (bytes, offset) => bytes.readInt16LE(offset),
  (bytes, offset) => bytes.readUInt32LE(offset),
  (bytes, offset) => bytes.readInt32LE(offset),
  (bytes, offset) => bytes.readFloatLE(offset),
  undefined, // boolean
  undefined, // string
  undefined, // array
  undefined, // 64-bit integers
  undefined,
  (bytes, offset) => bytes.readDoubleLE(offset),
];

/**
 * A metadata value that is an array of numbers of up to 32 bits, or of floats.
 *
 * @returns undefined if there is no such key or its value is of another kind
 */
export function readGgufNumbers(layout: GgufLayout, key: string): number[] | undefined {
  const { header } = layout;
  const place = layout.values.get(key);
  if (place?.type !== ARRAY) return undefined;
  const type = header.readUInt32LE(place.offset);
  const read = ELEMENT_READERS[type];
  if (read === undefined) return undefined;
  const length = Number(header.readBigUInt64LE(place.offset + 4));
  const bytes = VALUE_BYTES[type]!;
  return Array.from({ length }, (_, i) => read(header, place.offset + 12 + i * bytes));
}
