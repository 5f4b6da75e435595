export type { SpecialToken, StreamingDecoder } from './codec.js';
export { parseSentencePieceModel } from './sentencepiece-model.js';
export { type SpecialTextOptions, Tokenizer } from './tokenizer.js';
export {
  type ParsedTokenizerJson,
  parseTokenizerConfig,
  parseTokenizerJson,
  type TokenizerConfig,
} from './tokenizer-json.js';
export { checkVocabulary, PieceType, type SentencePieceVocabulary } from './vocabulary.js';
