/** Perplexity of a text under a model. */
import { onAbort } from './abort.js';
import { aborted, outOfRange } from './errors.js';
import type { Scheduler } from './generation/scheduler.js';
import { ScoreTask } from './generation/score-task.js';
import { checkOptions, perplexitySchemas } from './option-schemas.js';

export interface PerplexityOptions {
  /** Aborts with ALTIPLANO_ABORTED. */
  signal?: AbortSignal;
  /** Called as the text is scored. */
  onProgress?: (progress: { doneTokens: number; totalTokens: number }) => void;
}

export interface Perplexity {
  /** exp(negativeLogLikelihood / scored tokens). */
  perplexity: number;
  /** Tokens of the text, BOS included. */
  tokens: number;
  /** Sum over the scored tokens, in nats. */
  negativeLogLikelihood: number;
}

/**
 * Scores every token but the first, given all before it. A text longer than the window is cut into
 * windows that follow each other, each scored by itself behind the first token (BOS), as is usual
 * for the perplexities that are published for Llama 2.
 */
export async function perplexityOf(
  scheduler: Scheduler,
  tokens: readonly number[],
  windowTokens: number,
  options?: PerplexityOptions,
): Promise<Perplexity> {
  const { signal, onProgress } = checkOptions(perplexitySchemas, options);
  if (tokens.length < 2 || windowTokens < 2) {
    throw outOfRange('is too short for a perplexity', {
      subject: 'text',
      expected: 'at least 2 tokens',
      found: String(tokens.length),
    });
  }
  const checkAborted = () => {
    if (signal?.aborted) throw aborted('perplexity', signal.reason);
  };
  let sum = 0;
  for (let begin = 1; begin < tokens.length; begin += windowTokens - 1) {
    checkAborted();
    const window = [tokens[0]!, ...tokens.slice(begin, begin + windowTokens - 1)];
    const doneTokens = begin;
    const task = new ScoreTask(window, (scored) =>
      onProgress?.({ doneTokens: doneTokens + scored, totalTokens: tokens.length }),
    );
    const stopListening = onAbort(signal, () => {
      scheduler.remove(task);
      task.fail(aborted('perplexity', signal?.reason));
    });
    scheduler.add(task);
    try {
      sum += await task.negativeLogLikelihood;
    } finally {
      stopListening();
    }
  }
  return {
    perplexity: Math.exp(sum / (tokens.length - 1)),
    tokens: tokens.length,
    negativeLogLikelihood: sum,
  };
}
