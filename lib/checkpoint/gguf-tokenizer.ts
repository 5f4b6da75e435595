/** The tokenizer in GGUF metadata. */
import { AltiplanoError, show } from '../errors.js';
import type { Numbers } from './gguf-layout.js';
import type { GgufMetadata } from './gguf-metadata.js';
import type { Vocabulary } from './types.js';

const PREFIX = 'tokenizer.ggml';

/** SentencePiece's types: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. */
const FIRST_TYPE = 1;
const LAST_TYPE = 6;

function invalidTokenizer(
  metadata: GgufMetadata,
  message: string,
  expected: string,
  found: string,
): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_TOKENIZER_INVALID', message, {
    subject: metadata.subject,
    expected,
    found,
  });
}

/** An id that must be a token's. */
function readId(metadata: GgufMetadata, name: string, vocabSize: number): number | undefined {
  const key = `${PREFIX}.${name}`;
  const id = metadata.number(key);
  if (id !== undefined && !(Number.isInteger(id) && id >= 0 && id < vocabSize)) {
    throw invalidTokenizer(metadata, `${key} is no token`, `0 to ${vocabSize - 1}`, `${id}`);
  }
  return id;
}

/** Values for all tokens, one each. */
function readColumn(
  metadata: GgufMetadata,
  name: string,
  vocabSize: number,
  isValid: (value: number) => boolean,
  expected: string,
): Numbers {
  const key = `${PREFIX}.${name}`;
  const column = metadata.numbers(key);
  if (column.length !== vocabSize) {
    throw invalidTokenizer(
      metadata,
      `${key} does not fit ${PREFIX}.tokens`,
      `${vocabSize} values`,
      `${column.length}`,
    );
  }
  const stray = column.findIndex((value) => !isValid(value));
  if (stray >= 0) {
    throw invalidTokenizer(metadata, `${key}[${stray}] is wrong`, expected, show(column[stray]));
  }
  return column;
}

export interface GgufTokenizer {
  /** Absent if the file brings none, or one of a kind that is not supported. */
  vocabulary?: Vocabulary;
  /** Ids that end a text. */
  eosTokenIds: number[];
  /** Why a tokenizer in the file is not used. */
  warning?: string;
}

/**
 * Reads the tokenizer, if the file has one.
 *
 * @throws ALTIPLANO_TOKENIZER_INVALID if it contradicts itself, ALTIPLANO_CHECKPOINT_INVALID if
 *   metadata are of the wrong kind
 */
export function readGgufTokenizer(metadata: GgufMetadata, vocabSize: number): GgufTokenizer {
  const eosId = readId(metadata, 'eos_token_id', vocabSize);
  const eotId = readId(metadata, 'eot_token_id', vocabSize);
  const eosTokenIds = [...new Set([eosId, eotId])].filter((id) => id !== undefined);
  const model = metadata.string(`${PREFIX}.model`);
  const pieces = metadata.strings(`${PREFIX}.tokens`);
  if (model === undefined || pieces === undefined) return { eosTokenIds };
  if (model !== 'llama') {
    return {
      eosTokenIds,
      warning:
        `${metadata.subject}: its tokenizer (${PREFIX}.model ${show(model)}) is not supported, ` +
        'so it can only be used with token ids.',
    };
  }
  const scores = readColumn(metadata, 'scores', vocabSize, Number.isFinite, 'a finite number');
  const isType = (value: number) =>
    Number.isInteger(value) && value >= FIRST_TYPE && value <= LAST_TYPE;
  const types = readColumn(
    metadata,
    'token_type',
    vocabSize,
    isType,
    `${FIRST_TYPE} to ${LAST_TYPE}`,
  );
  const bosId = readId(metadata, 'bos_token_id', vocabSize);
  const unkId = readId(metadata, 'unknown_token_id', vocabSize);
  const addSpacePrefix = metadata.boolean(`${PREFIX}.add_space_prefix`);
  return {
    eosTokenIds,
    vocabulary: {
      model,
      pieces,
      scores: Float32Array.from(scores),
      types: Int32Array.from(types),
      ...(bosId !== undefined && { bosId }),
      ...(eosId !== undefined && { eosId }),
      ...(unkId !== undefined && { unkId }),
      ...(addSpacePrefix !== undefined && { addSpacePrefix }),
    },
  };
}
