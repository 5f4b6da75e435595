/**
 * Which logits penalties and bias change, and how: repetition penalty (CTRL, arXiv:1909.05858, as
 * Hugging Face applies it) over prompt and generated tokens, frequency and presence penalties (as
 * OpenAI defines them) over generated tokens, all within a window; then logit bias.
 */
import type { ResolvedGenerateOptions } from '../options.js';
import type { LogitChanges, TokenHistory } from './types.js';

/** Adds to a count; a count of zero leaves the map. */
function add(counts: Map<number, number>, id: number, amount: number): void {
  const count = (counts.get(id) ?? 0) + amount;
  if (count === 0) counts.delete(id);
  else counts.set(id, count);
}

/** Follows one sequence; each new token costs constant time, however long the sequence is. */
export class ChangeTracker {
  readonly #options: ResolvedGenerateOptions;
  readonly #repeats: boolean;
  readonly #counts: boolean;
  /** Occurrences within the window, prompt and generated together. */
  readonly #seen = new Map<number, number>();
  /** Occurrences within the window, generated only. */
  readonly #generated = new Map<number, number>();
  /** Tokens from #windowStart to #windowEnd of prompt and generated together are counted. */
  #windowStart = 0;
  #windowEnd = 0;

  constructor(options: ResolvedGenerateOptions) {
    this.#options = options;
    this.#repeats = options.repetitionPenalty !== 1;
    this.#counts = options.frequencyPenalty !== 0 || options.presencePenalty !== 0;
  }

  /** The ids whose logits change for the token that follows `history`, and their changes. */
  next(history: TokenHistory): { ids: Int32Array; changes: LogitChanges } {
    if (this.#repeats || this.#counts) this.#follow(history);
    const { logitBias, frequencyPenalty, presencePenalty } = this.#options;
    const changed = new Set<number>(logitBias.keys());
    if (this.#repeats) for (const id of this.#seen.keys()) changed.add(id);
    if (this.#counts) for (const id of this.#generated.keys()) changed.add(id);

    const ids = Int32Array.from(changed);
    const repeated = new Uint8Array(ids.length);
    const offsets = new Float64Array(ids.length);
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      const count = this.#generated.get(id) ?? 0;
      const penalty = count === 0 ? 0 : frequencyPenalty * count + presencePenalty;
      repeated[i] = this.#repeats && this.#seen.has(id) ? 1 : 0;
      offsets[i] = (logitBias.get(id) ?? 0) - penalty;
    }
    return { ids, changes: { repeated, offsets } };
  }

  #follow({ prompt, generated }: TokenHistory): void {
    const end = prompt.length + generated.length;
    const start = Math.max(0, end - this.#options.penaltyTokens);
    if (end < this.#windowEnd) {
      // The sequence was cut back: count anew.
      this.#seen.clear();
      this.#generated.clear();
      this.#windowStart = this.#windowEnd = start;
    }
    const count = (position: number, amount: number) => {
      const inPrompt = position < prompt.length;
      const id = inPrompt ? prompt[position]! : generated[position - prompt.length]!;
      add(this.#seen, id, amount);
      if (!inPrompt) add(this.#generated, id, amount);
    };
    for (let i = this.#windowStart; i < Math.min(start, this.#windowEnd); i++) count(i, -1);
    for (let i = Math.max(start, this.#windowEnd); i < end; i++) count(i, 1);
    this.#windowStart = start;
    this.#windowEnd = end;
  }
}

/** A logit after penalties and bias, in float64. */
export function changeLogit(
  logit: number,
  repeated: boolean,
  offset: number,
  repetitionPenalty: number,
): number {
  let changed = logit;
  if (repeated) changed = logit > 0 ? logit / repetitionPenalty : logit * repetitionPenalty;
  return changed + offset;
}
