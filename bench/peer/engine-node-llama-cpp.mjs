/**
 * node-llama-cpp on the CPU, as an engine of the benchmark: memory-mapped, with flash attention and
 * its default KV cache (f16), as fast as it goes.
 */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { peakMemoryBytes, promptTokens, serve, tokensPerSecond } from './protocol.mjs';

const OPTIONS = { temperature: 0, yieldEogToken: true };

let sequence;
/** The generation of `fill`. */
let filled;

/** Reads a prompt; the time of its first token, and the generator of those behind it. */
async function begin(count, seed) {
  await sequence.clearHistory();
  const start = performance.now();
  const tokens = sequence.evaluate(promptTokens(count, seed), OPTIONS);
  await tokens.next();
  return { tokens, start, first: performance.now() };
}

await serve({
  async open({ peer, model, threads, contextTokens }) {
    const start = performance.now();
    const entry = join(peer, 'node_modules/node-llama-cpp/dist/index.js');
    const { getLlama } = await import(pathToFileURL(entry));
    const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' });
    const loaded = await llama.loadModel({ modelPath: model, useMmap: true });
    const context = await loaded.createContext({
      contextSize: contextTokens,
      batchSize: 512,
      threads,
      flashAttention: true,
    });
    sequence = context.getSequence();
    return { loadMs: performance.now() - start };
  },

  async run({ promptTokens: count, newTokens, seed, limitMs = Infinity }) {
    const { tokens, start, first } = await begin(count, seed);
    const times = [first];
    while (times.length < newTokens && (times.length < 4 || times.at(-1) - first < limitMs)) {
      await tokens.next();
      times.push(performance.now());
    }
    await tokens.return();
    return {
      prefillTokensPerSecond: (count * 1000) / (first - start),
      decodeTokensPerSecond: newTokens > 1 ? tokensPerSecond(times) : 0,
    };
  },

  async fill({ promptTokens: count, seed }) {
    const { tokens, start, first } = await begin(count, seed);
    filled = tokens;
    return { prefillTokensPerSecond: (count * 1000) / (first - start) };
  },

  async stretch({ newTokens }) {
    const times = [];
    // The first one is where the clock starts.
    while (times.length <= newTokens) {
      await filled.next();
      times.push(performance.now());
    }
    return { decodeTokensPerSecond: tokensPerSecond(times) };
  },

  memory: () => ({ peakBytes: peakMemoryBytes() }),
});
