import { describe, expect, test } from '@jest/globals';
import { type GenerateOptions, resolveGenerateOptions } from '../../lib/options.js';
import { type Choice, Sampler, type TokenHistory } from '../../lib/sampling/index.js';
import { uniform } from '../../lib/sampling/random.js';
import {
  changedLogits,
  nativeRow,
  nucleus,
  randomRow,
  randomSource,
  referenceChoice,
  rowKinds,
} from './rows.js';

const noTokens: TokenHistory = { prompt: [], generated: [] };

const resolve = (options: GenerateOptions, vocabSize: number) =>
  resolveGenerateOptions({ topP: 1, seed: 1, ...options }, {}, vocabSize);

/** Chooses as a scheduler would; also says whether the whole row was asked for. */
function choose(
  sampler: Sampler,
  logits: Float32Array,
  history: TokenHistory,
  index: number,
  error = 0,
): { choice: Choice; fellBack: boolean; asked: boolean } {
  const request = sampler.request(history);
  const choice = sampler.choose(nativeRow(logits, request, error), request, index);
  if (choice !== 'full-row') return { choice, fellBack: false, asked: request.fullRow };
  const again = { ...request, fullRow: true };
  const settled = sampler.choose(nativeRow(logits, again, error), again, index);
  if (settled === 'full-row') throw new Error('a whole row was refused');
  return { choice: settled, fellBack: true, asked: true };
}

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

  test('u close to a border between tokens is left to the whole row', () => {
    // Two candidates of four equal tokens: the border between the first two is at a quarter of
    // the mass, which an inexact log-sum-exp does not settle for u within its error. (Only above
    // the border: four equal tokens are the most that the rest can amount to.)
    const logits = new Float32Array([1, 1, 1, 1]);
    const options = resolve({ temperature: 0.8 }, 4);
    const nearBorder = (u: number) => u >= 0.25 && u < 0.25 + 3e-5;
    let atBorders = 0;
    for (let index = 0; index < 300_000; index++) {
      const isNear = nearBorder(uniform(options.seed, index));
      if (!isNear && index > 1000) continue;
      const sampler = new Sampler(options, 4);
      const request = { ...sampler.request(noTokens), candidates: 2 };
      const choice = sampler.choose(nativeRow(logits, request, -5e-5), request, index);
      const expected = referenceChoice(logits, options, noTokens, index);
      expect(choice).toEqual(isNear || expected > 1 ? 'full-row' : { id: expected });
      if (isNear) atBorders++;
    }
    expect(atBorders).toBeGreaterThan(4);
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

describe('distribution', () => {
  test.each([
    [{ temperature: 1 }],
    [{ temperature: 0.7, topP: 0.9 }],
    [{ temperature: 1.3, topK: 6 }],
    [{ temperature: 1, minP: 0.2 }],
    [{ temperature: 1, logitBias: { 0: 1, 1: Number.NEGATIVE_INFINITY } }],
  ] as GenerateOptions[][])('draws follow the probabilities: %j', (given) => {
    const logits = new Float32Array([2, 1.5, 1, 0.5, 0, -0.5, -1, -1.5, 1, 2]);
    const options = resolve({ ...given, seed: 99 }, logits.length);
    const kept = nucleus(changedLogits(logits, options!, noTokens), options);
    const mass = kept.reduce((sum, { weight }) => sum + weight, 0);
    const counts = new Map(kept.map(({ id }) => [id, 0]));
    const draws = 20_000;
    const sampler = new Sampler(options, logits.length);
    for (let index = 0; index < draws; index++) {
      const { id } = choose(sampler, logits, noTokens, index).choice;
      if (!counts.has(id)) throw new Error(`${id} was cut off`);
      counts.set(id, counts.get(id)! + 1);
    }
    let chiSquare = 0;
    for (const { id, weight } of kept) {
      const expected = (draws * weight) / mass;
      chiSquare += (counts.get(id)! - expected) ** 2 / expected;
    }
    // Wilson and Hilferty's bound: exceeded by chance once in 1000 (the seed is fixed).
    const freedom = kept.length - 1;
    const bound = freedom * (1 - 2 / (9 * freedom) + 3.09 * Math.sqrt(2 / (9 * freedom))) ** 3;
    expect(chiSquare).toBeLessThan(bound);
  });
});

describe('top-p', () => {
  /** Which tokens can come up at all, found by many draws. */
  function reachable(probabilities: number[], given: GenerateOptions): number[] {
    const logits = Float32Array.from(probabilities, Math.log);
    const sampler = new Sampler(
      resolve({ temperature: 1, ...given }, logits.length),
      logits.length,
    );
    const seen = new Set<number>();
    for (let index = 0; index < 3000; index++) {
      seen.add(choose(sampler, logits, noTokens, index).choice.id);
    }
    return [...seen].sort((a, b) => a - b);
  }

  test.each([
    // [probabilities, top-p, kept]: the token that crosses top-p is kept.
    [[0.5, 0.3, 0.15, 0.05], 0.9, [0, 1, 2]],
    [[0.5, 0.3, 0.15, 0.05], 0.79, [0, 1]],
    [[0.5, 0.3, 0.15, 0.05], 0.81, [0, 1, 2]],
    [[0.5, 0.3, 0.15, 0.05], 0.3, [0]],
    [[0.5, 0.3, 0.15, 0.05], 0.51, [0, 1]],
    [[0.5, 0.3, 0.15, 0.05], 0, [0]],
    [[0.5, 0.3, 0.15, 0.05], 1, [0, 1, 2, 3]],
    [[0.05, 0.15, 0.3, 0.5], 0.81, [1, 2, 3]],
    // "At most": four equal tokens have exact quarters, and one that starts at top-p is kept.
    [[1, 1, 1, 1], 0.5, [0, 1, 2]],
    [[1, 1, 1, 1], 0.49, [0, 1]],
    [[1, 1, 1, 1], 0.25, [0, 1]],
  ])('of %j, top-p %d keeps %j', (probabilities, topP, kept) => {
    expect(reachable(probabilities, { topP })).toEqual(kept);
  });

  test('is of what top-k leaves, renormalised', () => {
    // Top-k leaves 0.5 and 0.3: 0.625 and 0.375 of it. The whole row would keep two at 0.6.
    expect(reachable([0.5, 0.3, 0.15, 0.05], { topK: 2, topP: 0.6 })).toEqual([0]);
    expect(reachable([0.5, 0.3, 0.15, 0.05], { topP: 0.6 })).toEqual([0, 1]);
  });

  test('min-p is relative to the best token', () => {
    expect(reachable([0.5, 0.3, 0.15, 0.05], { minP: 0.29 })).toEqual([0, 1, 2]);
    expect(reachable([0.5, 0.3, 0.15, 0.05], { minP: 0.31 })).toEqual([0, 1]);
    expect(reachable([0.5, 0.25, 0.25], { minP: 1 })).toEqual([0]);
  });

  /** Meta's sample_top_p (llama/generation.py), line by line. */
  function metaTopP(logits: Float32Array, temperature: number, p: number): Map<number, number> {
    const best = Math.max(...logits);
    const exps = Array.from(logits, (logit) => Math.exp((logit - best) / temperature));
    const sum = exps.reduce((a, b) => a + b, 0);
    const probsIdx = [...exps.keys()].sort((a, b) => exps[b]! - exps[a]! || a - b);
    const probsSort = probsIdx.map((id) => exps[id]! / sum);
    let running = 0;
    const probsSum = probsSort.map((prob) => {
      running += prob;
      return running;
    });
    const mask = probsSort.map((prob, i) => probsSum[i]! - prob > p);
    const masked = probsSort.map((prob, i) => (mask[i] ? 0 : prob));
    const total = masked.reduce((a, b) => a + b, 0);
    return new Map(masked.flatMap((prob, i) => (prob > 0 ? [[probsIdx[i]!, prob / total]] : [])));
  }

  test('chooses as Meta’s algorithm does', () => {
    const random = randomSource(11);
    for (let round = 0; round < 400; round++) {
      const logits = randomRow(round % 2 === 0 ? 'peaked' : 'flat', 120, random);
      const temperature = 0.3 + random();
      const topP = 0.05 + 0.9 * random();
      const options = resolve({ temperature, topP, seed: round }, 120);
      const meta = metaTopP(logits, temperature, topP);
      expect(nucleus(Array.from(logits), options).map(({ id }) => id)).toEqual([...meta.keys()]);
      const { id } = choose(new Sampler(options, 120), logits, noTokens, 0).choice;
      expect(meta.has(id)).toBe(true);
      expect(id).toBe(referenceChoice(logits, options, noTokens, 0));
    }
  });
});

describe('penalties and bias', () => {
  const greedy = (given: GenerateOptions, logits: number[], history: TokenHistory) =>
    choose(
      new Sampler(resolve({ temperature: 0, ...given }, logits.length), logits.length),
      Float32Array.from(logits),
      history,
      0,
    ).choice.id;

  test('the repetition penalty divides positive and multiplies negative logits, prompt included', () => {
    expect(greedy({ repetitionPenalty: 2 }, [3, 2, 1], { prompt: [0], generated: [] })).toBe(1);
    expect(greedy({ repetitionPenalty: 1.4 }, [3, 2, 1], { prompt: [0], generated: [] })).toBe(0);
    expect(greedy({ repetitionPenalty: 2 }, [-1, -1.5, -3], { prompt: [], generated: [0] })).toBe(
      1,
    );
    expect(greedy({ repetitionPenalty: 1.4 }, [-1, -1.5, -3], { prompt: [0], generated: [] })).toBe(
      0,
    );
    // Once, however often the token occurs.
    expect(greedy({ repetitionPenalty: 1.4 }, [3, 2, 1], { prompt: [0, 0], generated: [0] })).toBe(
      0,
    );
  });

  test('frequency counts, presence does not; the prompt has no part in either', () => {
    const logits = [3, 2, 0];
    expect(greedy({ frequencyPenalty: 0.6 }, logits, { prompt: [], generated: [0] })).toBe(0);
    expect(greedy({ frequencyPenalty: 0.6 }, logits, { prompt: [], generated: [0, 0] })).toBe(1);
    expect(greedy({ presencePenalty: 0.6 }, logits, { prompt: [], generated: [0, 0, 0] })).toBe(0);
    expect(greedy({ presencePenalty: 1.1 }, logits, { prompt: [], generated: [0] })).toBe(1);
    expect(greedy({ presencePenalty: 2 }, logits, { prompt: [0, 0], generated: [] })).toBe(0);
  });

  test('the window forgets what lies before it', () => {
    const given = { repetitionPenalty: 2, penaltyTokens: 2 };
    expect(greedy(given, [3, 2, 1], { prompt: [0, 2], generated: [] })).toBe(1);
    expect(greedy(given, [3, 2, 1], { prompt: [0, 2], generated: [2] })).toBe(0);
    expect(greedy({ ...given, penaltyTokens: 0 }, [3, 2], { prompt: [0], generated: [0] })).toBe(0);
  });

  test('a sampler that follows a growing sequence agrees with one that sees it at once', () => {
    const random = randomSource(23);
    const given = { repetitionPenalty: 1.2, frequencyPenalty: 0.3, penaltyTokens: 6 };
    const options = resolve({ temperature: 0, ...given }, 40);
    const following = new Sampler(options, 40);
    const generated: number[] = [];
    const changesOf = (sampler: Sampler) => {
      const { ids, changes } = sampler.request({ prompt: [1, 2, 3, 4], generated });
      return new Map([...ids].map((id, i) => [id, [changes.repeated[i], changes.offsets[i]]]));
    };
    for (let i = 0; i < 50; i++) {
      expect(changesOf(following)).toEqual(changesOf(new Sampler(options, 40)));
      if (i % 7 === 0) generated.length = Math.max(0, generated.length - 3);
      else for (let n = random() * 9; n > 0; n--) generated.push(Math.floor(random() * 10));
    }
  });

  test('bias adds, bans and decides', () => {
    expect(greedy({ logitBias: { 2: 100 } }, [3, 2, 1], noTokens)).toBe(2);
    expect(
      greedy({ logitBias: new Map([[0, Number.NEGATIVE_INFINITY]]) }, [3, 2, 1], noTokens),
    ).toBe(1);
    expect(greedy({ logitBias: { 1: 1 } }, [3, 2, 1], noTokens)).toBe(0);
  });

  test.each([0, 0.7, 1])('banning everything is a typed error (temperature %d)', (temperature) => {
    const logitBias = Object.fromEntries([0, 1, 2].map((id) => [id, Number.NEGATIVE_INFINITY]));
    const sampler = new Sampler(resolve({ temperature, logitBias }, 3), 3);
    expect(() => choose(sampler, new Float32Array([1, 2, 3]), noTokens, 0)).toThrow(
      expect.objectContaining({ code: 'ALTIPLANO_OUT_OF_RANGE', subject: 'logitBias' }),
    );
  });

  test('when the best candidates are banned the whole row decides', () => {
    const logits = Float32Array.from({ length: 500 }, (_, id) => -id);
    const logitBias = Object.fromEntries(
      Array.from({ length: 400 }, (_, id) => [id, Number.NEGATIVE_INFINITY]),
    );
    for (const temperature of [0, 0.01]) {
      const sampler = new Sampler(resolve({ temperature, logitBias }, 500), 500);
      const { choice, fellBack } = choose(sampler, logits, noTokens, 0);
      expect({ choice, fellBack }).toEqual({ choice: { id: 400 }, fellBack: true });
    }
  });
});

describe('seeds', () => {
  const logits = randomRow('flat', 300, randomSource(1));
  const draw = (seed: number | undefined) => {
    const sampler = new Sampler(resolveGenerateOptions({ seed, topP: 1 }, {}, 300), 300);
    return Array.from({ length: 30 }, (_, i) => choose(sampler, logits, noTokens, i).choice.id);
  };

  test('the same seed gives the same tokens, another seed others', () => {
    expect(draw(42)).toEqual(draw(42));
    expect(draw(42)).not.toEqual(draw(43));
    expect(draw(-1)).not.toEqual(draw(1));
    expect(draw(undefined)).not.toEqual(draw(undefined));
  });

  test('the order of calls does not matter', () => {
    const sampler = new Sampler(resolve({ seed: 42, temperature: 0.6 }, 300), 300);
    const backwards = Array.from({ length: 30 }, (_, i) => {
      choose(sampler, logits, noTokens, 1000 + i);
      return choose(sampler, logits, noTokens, 29 - i).choice.id;
    });
    expect(backwards.reverse()).toEqual(draw(42));
  });
});

describe('logprobs', () => {
  const logits = new Float32Array([0, 2, 1, -1]);
  const total = Math.log([0, 2, 1, -1].reduce((sum, x) => sum + Math.exp(x), 0));

  test('are of the raw distribution, with the best alternatives', () => {
    const given = { temperature: 0, logprobs: 2, logitBias: { 3: 50 }, repetitionPenalty: 3 };
    const sampler = new Sampler(resolve(given, 4), 4);
    const { logprobs } = choose(sampler, logits, { prompt: [1], generated: [] }, 0).choice;
    expect(logprobs?.id).toBe(3);
    expect(logprobs?.logprob).toBeCloseTo(-1 - total, 12);
    expect(logprobs?.alternatives.map(({ id }) => id)).toEqual([1, 2]);
    expect(logprobs?.alternatives[0]?.logprob).toBeCloseTo(2 - total, 12);
    expect(logprobs?.alternatives[1]?.logprob).toBeCloseTo(1 - total, 12);
  });

  test.each([
    [{ temperature: 1, logprobs: 3 }],
    [{ temperature: 0.7, logprobs: 3 }],
    [{ temperature: 0, logprobs: 3 }],
  ])('come from candidates and whole rows alike: %j', (given) => {
    const sampler = new Sampler(resolve(given, 4), 4);
    const { id, logprobs } = choose(sampler, logits, noTokens, 3).choice;
    expect(logprobs).toMatchObject({ id, logprob: logits[id]! - total });
    expect(logprobs?.alternatives.map((other) => other.id)).toEqual([1, 2, 0]);
  });

  test('zero alternatives are allowed, and without the option there is nothing', () => {
    const zero = new Sampler(resolve({ temperature: 0, logprobs: 0 }, 4), 4);
    expect(choose(zero, logits, noTokens, 0).choice.logprobs?.alternatives).toEqual([]);
    const none = new Sampler(resolve({ temperature: 0 }, 4), 4);
    expect(choose(none, logits, noTokens, 0).choice).toEqual({ id: 1 });
  });
});

describe('rows that are not numbers', () => {
  const vocabSize = 8;
  const good = new Float32Array(vocabSize);

  test.each([
    ['a candidate', { candidateLogits: new Float32Array([Number.NaN]) }],
    ['an infinite candidate', { candidateLogits: new Float32Array([Number.POSITIVE_INFINITY]) }],
    ['an id asked for', { idLogits: new Float32Array([Number.NaN]) }],
    ['the log-sum-exp', { logSumExp: Number.NaN }],
    ['nothing but infinities', { logSumExp: Number.NEGATIVE_INFINITY }],
    ['the scaled log-sum-exp', { scaledLogSumExp: Number.NaN }],
    ['native’s flag', { finite: false }],
    ['the whole row', { fullLogits: good.map((_, id) => (id === 5 ? Number.NaN : 0)) }],
    ['an infinity', { fullLogits: good.map((_, id) => (id === 5 ? Number.POSITIVE_INFINITY : 0)) }],
  ])('are refused: %s', (_, wrong) => {
    for (const temperature of [0, 0.5]) {
      const sampler = new Sampler(resolve({ temperature }, vocabSize), vocabSize);
      const request = sampler.request(noTokens);
      const row = nativeRow(good, request);
      expect(() => sampler.choose(row, request, 0)).not.toThrow();
      expect(() => sampler.choose({ ...row, ...wrong }, request, 0)).toThrow(
        expect.objectContaining({ code: 'ALTIPLANO_NUMERIC' }),
      );
    }
  });

  test('a missing whole row is a defect', () => {
    const sampler = new Sampler(resolve({ temperature: 1 }, vocabSize), vocabSize);
    const request = sampler.request(noTokens);
    const row = { ...nativeRow(good, request), fullLogits: new Float32Array(3) };
    expect(() => sampler.choose(row, request, 0)).toThrow(
      expect.objectContaining({ code: 'ALTIPLANO_INTERNAL' }),
    );
  });
});
