/**
 * The engine against golden outputs that an independent implementation computed in float64: for every
 * model, every kernel table, one thread and two.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Llama } from '../../lib/index.js';
import {
  Driver,
  describeModels,
  expectSameBits,
  generator,
  greedyTokens,
  isas,
  maxError,
  newSequence,
  type Part,
  report,
  withIsa,
} from './support.js';

/** How far an f32 logit may be from the float64 one, absolute. */
const LOGIT_BOUND = 1e-3;
/**
 * Best and second best logit may each be off by the bound, so that only a margin below twice the
 * bound can turn their order.
 */
const MARGIN_BOUND = 2 * LOGIT_BOUND;

const measured: Record<string, string | number>[] = [];
afterAll(() => report('f32 against golden.json', measured));

describeModels('golden outputs', ({ name, folder, golden }) => {
  /** Each case with its greedy continuation: sequences of several lengths and pages. */
  const sequences = golden.cases.map(({ ids, greedy }) => [...ids, ...greedy]);
  const inF32 = { weights: 'f32', kv: 'f32' } as const;

  test('token ids of the prompts and of the text', async () => {
    const llama = await Llama.load(folder);
    for (const { prompt, ids } of golden.cases) {
      expect([llama.tokenizer.bosId, ...llama.tokenizer.encode(prompt)]).toEqual(ids);
    }
    expect(llama.tokenizer.encode(golden.perplexity.text).length + 1).toBe(
      golden.perplexity.tokens,
    );
    await llama.dispose();
  });

  describe.each(isas)('table %s', (isa) => {
    /** With one thread, each sequence alone and in one step: what all else must equal. */
    let reference: Float32Array[][];
    beforeAll(async () => {
      const driver = await withIsa(isa, () => Driver.load(folder, { ...inF32, threads: 1 }));
      reference = [];
      for (const tokens of sequences) reference.push(await driver.logitsOf(tokens));
      await driver.dispose();
    });

    test('the tables agree within twice the bound, and are not the same', async () => {
      const other = isas.find((each) => each !== isa);
      if (other === undefined) return;
      const driver = await withIsa(other, () => Driver.load(folder, { ...inF32, threads: 1 }));
      const found = await driver.logitsOf(sequences[0]!);
      await driver.dispose();
      const errors = found.map((row, i) => maxError(row, reference[0]![i]!));
      expect(Math.max(...errors)).toBeLessThan(2 * LOGIT_BOUND);
      expect(Math.max(...errors)).toBeGreaterThan(0); // ALTIPLANO_ISA did choose another table
    });

    describe.each([1, 2])('%d thread(s)', (threads) => {
      let driver: Driver;
      let llama: Llama;
      beforeAll(async () => {
        [driver, llama] = await withIsa(isa, () =>
          Promise.all([
            Driver.load(folder, { ...inF32, threads }),
            Llama.load(folder, { ...inF32, threads }),
          ]),
        );
      });
      afterAll(() => Promise.all([driver.dispose(), llama.dispose()]));

      test('all logits after the prompts', async () => {
        const errors: number[] = [];
        for (const { ids, logits_last: expected } of golden.cases) {
          const logits = await driver.logitsOf(ids);
          errors.push(maxError(logits.at(-1)!, expected));
        }
        const error = Math.max(...errors);
        measured.push({ model: name, isa, threads, 'max logit error': error.toExponential(2) });
        expect(error).toBeLessThanOrEqual(LOGIT_BOUND);
      });

      test('greedy tokens, of all prompts at once', async () => {
        expect(llama.info).toMatchObject({ isa, threads, weights: 'f32', kv: 'f32' });
        const answers = await Promise.all(
          golden.cases.map((each) => greedyTokens(llama, each, MARGIN_BOUND)),
        );
        answers.forEach(({ tokens, flips }, i) => {
          expect(tokens).toEqual(golden.cases[i]!.greedy);
          // Of golden margins those below the bound are counted; no more can flip.
          const tiny = golden.cases[i]!.greedy_margins.filter((margin) => margin < MARGIN_BOUND);
          expect(flips.length).toBeLessThanOrEqual(tiny.length);
        });
        Object.assign(measured.at(-1)!, { flips: answers.flatMap(({ flips }) => flips).length });
        expect(llama.stats.mostSequencesInStep).toBe(golden.cases.length);
      });

      test('perplexity', async () => {
        const { text, tokens, value } = golden.perplexity;
        const found = await llama.perplexity(text);
        const error = found.perplexity / value - 1;
        Object.assign(measured.at(-1)!, {
          perplexity: found.perplexity,
          'relative error': error.toExponential(2),
        });
        expect(found.tokens).toBe(tokens);
        expect(Math.abs(error)).toBeLessThanOrEqual(1e-4);
      });

      test('one step, random chunks, and token by token: the same bits', async () => {
        const random = generator(threads);
        const chunk = () => 1 + Math.floor(random() * 20);
        for (const nextLength of [() => 1000, chunk, chunk, () => 1]) {
          for (const [i, tokens] of sequences.entries()) {
            const sequence = newSequence();
            const rows: Float32Array[] = [];
            while (sequence.cachedTokens < tokens.length) {
              const begin = sequence.cachedTokens;
              const part = { sequence, tokens: tokens.slice(begin, begin + nextLength()) };
              const [found] = await driver.step([part]);
              rows.push(...found!.map(({ fullLogits }) => fullLogits!));
            }
            driver.release(sequence);
            expectSameBits(rows, reference[i]!);
          }
        }
      });

      test('batched with others, in steps of random parts: the same bits', async () => {
        const random = generator(100 + threads);
        const running = sequences.map((tokens) => ({
          tokens,
          sequence: newSequence(),
          rows: [] as Float32Array[],
        }));
        /** Steps by the number of sequences whose rows were computed together. */
        const stepsBySequences = new Map<number, number>();
        for (;;) {
          const rest = running.filter(
            ({ tokens, sequence }) => sequence.cachedTokens < tokens.length,
          );
          if (rest.length === 0) break;
          const chosen = rest.filter(() => random() < 0.8);
          if (chosen.length === 0) continue;
          const parts = chosen.map(({ tokens, sequence }): Part => {
            // One token, as in decoding, or a few, as in a prefill.
            const length = random() < 0.5 ? 1 : 1 + Math.floor(random() * 20);
            const begin = sequence.cachedTokens;
            return { sequence, tokens: tokens.slice(begin, begin + length) };
          });
          const found = await driver.step(parts);
          chosen.forEach(({ rows }, i) => {
            rows.push(...found[i]!.map(({ fullLogits }) => fullLogits!));
          });
          const count = chosen.length;
          stepsBySequences.set(count, (stepsBySequences.get(count) ?? 0) + 1);
        }
        running.forEach(({ rows, sequence }, i) => {
          driver.release(sequence);
          expectSameBits(rows, reference[i]!);
        });
        expect(driver.mostSequencesInStep).toBe(sequences.length);
        expect(stepsBySequences.get(sequences.length)).toBeGreaterThan(1);
        expect(stepsBySequences.size).toBeGreaterThan(2);
      });
    });
  });
});
