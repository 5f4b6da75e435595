/** GGUF files: metadata through `@huggingface/gguf`, from a header that was checked before. */
import { basename } from 'node:path';
import { show } from '../errors.js';
import { assembleTensors, type TensorMap } from './assemble.js';
import { epsilonWarning } from './config-limits.js';
import { type OpenFile, withFile } from './files.js';
import { checkGgufKind, readGgufConfig } from './gguf-config.js';
import { readGgufLayout } from './gguf-layout.js';
import { GgufMetadata } from './gguf-metadata.js';
import { readGgufTokenizer } from './gguf-tokenizer.js';
import { MAX_GGUF_ALIGNMENT } from './limits.js';
import { GGUF_NAMES } from './names.js';
import { invalid, throwIfAborted, unsupported } from './refuse.js';
import { GGUF_TYPES, ggufTensorType, shapeText, tensorSizeBytes } from './tensor-types.js';
import type { Checkpoint, TensorSource } from './types.js';

/** ggml's default for `general.alignment`. */
const DEFAULT_ALIGNMENT = 32;

/** Per-frequency factors, which files of Llama 3.1 and later bring. */
const ROPE_FACTORS = 'rope_freqs.weight';

/** A tensor as `@huggingface/gguf` describes it; dimensions innermost first. */
interface GgufTensor {
  name: string;
  shape: bigint[];
  dtype: number;
  offset: bigint;
}

interface GgufHeader {
  metadata: Record<string, unknown>;
  tensorInfos: GgufTensor[];
  /** The name of a tensor type, whether it can be read or not. */
  typeName: (ggufId: number) => string;
}

/**
 * Has `@huggingface/gguf` read a header from memory. The library reads through `fetch`, so this
 * gives it one that serves the checked bytes: it sees nothing but what was checked, and no other
 * file or network access takes place.
 */
async function parseHeader(header: Buffer, subject: string): Promise<GgufHeader> {
  const { gguf, GGMLQuantizationType } = await import('./gguf-library.js');
  const serve = async (_url: unknown, request?: { headers?: unknown }) => {
    const { Range: range = '' } = (request?.headers ?? {}) as { Range?: string };
    const [first = 0, last = 0] = (range.match(/\d+/g) ?? []).map(Number);
    // What the library uses of a Response. A real one would load Node's HTTP client.
    const arrayBuffer = async () => new Uint8Array(header.subarray(first, last + 1)).buffer;
    return { headers: new Map<string, string>(), arrayBuffer };
  };
  try {
    const parsed = await gguf('http://checked-header.invalid/', {
      fetch: serve as unknown as typeof fetch,
    });
    return {
      metadata: { ...parsed.metadata },
      tensorInfos: parsed.tensorInfos,
      typeName: (ggufId) => GGMLQuantizationType[ggufId] ?? `number ${ggufId}`,
    };
  } catch (cause) {
    throw invalid(subject, 'the header cannot be read', {
      found: cause instanceof Error ? cause.message.slice(0, 160) : undefined,
      cause,
    });
  }
}

function readAlignment(metadata: GgufMetadata): number {
  const alignment = metadata.number('general.alignment') ?? DEFAULT_ALIGNMENT;
  const isPowerOfTwo = Number.isInteger(Math.log2(alignment));
  if (!isPowerOfTwo || alignment < 1 || alignment > MAX_GGUF_ALIGNMENT) {
    throw invalid(metadata.subject, 'general.alignment is no sane power of two', {
      expected: `1 to ${MAX_GGUF_ALIGNMENT}`,
      found: `${alignment}`,
    });
  }
  return alignment;
}

function readTensor(
  file: OpenFile,
  info: GgufTensor,
  typeName: GgufHeader['typeName'],
  dataStart: number,
  alignment: number,
): TensorSource {
  const subject = `${file.path}: tensor ${show(info.name)}`;
  const type = ggufTensorType(info.dtype);
  if (type === undefined) {
    throw unsupported(subject, `GGUF tensor type ${typeName(info.dtype)} is not supported`, {
      expected: GGUF_TYPES.join(', '),
    });
  }
  const shape = info.shape.map(Number).reverse();
  const sizeBytes = tensorSizeBytes(type, shape);
  if (sizeBytes === undefined || sizeBytes === 0) {
    throw invalid(subject, `a tensor of type ${type} cannot have this shape`, {
      found: shapeText(shape),
    });
  }
  if (info.offset % BigInt(alignment) !== 0n) {
    throw invalid(subject, 'the data are not aligned', {
      expected: `an offset divisible by ${alignment}`,
      found: `${info.offset}`,
    });
  }
  if (BigInt(dataStart) + info.offset + BigInt(sizeBytes) > BigInt(file.sizeBytes)) {
    throw invalid(subject, 'the data lie beyond the end of the file', {
      expected: `a file of at least ${BigInt(dataStart) + info.offset + BigInt(sizeBytes)} bytes`,
      found: `${file.sizeBytes}`,
      hint: 'The file is cut off: get it again.',
    });
  }
  const offset = dataStart + Number(info.offset);
  return { name: info.name, type, shape, file: file.realPath, offset, sizeBytes };
}

/** Refuses names that stand twice and data that overlap. */
function indexTensors(file: OpenFile, tensors: readonly TensorSource[]): TensorMap {
  const byName = new Map<string, TensorSource>();
  let end = 0;
  for (const tensor of tensors.toSorted((a, b) => a.offset - b.offset)) {
    const subject = `${file.path}: tensor ${show(tensor.name)}`;
    if (byName.has(tensor.name)) throw invalid(subject, 'the same tensor twice');
    if (tensor.offset < end) {
      throw invalid(subject, 'the data overlap another tensor', {
        expected: `an offset in the file of at least ${end}`,
        found: `${tensor.offset}`,
      });
    }
    end = tensor.offset + tensor.sizeBytes;
    byName.set(tensor.name, tensor);
  }
  return byName;
}

async function readCheckpoint(
  file: OpenFile,
  signal: AbortSignal | undefined,
): Promise<Checkpoint> {
  const layout = await readGgufLayout(file);
  throwIfAborted(signal);
  const parsed = await parseHeader(layout.withoutLongArrays, file.path);
  const metadata = new GgufMetadata(file.path, parsed.metadata, layout);
  checkGgufKind(metadata);
  const alignment = readAlignment(metadata);
  const dataStart = Math.ceil(layout.header.length / alignment) * alignment;
  const tensors = indexTensors(
    file,
    parsed.tensorInfos.map((info) => readTensor(file, info, parsed.typeName, dataStart, alignment)),
  );
  if (tensors.has(ROPE_FACTORS)) {
    throw unsupported(file.path, `RoPE scaling by ${ROPE_FACTORS} (Llama 3.1) is not supported`, {
      hint: 'Use the model in the Hugging Face format.',
    });
  }
  const config = readGgufConfig(metadata, !tensors.has(GGUF_NAMES.head));
  const { vocabulary, eosTokenIds, warning } = readGgufTokenizer(metadata, config.vocabSize);
  const chatTemplate = metadata.string('tokenizer.chat_template');
  const name = metadata.string('general.name') || basename(file.path, '.gguf');
  return {
    path: file.path,
    format: 'gguf',
    name,
    config,
    rotaryLayout: 'interleaved',
    tensors: assembleTensors(file.path, config, tensors, GGUF_NAMES),
    generation: eosTokenIds.length > 0 ? { eosTokenIds } : {},
    ...(vocabulary !== undefined && {
      tokenizer: { kind: 'vocabulary' as const, file: file.path, vocabulary },
    }),
    ...(chatTemplate !== undefined && { chatTemplate }),
    warnings: [warning, epsilonWarning(config, name)].filter((text) => text !== undefined),
  };
}

/**
 * Opens a GGUF file. Only its header is read.
 *
 * @throws ALTIPLANO_CHECKPOINT_INVALID, ALTIPLANO_CHECKPOINT_UNSUPPORTED,
 *   ALTIPLANO_TOKENIZER_INVALID, ALTIPLANO_FILE_NOT_FOUND, ALTIPLANO_FILE_READ, ALTIPLANO_ABORTED
 */
export async function openGguf(path: string, signal: AbortSignal | undefined): Promise<Checkpoint> {
  return withFile(path, (file) => readCheckpoint(file, signal));
}
