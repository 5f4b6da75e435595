/**
 * Damaged and hostile files. Thousands of cases run in child processes under a watchdog: each gives
 * a typed error or loads; no process dies, hangs or grows; every refusal in the code is reached.
 *
 * The random cases are the same each time; `ALTIPLANO_HOSTILE_SEED` gives others.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { ATTACKS, type Base, type Case, planCases } from '../fixtures/hostile/cases.js';
import { type Refusal, unreachedRefusals } from '../fixtures/hostile/refusals.js';
import {
  COMPILED,
  compile,
  describeResult,
  grownResults,
  type Result,
  runCases,
} from '../fixtures/hostile/watchdog.js';
import { TINY_TOKENS } from '../fixtures/tiny-model.js';

const SEED = Number(process.env.ALTIPLANO_HOSTILE_SEED ?? 1);
const CUTS_PER_FILE = 100;
const CHANGES_PER_FILE = 150;

/** Errors about arguments and signals: no file can cause them, other tests do. */
const NO_REFUSAL_OF_A_FILE = /\b(invalidArgument|outOfRange|aborted)\(/;

/** Refusals that take more than a file; what tests them instead. */
const NOT_BY_A_FILE: readonly { refusal: RegExp; testedBy: string }[] = [
  { refusal: /^checkpoint\/files.js.*readFailure/, testedBy: 'files.test.ts' },
  // What this refuses cannot get past the readers of files: it guards against direct calls.
  { refusal: /^tokenizer\/tokenizer.js.*a vocabulary of another kind/, testedBy: 'guards.test.ts' },
  { refusal: /^tokenizer\/vocabulary.js.*differ in number/, testedBy: 'guards.test.ts' },
  { refusal: /^tokenizer\/vocabulary.js.*not the id of a token/, testedBy: 'guards.test.ts' },
  { refusal: /^checkpoint\/files.js.*the file shrank/, testedBy: 'files.test.ts' },
  // Wrong uses of a sound model, and a caller who stops its loading.
  { refusal: /^llama.js.*brings no tokenizer/, testedBy: 'load.test.ts' },
  { refusal: /^llama.js.*this.#disposedError/, testedBy: 'load.test.ts' },
  { refusal: /^llama.js.*can never fit the KV cache/, testedBy: 'load.test.ts' },
  { refusal: /^llama.js.*failure.error/, testedBy: 'load.test.ts' },
  { refusal: /^llama.js.*throw error;/, testedBy: 'llama-arguments.test.ts' },
  { refusal: /^load-plan.js.*fromNative/, testedBy: 'load-plan.test.ts' },
];

const EXPECTED_TOKENS: Record<Base, readonly number[]> = {
  'one file': TINY_TOKENS.F32,
  shards: TINY_TOKENS.BF16,
  'tokenizer.json': TINY_TOKENS.F32,
  'byte level': TINY_TOKENS.F32,
  gguf: TINY_TOKENS.Q8_0,
};

describe('hostile files', () => {
  const coverageFolder = mkdtempSync(join(tmpdir(), 'altiplano-coverage-'));
  const cases = planCases(SEED, CUTS_PER_FILE, CHANGES_PER_FILE);
  /** What each of the two runs found that share the cases. */
  let halves: Result[][];
  let results: Result[];

  beforeAll(async () => {
    compile();
    const middle = Math.floor(cases.length / 2);
    halves = await Promise.all(
      [cases.slice(0, middle), cases.slice(middle)].map((half) =>
        runCases(half, { coverageFolder }),
      ),
    );
    results = halves.flat();
  }, 600_000);

  afterAll(() => rmSync(coverageFolder, { recursive: true }));

  test('the watchdog notices death, hanging, growth and errors without a code', async () => {
    const faults = (['untyped error', 'exit', 'hang', 'growth'] as const).map(
      (fault) => ({ kind: 'fault', fault }) as const,
    );
    const sound: Case = { kind: 'attack', name: 'safetensors: unharmed' };
    const found = await runCases([sound, ...faults, sound], { caseLimitMs: 5000 });
    const [first, untyped, exit, hang, growth, last] = found;
    expect(first?.death ?? first?.defect ?? first?.code).toBeUndefined();
    expect(untyped?.defect).toMatch(/TypeError: undefined is not a function/);
    expect(exit?.death).toMatch(/SIGABRT/);
    expect(hang?.death).toBe('no answer in 5000 ms');
    expect(grownResults(found)).toEqual([growth, last]);
    expect(last?.case).toEqual(sound);
  });

  test('without coverage no refusal counts as reached', () => {
    const empty = mkdtempSync(join(tmpdir(), 'altiplano-coverage-'));
    const { total, unreached } = unreachedRefusals(empty, join(COMPILED, 'lib'), ['checkpoint']);
    rmSync(empty, { recursive: true });
    expect(unreached).toHaveLength(total);
  });

  test('thousands of cases were tried', () => {
    expect(cases.length).toBeGreaterThan(3000);
    expect(results).toHaveLength(cases.length);
    // Damage that is never noticed would mean that the cases miss what they aim at.
    const refused = results.filter(({ code }) => code !== undefined);
    expect(refused.length).toBeGreaterThan(cases.length / 2);
    expect(refused.length).toBeLessThan(cases.length);
  });

  test('each gives a typed error or loads; no process dies or hangs', () => {
    const failures = results.filter(({ death, defect }) => death ?? defect);
    expect({ seed: SEED, failures: failures.map(describeResult) }).toEqual({
      seed: SEED,
      failures: [],
    });
  });

  test('no process grows', () => {
    expect(halves.flatMap(grownResults).map(describeResult)).toEqual([]);
  });

  test.each(ATTACKS.map((attack) => [attack.name, attack] as const))('%s', (name, attack) => {
    const result = results.find(({ case: item }) => item.kind === 'attack' && item.name === name);
    expect(result?.death ?? result?.defect).toBeUndefined();
    if (attack.tokens) expect(result?.tokens).toEqual(attack.tokens);
    expect({ code: result?.code, message: result?.message ?? '' }).toEqual({
      code: attack.code,
      message: expect.stringMatching(attack.message ?? /^$/),
    });
  });

  test('damage to a tokenizer that loads does not change what the model computes', () => {
    const loaded = results.filter(
      ({ case: item, tokens }) =>
        (item.kind === 'cut' || item.kind === 'change') &&
        item.file.startsWith('tokenizer') &&
        tokens !== undefined,
    );
    expect(loaded.length).toBeGreaterThan(50);
    const isExpected = ({ case: item, tokens }: Result) =>
      'base' in item && `${tokens}` === `${EXPECTED_TOKENS[item.base]}`;
    expect(loaded.filter((result) => !isExpected(result)).map(describeResult)).toEqual([]);
  });

  test('every attack has a name of its own', () => {
    expect(new Set(ATTACKS.map(({ name }) => name)).size).toBe(ATTACKS.length);
  });

  test('every refusal in the code was reached', () => {
    const { total, unreached } = unreachedRefusals(coverageFolder, join(COMPILED, 'lib'), [
      'checkpoint',
      'tokenizer',
      'llama.js',
      'load-plan.js',
    ]);
    expect(total).toBeGreaterThan(100);
    const isMissing = ({ place, text }: Refusal) =>
      !NO_REFUSAL_OF_A_FILE.test(text) &&
      !NOT_BY_A_FILE.some(({ refusal }) => refusal.test(`${place} ${text}`));
    expect(unreached.filter(isMissing)).toEqual([]);
  });
});
