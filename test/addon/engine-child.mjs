/**
 * Scenarios that need a process of their own; see support.ts. They use the compiled library, which
 * `npm test` makes first.
 *   node engine-child.mjs SCENARIO SPECS
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { buildPlan } from '../../dist/generation/plan.js';
import { Llama } from '../../dist/index.js';
import { native } from '../../dist/native.js';

const { Engine, kvPageTokens } = native();
const [scenario, specsJson] = isMainThread ? process.argv.slice(2) : workerData;
const specs = JSON.parse(specsJson, (_, value) =>
  Array.isArray(value?.float64) ? Float64Array.from(value.float64) : value,
);

function plan(tokens) {
  const stretch = { begin: 0, tokens: Array(tokens).fill(1), pages: [0, 1], rows: [] };
  return buildPlan([stretch], kvPageTokens);
}

async function load(spec) {
  const engine = new Engine();
  await engine.load(spec);
  return engine;
}

const demoOptions = { kvCacheTokens: 512, contextTokens: 256, threads: 1 };

const report = (value) => console.log(JSON.stringify(value));

/** Writes at once, so that the parent knows when the process begins to end. */
function leave(code) {
  process.stdout.write('leaving\n', () => process.exit(code));
}

/** Resident memory in MiB. */
const resident = () => process.memoryUsage.rss() / 2 ** 20;

/** Lets finalizers run, which Node defers. */
async function collectGarbage() {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.();
    await sleep(1);
  }
}

/**
 * Runs `cycle` a few times, which shows what stays allocated anyway, then `times` times; reports how
 * much the resident memory has grown meanwhile. Garbage is collected every `interval` times.
 */
async function watchMemory(times, interval, cycle) {
  for (let i = 0; i < 3; i++) await cycle();
  await collectGarbage();
  const before = resident();
  let peak = before;
  for (let i = 1; i <= times; i++) {
    await cycle();
    peak = Math.max(peak, resident());
    if (i % interval === 0) await collectGarbage();
  }
  await collectGarbage();
  report({ grownMiB: resident() - before, peakMiB: peak - before });
}

const scenarios = {
  async exitInLoad() {
    const engine = new Engine();
    engine.load(specs.big);
    while (engine.progress().doneBytes === 0) await sleep(1);
    leave(7);
  },

  async exitInStep() {
    const engine = await load(specs.big);
    engine.step(plan(64));
    engine.step(plan(64)); // queued
    await sleep(20);
    leave(7);
  },

  async exceptionInStep() {
    const engine = await load(specs.big);
    engine.step(plan(64));
    await sleep(20);
    process.stdout.write('leaving\n', () => {
      throw new Error('thrown on purpose');
    });
  },

  /** A step that nobody awaits still ends, as pending work keeps Node alive. */
  async pending() {
    const engine = await load(specs.small);
    engine.step(plan(10)).then(() => report({ stepEnded: true }));
  },

  /** A loaded model that has just worked; then the process ends by itself. */
  async idle() {
    const engine = await load(specs.big);
    await engine.step(plan(8));
    await sleep(50);
    const before = process.cpuUsage();
    await sleep(500);
    const { user, system } = process.cpuUsage(before);
    globalThis.kept = engine;
    report({ cpuMs: (user + system) / 1000 });
    process.stdout.write('leaving\n');
  },

  /** Models that are dropped without dispose; without --expose-gc, when V8 thinks it is time. */
  async drop() {
    await watchMemory(12, 1, async () => {
      const engine = await load(specs.medium);
      await engine.step(plan(1));
    });
  },

  /** Models that are dropped while they load and step: the work ends first. */
  async dropBusy() {
    await watchMemory(100, 10, async () => {
      const settled = [];
      let engine = new Engine();
      settled.push(engine.load(specs.small));
      for (let i = 0; i < 5; i++) settled.push(engine.step(plan(20)));
      engine = undefined;
      await Promise.all(settled);
    });
  },

  async dispose() {
    await watchMemory(200, 20, async () => {
      const engine = await load(specs.demo);
      await engine.dispose();
    });
  },

  /** Loads that fail at the last tensor. */
  async fail() {
    const spec = structuredClone(specs.demo);
    spec.tensors.finalNorm.offset = 2 ** 50;
    await watchMemory(60, 20, async () => {
      const engine = new Engine();
      await engine.load(spec).then(
        () => Promise.reject(new Error('loaded')),
        () => {},
      );
      await engine.dispose();
    });
  },

  async disposePublic() {
    await watchMemory(20, 5, async () => {
      const llama = await Llama.load(undefined, demoOptions);
      await llama.dispose();
    });
  },

  async dropPublic() {
    await watchMemory(20, 5, async () => {
      const llama = await Llama.load(undefined, demoOptions);
      await llama.generate('One', { maxTokens: 2 }).result;
    });
  },

  /** Workers that load, step and end by themselves. */
  async workers() {
    const ends = Array.from({ length: 3 }, () => {
      const worker = start('inWorker');
      const message = new Promise((resolve) => worker.once('message', resolve));
      const exit = new Promise((resolve) => worker.once('exit', resolve));
      return Promise.all([message, exit]);
    });
    report({ workers: await Promise.all(ends) });
  },

  async inWorker() {
    const engine = await load(specs.small);
    const { finite } = await engine.step(plan(20));
    await engine.dispose();
    parentPort.postMessage(finite.length);
  },

  /** Workers that are terminated at different moments of a load or a step. */
  async terminate() {
    const codes = [];
    for (let i = 0; i < 4; i++) {
      for (const what of ['loadInWorker', 'stepInWorker', 'manyStepsInWorker', 'chatInWorker']) {
        const worker = start(what);
        await new Promise((resolve) => worker.once('message', resolve));
        await sleep(i * 11);
        codes.push(await worker.terminate());
      }
    }
    // The main thread is not touched by any of that.
    const engine = await load(specs.small);
    await engine.step(plan(20));
    report({ codes, terminated: codes.length });
    process.stdout.write('leaving\n');
  },

  async loadInWorker() {
    parentPort.postMessage('loading');
    await load(specs.big);
    await sleep(10_000);
  },

  async stepInWorker() {
    const engine = await load(specs.big);
    parentPort.postMessage('stepping');
    await Promise.all([engine.step(plan(64)), engine.step(plan(64)), engine.dispose()]);
    await sleep(10_000);
  },

  /** Answers come all the time, so that some come while the worker is being terminated. */
  async manyStepsInWorker() {
    const engine = await load(specs.small);
    parentPort.postMessage('stepping');
    for (;;) await Promise.all([engine.step(plan(1)), engine.step(plan(2)), engine.step(plan(3))]);
  },

  /** The public object, with two requests at once. */
  async chatInWorker() {
    const llama = await Llama.load(undefined, demoOptions);
    const ask = () => llama.generate('One', { maxTokens: 100, ignoreEos: true }).result;
    parentPort.postMessage('chatting');
    for (;;) await Promise.all([ask(), ask()]);
  },
};

function start(name) {
  return new Worker(new URL(import.meta.url), { workerData: [name, specsJson] });
}

await scenarios[scenario]();
