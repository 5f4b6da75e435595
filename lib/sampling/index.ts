/** Sampling: from rows of logits to tokens, and from text to the end of the text. */
export { Sampler } from './sampler.js';
export { StopStrings } from './stop.js';
export type {
  Choice,
  RowRequest,
  RowResult,
  TokenHistory,
  TokenLogprob,
  TokenLogprobs,
} from './types.js';
