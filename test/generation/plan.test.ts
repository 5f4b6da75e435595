/** From what sequences want to the arrays of a step, and from the arrays of its answer back. */
import { describe, expect, test } from '@jest/globals';
import { buildPlan, type Stretch, splitResult } from '../../lib/generation/plan.js';

const row = (position: number, request: Partial<Stretch['rows'][0]['request']> = {}) => ({
  position,
  request: {
    candidates: 0,
    ids: new Int32Array(0),
    inverseTemperature: 1,
    fullRow: false,
    ...request,
  },
});

/** Pages hold four tokens. */
const stretches: Stretch[] = [
  // The tokens at positions 3 to 5, across the border of two pages.
  {
    begin: 3,
    tokens: [30, 31, 32],
    pages: [7, 2],
    rows: [row(3, { ids: Int32Array.of(5, 6) }), row(5, { candidates: 2, fullRow: true })],
  },
  // A prompt of which no row is wanted yet.
  { begin: 0, tokens: [40, 41], pages: [0], rows: [] },
  // One token, far on; it has a page for what is to come.
  {
    begin: 8,
    tokens: [50],
    pages: [4, 9, 1, 3],
    rows: [row(8, { candidates: 1, ids: Int32Array.of(8), inverseTemperature: 2, fullRow: true })],
  },
];

test('the plan of a ragged batch', () => {
  expect(buildPlan(stretches, 4)).toEqual({
    tokens: Int32Array.of(30, 31, 32, 40, 41, 50),
    positions: Int32Array.of(3, 4, 5, 0, 1, 8),
    slots: Int32Array.of(7 * 4 + 3, 2 * 4, 2 * 4 + 1, 0, 1, 1 * 4),
    sequenceStarts: Int32Array.of(0, 3, 5, 6),
    blockTable: Int32Array.of(7, 2, 0, 4, 9, 1, 3),
    blockStarts: Int32Array.of(0, 2, 3, 7),
    rows: Int32Array.of(0, 2, 5),
    candidates: Int32Array.of(0, 2, 1),
    inverseTemperatures: Float32Array.of(1, 1, 2),
    ids: Int32Array.of(5, 6, 8),
    idStarts: Int32Array.of(0, 2, 2, 3),
    fullRows: Uint8Array.of(0, 1, 1),
    pageCopies: new Int32Array(0),
  });
});

test('the inverse temperature goes to native as the sampler has it', () => {
  const inverseTemperature = Math.fround(1 / 0.6);
  const plan = buildPlan([{ ...stretches[1]!, rows: [row(1, { inverseTemperature })] }], 4);
  expect(plan.inverseTemperatures[0]).toBe(inverseTemperature);
});

describe('the answer of a step', () => {
  const result = {
    candidateIds: Int32Array.of(100, 101, 102),
    candidateLogits: Float32Array.of(3, 2, 1),
    logSumExp: Float64Array.of(10, 11, 12),
    scaledLogSumExp: Float64Array.of(20, 21, 22),
    idLogits: Float32Array.of(-1, -2, -3),
    fullLogits: Float32Array.of(1, 2, 3, 4, 5, 6),
    finite: Uint8Array.of(1, 0, 1),
  };

  test('is split into rows', () => {
    expect(splitResult(buildPlan(stretches, 4), result, 3)).toEqual([
      {
        candidateIds: new Int32Array(0),
        candidateLogits: new Float32Array(0),
        logSumExp: 10,
        scaledLogSumExp: 20,
        idLogits: Float32Array.of(-1, -2),
        finite: true,
      },
      {
        candidateIds: Int32Array.of(100, 101),
        candidateLogits: Float32Array.of(3, 2),
        logSumExp: 11,
        scaledLogSumExp: 21,
        idLogits: new Float32Array(0),
        finite: false,
        fullLogits: Float32Array.of(1, 2, 3),
      },
      {
        candidateIds: Int32Array.of(102),
        candidateLogits: Float32Array.of(1),
        logSumExp: 12,
        scaledLogSumExp: 22,
        idLogits: Float32Array.of(-3),
        finite: true,
        fullLogits: Float32Array.of(4, 5, 6),
      },
    ]);
  });

  test('is not copied', () => {
    const [, second] = splitResult(buildPlan(stretches, 4), result, 3);
    expect(second!.fullLogits!.buffer).toBe(result.fullLogits.buffer);
  });
});
