/**
 * Reads a SentencePiece `tokenizer.model`: a `ModelProto` message (sentencepiece_model.proto of
 * https://github.com/google/sentencepiece). Of its settings, those that change ids or text are
 * honoured or refused by name; the rest belongs to training.
 */

import { MAX_VOCABULARY_SIZE } from './limits.js';
import { ProtobufReader } from './protobuf.js';
import {
  checkVocabulary,
  DEFAULT_UNKNOWN_SURFACE,
  PieceType,
  type SentencePieceVocabulary,
  tokenizerInvalid,
  tokenizerUnsupported,
} from './vocabulary.js';

const MODEL_TYPES = ['', 'unigram', 'bpe', 'word', 'char'];
const MODEL_TYPE_BPE = 2;

/** TrainerSpec: the fields that matter after training, with their defaults. */
interface TrainerSpec {
  modelType: number;
  byteFallback: boolean;
  treatWhitespaceAsSuffix: boolean;
  unknownSurface: string;
  bosPiece: string;
  eosPiece: string;
}

/** NormalizerSpec, with its defaults. */
interface NormalizerSpec {
  name: string;
  charsMapBytes: number;
  addDummyPrefix: boolean;
  removeExtraWhitespaces: boolean;
  escapeWhitespaces: boolean;
}

/**
 * Reads and checks a SentencePiece model.
 * @param bytes the whole file
 * @param file its name, for messages
 * @throws `ALTIPLANO_TOKENIZER_INVALID` for a damaged file, `ALTIPLANO_TOKENIZER_UNSUPPORTED` for a
 * sound one that is no BPE model with identity normalisation
 */
export function parseSentencePieceModel(bytes: Uint8Array, file: string): SentencePieceVocabulary {
  const reader = new ProtobufReader(bytes, file);
  const pieces: string[] = [];
  const scores: number[] = [];
  const types: number[] = [];
  let trainer: TrainerSpec | undefined;
  let normalizer: NormalizerSpec | undefined;
  let denormalizer: NormalizerSpec | undefined;
  while (reader.nextField()) {
    switch (reader.field) {
      case 1: {
        if (pieces.length === MAX_VOCABULARY_SIZE) {
          throw tokenizerInvalid(file, `more than ${MAX_VOCABULARY_SIZE} tokens`);
        }
        const piece = readPiece(reader.message());
        pieces.push(piece.text);
        scores.push(piece.score);
        types.push(piece.type);
        break;
      }
      case 2:
        trainer = readTrainerSpec(reader.message());
        break;
      case 3:
        normalizer = readNormalizerSpec(reader.message());
        break;
      case 5:
        denormalizer = readNormalizerSpec(reader.message());
        break;
      default:
        reader.skip();
    }
  }
  // Their defaults belong to a unigram model: a file without them was cut off.
  if (!trainer) throw tokenizerInvalid(file, 'the trainer_spec is missing');
  if (!normalizer) throw tokenizerInvalid(file, 'the normalizer_spec is missing');
  refuseOtherKinds(trainer, normalizer, denormalizer, file);

  const vocabulary: SentencePieceVocabulary = {
    model: 'llama',
    pieces,
    scores: Float32Array.from(scores),
    types: Int32Array.from(types),
    addSpacePrefix: normalizer.addDummyPrefix,
    removeExtraWhitespaces: normalizer.removeExtraWhitespaces,
    byteFallback: trainer.byteFallback,
    unknownSurface: trainer.unknownSurface,
  };
  const { idOf, unkId } = checkVocabulary(vocabulary, file);
  if (unkId === undefined) throw tokenizerInvalid(file, 'there is no unknown token');
  if (!trainer.byteFallback && types.includes(PieceType.byte)) {
    throw tokenizerInvalid(file, 'it has byte tokens although byte_fallback is off');
  }
  // As SentencePiece does it: by name, and only if that piece is a control token.
  const controlId = (piece: string): number | undefined => {
    const id = idOf.get(piece);
    return id !== undefined && types[id] === PieceType.control ? id : undefined;
  };
  const bosId = controlId(trainer.bosPiece);
  const eosId = controlId(trainer.eosPiece);
  return {
    ...vocabulary,
    unkId,
    ...(bosId !== undefined && { bosId }),
    ...(eosId !== undefined && { eosId }),
  };
}

function refuseOtherKinds(
  trainer: TrainerSpec,
  normalizer: NormalizerSpec,
  denormalizer: NormalizerSpec | undefined,
  file: string,
): void {
  if (trainer.modelType !== MODEL_TYPE_BPE) {
    throw tokenizerUnsupported(file, 'a SentencePiece model of another type', {
      expected: 'bpe',
      found: MODEL_TYPES[trainer.modelType] || `type ${trainer.modelType}`,
    });
  }
  if (trainer.treatWhitespaceAsSuffix) {
    throw tokenizerUnsupported(file, 'treat_whitespace_as_suffix is not supported');
  }
  if (normalizer.charsMapBytes > 0) {
    throw tokenizerUnsupported(file, 'text normalisation is not supported', {
      expected: 'identity',
      found: normalizer.name || 'a table without a name',
    });
  }
  if (!normalizer.escapeWhitespaces) {
    throw tokenizerUnsupported(file, 'escape_whitespaces = false is not supported');
  }
  if (denormalizer && denormalizer.charsMapBytes > 0) {
    throw tokenizerUnsupported(file, 'a denormalizer is not supported');
  }
}

function readPiece(reader: ProtobufReader): { text: string; score: number; type: number } {
  let text = '';
  let score = 0;
  let type: number = PieceType.normal;
  while (reader.nextField()) {
    if (reader.field === 1) text = reader.string();
    else if (reader.field === 2) score = reader.float32();
    else if (reader.field === 3) type = reader.int32();
    else reader.skip();
  }
  return { text, score, type };
}

function readTrainerSpec(reader: ProtobufReader): TrainerSpec {
  const spec: TrainerSpec = {
    modelType: 1,
    byteFallback: false,
    treatWhitespaceAsSuffix: false,
    unknownSurface: DEFAULT_UNKNOWN_SURFACE,
    bosPiece: '<s>',
    eosPiece: '</s>',
  };
  while (reader.nextField()) {
    if (reader.field === 3) spec.modelType = reader.int32();
    else if (reader.field === 24) spec.treatWhitespaceAsSuffix = reader.bool();
    else if (reader.field === 35) spec.byteFallback = reader.bool();
    else if (reader.field === 44) spec.unknownSurface = reader.string();
    else if (reader.field === 46) spec.bosPiece = reader.string();
    else if (reader.field === 47) spec.eosPiece = reader.string();
    else reader.skip();
  }
  return spec;
}

function readNormalizerSpec(reader: ProtobufReader): NormalizerSpec {
  const spec: NormalizerSpec = {
    name: '',
    charsMapBytes: 0,
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
  };
  while (reader.nextField()) {
    if (reader.field === 1) spec.name = reader.string();
    else if (reader.field === 2) spec.charsMapBytes = reader.message().remainingBytes;
    else if (reader.field === 3) spec.addDummyPrefix = reader.bool();
    else if (reader.field === 4) spec.removeExtraWhitespaces = reader.bool();
    else if (reader.field === 5) spec.escapeWhitespaces = reader.bool();
    else reader.skip();
  }
  return spec;
}
