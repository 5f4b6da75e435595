/**
 * The measurements. Engines take turns, run by run, each one first as often as the other, and the
 * limits of the machine are measured in between; medians are what counts. Engines that wait use no
 * processor.
 */
import { createReadStream, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { busyLoop, Engine } from './engines.mjs';
import { cpuQuota, cpusFor, stolenMs } from './machine.mjs';
import { modelPath } from './models.mjs';

const CONTEXT_TOKENS = 2048;
/** The longest that a run of decoding beside a busy process may take. */
const BUSY_LIMIT_MS = 12_000;
/** A turn is taken again, this often in all, where the host took more of the time of a processor. */
const MOST_STOLEN = 0.05;
const ATTEMPTS = 4;

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Takes a turn again where the host of a virtual machine took the processors away meanwhile, up to
 * `attempts` times in all: its speed would tell of the host's other guests.
 * @returns what the turn returned, and how often it was taken again
 */
export async function undisturbed(turn, attempts = ATTEMPTS, stolen = stolenMs) {
  for (let attempt = 1; ; attempt++) {
    const [start, before] = [performance.now(), stolen()];
    const value = await turn();
    const share = (stolen() - before) / (performance.now() - start);
    if (share <= MOST_STOLEN || attempt >= attempts) return { value, again: attempt - 1 };
    await sleep(100);
  }
}

/**
 * Runs `turns` (name -> function of the run's number) one after the other, `runs` times, every other
 * time in the opposite order. @returns name -> what the function returned, run by run; `again`, how
 * many turns were taken again
 */
async function alternate(runs, turns, attempts = ATTEMPTS) {
  const names = Object.keys(turns);
  const values = Object.fromEntries(names.map((name) => [name, []]));
  let again = 0;
  for (let run = 0; run < runs; run++) {
    for (const name of run % 2 === 0 ? names : [...names].reverse()) {
      const taken = await undisturbed(() => turns[name](run), attempts);
      values[name].push(taken.value);
      again += taken.again;
      await sleep(100); // threads that spin before they sleep
    }
  }
  return { ...values, again };
}

/** Starts engines, runs `body` with them, and ends them whatever happens. */
async function withEngines(engines, body) {
  try {
    return await body(engines);
  } finally {
    await Promise.all(Object.values(engines).map((engine) => engine?.close()));
  }
}

function open(engine, row, bench, options = {}) {
  return engine.ask('open', {
    peer: bench.peer,
    model: modelPath(bench.folder, row.model),
    threads: bench.threads,
    contextTokens: row.contextTokens ?? CONTEXT_TOKENS,
    device: bench.device,
    sequences: row.kind === 'together' ? 1 : row.sequences,
    ...options,
  });
}

const WARM_UP = { promptTokens: 16, newTokens: 4, seed: 0 };

/** Prefill, decode and several sequences at once, of one model with one environment. */
export async function measureSpeeds(rows, bench, report) {
  const [{ model, env }] = rows;
  const engines = { altiplano: new Engine('altiplano', { env }), limits: new Engine('altiplano') };
  if (rows.some(({ peer }) => peer !== false)) {
    // It takes the first GPU that it sees.
    const [, index] = bench.device.split(':');
    engines.peer = new Engine('peer', index && { env: { CUDA_VISIBLE_DEVICES: index } });
  }
  await withEngines(engines, async ({ altiplano, peer, limits }) => {
    const opened = await open(altiplano, rows[0], bench);
    if (peer) await open(peer, rows[0], bench);
    for (const engine of [altiplano, peer]) await engine?.ask('run', WARM_UP);
    const { threads, device } = bench;
    const work = await limits.ask('work', {
      model: modelPath(bench.folder, model),
      threads,
      device,
    });
    for (const row of rows) {
      const result = await measureSpeed(row, bench, engines, work);
      report(row, { ...result, isa: opened.isa, weights: opened.weights, kv: opened.kv });
    }
  });
}

async function measureSpeed(row, bench, { altiplano, peer, limits }, work) {
  const { runs, threads, device } = bench;
  const { kind, promptTokens = 16, newTokens = 1, sequences } = row;
  const figure = kind === 'prefill' ? 'prefillTokensPerSecond' : 'decodeTokensPerSecond';
  const speed = (engine, command, more) => async (run) => {
    const args = { promptTokens, newTokens, seed: 100 * (run + 1), ...more };
    return (await engine.ask(command, args))[figure];
  };
  const turns = {
    altiplano: speed(altiplano, 'run'),
    limits: () => limits.ask('limits', { threads, device }),
  };
  if (kind === 'together') {
    turns.one = turns.altiplano;
    turns.altiplano = speed(altiplano, 'together', { sequences });
  } else if (kind === 'batch') {
    for (const [name, engine] of Object.entries({ altiplano, peer })) {
      turns[name] = speed(engine, 'together', { sequences });
    }
  } else {
    turns.peer = speed(peer, 'run');
  }
  const values = await alternate(runs * (row.turnsPerRun ?? 1), turns);
  const result = { altiplano: values.altiplano, peer: values.peer, again: values.again };
  if (kind === 'together') {
    return { ...result, one: values.one, share: median(values.altiplano) / median(values.one) };
  }
  // What one unit of the limit is worth in tokens.
  const [name, limit, tokens] =
    kind === 'prefill'
      ? ['peak', 'macsPerSecond', 1 / (work.layerMacsPerToken + work.headMacs / promptTokens)]
      : // A step reads the weights once for all sequences.
        ['bandwidth', 'bytesPerSecond', (sequences ?? 1) / work.weightsBytesPerToken];
  if (values.limits.some((measured) => measured[limit] === null)) {
    return { ...result, noShare: `the ${name} is not known` };
  }
  // Of the limit beside each run: what a machine delivers changes with its other work.
  const beside = values.limits.map((measured) => measured[limit]);
  const sharesOf = (speeds) => speeds.map((speed, i) => speed / (beside[i] * tokens));
  const shares = sharesOf(result.altiplano);
  // The peer's turn is as near to it. Whatever it reaches, all of the limit would be 1 / peerShare.
  const peerShare = median(sharesOf(result.peer));
  return { ...result, share: median(shares), shares, peerShare, [name]: median(beside) };
}

/** Decoding behind a long context: it is read once, then the engines take turns decoding. */
export async function measureContext(row, bench) {
  const { promptTokens, newTokens, kv } = row;
  const turn = bench.runs * (newTokens + 4);
  const attempts = Math.min(ATTEMPTS, Math.floor((4096 - 16 - promptTokens) / turn));
  const room = promptTokens + turn * Math.max(1, attempts) + 16;
  const contextTokens = Math.min(4096, 256 * Math.ceil(room / 256));
  const engines = { altiplano: new Engine('altiplano'), peer: new Engine('peer') };
  return withEngines(engines, async ({ altiplano, peer }) => {
    await open(altiplano, row, bench, { contextTokens, kv });
    await open(peer, row, bench, { contextTokens });
    for (const engine of [altiplano, peer]) await engine.ask('fill', { promptTokens, seed: 1 });
    const stretch = (engine) => async () =>
      (await engine.ask('stretch', { newTokens })).decodeTokensPerSecond;
    const turns = { altiplano: stretch(altiplano), peer: stretch(peer) };
    return alternate(bench.runs, turns, attempts);
  });
}

async function intoFileCache(path) {
  for await (const _chunk of createReadStream(path, { highWaterMark: 1 << 22 }));
}

/** From the start of the process to the answer with the first token, in milliseconds. */
export async function measureFirstToken(row, bench) {
  await intoFileCache(modelPath(bench.folder, row.model));
  const firstToken = (kind) => (run) =>
    withEngines({ engine: new Engine(kind) }, async ({ engine }) => {
      const opened = open(engine, row, bench);
      const answered = engine.ask('run', {
        promptTokens: row.promptTokens,
        newTokens: 1,
        seed: run + 1,
      });
      await Promise.all([opened, answered]);
      return performance.now() - engine.startedAt;
    });
  return alternate(bench.runs, { altiplano: firstToken('altiplano'), peer: firstToken('peer') });
}

/** Peak resident memory of a process that loads, reads a prompt and decodes, in GB. Once: it does not vary. */
export async function measureMemory(row, bench) {
  const { promptTokens, newTokens } = row;
  const memory = (kind) => () =>
    withEngines({ engine: new Engine(kind) }, async ({ engine }) => {
      await open(engine, row, bench);
      await engine.ask('run', { promptTokens, newTokens, seed: 1 });
      return engine.ask('memory');
    });
  const values = await alternate(1, { altiplano: memory('altiplano'), peer: memory('peer') }, 1);
  const [{ peakBytes, kvBytes }] = values.altiplano;
  return {
    altiplano: [peakBytes / 1e9],
    peer: [values.peer[0].peakBytes / 1e9],
    share: (peakBytes - kvBytes) / statSync(modelPath(bench.folder, row.model)).size,
    kvBytes,
  };
}

/** Decoding beside a loop that never ends, or within a CPU quota; and our one thread without either. */
export async function measureBusy(row, bench) {
  const { newTokens, nice, quotaCpus } = row;
  const cpus = cpusFor(bench.threads);
  const quota = quotaCpus === undefined ? undefined : cpuQuota(quotaCpus);
  const engines = {
    altiplano: new Engine('altiplano', { cpus }),
    peer: new Engine('peer', { cpus }),
    oneThread: new Engine('altiplano', { cpus }),
  };
  try {
    return await withEngines(engines, async ({ altiplano, peer, oneThread }) => {
      for (const engine of [altiplano, peer]) quota?.add(engine.pid);
      await open(altiplano, row, bench);
      await open(peer, row, bench);
      await open(oneThread, row, bench, { threads: 1 });
      for (const engine of Object.values(engines)) await engine.ask('run', WARM_UP);
      const speed = async (engine, run) => {
        const args = { promptTokens: 16, newTokens, seed: run + 1, limitMs: BUSY_LIMIT_MS };
        return (await engine.ask('run', args)).decodeTokensPerSecond;
      };
      const disturbed = (engine) => async (run) => {
        const loop = nice === undefined ? undefined : await busyLoop(nice, cpus);
        try {
          return await speed(engine, run);
        } finally {
          await loop?.stop();
        }
      };
      const values = await alternate(bench.runs, {
        altiplano: disturbed(altiplano),
        peer: disturbed(peer),
        oneThread: (run) => speed(oneThread, run),
      });
      return { ...values, cpus, share: median(values.altiplano) / median(values.oneThread) };
    });
  } finally {
    quota?.remove();
  }
}
