/**
 * `altiplano bench`: how fast a model loads, reads a prompt and generates here, next to what the
 * machine could deliver. Decoding one sequence reads all weights for every token, so its speed is
 * bounded by the read bandwidth; reading a prompt multiplies every weight with every token, so it is
 * bounded by the multiply-adds of int8 numbers, the fastest there are. The shares say how close it
 * comes.
 */

import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { Command } from 'commander';
import { formatBytes } from '../format-bytes.js';
import type { Llama } from '../index.js';
import type { Gpu } from '../native.js';
import type { Limits } from './bench-limits.js';
import type { CliContext } from './context.js';
import { EXIT_OK, interruptible, UsageError } from './failure.js';
import { addJson, addModelOptions, integer, loadOptions, type ModelFlags } from './flags.js';
import { DEMO_MODEL, loadModel, progressBar } from './loading.js';
import { number, plural, table, write, writeJson } from './output.js';
import type { Finish } from './program.js';

interface BenchFlags extends ModelFlags {
  promptTokens: number;
  newTokens: number;
  runs: number;
  json?: boolean;
}

const DETAILS = `
The prompt is a fixed sequence of random tokens; generation is greedy, one sequence at a time, and
never ends early. The limits are measured after each run, the bandwidth with a buffer that no cache
holds: what a machine delivers changes with its other work. Speeds, limits and shares are the medians
of the runs; peak memory is the process's, read after the first run. The decode share is (bytes of
weights that a token reads) × (tokens a second) / bandwidth; weights that fit the caches can exceed 1.
The prefill share is (multiply-adds of a prompt token: one for each weight of the layers, and the
output head once a prompt) × (tokens a second) / the most multiply-adds of int8 numbers that the
processor does.
On a GPU nothing is measured: bandwidth and peak (of f16 numbers; of int8 ones with --activations int8)
are nominal, from its clocks.

Examples:
  altiplano bench
  altiplano bench --model llama-2-7b.Q4_0.gguf --prompt-tokens 512 --new-tokens 64
  altiplano bench --threads 4 --weights int8 --json
`;

export function benchCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('bench')
    .summary('measure speed and memory')
    .description('Measures how fast the model loads, reads a prompt and generates on this machine.')
    .option('--prompt-tokens <n>', 'length of the prompt', integer({ min: 1 }), 128)
    .option('--new-tokens <n>', 'tokens to generate', integer({ min: 2 }), 64)
    .option('--runs <n>', 'how often; the median counts', integer({ min: 1, max: 1000 }), 3);
  return addJson(
    addModelOptions(command),
    'prefillTokensPerSecond, decodeTokensPerSecond, loadMs, peakRssBytes, readBandwidthBytesPerSecond, decodeBandwidthShare, int8MacsPerSecond, prefillPeakShare, limits, …',
  )
    .addHelpText('after', DETAILS)
    .action(async (flags: BenchFlags) => {
      finish(await bench(context, flags));
    });
}

/** Runs the command. @returns the exit code */
export function bench(context: CliContext, flags: BenchFlags): Promise<number> {
  return interruptible(context, async (signal) => {
    const { openCheckpoint } = await context.library();
    const checkpoint = await openCheckpoint(flags.model ?? DEMO_MODEL, { signal });
    const { gpuOf, measureLimits, modelWork, nominalLimits, promptMacs } = await import(
      './bench-limits.js'
    );
    const model = await loadModel(context, flags, signal);
    const { info } = model;
    let gpu: Gpu | null;
    let runs: Run[];
    let peakRssBytes: number;
    try {
      gpu = await gpuOf(info.device);
      // A processor's limits are measured, a GPU's are those of its clocks.
      const nominal = gpu && nominalLimits(gpu, info.activations === 'int8');
      const limits = async () => nominal ?? (await measureLimits(info.threads));
      ({ runs, peakRssBytes } = await measure(context, model, flags, limits, signal));
    } finally {
      await model.dispose();
    }
    const isInt8 = gpu === null || info.activations === 'int8';
    const work = modelWork(checkpoint, loadOptions(flags), gpu);
    const macsPerPromptToken = promptMacs(work, flags.promptTokens) / flags.promptTokens;
    const peakMacsPerSecond = medianOf(runs, ({ macsPerSecond }) => macsPerSecond);
    const results = {
      model: info.name,
      weights: info.weights,
      kv: info.kv,
      threads: info.threads,
      isa: info.isa,
      device: info.deviceName ?? info.device,
      cpu: cpus()[0]?.model ?? 'unknown',
      promptTokens: flags.promptTokens,
      newTokens: flags.newTokens,
      runs: flags.runs,
      loadMs: info.loadMs,
      prefillTokensPerSecond: median(runs.map((run) => run.prefillTokensPerSecond)),
      decodeTokensPerSecond: median(runs.map((run) => run.decodeTokensPerSecond)),
      peakRssBytes,
      readBandwidthBytesPerSecond: medianOf(runs, ({ bytesPerSecond }) => bytesPerSecond),
      weightsBytesPerToken: work.weightsBytesPerToken,
      decodeBandwidthShare: medianOf(
        runs,
        ({ decodeTokensPerSecond: speed, bytesPerSecond: limit }) =>
          limit && (work.weightsBytesPerToken * speed) / limit,
      ),
      int8MacsPerSecond: isInt8 ? peakMacsPerSecond : null,
      f16MacsPerSecond: isInt8 ? null : peakMacsPerSecond,
      limits: gpu === null ? ('measured' as const) : ('nominal' as const),
      macsPerPromptToken,
      prefillPeakShare: medianOf(
        runs,
        ({ prefillTokensPerSecond: speed, macsPerSecond: limit }) =>
          limit && (macsPerPromptToken * speed) / limit,
      ),
    };
    if (flags.json) await writeJson(context, results);
    else await write(context.stdout, report(results, info.memory.weightsBytes));
    return EXIT_OK;
  });
}

/** Speeds, and the limits beside them. */
interface Run extends Limits {
  prefillTokensPerSecond: number;
  decodeTokensPerSecond: number;
}

async function measure(
  context: CliContext,
  model: Llama,
  flags: BenchFlags,
  limits: () => Promise<Limits>,
  signal: AbortSignal,
): Promise<{ runs: Run[]; peakRssBytes: number }> {
  const { promptTokens, newTokens, runs: count } = flags;
  const room = Math.min(model.info.contextTokens, model.info.kvCacheTokens);
  if (promptTokens + newTokens > room) {
    throw new UsageError(
      `--prompt-tokens ${promptTokens} and --new-tokens ${newTokens} do not fit the context: ` +
        `expected at most ${room} together`,
    );
  }
  const prompt = randomTokens(promptTokens, model.info.config.vocabSize);
  const options = {
    maxTokens: newTokens,
    temperature: 0,
    repetitionPenalty: 1,
    ignoreEos: true,
    signal,
  };
  const runs: Run[] = [];
  let peakRssBytes = 0;
  const bar = await progressBar(context, 'Measuring', (done) => `${done} runs`);
  try {
    for (let run = 0; run < count; run++) {
      bar.update(run, count);
      const { timings } = await model.generate(prompt, options).result;
      signal.throwIfAborted();
      if (run === 0) peakRssBytes = peakRss(); // before the limits take memory
      runs.push({ ...timings, ...(await limits()) });
    }
  } finally {
    bar.stop();
  }
  return { runs, peakRssBytes };
}

/** The same ids each time, spread over the vocabulary (Knuth's MMIX generator, high bits). */
function randomTokens(count: number, vocabSize: number): number[] {
  let state = 42n;
  return Array.from({ length: count }, () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn;
    // Ids below 3 are special in Llama's vocabularies.
    return vocabSize <= 3 ? 0 : 3 + (Number(state >> 33n) % (vocabSize - 3));
  });
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The median of what is known of the runs; null if nothing is. */
function medianOf(runs: readonly Run[], value: (run: Run) => number | null): number | null {
  const known = runs.map(value).filter((one) => one !== null);
  return known.length === 0 ? null : median(known);
}

/** The most memory that this process ever held: VmHWM on Linux, else what getrusage says. */
function peakRss(): number {
  if (process.platform === 'linux') {
    const kibibytes = /^VmHWM:\s*(\d+) kB/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    if (kibibytes !== undefined) return Number(kibibytes) * 1024;
  }
  return process.resourceUsage().maxRSS * 1024;
}

interface Results {
  prefillTokensPerSecond: number;
  decodeTokensPerSecond: number;
  model: string;
  weights: string;
  kv: string;
  threads: number;
  isa: string;
  device: string;
  cpu: string;
  promptTokens: number;
  newTokens: number;
  runs: number;
  loadMs: number;
  peakRssBytes: number;
  readBandwidthBytesPerSecond: number | null;
  weightsBytesPerToken: number;
  decodeBandwidthShare: number | null;
  int8MacsPerSecond: number | null;
  f16MacsPerSecond: number | null;
  limits: 'measured' | 'nominal';
  macsPerPromptToken: number;
  prefillPeakShare: number | null;
}

function report(results: Results, weightsBytes: number): string {
  const { decodeTokensPerSecond, decodeBandwidthShare, runs } = results;
  const isNominal = results.limits === 'nominal';
  const nominal = isNominal ? ', nominal' : '';
  const peak = results.f16MacsPerSecond ?? results.int8MacsPerSecond;
  const peakName = results.f16MacsPerSecond === null ? 'int8 peak' : 'f16 peak';
  return table([
    ...(results.device === 'cpu' ? [] : [['device', results.device]]),
    ['machine', `${results.cpu}, ${plural(results.threads, 'thread')}, ${results.isa} kernels`],
    [
      'model',
      `${results.model}, weights ${results.weights} (${formatBytes(weightsBytes)}), KV cache ${results.kv}`,
    ],
    [
      'measured',
      `${plural(results.promptTokens, 'prompt token')}, ${results.newTokens} new, one sequence, ` +
        (runs === 1 ? 'one run' : `median of ${runs} runs`),
    ],
    ['load', `${number(results.loadMs)} ms`],
    ['prefill', `${number(results.prefillTokensPerSecond)} tokens/s`],
    [
      'decode',
      `${number(decodeTokensPerSecond)} tokens/s, ${number(1000 / decodeTokensPerSecond)} ms a token`,
    ],
    ['peak memory', formatBytes(results.peakRssBytes)],
    ...(results.readBandwidthBytesPerSecond === null
      ? [['read bandwidth', 'not known']]
      : [
          ['read bandwidth', `${formatBytes(results.readBandwidthBytesPerSecond)}/s${nominal}`],
          [
            'share of it',
            `${number(100 * decodeBandwidthShare!)} %: each token reads ${formatBytes(results.weightsBytesPerToken)} of weights` +
              (decodeBandwidthShare! > 1 ? ', which the caches hold' : ''),
          ],
        ]),
    ...(peak === null
      ? [['peak', `not known for this ${isNominal ? 'GPU' : 'processor'}`]]
      : [
          [peakName, `${number(peak / 1e9)} billion multiply-adds/s${nominal}`],
          [
            'share of it',
            `${number(100 * results.prefillPeakShare!)} %: each prompt token takes ` +
              `${number(results.macsPerPromptToken / 1e9)} billion`,
          ],
        ]),
  ]);
}
