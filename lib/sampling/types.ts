/** What the sampler asks of a row of logits, what it gets, and what it answers. */

/** The tokens of one sequence. Append-only: tokens that a sampler has seen must not change. */
export interface TokenHistory {
  readonly prompt: ArrayLike<number>;
  readonly generated: ArrayLike<number>;
}

/**
 * How penalties and bias change some logits. All arrays are parallel to `RowRequest.ids`:
 * `changed = (repeated ? logit / penalty or logit * penalty : logit) + offset`.
 */
export interface LogitChanges {
  /** 1 if the repetition penalty applies to this id. */
  readonly repeated: Uint8Array;
  /** Logit bias minus frequency and presence penalties; -Infinity bans. */
  readonly offsets: Float64Array;
}

/** What native has to return for one row of logits. */
export interface RowRequest {
  /** How many of the best ids (by raw logit), 0 to vocabulary. */
  readonly candidates: number;
  /** Ids whose raw logits are wanted; no id twice. */
  readonly ids: Int32Array;
  /** A float32 value, so that native scales by exactly this number. */
  readonly inverseTemperature: number;
  /** Whether the whole row is wanted. */
  readonly fullRow: boolean;
  /** The sampler's own, carried from `request` to `choose`. */
  readonly changes: LogitChanges;
}

/** What native returned for one row; all logits are raw (before penalties and temperature). */
export interface RowResult {
  /** Best first; of equal logits the lower id first. */
  candidateIds: Int32Array;
  candidateLogits: Float32Array;
  /** Natural log of the sum of exp(logit). */
  logSumExp: number;
  /** Natural log of the sum of exp(logit * inverseTemperature). */
  scaledLogSumExp: number;
  /** Logits of `RowRequest.ids`, in their order. */
  idLogits: Float32Array;
  /** [vocabulary], if it was asked for. */
  fullLogits?: Float32Array;
  /** False if the row contains a NaN or an infinity above zero. Default true. */
  finite?: boolean;
}

/** A token and the natural log of its probability. */
export interface TokenLogprob {
  id: number;
  logprob: number;
}

/**
 * Log-probabilities (natural log) of the model's own distribution: raw logits at temperature 1,
 * before penalties, bias and truncation. `alternatives` are the most likely tokens, best first,
 * whether or not the chosen one is among them.
 */
export interface TokenLogprobs extends TokenLogprob {
  alternatives: TokenLogprob[];
}

/** A chosen token. */
export interface Choice {
  id: number;
  /** Present if the option `logprobs` is set. */
  logprobs?: TokenLogprobs;
}
