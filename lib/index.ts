/** altiplano: Llama 2 inference inside Node.js. */
export type { ChatMessage } from './chat/index.js';
export { type Checkpoint, openCheckpoint } from './checkpoint/index.js';
export type { LlamaConfig, RopeScaling, TensorSource, TensorType } from './checkpoint/types.js';
export { cpuInfo } from './cpu-info.js';
export { AltiplanoError, type ErrorCode } from './errors.js';
export type {
  FinishReason,
  Generation,
  GenerationResult,
  GenerationTimings,
} from './generation/output.js';
export type { SchedulerStats } from './generation/scheduler.js';
export { estimateMemory, Llama, type LlamaInfo, type MemoryEstimate } from './llama.js';
export type { ModelMemory } from './load-plan.js';
export type { CpuInfo } from './native.js';
export type { ChatOptions, GenerateOptions, LoadOptions, LoadProgress } from './options.js';
export type { Perplexity, PerplexityOptions } from './perplexity.js';
export type { TokenLogprob, TokenLogprobs } from './sampling/index.js';
export { type StreamingDecoder, Tokenizer } from './tokenizer/index.js';
