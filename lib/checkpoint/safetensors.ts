/**
 * The header of a safetensors file: eight bytes of length (little endian), then that many bytes of
 * JSON, `{"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}`, then the
 * data. The format demands that the tensors cover the data exactly: no overlaps, no holes.
 * Format: https://github.com/huggingface/safetensors#format
 */
import { show } from '../errors.js';
import { type OpenFile, readBytes, withFile } from './files.js';
import { isObject, parseJson } from './json.js';
import { MAX_SAFETENSORS_DIMENSIONS, MAX_SAFETENSORS_HEADER_BYTES } from './limits.js';
import { invalid, unsupported } from './refuse.js';
import { SAFETENSORS_TYPES, shapeText, tensorSizeBytes } from './tensor-types.js';
import type { TensorSource } from './types.js';

const LENGTH_BYTES = 8;

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

async function readHeader(file: OpenFile): Promise<{ header: unknown; dataStart: number }> {
  if (file.sizeBytes < LENGTH_BYTES) {
    throw invalid(file.path, 'too short for a safetensors file', {
      expected: `at least ${LENGTH_BYTES} bytes`,
      found: `${file.sizeBytes}`,
    });
  }
  const length = (await readBytes(file, 0, LENGTH_BYTES)).readBigUInt64LE();
  if (length > BigInt(MAX_SAFETENSORS_HEADER_BYTES)) {
    throw invalid(file.path, 'the header is longer than the safetensors format allows', {
      expected: `at most ${MAX_SAFETENSORS_HEADER_BYTES} bytes`,
      found: `${length}`,
    });
  }
  const dataStart = LENGTH_BYTES + Number(length);
  if (dataStart > file.sizeBytes) {
    throw invalid(file.path, 'the file ends inside its header', {
      expected: `at least ${dataStart} bytes`,
      found: `${file.sizeBytes}`,
      hint: 'The file is cut off or no safetensors file.',
    });
  }
  const bytes = await readBytes(file, LENGTH_BYTES, Number(length));
  return { header: parseJson(bytes, file.path), dataStart };
}

function readEntry(file: OpenFile, dataStart: number, name: string, entry: unknown): TensorSource {
  const subject = `${file.path}: tensor ${show(name)}`;
  if (!isObject(entry)) {
    throw invalid(subject, 'no description', { expected: 'an object', found: show(entry) });
  }
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== 'string') {
    throw invalid(subject, 'dtype is no name', { found: show(dtype) });
  }
  const type = SAFETENSORS_TYPES.find((known) => known === dtype);
  if (type === undefined) {
    throw unsupported(subject, `dtype ${show(dtype)} is not supported`, {
      expected: SAFETENSORS_TYPES.join(', '),
    });
  }
  if (!Array.isArray(shape) || shape.length > MAX_SAFETENSORS_DIMENSIONS || !shape.every(isSize)) {
    throw invalid(subject, 'shape is no list of sizes', { found: show(shape) });
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw invalid(subject, 'data_offsets is no pair of offsets', { found: show(offsets) });
  }
  const [begin, end] = offsets as [number, number];
  const sizeBytes = tensorSizeBytes(type, shape);
  if (sizeBytes !== end - begin) {
    throw invalid(subject, `data_offsets do not fit ${type} ${shapeText(shape)}`, {
      expected: sizeBytes === undefined ? 'a size below 2^53' : `${sizeBytes} bytes`,
      found: `${end - begin}`,
    });
  }
  if (end > file.sizeBytes - dataStart) {
    throw invalid(subject, 'the data lie beyond the end of the file', {
      expected: `a file of at least ${dataStart + end} bytes`,
      found: `${file.sizeBytes}`,
      hint: 'The file is cut off: get it again.',
    });
  }
  return { name, type, shape, file: file.realPath, offset: dataStart + begin, sizeBytes };
}

function checkCoverage(file: OpenFile, dataStart: number, tensors: readonly TensorSource[]): void {
  const sorted = tensors.toSorted((a, b) => a.offset - b.offset || a.sizeBytes - b.sizeBytes);
  let end = dataStart;
  for (const { name, offset, sizeBytes } of sorted) {
    if (offset < end) {
      throw invalid(`${file.path}: tensor ${show(name)}`, 'the data overlap another tensor', {
        expected: `an offset of at least ${end - dataStart}`,
        found: `${offset - dataStart}`,
      });
    }
    if (offset > end) {
      throw invalid(`${file.path}: tensor ${show(name)}`, 'bytes before it belong to no tensor', {
        expected: `an offset of ${end - dataStart}`,
        found: `${offset - dataStart}`,
      });
    }
    end = offset + sizeBytes;
  }
  if (end !== file.sizeBytes) {
    throw invalid(file.path, 'bytes at the end belong to no tensor', {
      expected: `${end} bytes`,
      found: `${file.sizeBytes}`,
    });
  }
}

/**
 * Reads where a safetensors file's tensors lie. Only the header is read.
 *
 * @throws ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED (a dtype other than F32,
 *   F16, BF16), ALTIPLANO_FILE_NOT_FOUND, ALTIPLANO_FILE_READ
 */
export async function readSafetensors(path: string): Promise<TensorSource[]> {
  return withFile(path, async (file) => {
    const { header, dataStart } = await readHeader(file);
    if (!isObject(header)) {
      throw invalid(path, 'the header is no object', { found: show(header) });
    }
    const tensors = Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, entry]) => readEntry(file, dataStart, name, entry));
    checkCoverage(file, dataStart, tensors);
    return tensors;
  });
}
