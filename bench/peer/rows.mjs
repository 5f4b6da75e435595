/** The rows of the table: what is measured on which model, and what must come out. */
import { MODELS } from './models.mjs';

const atLeast = (value) => ({ value, isKept: (measured) => measured >= value, sign: '≥' });
const atMost = (value) => ({ value, isKept: (measured) => measured <= value, sign: '≤' });

/** What the second figure of a row is; `percent` or a factor. */
const INT8_PEAK = { label: 'of the int8 peak', percent: true };
const BANDWIDTH = { label: 'of the read bandwidth', percent: true };
const FILE = { label: 'times the file, without the KV cache', percent: false };
const ONE_SEQUENCE = { label: 'times one sequence', percent: false };
const ONE_THREAD = { label: 'times our one thread, undisturbed', percent: false };

/**
 * `ratio` and `share` hold the goals: altiplano's figure over node-llama-cpp's, and over a limit or a
 * figure of its own. A row without `peer: false` measures both engines, `turnsPerRun` times in each run.
 * @param {boolean} isQuick prompts of 64 tokens and little decoding, to try the benchmark out
 */
export function allRows(isQuick = false) {
  const promptTokens = (tokens) => (isQuick ? Math.min(tokens, 64) : tokens);
  const newTokens = (tokens) => (isQuick ? Math.min(tokens, 16) : tokens);
  const name = (model) => MODELS[model].name;

  const prefill = (model, tokens, goals) => ({
    group: 'prefill',
    title: `prefill, ${name(model)}, ${promptTokens(tokens)} tokens`,
    kind: 'prefill',
    model,
    promptTokens: promptTokens(tokens),
    unit: 'tok/s',
    ratio: atLeast(2.5),
    share: { ...INT8_PEAK },
    ...goals,
  });
  const decode = (model, ratio) => ({
    group: 'decode',
    title: `decode, ${name(model)}`,
    kind: 'decode',
    model,
    // In short turns: what memory delivers may change within seconds.
    newTokens: 16,
    turnsPerRun: isQuick ? 1 : 4,
    unit: 'tok/s',
    ratio: atLeast(ratio),
    share: { ...BANDWIDTH, ...atLeast(0.9) },
  });
  const context = (kv) => ({
    group: 'context',
    title: `decode, ${name('7b-q4_0')}, context of ${isQuick ? 256 : '3,500'} tokens, ${kv} KV`,
    kind: 'context',
    model: '7b-q4_0',
    kv,
    promptTokens: isQuick ? 256 : 3500,
    newTokens: newTokens(16),
    unit: 'tok/s',
    ratio: atLeast(1.3),
  });
  const avx2 = (model) => ({
    ...prefill(model, 256, { ratio: atLeast(1.2), share: undefined }),
    group: 'avx2',
    title: `prefill, ${name(model)}, ${promptTokens(256)} tokens, ours with AVX2 only`,
    env: { ALTIPLANO_ISA: 'avx2' },
  });
  const firstToken = (model) => ({
    group: 'first-token',
    title: `process start to first token, ${name(model)}, file in the cache`,
    kind: 'firstToken',
    model,
    promptTokens: 16,
    unit: 'ms',
    ratio: atMost(0.3),
  });
  const busy = (disturbance, title, goals) => ({
    group: 'busy',
    title: `decode, ${name('1b-q4_0')}, ${title}`,
    kind: 'busy',
    model: '1b-q4_0',
    newTokens: newTokens(64),
    unit: 'tok/s',
    ...disturbance,
    ...goals,
    share: { ...ONE_THREAD, ...atLeast(0.8) },
  });

  const rows = [
    prefill('7b-q4_0', 256, { share: { ...INT8_PEAK, ...atLeast(0.65) } }),
    prefill('7b-q4_0', 512, { share: { ...INT8_PEAK, ...atLeast(0.65) } }),
    prefill('1b-q4_0', 256),
    prefill('1b-q8_0', 256),
    decode('1b-q4_0', 1.5),
    decode('1b-q8_0', 1.5),
    decode('7b-q4_0', 1.3),
    context('f16'),
    context('int8'),
    {
      group: 'together',
      title: `8 sequences decoding at once, ${name('7b-q4_0')}`,
      kind: 'together',
      model: '7b-q4_0',
      sequences: 8,
      newTokens: newTokens(32),
      unit: 'tok/s',
      peer: false,
      share: { ...ONE_SEQUENCE, ...atLeast(4) },
    },
    avx2('7b-q4_0'),
    avx2('1b-q4_0'),
    firstToken('7b-q4_0'),
    firstToken('1b-q4_0'),
    {
      group: 'memory',
      title: `peak resident memory, ${name('7b-q4_0')}, context of 2,048 tokens`,
      kind: 'memory',
      model: '7b-q4_0',
      promptTokens: promptTokens(512),
      newTokens: newTokens(16),
      unit: 'GB',
      ratio: atMost(0.6),
      share: { ...FILE, ...atMost(1.15) },
    },
    busy({ nice: 19 }, 'beside a busy process at nice 19', { ratio: atLeast(10) }),
    busy({ nice: 0 }, 'beside a busy process at nice 0', { ratio: atLeast(10) }),
    // How far the peer falls under a quota depends on its period; no ratio is asked for.
    busy({ quotaCpus: 1.5 }, 'within a quota of 1.5 CPUs', { group: 'quota', ratio: {} }),
  ];
  return rows.map((row) => ({ id: `${row.group}:${row.model}`, ...row }));
}

const NOMINAL_PEAK = { label: 'of the nominal f16 peak', percent: true };
const NOMINAL_BANDWIDTH = { label: 'of the nominal bandwidth, weights alone', percent: true };

/** The rows of `npm run bench:gpu`; no goal is set for them, since none was measured yet. */
export function gpuRows(isQuick = false) {
  const name = (model) => MODELS[model].name;
  const prefill = (model, tokens) => ({
    group: 'prefill',
    title: `prefill, ${name(model)}, ${tokens} tokens`,
    kind: 'prefill',
    model,
    promptTokens: tokens,
    contextTokens: isQuick ? 256 : 2560,
    sequences: 1,
    unit: 'tok/s',
    ratio: {},
    share: { ...NOMINAL_PEAK },
  });
  // All sequences of a context count: engines reserve their KV cache together.
  const decode = (model, sequences, contextTokens) => ({
    group: 'decode',
    title: `decode, ${name(model)}, batch ${sequences}`,
    kind: 'batch',
    model,
    newTokens: isQuick ? 16 : 128,
    contextTokens,
    sequences,
    unit: 'tok/s',
    ratio: {},
    share: { ...NOMINAL_BANDWIDTH },
  });
  const rows = Object.keys(MODELS).flatMap((model) => [
    ...(isQuick ? [64, 128] : [512, 2048]).map((tokens) => prefill(model, tokens)),
    decode(model, 1, isQuick ? 256 : 2560),
    decode(model, 8, 256),
    decode(model, 64, 256),
  ]);
  return rows.map((row) => ({ id: `${row.group}:${row.model}`, ...row }));
}

/** Rows whose group, or group:model, is in `only`; all without it. @throws for unknown names */
export function chooseRows(rows, only) {
  if (only === undefined) return rows;
  const wanted = only.split(',').map((name) => name.trim());
  for (const name of wanted) {
    if (rows.some(({ group, id }) => name === group || name === id)) continue;
    const groups = [...new Set(rows.map(({ group }) => group))];
    throw new Error(
      `--only: expected some of ${groups.join(', ')}, or prefill:7b-q4_0; found ${name}`,
    );
  }
  return rows.filter(({ group, id }) => wanted.includes(group) || wanted.includes(id));
}
