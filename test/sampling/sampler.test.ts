import { describe, expect, test } from '@jest/globals';
import { type GenerateOptions, resolveGenerateOptions } from '../../lib/options.js';
import { Sampler, type TokenHistory } from '../../lib/sampling/index.js';
import {
  changedLogits,
  choose,
  nativeRow,
  noTokens,
  nucleus,
  randomRow,
  randomSource,
  referenceChoice,
  resolve,
} from './rows.js';

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
