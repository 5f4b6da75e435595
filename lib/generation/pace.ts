/**
 * How much a step takes on: long steps read the weights less often for a prompt, but others wait for
 * their end. Learns how fast the engine is from the steps that have ended.
 */

/** What one sequence has computed in a step. */
interface Work {
  tokens: readonly number[];
}

/**
 * The prompt tokens in a step are limited to what takes about this long: while others wait for their
 * next token, so that a long prompt does not stop their streams; and alone, so that an arrival need
 * not wait long for its first step: but steps of few tokens read all weights for little.
 */
const SHARED_STEP_MS = 150;
const LONE_STEP_MS = 4000;
/** But at least this many, so that prompts get on. */
export const LEAST_PROMPT_TOKENS = 16;
/** While the speed is not known. */
const FIRST_PROMPT_TOKENS = 64;
/**
 * Only behind steps that take less than this the next one is planned ahead: it saves half a
 * millisecond, and an arrival has to wait for both.
 */
const LONGEST_AHEAD_MS = 150;

export class Pace {
  /** When the last step ended. */
  #answeredAt = 0;
  /** Milliseconds that a prompt token takes, a moving average; 0 while not known. */
  #msPerPromptToken = 0;
  /** Milliseconds that the last step without prompts took. */
  #decodeMs = 0;

  /**
   * How many prompt tokens the next step may compute.
   * @param left tokens of all prompts that are not computed yet
   * @param isShared whether other sequences wait for their next token
   * @param most tokens in a step
   */
  promptTokens(left: number, isShared: boolean, most: number): number {
    if (this.#msPerPromptToken === 0) return FIRST_PROMPT_TOKENS;
    const ms = isShared ? SHARED_STEP_MS : LONE_STEP_MS;
    const tokens = Math.max(LEAST_PROMPT_TOKENS, Math.floor(ms / this.#msPerPromptToken));
    if (isShared) return tokens;
    // In even steps, so that no last one reads all weights for a few tokens.
    return Math.ceil(left / Math.max(1, Math.round(left / tokens), Math.ceil(left / most)));
  }

  /** Whether a step takes so long that the next one should not be planned before it ends. */
  isLong(items: readonly Work[]): boolean {
    const tokens = countPromptTokens(items);
    if (tokens >= LEAST_PROMPT_TOKENS && this.#msPerPromptToken === 0) return true;
    return this.#decodeMs + tokens * this.#msPerPromptToken > LONGEST_AHEAD_MS;
  }

  /** To be called when the answers of a step have come. @param submittedAt by `performance.now()` */
  learn(items: readonly Work[], submittedAt: number): void {
    const now = performance.now();
    const isBehind = submittedAt < this.#answeredAt;
    const ms = now - Math.max(submittedAt, this.#answeredAt);
    this.#answeredAt = now;
    const prompt = countPromptTokens(items);
    if (prompt === 0) this.#decodeMs = ms;
    if (prompt < LEAST_PROMPT_TOKENS) return;
    // Where JavaScript was busy, the answers of two steps may have waited for it together.
    if (isBehind && ms < 0.5 * prompt * this.#msPerPromptToken) return;
    // In a step that large a token costs the same whether its sequence decodes or not.
    const sample = ms / countTokens(items);
    this.#msPerPromptToken =
      this.#msPerPromptToken === 0 ? sample : 0.7 * this.#msPerPromptToken + 0.3 * sample;
  }
}

/** Tokens of the sequences of which more than the next token is computed. */
const countPromptTokens = (items: readonly Work[]): number =>
  countTokens(items.filter(({ tokens }) => tokens.length > 1));

const countTokens = (items: readonly Work[]): number =>
  items.reduce((sum, { tokens }) => sum + tokens.length, 0);
