/** altiplano, from dist/, as an engine of the benchmark; it also measures the limits of the machine. */
import { gpuOf, measureLimits, modelWork, nominalLimits } from '../../dist/cli/bench-limits.js';
import { Llama, openCheckpoint } from '../../dist/index.js';
import { peakMemoryBytes, promptTokens, serve, tokensPerSecond } from './protocol.mjs';

const OPTIONS = { temperature: 0, repetitionPenalty: 1, ignoreEos: true };

let llama;
/** KV cache in use at the end of the last run, in tokens. */
let usedTokens = 0;
/** The generation of `fill`, which ends in an error at the latest when the context is full. */
let filling;
/** The times of its tokens. */
let times;

/** Waits until `times` has `count` entries. @throws if the generation ends before */
async function tokensToCome(count) {
  while (times.length < count) {
    await Promise.race([filling, new Promise((next) => setTimeout(next, 1))]);
  }
}

/** One request of `newTokens` tokens; aborted when `limitMs` have passed. */
async function generate({ promptTokens: count, newTokens, seed, limitMs }) {
  const abort = new AbortController();
  const timer = limitMs === undefined ? undefined : setTimeout(() => abort.abort(), limitMs);
  const result = await llama.generate(promptTokens(count, seed), {
    ...OPTIONS,
    maxTokens: newTokens,
    signal: abort.signal,
  }).result;
  clearTimeout(timer);
  usedTokens = Math.max(usedTokens, count + result.completionTokens);
  return result.timings;
}

await serve({
  async open({ model, threads, contextTokens, kv, device = 'cpu', sequences = 1 }) {
    llama = await Llama.load(model, {
      device,
      threads,
      contextTokens,
      kvCacheTokens: contextTokens * sequences,
      ...(kv && { kv }),
    });
    const { isa, weights, loadMs } = llama.info;
    return { isa, weights, kv: llama.info.kv, loadMs, device: llama.info.device };
  },

  async run(args) {
    const { prefillTokensPerSecond, decodeTokensPerSecond } = await generate(args);
    return { prefillTokensPerSecond, decodeTokensPerSecond };
  },

  /** Several requests at once; the sum of their speeds. Their prompts are read in shared steps. */
  async together({ sequences, seed, ...args }) {
    const all = Array.from({ length: sequences }, (_, i) => generate({ ...args, seed: seed + i }));
    const timings = await Promise.all(all);
    return {
      decodeTokensPerSecond: timings.reduce((sum, t) => sum + t.decodeTokensPerSecond, 0),
    };
  },

  /** Reads a prompt and goes on generating whenever `stretch` lets it. */
  async fill({ promptTokens: count, seed }) {
    // Always the same letter, so that each token is a piece of text whose coming can be seen.
    const letter = llama.tokenizer.encode('a').at(-1);
    const start = performance.now();
    const generation = llama.generate(promptTokens(count, seed), {
      ...OPTIONS,
      logitBias: { [letter]: 1e6 },
    });
    times = [];
    filling = (async () => {
      for await (const _piece of generation) times.push(performance.now());
      throw new Error('the context is full');
    })();
    await tokensToCome(1);
    return { prefillTokensPerSecond: (count * 1000) / (times[0] - start) };
  },

  async stretch({ newTokens }) {
    // Steps that were submitted before the pause have ended in it: the clock starts behind them.
    const early = 2;
    times = [];
    await tokensToCome(early + newTokens + 1);
    return { decodeTokensPerSecond: tokensPerSecond(times.slice(early, early + newTokens + 1)) };
  },

  memory() {
    const { kvCacheTokens, memory } = llama.info;
    return {
      peakBytes: peakMemoryBytes(),
      // Only what was written to: the rest may never have become resident.
      kvBytes: memory.kvBytes * Math.min(1, usedTokens / kvCacheTokens),
    };
  },

  work: async ({ model, threads, device = 'cpu' }) =>
    modelWork(await openCheckpoint(model), { threads, device }, await gpuOf(device)),

  /** A processor's are measured, a GPU's nominal. */
  async limits({ threads, device = 'cpu' }) {
    const gpu = await gpuOf(device);
    return gpu === null ? measureLimits(threads) : nominalLimits(gpu);
  },
});
