/** From what each sequence wants to the arrays of one native step, and back. */
import type { StepPlan, StepResult } from '../native.js';
import type { RowRequest, RowResult } from '../sampling/index.js';

/** A row of logits that is wanted: of the token at `position` of its sequence. */
export interface WantedRow {
  position: number;
  request: Pick<RowRequest, 'candidates' | 'ids' | 'inverseTemperature' | 'fullRow'>;
}

/** A stretch of one sequence: its tokens at positions begin .. begin + tokens.length - 1. */
export interface Stretch {
  begin: number;
  tokens: readonly number[];
  /** The pages of the sequence from position 0 on, enough for all of its tokens in this step. */
  pages: readonly number[];
  /** Ordered by position, each within the stretch. */
  rows: readonly WantedRow[];
}

/** Builds the plan of one step; sequences keep their order. */
export function buildPlan(stretches: readonly Stretch[], pageTokens: number): StepPlan {
  let tokenCount = 0;
  let pageCount = 0;
  const rows: WantedRow['request'][] = [];
  const rowTokens: number[] = [];
  for (const stretch of stretches) {
    for (const row of stretch.rows) {
      rows.push(row.request);
      rowTokens.push(tokenCount + row.position - stretch.begin);
    }
    tokenCount += stretch.tokens.length;
    pageCount += stretch.pages.length;
  }

  const plan: StepPlan = {
    tokens: new Int32Array(tokenCount),
    positions: new Int32Array(tokenCount),
    slots: new Int32Array(tokenCount),
    sequenceStarts: new Int32Array(stretches.length + 1),
    blockTable: new Int32Array(pageCount),
    blockStarts: new Int32Array(stretches.length + 1),
    rows: Int32Array.from(rowTokens),
    candidates: Int32Array.from(rows, (row) => row.candidates),
    inverseTemperatures: Float32Array.from(rows, (row) => row.inverseTemperature),
    ids: concatenate(rows.map((row) => row.ids)),
    idStarts: new Int32Array(rows.length + 1),
    fullRows: Uint8Array.from(rows, (row) => Number(row.fullRow)),
    pageCopies: new Int32Array(0),
  };
  rows.forEach((row, r) => {
    plan.idStarts[r + 1] = plan.idStarts[r]! + row.ids.length;
  });

  let token = 0;
  let page = 0;
  stretches.forEach((stretch, s) => {
    stretch.tokens.forEach((id, i) => {
      const position = stretch.begin + i;
      plan.tokens[token] = id;
      plan.positions[token] = position;
      plan.slots[token] =
        stretch.pages[Math.floor(position / pageTokens)]! * pageTokens + (position % pageTokens);
      token++;
    });
    plan.blockTable.set(stretch.pages, page);
    page += stretch.pages.length;
    plan.sequenceStarts[s + 1] = token;
    plan.blockStarts[s + 1] = page;
  });
  return plan;
}

function concatenate(parts: readonly Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The answers to a plan's rows, in the plan's order, as views of the step's arrays. */
export function splitResult(plan: StepPlan, result: StepResult, vocabSize: number): RowResult[] {
  let candidate = 0;
  let fullRow = 0;
  return Array.from(plan.rows, (_, r) => {
    const first = candidate;
    candidate += plan.candidates[r]!;
    const row: RowResult = {
      candidateIds: result.candidateIds.subarray(first, candidate),
      candidateLogits: result.candidateLogits.subarray(first, candidate),
      logSumExp: result.logSumExp[r]!,
      scaledLogSumExp: result.scaledLogSumExp[r]!,
      idLogits: result.idLogits.subarray(plan.idStarts[r]!, plan.idStarts[r + 1]!),
      finite: result.finite[r] === 1,
    };
    if (plan.fullRows[r] === 1) {
      row.fullLogits = result.fullLogits.subarray(fullRow * vocabSize, (fullRow + 1) * vocabSize);
      fullRow++;
    }
    return row;
  });
}
