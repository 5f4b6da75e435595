/**
 * What a checkpoint is once it has been read and checked, whatever the format on disk: a
 * configuration and tensor sources (where the bytes of each weight lie). No weight is read here;
 * the native engine reads the bytes, so that they never pass through the JavaScript heap.
 */

/** Element types of tensors in files. One row per type in `tensor-types.ts`. */
export type TensorType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q6_K';

/** Where one tensor's bytes lie. Checked: `offset + sizeBytes` lies inside the file. */
export interface TensorSource {
  /** The tensor's name in the file, for messages. */
  name: string;
  type: TensorType;
  /** Outermost first: a matrix is [rows, columns], a vector [length]. */
  shape: readonly number[];
  /** Absolute path of the file, links resolved. */
  file: string;
  /** Bytes from the start of the file. */
  offset: number;
  sizeBytes: number;
}

export type RopeScaling =
  | { kind: 'none' }
  | { kind: 'linear'; factor: number }
  | {
      kind: 'llama3';
      factor: number;
      lowFreqFactor: number;
      highFreqFactor: number;
      originalContextTokens: number;
    };

/** The facts about the model. Names follow `config.json`, units are in the names. */
export interface LlamaConfig {
  hiddenSize: number;
  /** Width of the feed-forward layer. */
  intermediateSize: number;
  layers: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  vocabSize: number;
  /** The longest sequence that the model was trained for, in tokens. */
  contextTokens: number;
  rmsNormEps: number;
  ropeTheta: number;
  ropeScaling: RopeScaling;
  /** The output head is the embedding matrix. */
  tiedEmbeddings: boolean;
}

/** One transformer layer's tensors. Matrices are [out, in]. */
export interface LayerTensors {
  attentionNorm: TensorSource;
  q: TensorSource;
  k: TensorSource;
  v: TensorSource;
  o: TensorSource;
  feedForwardNorm: TensorSource;
  gate: TensorSource;
  up: TensorSource;
  down: TensorSource;
}

export interface ModelTensors {
  embedding: TensorSource;
  layers: readonly LayerTensors[];
  finalNorm: TensorSource;
  /** Absent with tied embeddings. */
  head?: TensorSource;
}

/** What the checkpoint itself says about generation (`generation_config.json`, GGUF metadata). */
export interface GenerationDefaults {
  temperature?: number;
  topP?: number;
  topK?: number;
  repetitionPenalty?: number;
  /** Extra end-of-sequence ids; the tokenizer's own is always one. */
  eosTokenIds?: readonly number[];
}

/** Where the tokenizer comes from. */
export type TokenizerSource =
  /** A SentencePiece `tokenizer.model`. */
  | { kind: 'sentencepiece'; file: string }
  /** A Hugging Face `tokenizer.json`, with `tokenizer_config.json` beside it if there is one. */
  | { kind: 'tokenizer-json'; file: string; configFile?: string }
  /** A vocabulary from GGUF metadata. */
  | { kind: 'vocabulary'; file: string; vocabulary: Vocabulary };

/** A SentencePiece vocabulary as GGUF stores it; index = token id. */
export interface Vocabulary {
  /** `tokenizer.ggml.model`, for instance "llama". */
  model: string;
  pieces: readonly string[];
  scores: Float32Array;
  /** SentencePiece types: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte. */
  types: Int32Array;
  bosId?: number;
  eosId?: number;
  unkId?: number;
  /** `tokenizer.ggml.add_space_prefix`; SentencePiece's dummy prefix. Default true. */
  addSpacePrefix?: boolean;
}

export interface Checkpoint {
  /** The folder or file that was opened. */
  path: string;
  format: 'safetensors' | 'gguf';
  /** A name for people, from the files or the path. */
  name: string;
  config: LlamaConfig;
  /** How the rows of q and k pair up for the rotary embedding. */
  rotaryLayout: 'halves' | 'interleaved';
  tensors: ModelTensors;
  generation: GenerationDefaults;
  /** Absent if the checkpoint brings none: then only token ids can be used. */
  tokenizer?: TokenizerSource;
  /** Jinja source, from `tokenizer_config.json`, `chat_template.jinja` or GGUF metadata. */
  chatTemplate?: string;
  /** Things that the user should know, to be passed to `process.emitWarning`. */
  warnings: readonly string[];
}
