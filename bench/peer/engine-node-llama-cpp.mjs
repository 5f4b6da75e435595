/**
 * node-llama-cpp on the CPU, or with its CUDA build on a GPU, as an engine of the benchmark:
 * memory-mapped, with flash attention and its default KV cache (f16), as fast as it goes.
 */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { peakMemoryBytes, promptTokens, serve, tokensPerSecond } from './protocol.mjs';

const OPTIONS = { temperature: 0, yieldEogToken: true };

let sequence;
/** All of them; `sequence` is the first. */
let sequences;
/** The generation of `fill`. */
let filled;

/** Reads a prompt; the time of its first token, and the generator of those behind it. */
async function begin(count, seed, of = sequence) {
  await of.clearHistory();
  const start = performance.now();
  const tokens = of.evaluate(promptTokens(count, seed), OPTIONS);
  await tokens.next();
  return { tokens, start, first: performance.now() };
}

async function generate({ promptTokens: count, newTokens, seed, limitMs = Infinity, of }) {
  const { tokens, start, first } = await begin(count, seed, of);
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
}

await serve({
  async open({ peer, model, threads, contextTokens, device = 'cpu', sequences: count = 1 }) {
    const start = performance.now();
    const entry = join(peer, 'node_modules/node-llama-cpp/dist/index.js');
    const { getLlama } = await import(pathToFileURL(entry));
    const gpu = device === 'cpu' ? false : 'cuda';
    const llama = await getLlama({ gpu, build: 'never', logLevel: 'error' });
    // It goes on without a GPU if it cannot use it.
    if (llama.gpu !== gpu) throw new Error('node-llama-cpp cannot use CUDA here');
    const loaded = await llama.loadModel({
      modelPath: model,
      useMmap: true,
      ...(gpu && { gpuLayers: 'max' }),
    });
    const context = await loaded.createContext({
      contextSize: contextTokens,
      sequences: count,
      batchSize: gpu ? Math.min(2048, contextTokens * count) : 512,
      threads,
      flashAttention: true,
    });
    sequences = Array.from({ length: count }, () => context.getSequence());
    [sequence] = sequences;
    return { loadMs: performance.now() - start };
  },

  run: (args) => generate(args),

  /** All sequences at once, which the context reads and decodes in shared batches; the sum. */
  async together({ seed, ...args }) {
    const all = await Promise.all(
      sequences.map((one, i) => generate({ ...args, seed: seed + i, of: one })),
    );
    return {
      decodeTokensPerSecond: all.reduce((sum, each) => sum + each.decodeTokensPerSecond, 0),
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
