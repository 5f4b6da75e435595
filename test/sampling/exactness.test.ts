/** The sampler's answer never depends on how much of a row it was given. */
import { describe, expect, test } from '@jest/globals';
import type { GenerateOptions } from '../../lib/options.js';
import { Sampler } from '../../lib/sampling/index.js';
import { uniform } from '../../lib/sampling/random.js';
import {
  choose,
  nativeRow,
  noTokens,
  randomRow,
  randomSource,
  referenceChoice,
  resolve,
  rowKinds,
} from './rows.js';

const truncations: GenerateOptions[] = [
  { temperature: 0 },
  { temperature: 0.6, topP: 0.9 },
  { temperature: 1 },
  { temperature: 0.8 },
  { temperature: 1.5, topP: 0.95 },
  { temperature: 0.7, topK: 5 },
  { temperature: 1, topK: 300, topP: 0.8 },
  { temperature: 1, topK: 200 },
  { temperature: 1, minP: 0.05 },
  { temperature: 2, minP: 1e-4, topP: 0.99 },
  { temperature: 1, topP: 0 },
  { temperature: 1, topK: 40, topP: 0.9, minP: 0.1 },
  { temperature: 1e-5, topP: 0.9 },
  { temperature: 100, topP: 0.5 },
];
const penalties: GenerateOptions[] = [
  {},
  { repetitionPenalty: 1.3 },
  { repetitionPenalty: 0.8, penaltyTokens: 7 },
  { frequencyPenalty: 1.2, presencePenalty: -0.7 },
  { logitBias: { 3: 100, 7: Number.NEGATIVE_INFINITY, 11: -1.5, 12: 2 } },
  { repetitionPenalty: 1.1, presencePenalty: 0.5, penaltyTokens: 20, logitBias: { 5: -100 } },
];

/** Laws of powers, as language has them: the k-th best token gets k^-2 of the best one's mass. */
function languageRows(count: number, vocabSize: number): Float32Array[] {
  const random = randomSource(3);
  return Array.from({ length: count }, () => {
    const row = new Float32Array(vocabSize);
    const order = Array.from(row.keys(), (id) => ({ id, place: random() }));
    order.sort((a, b) => a.place - b.place);
    order.forEach(({ id }, rank) => {
      row[id] = 12 - 2 * Math.log(rank + 1);
    });
    return row;
  });
}

describe('candidates and whole rows', () => {
  const vocabSize = 32_000;
  const language = languageRows(6, vocabSize);

  const cases = truncations.flatMap((truncation) =>
    penalties.map((penalty): [string, GenerateOptions] => {
      const options = { ...truncation, ...penalty };
      return [JSON.stringify(options), options];
    }),
  );

  test.each(cases)('give the same choice as the definition: %s', (_, given) => {
    const vocabSize = 400;
    const random = randomSource(7);
    const token = () => Math.floor(random() ** 2 * vocabSize);
    for (let round = 0; round < 30; round++) {
      const logits = randomRow(rowKinds[round % rowKinds.length]!, vocabSize, random);
      // The likely tokens are those that get repeated.
      const likely = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!);
      const history = {
        prompt: Array.from({ length: 30 }, token),
        generated: Array.from({ length: 12 }, () => likely[Math.floor(random() ** 3 * 80)]!),
      };
      const options = resolve({ ...given, seed: round }, vocabSize);
      const expected = referenceChoice(logits, options, history, round);
      const error = (random() - 0.5) * 1e-4;
      const fromCandidates = choose(new Sampler(options, vocabSize), logits, history, round, error);
      expect(fromCandidates.choice.id).toBe(expected);

      const whole = new Sampler(options, vocabSize);
      const request = { ...whole.request(history), fullRow: true };
      expect(whole.choose(nativeRow(logits, request), request, round)).toEqual({ id: expected });
    }
  });

  test.each([0, 1, 2, 10, 64, 399, 400])('hold for any number of candidates (%i)', (candidates) => {
    const vocabSize = 400;
    const random = randomSource(candidates);
    let settled = 0;
    for (let round = 0; round < 300; round++) {
      const logits = randomRow(rowKinds[round % rowKinds.length]!, vocabSize, random);
      const given = {
        ...truncations[round % truncations.length],
        ...penalties[round % penalties.length],
      };
      const options = resolve({ ...given, seed: round }, vocabSize);
      const history = {
        prompt: [1, 2, 3, 399],
        generated: [5, 5, logits.indexOf(Math.max(...logits))],
      };
      const sampler = new Sampler(options, vocabSize);
      const request = { ...sampler.request(history), candidates, fullRow: false };
      const error = (random() - 0.5) * 1e-4;
      const choice = sampler.choose(nativeRow(logits, request, error), request, round);
      if (choice === 'full-row') continue;
      settled++;
      expect(choice.id).toBe(referenceChoice(logits, options, history, round));
    }
    // With every id a candidate only the last digits of sums are open.
    if (candidates === 0) expect(settled).toBe(0);
    else if (candidates === 400) expect(settled).toBe(300);
    else expect(settled).toBeGreaterThan(20);
  });

  test('an id that bias lifts to the last candidate’s logit stands behind unseen ids below it', () => {
    // After bias, ids 1 to 9 are equal: the best three are 1, 2 and 3. Candidates are 0, 1 and 2.
    const logits = new Float32Array([5, 1, 1, 1, 1, 1, 1, 1, 1, 0]);
    const options = resolve({ temperature: 1, topK: 3, logitBias: { 0: -100, 9: 1 } }, 10);
    const seen = new Set<unknown>();
    for (let index = 0; index < 100; index++) {
      const sampler = new Sampler(options, 10);
      const request = { ...sampler.request(noTokens), candidates: 3 };
      const choice = sampler.choose(nativeRow(logits, request), request, index);
      const expected = referenceChoice(logits, options, noTokens, index);
      if (choice !== 'full-row') expect(choice.id).toBe(expected);
      seen.add(choice === 'full-row' ? choice : choice.id);
      if (expected === 3) expect(choice).toBe('full-row');
    }
    expect(seen).toEqual(new Set(['full-row', 1]));
  });

  test('u close to a border between tokens is left to the whole row', () => {
    // Two candidates of four equal tokens: the border between the first two is at a quarter of
    // the mass, which an inexact log-sum-exp does not settle for u within its error. (Only above
    // the border: four equal tokens are the most that the rest can amount to.)
    const logits = new Float32Array([1, 1, 1, 1]);
    const options = resolve({ temperature: 0.8 }, 4);
    const nearBorder = (u: number) => u >= 0.25 && u < 0.25 + 3.5e-5;
    let atBorders = 0;
    for (let index = 0; index < 100_000; index++) {
      const isNear = nearBorder(uniform(options.seed, index));
      if (!isNear && index > 1000) continue;
      const sampler = new Sampler(options, 4);
      const request = { ...sampler.request(noTokens), candidates: 2 };
      const choice = sampler.choose(nativeRow(logits, request, -5e-5), request, index);
      const expected = referenceChoice(logits, options, noTokens, index);
      expect(choice).toEqual(isNear || expected > 1 ? 'full-row' : { id: expected });
      if (isNear) atBorders++;
    }
    expect(atBorders).toBeGreaterThan(0);
  });

  test.each([
    [{ temperature: 0 }, 0],
    [{ temperature: 0, repetitionPenalty: 1.2 }, 0.01],
    [{ temperature: 0.6, topP: 0.9 }, 0.01],
    [{ temperature: 0.6, topP: 0.9, repetitionPenalty: 1.2 }, 0.02],
    [{ temperature: 0.8, topK: 40 }, 0],
    [{ temperature: 0.8 }, 0.02],
  ] as const)('peaked rows rarely need the whole row: %j', (given, share) => {
    const sampler = new Sampler(resolve({ ...given, seed: 5 }, vocabSize), vocabSize);
    const generated: number[] = [];
    let asked = 0;
    const steps = 200;
    for (let index = 0; index < steps; index++) {
      const row = language[index % language.length]!;
      const step = choose(sampler, row, { prompt: [1], generated }, index);
      generated.push(step.choice.id);
      if (step.asked) asked++;
    }
    expect(asked / steps).toBeLessThanOrEqual(share);
  });

  test('asks for more after fallbacks, at last for the whole row, and for less later', () => {
    const vocabSize = 4000;
    const flat = new Float32Array(vocabSize);
    const peaked = new Float32Array(vocabSize);
    peaked[17] = 30;
    const sampler = new Sampler(resolve({ temperature: 1, topP: 0.9 }, vocabSize), vocabSize);
    const sizes = new Set<number>();
    for (let index = 0; index < 30; index++) {
      const { candidates, fullRow } = sampler.request(noTokens);
      sizes.add(fullRow ? vocabSize : candidates);
      choose(sampler, flat, noTokens, index);
    }
    expect([...sizes]).toEqual([64, 256, 1024, vocabSize]);
    for (let index = 0; index < 1500; index++) choose(sampler, peaked, noTokens, index);
    expect(sampler.request(noTokens)).toMatchObject({ candidates: 64, fullRow: false });
  });

  test('a hot, untruncated distribution is sampled from the whole row at once', () => {
    const request = new Sampler(resolve({ temperature: 1 }, 50), 50).request(noTokens);
    expect(request).toMatchObject({ fullRow: true, candidates: 0 });
  });

  test('greedy asks for one candidate, and never for more than the vocabulary', () => {
    const greedy = new Sampler(resolve({ temperature: 0 }, 50), 50);
    expect(greedy.request(noTokens)).toMatchObject({ candidates: 1, fullRow: false });
    const small = new Sampler(resolve({ temperature: 0.5 }, 50), 50);
    expect(small.request(noTokens).candidates).toBe(50);
  });
});
