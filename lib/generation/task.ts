/**
 * What the scheduler runs: a sequence of tokens that wants some rows of logits and reacts to them.
 * The scheduler knows nothing of text or sampling; a task knows nothing of pages or steps.
 */
import type { RowResult } from '../sampling/index.js';
import type { WantedRow } from './plan.js';

export interface Task {
  /** The tokens known so far. Grows by what `accept` appends. */
  readonly tokens: readonly number[];
  /** True while the reader of the output is behind: the task keeps its place but is not run. */
  readonly isPaused: boolean;
  /** Calls `wake` when `isPaused` may have become false. */
  onResume(wake: () => void): void;
  /** The rows wanted of the tokens at positions begin .. end-1, which are about to be computed. */
  wanted(begin: number, end: number): WantedRow[];
  /**
   * Takes the rows asked for. 'again': the last token must be computed again, because `wanted` will
   * now ask for more of it. 'done': the task has ended itself.
   * What it throws ends the task by `fail`.
   */
  accept(rows: RowResult[]): 'more' | 'again' | 'done';
  /**
   * Asked while a step is under way that computes all known tokens. What is wanted of the row behind
   * the next token, if that token is the best of the row being computed; 'ends' if there will be no
   * such row; undefined if the task must see its row first.
   */
  ahead(): WantedRow['request'] | 'ends' | undefined;
  /** The task runs for the first time. */
  started(): void;
  /** The task can not go on. Called at most once, and never after 'done'. */
  fail(error: unknown): void;
}
