/** The log-probabilities that a model gives to a text, as a scheduler task. */
import { AltiplanoError } from '../errors.js';
import type { RowResult } from '../sampling/index.js';
import type { WantedRow } from './plan.js';
import type { Task } from './task.js';

/**
 * Scores `tokens[1..]`, each given all before it. `negativeLogLikelihood` resolves with the sum over
 * those tokens, in nats.
 */
export class ScoreTask implements Task {
  readonly tokens: readonly number[];
  readonly isPaused = false;
  readonly negativeLogLikelihood: Promise<number>;
  #settle!: { resolve(sum: number): void; reject(error: unknown): void };
  readonly #onScored: (tokens: number) => void;
  #sum = 0;
  #scored = 0;

  /** @param onScored called with the number of tokens scored so far */
  constructor(tokens: readonly number[], onScored: (tokens: number) => void) {
    this.tokens = tokens;
    this.#onScored = onScored;
    this.negativeLogLikelihood = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
  }

  onResume(): void {}
  started(): void {}

  wanted(begin: number, end: number): WantedRow[] {
    const rows: WantedRow[] = [];
    // A sequence that was pushed back computes its first tokens again; they are scored already.
    for (let i = Math.max(begin, this.#scored); i < Math.min(end, this.tokens.length - 1); i++) {
      rows.push({
        position: i,
        request: {
          candidates: 0,
          ids: Int32Array.of(this.tokens[i + 1]!),
          inverseTemperature: 1,
          fullRow: false,
        },
      });
    }
    return rows;
  }

  ahead(): 'ends' {
    return 'ends';
  }

  accept(rows: RowResult[]): 'more' | 'done' {
    for (const row of rows) {
      const loss = row.logSumExp - row.idLogits[0]!;
      if (row.finite === false || !Number.isFinite(loss)) {
        throw new AltiplanoError('ALTIPLANO_NUMERIC', 'the model gives no finite likelihood', {
          subject: `token ${this.#scored + rows.indexOf(row) + 1} of the text`,
        });
      }
      this.#sum += loss;
    }
    this.#scored += rows.length;
    this.#onScored(this.#scored);
    if (this.#scored < this.tokens.length - 1) return 'more';
    this.#settle.resolve(this.#sum);
    return 'done';
  }

  fail(error: unknown): void {
    this.#settle.reject(error);
  }
}
