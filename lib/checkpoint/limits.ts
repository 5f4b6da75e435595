/**
 * Upper bounds for what a checkpoint's headers may claim. They lie far above every known model, so
 * that they only ever meet damaged or hostile files, and low enough that nothing which a file can
 * say makes the process allocate or loop without bound.
 */

/** `config.json` and its siblings: real ones have a few kilobytes, with a long chat template 100. */
export const MAX_CONFIG_BYTES = 16 * 2 ** 20;

/** The limit of the safetensors format itself (its reference reader refuses more). */
export const MAX_SAFETENSORS_HEADER_BYTES = 100_000_000;

/**
 * Values in one JSON file. A shard index of 100,000 tensors has as many values, a safetensors header
 * seven for each tensor; one value takes up to about 60 bytes of heap.
 */
export const MAX_JSON_VALUES = 2_000_000;

/** Nesting in a JSON file. Real configurations reach 6. */
export const MAX_JSON_DEPTH = 64;

/** Dimensions of a tensor in a safetensors file (GGUF: {@link MAX_GGUF_DIMENSIONS}). */
export const MAX_SAFETENSORS_DIMENSIONS = 16;

/**
 * Everything in a GGUF file before the tensor data. Llama 3's, with 128,000 tokens and 280,000
 * merges, has 8 MB. `@huggingface/gguf` gives up at 50 MB.
 */
export const MAX_GGUF_HEADER_BYTES = 32 * 2 ** 20;

/** Keys in GGUF metadata; real files have about 40. */
export const MAX_GGUF_KEYS = 10_000;

/** Bytes of a GGUF key: the specification's limit. */
export const MAX_GGUF_KEY_BYTES = 65_535;

/** Tensors in a GGUF file; Llama 3.1 405B has 1,137. */
export const MAX_GGUF_TENSORS = 100_000;

/** Bytes of a GGUF tensor name; ggml itself allows 63. */
export const MAX_GGUF_TENSOR_NAME_BYTES = 255;

/** Bytes of one GGUF string; the longest real ones are chat templates and licences. */
export const MAX_GGUF_STRING_BYTES = 4 * 2 ** 20;

/** Elements of one GGUF array: the limit of `@huggingface/gguf`. */
export const MAX_GGUF_ARRAY_LENGTH = 1_000_000;

/** Elements of all GGUF arrays together: each becomes a JavaScript value of 8 bytes or more. */
export const MAX_GGUF_ARRAY_ELEMENTS = 4_000_000;

/** Arrays within arrays in GGUF metadata. Known files have none; `@huggingface/gguf` allows 4. */
export const MAX_GGUF_ARRAY_DEPTH = 3;

/** ggml's own limit. */
export const MAX_GGUF_DIMENSIONS = 4;

/** One tensor dimension in a GGUF file: so that products of two stay exact in a double. */
export const MAX_GGUF_DIMENSION = 2 ** 26;

/** `general.alignment`; files have 32, some 4096 for page alignment. */
export const MAX_GGUF_ALIGNMENT = 2 ** 20;
