/**
 * What a tokenizer file may hold at most. The limits lie far above every tokenizer in use and keep a
 * damaged or hostile file from costing more than moments and some megabytes.
 */

/** Llama 2's tokenizer.model has 0.5 MB, Gemma's with 256,000 pieces 4 MB. */
export const MAX_MODEL_FILE_BYTES = 64 * 2 ** 20;

/** Llama 3's tokenizer.json has 9 MB (17 MB with merges as pairs), Gemma's 33 MB. */
export const MAX_JSON_FILE_BYTES = 128 * 2 ** 20;

/**
 * Values in a tokenizer.json. Gemma's has 0.26 million pieces and 0.58 million merges; written as
 * pairs they make 2 million values. A value takes up to about 60 bytes of heap.
 */
export const MAX_JSON_FILE_VALUES = 5_000_000;

/** `tokenizer_config.json` is a few KB, with hundreds of added tokens some 100 KB. */
export const MAX_CONFIG_FILE_BYTES = 8 * 2 ** 20;

/** The largest vocabularies in use have some 260,000 tokens. */
export const MAX_VOCABULARY_SIZE = 2 ** 20;

/**
 * Merges in a tokenizer.json: about one for each piece. The merge queue packs a rank below this and
 * a position into one exact double.
 */
export const MAX_MERGES = 2 ** 21;

/** UTF-16 units in one piece. SentencePiece allows 16 by default; long runs of spaces reach 256. */
export const MAX_PIECE_LENGTH = 1024;

/** Regular expressions in a tokenizer.json: the longest known have some 300 characters. */
export const MAX_PATTERN_LENGTH = 2000;
