/** Models on a CUDA device from load to dispose: options, memory, candidates, errors. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { estimateMemory, Llama, type LoadOptions } from '../../../lib/index.js';
import { writeChanged } from '../../e2e/checkpoint-copies.js';
import { Driver, demoFolder, demoGolden } from '../../e2e/support.js';

const SMALL = { kvCacheTokens: 1024, threads: 1 } as const;
const prompt = demoGolden.cases[0]!.ids;

describe('the device', () => {
  test('auto takes the GPU, and its name is told', async () => {
    const llama = await Llama.load(demoFolder, { ...SMALL, device: 'auto' });
    expect(llama.info.device).toBe('cuda:0');
    expect(llama.info.deviceName).toEqual(expect.any(String));
    expect(llama.info.isa).toMatch(/^sm_\d+$/);
    await llama.dispose();
  });

  test('auto takes the CPU for what only it does, which a GPU refuses', async () => {
    const exact = { ...SMALL, weights: 'f32' } as const;
    const llama = await Llama.load(demoFolder, { ...exact, device: 'auto' });
    expect(llama.info.device).toBe('cpu');
    await llama.dispose();
    await expect(Llama.load(demoFolder, { ...exact, device: 'cuda' })).rejects.toMatchObject({
      code: 'ALTIPLANO_INVALID_ARGUMENT',
      subject: 'weights',
    });
  });

  test('a GPU that is not there is a typed error', async () => {
    await expect(Llama.load(demoFolder, { ...SMALL, device: 'cuda:99' })).rejects.toMatchObject({
      code: 'ALTIPLANO_DEVICE_UNAVAILABLE',
      subject: 'device "cuda:99"',
    });
  });
});

describe('memory', () => {
  test('the cache takes what is left, up to 256 contexts', async () => {
    const estimate = await estimateMemory(demoFolder, { device: 'cuda' });
    const { kvCacheTokens, contextTokens, totalBytes, availableBytes, kvBytes } = estimate;
    expect(totalBytes).toBeLessThanOrEqual(availableBytes);
    const pageBytes = (kvBytes / kvCacheTokens) * 32;
    if (availableBytes - totalBytes > pageBytes) expect(kvCacheTokens).toBe(256 * contextTokens);
    else expect(kvCacheTokens).toBeGreaterThanOrEqual(contextTokens);
  });

  test('is as estimated, and the cache takes what is asked for', async () => {
    const options = { ...SMALL, device: 'cuda' } as const;
    const estimate = await estimateMemory(demoFolder, options);
    const llama = await Llama.load(demoFolder, options);
    const { weightsBytes, kvBytes, workspaceBytes } = estimate;
    expect(llama.info.memory).toEqual({ weightsBytes, kvBytes, workspaceBytes });
    expect(llama.info.kvCacheTokens).toBe(1024);
    await llama.dispose();
    const again = await estimateMemory(demoFolder, options);
    expect(again.availableBytes).toBe(estimate.availableBytes); // all of it came back
  });

  test('too little of it is an error with the numbers', async () => {
    const options = { device: 'cuda', kvCacheTokens: 2 ** 28, threads: 1 } as const;
    await expect(Llama.load(demoFolder, options)).rejects.toMatchObject({
      code: 'ALTIPLANO_OUT_OF_MEMORY',
      message: expect.stringMatching(/KV cache \(268435456 tokens.*available on cuda:0/),
    });
  });
});

/**
 * A copy of the demo model that computes the same: what makes queries, values and the middle of the
 * feed-forward block is multiplied by powers of two, what follows them by the inverse.
 */
function writeScaled(to: string): void {
  const powers: Readonly<Record<string, number>> = {
    q_proj: 40,
    k_proj: -40,
    v_proj: 24,
    o_proj: -24,
    up_proj: 30,
    down_proj: -30,
  };
  writeChanged(demoFolder, to, (x, name) => x * 2 ** (powers[name.split('.').at(-2)!] ?? 0));
}

describe('weights and activations beyond the range of f16', () => {
  const folder = mkdtempSync(join(tmpdir(), 'altiplano-range-'));
  beforeAll(() => writeScaled(folder));
  afterAll(() => rmSync(folder, { recursive: true }));
  const options = { device: 'cuda', weights: 'bf16', kvCacheTokens: 512, threads: 1 } as const;

  test.each(['bf16', 'int8'] as const)('are the same to bf16, KV cache in %s', async (kv) => {
    const logits = async (path: string) => {
      const driver = await Driver.load(path, { ...options, kv });
      const rows = await driver.logitsOf(prompt);
      await driver.dispose();
      return rows;
    };
    // Rounding and sums do not depend on a power of two: every bit is the same.
    expect(await logits(folder)).toEqual(await logits(demoFolder));
  });

  test('are refused in f16, with the name of the tensor', async () => {
    await expect(Driver.load(folder, { ...options, weights: 'f16' })).rejects.toMatchObject({
      message: expect.stringMatching(/proj.*too large for f16: use bf16 or f32/),
    });
  });
});

describe('generation', () => {
  test('sampling from candidates is sampling from whole rows', async () => {
    const llama = await Llama.load(demoFolder, { ...SMALL, device: 'cuda' });
    const sampled = { temperature: 0.8, seed: 7, maxTokens: 12, ignoreEos: true } as const;
    // Without truncation, below a temperature of 0.9, the sampler starts from candidates; with a bias
    // for all tokens alike, which changes no probability, it needs whole rows at once.
    const { vocabSize } = llama.info.config;
    const bias = Object.fromEntries(Array.from({ length: vocabSize }, (_, id) => [id, 1]));
    const [few, whole, nucleus] = await Promise.all(
      [{ topP: 1 }, { topP: 1, logitBias: bias }, { topP: 0.9, logprobs: 3 }].map(
        (more) => llama.generate(prompt, { ...sampled, ...more }).result,
      ),
    );
    expect(few!.tokens).toHaveLength(12);
    expect(whole!.tokens).toEqual(few!.tokens);
    for (const { logprob, alternatives } of nucleus!.logprobs!) {
      expect(logprob).toBeLessThanOrEqual(0);
      expect(alternatives).toHaveLength(3);
      const logprobs = alternatives.map((each) => each.logprob);
      expect(logprobs).toEqual([...logprobs].sort((a, b) => b - a));
    }
    await llama.dispose();
  });

  // The demo model is in bf16. What activations and the cache are, unless they are asked for.
  test.each<[LoadOptions, { activations: string; kv: string; weights: string }]>([
    [{}, { activations: 'bf16', kv: 'bf16', weights: 'bf16' }],
    [{ kv: 'f16' }, { activations: 'bf16', kv: 'f16', weights: 'bf16' }],
    [{ weights: 'f16' }, { activations: 'f16', kv: 'f16', weights: 'f16' }],
    [
      { weights: 'f16', kv: 'bf16' },
      { activations: 'f16', kv: 'bf16', weights: 'f16' },
    ],
    [{ weights: 'int8' }, { activations: 'f16', kv: 'f16', weights: 'int8 (group 32)' }],
    // int8 by int8
    [
      { weights: 'int8', activations: 'int8' },
      { activations: 'int8', kv: 'f16', weights: 'int8 (group 32)' },
    ],
  ])('perplexity is that of golden.json: %j', async (options, expected) => {
    const llama = await Llama.load(demoFolder, { ...SMALL, device: 'cuda', ...options });
    expect(llama.info).toMatchObject(expected);
    const { text, value } = demoGolden.perplexity;
    const { perplexity } = await llama.perplexity(text);
    // The loss is a mean of errors of logits of either sign, in f16 each below 0.03 and of 0.007 in the
    // root mean square (the bounds of golden.test.ts). With int8 the largest of n numbers is code 127,
    // some 4 times their root mean square: an error of 4 / 127 / sqrt(12) = 0.9 % of each activation
    // and weight, of either sign, and averaged over hundreds of products in a logit and all tokens of
    // the text. In bf16 the root mean square is 0.05, of a loss sqrt(2) times that, and over the 68
    // tokens three times 0.07 / sqrt(68).
    const isBf16 = expected.activations === 'bf16' || expected.kv === 'bf16';
    expect(Math.abs(Math.log(perplexity / value))).toBeLessThan(isBf16 ? 0.026 : 0.01);
    await llama.dispose();
  });

  test('an aborted request leaves the model usable; a disposed model is gone', async () => {
    const llama = await Llama.load(demoFolder, { ...SMALL, device: 'cuda' });
    const abort = new AbortController();
    const running = llama.generate(prompt, {
      signal: abort.signal,
      ignoreEos: true,
      temperature: 0,
    });
    for await (const _ of running) abort.abort();
    await running.result.catch(() => {});
    const { tokens } = await llama.generate(prompt, { temperature: 0, maxTokens: 4 }).result;
    expect(tokens).toEqual(demoGolden.cases[0]!.greedy.slice(0, 4));
    await llama.dispose();
    expect(() => llama.generate(prompt)).toThrow(/disposed/);
  });

  test('two models in one process', async () => {
    const load = () => Llama.load(demoFolder, { ...SMALL, device: 'cuda' });
    const [a, b] = await Promise.all([load(), load()]);
    const answers = await Promise.all(
      [a, b].map((each) => each.generate(prompt, { temperature: 0, maxTokens: 4 }).result),
    );
    for (const { tokens } of answers) {
      expect(tokens).toEqual(demoGolden.cases[0]!.greedy.slice(0, 4));
    }
    await Promise.all([a.dispose(), b.dispose()]);
  });
});
