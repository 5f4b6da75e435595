/** The benchmark beside another engine: what it concludes, and our engine behind its protocol. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

import { nominalLimits } from '../../lib/cli/bench-limits.js';

// Plain JavaScript without types.
const load = (path: string) => import(new URL(`../../bench/${path}`, import.meta.url).href);
const [{ judge, markdownTable, summary, textTable }, { allRows, chooseRows, gpuRows }] =
  await Promise.all([load('peer/report.mjs'), load('peer/rows.mjs')]);
const { busyLoop, Engine } = await load('peer/engines.mjs');
const { explainModels } = await load('peer/models.mjs');
const { cpuQuota, stolenMs } = await load('peer/machine.mjs');
const { undisturbed } = await load('peer/measure.mjs');
const { writeSyntheticGguf } = await load('synthetic-gguf.mjs');

type Row = { id: string; group: string; title: string };
const rows: Row[] = allRows();
const row = (id: string) => rows.find((one) => one.id === id)!;

describe('what comes out of a row', () => {
  test('medians, the ratio of neighbouring turns and share are held against the goals', () => {
    const result = { altiplano: [90, 100, 400], peer: [36, 40, 41], share: 0.65 };
    const outcome = judge(row('prefill:7b-q4_0'), result);
    expect(outcome).toMatchObject({ altiplanoMedian: 100, peerMedian: 40 });
    expect(outcome.checks).toMatchObject([
      { measured: 2.5, goal: '≥ 2.5x', verdict: 'kept' },
      { measured: 0.65, goal: '≥ 65 %', verdict: 'kept', what: 'of the int8 peak' },
    ]);
    // The medians' ratio is 2.5 again, that of the turns 2.47.
    const slower = { altiplano: [100, 50, 200], peer: [40, 21, 81], share: 0.649 };
    const less = judge(row('prefill:7b-q4_0'), slower);
    expect(less.checks.map((one: { verdict: string }) => one.verdict)).toEqual([
      'missed',
      'missed',
    ]);
  });

  test('of times and memory, less is better', () => {
    const first = judge(row('first-token:7b-q4_0'), { altiplano: [300], peer: [1000] });
    expect(first.checks).toMatchObject([{ goal: '≤ 0.3x', verdict: 'kept' }]);
    const memory = judge(row('memory:7b-q4_0'), { altiplano: [5], peer: [8], share: 1.2 });
    expect(memory.checks).toMatchObject([{ verdict: 'missed' }, { verdict: 'missed' }]);
  });

  test('a figure without a goal is neither kept nor missed', () => {
    const outcome = judge(row('prefill:1b-q8_0'), { altiplano: [10], peer: [1], share: 0.1 });
    expect(outcome.checks).toMatchObject([{ verdict: 'kept' }, { goal: null, verdict: null }]);
    expect(summary([outcome])).toBe('1 goals kept, 0 missed.');
  });

  test('a turn is taken again while the host takes the processors, not for ever', async () => {
    const taken = async (stolen: number[], attempts?: number) => {
      let turns = 0;
      const took = () => (stolen[turns] ?? stolen.at(-1)!) * 1000;
      return undisturbed(async () => ++turns, attempts, took);
    };
    expect(await taken([0, 0])).toEqual({ value: 1, again: 0 });
    expect(await taken([0, 1, 1])).toEqual({ value: 2, again: 1 });
    expect(await taken([0, 1, 2, 3, 4, 5], 3)).toEqual({ value: 3, again: 2 });
    expect(await taken([0, 1, 2], 1)).toEqual({ value: 1, again: 0 });
    expect(stolenMs()).toBeGreaterThanOrEqual(0);
  });

  test('what the peer reaches of a limit bounds the ratio: it is told beside ours', () => {
    const outcome = judge(row('decode:1b-q8_0'), {
      ...{ altiplano: [29], peer: [21], share: 0.94, peerShare: 0.68 },
    });
    expect(outcome.checks).toHaveLength(2);
    expect(markdownTable([outcome]).split('\n')[2]).toMatch(
      /\| 94 % \(≥ 90 %: kept\) of the read bandwidth; node-llama-cpp 68 % \|$/,
    );
  });

  test('what was not measured stands out, with the reason', () => {
    const outcomes = [
      judge(row('decode:1b-q4_0'), { altiplano: [60], peer: [30], share: 0.95 }),
      judge(row('decode:7b-q4_0'), { reason: '7b-q4_0.gguf is missing' }),
    ];
    expect(textTable(outcomes)).toMatch(
      /decode, 7B Q4_0 +NOT MEASURED: 7b-q4_0\.gguf is missing\n/,
    );
    expect(markdownTable(outcomes).split('\n').slice(2, 4)).toEqual([
      '| decode, 1.1B Q4_0 | 60 tok/s | 30 tok/s | 2x (≥ 1.5x: kept) | 95 % (≥ 90 %: kept) of the read bandwidth |',
      '| decode, 7B Q4_0 | NOT MEASURED: 7b-q4_0.gguf is missing |  |  |  |',
    ]);
    expect(summary(outcomes)).toBe('2 goals kept, 0 missed; 1 of 2 rows were NOT MEASURED.');
  });
});

describe('the choice of rows', () => {
  test('by group, or group and model', () => {
    const titles = (only: string) => chooseRows(rows, only).map(({ id }: Row) => id);
    expect(titles('decode:1b-q8_0,memory')).toEqual(['decode:1b-q8_0', 'memory:7b-q4_0']);
    expect(chooseRows(rows, undefined)).toHaveLength(rows.length);
  });

  test('unknown names are an error that lists the groups', () => {
    expect(() => chooseRows(rows, 'decode,speed')).toThrow(/expected some of prefill, .*speed/);
  });

  test('files that are missing are explained', () => {
    expect(explainModels('/nowhere', ['7b-q4_0'])).toEqual([
      expect.stringMatching(/7b-q4_0\.gguf is not in \/nowhere: .*\n.*synthetic-gguf\.mjs 7b q4_0/),
    ]);
  });
});

describe('on a GPU', () => {
  test('decoding at batch 1, 8 and 64 and prompts of 512 and 2,048 tokens are measured', () => {
    const ofModel = gpuRows().filter(({ id }: Row) => id.endsWith(':7b-q4_0'));
    expect(ofModel.map(({ title }: Row) => title)).toEqual([
      'prefill, 7B Q4_0, 512 tokens',
      'prefill, 7B Q4_0, 2048 tokens',
      'decode, 7B Q4_0, batch 1',
      'decode, 7B Q4_0, batch 8',
      'decode, 7B Q4_0, batch 64',
    ]);
    for (const each of [...gpuRows(), ...gpuRows(true)]) {
      const { promptTokens = 16, newTokens = 1, contextTokens } = each;
      expect(promptTokens + newTokens).toBeLessThanOrEqual(contextTokens);
    }
    expect(chooseRows(gpuRows(), 'decode:1b-q4_0')).toHaveLength(3);
  });

  test('the report has ratio and share, without goals', () => {
    const [first] = chooseRows(gpuRows(), 'decode:7b-q4_0');
    const outcome = judge(first, { altiplano: [200, 210], peer: [100, 110], share: 0.5 });
    expect(markdownTable([outcome]).split('\n')[2]).toBe(
      '| decode, 7B Q4_0, batch 1 | 205 tok/s | 105 tok/s | 1.95x | 50 % of the nominal bandwidth, weights alone |',
    );
    expect(summary([outcome])).toBe('0 goals kept, 0 missed.');
  });

  test('limits are those of its clocks', () => {
    const a100 = {
      ...{ index: 0, name: 'A100', computeCapability: '8.0', totalBytes: 80e9, problem: null },
      ...{ multiprocessors: 108, clockKhz: 1_410_000 },
      ...{ memoryClockKhz: 1_593_000, memoryBusBits: 5120 },
    };
    const { bytesPerSecond, macsPerSecond } = nominalLimits(a100);
    expect(bytesPerSecond! / 1e9).toBeCloseTo(2039, 0); // as its data sheet says
    expect((2 * macsPerSecond!) / 1e12).toBeCloseTo(312, 0);
    expect(nominalLimits(a100, true).macsPerSecond).toBe(2 * macsPerSecond!);
    expect(nominalLimits({ ...a100, computeCapability: '12.0', memoryClockKhz: 0 })).toEqual({
      bytesPerSecond: null,
      macsPerSecond: null,
    });
  });

  test('without one, and for devices that are none, it is refused in a sentence', () => {
    const bench = (device: string) =>
      spawnSync(
        process.execPath,
        ['bench/peer/main.mjs', '--models', '/nowhere', '--device', device],
        { encoding: 'utf8', env: { ...process.env, CUDA_VISIBLE_DEVICES: '' } },
      );
    for (const device of ['cuda', 'cuda:1']) {
      const { status, stderr } = bench(device);
      expect(stderr).toMatch(new RegExp(`^no GPU to measure on: device "${device}": .+\\n`));
      expect(status).toBe(2);
    }
    expect(bench('gpu').stderr).toMatch(/^--device: expected cpu, cuda or cuda:1, found gpu\n/);
  });
});

describe('our engine behind the protocol', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bench-peer-'));
  const model = join(folder, 'tiny.gguf');
  let engine: InstanceType<typeof Engine>;

  beforeAll(async () => {
    const shape = { hidden: 256, intermediate: 512, layers: 2, heads: 4, kvHeads: 2, context: 512 };
    writeSyntheticGguf(model, shape, 'q4_0');
    engine = new Engine('altiplano');
    const opened = await engine.ask('open', { model, threads: 2, contextTokens: 512 });
    expect(opened).toMatchObject({ kv: 'f16', weights: 'int4 (group 32)' });
  });
  afterAll(async () => {
    await engine.close();
    rmSync(folder, { recursive: true });
  });

  test('runs prompts, alone and several at once', async () => {
    const args = { promptTokens: 16, newTokens: 8, seed: 1 };
    const alone = await engine.ask('run', args);
    expect(alone.prefillTokensPerSecond).toBeGreaterThan(0);
    expect(alone.decodeTokensPerSecond).toBeGreaterThan(0);
    const together = await engine.ask('together', { ...args, sequences: 4 });
    expect(together.decodeTokensPerSecond).toBeGreaterThan(0);
  });

  test('a run ends when its time is over', async () => {
    const start = performance.now();
    await engine.ask('run', { promptTokens: 16, newTokens: 490, seed: 2, limitMs: 1 });
    const limited = performance.now() - start;
    await engine.ask('run', { promptTokens: 16, newTokens: 490, seed: 2 });
    expect(limited).toBeLessThan((performance.now() - start) / 2);
  });

  test('a long generation stands still between two stretches', async () => {
    await engine.ask('fill', { promptTokens: 100, seed: 3 });
    for (let stretch = 0; stretch < 3; stretch++) {
      const { decodeTokensPerSecond } = await engine.ask('stretch', { newTokens: 16 });
      expect(decodeTokensPerSecond).toBeGreaterThan(0);
      // Long enough to fill the context of 512 tokens, if it did not wait.
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    const { peakBytes, kvBytes } = await engine.ask('memory');
    expect(peakBytes).toBeGreaterThan(kvBytes);
  });

  test('knows the work of a model and the limits of the machine', async () => {
    // q and o [256, 256], k and v [128, 256], gate, up and down [512, 256]; a head of [32000, 256].
    expect(await engine.ask('work', { model, threads: 1 })).toMatchObject({
      layerMacsPerToken: 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256),
      headMacs: 32_000 * 256,
    });
    expect((await engine.ask('limits', { threads: 1 })).bytesPerSecond).toBeGreaterThan(1e7);
  });

  test('reports errors, and goes on', async () => {
    await expect(
      engine.ask('open', { model: '/nowhere.gguf', contextTokens: 512 }),
    ).rejects.toThrow(/altiplano: .*nowhere/);
    await expect(engine.ask('nothing')).rejects.toThrow('altiplano: ');
    expect(await engine.ask('memory')).toHaveProperty('peakBytes');
  });
});

test('an engine that ends is an error for all that is asked of it', async () => {
  const engine = new Engine('altiplano');
  const asked = engine.ask('limits', { threads: 1 });
  process.kill(engine.pid);
  await expect(asked).rejects.toThrow('altiplano ended with SIGTERM');
  await expect(engine.ask('memory')).rejects.toThrow('altiplano ended with SIGTERM');
});

test('a busy loop is busy, at its nice value, until it is stopped', async () => {
  if (process.platform !== 'linux') return;
  const { pid, stop } = await busyLoop(19);
  /** Clock ticks that the threads at nice 19 have used (proc(5): fields 14, 15 and 19 of stat). */
  const niceTicks = () =>
    readdirSync(`/proc/${pid}/task`)
      .map((task) => readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8'))
      .map((stat) => stat.slice(stat.lastIndexOf(')') + 2).split(' '))
      .filter((fields) => fields[16] === '19')
      .reduce((sum, fields) => sum + Number(fields[11]) + Number(fields[12]), 0);
  const before = niceTicks();
  while (niceTicks() < before + 10) await new Promise((resolve) => setTimeout(resolve, 20));
  await stop();
  expect(existsSync(`/proc/${pid}`)).toBe(false);
});

test('a quota holds a process back, or is refused with a reason', async () => {
  let quota: { add(pid: number): void; remove(): void };
  try {
    quota = cpuQuota(0.25);
  } catch (error) {
    expect((error as Error).message).toMatch(/^no CPU quota can be set: ./);
    return;
  }
  const { pid, stop } = await busyLoop(0);
  try {
    quota.add(pid);
    const ticks = () => {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return Number(fields[11]) + Number(fields[12]);
    };
    const [start, before] = [performance.now(), ticks()];
    await new Promise((resolve) => setTimeout(resolve, 2000));
    const seconds = (performance.now() - start) / 1000;
    // Ticks of 10 ms: a quarter of a core is 25 a second, a free loop takes up to 100. One period
    // more than the quota may fall into the window.
    expect((ticks() - before) / 100).toBeLessThan(0.25 * (seconds + 0.2) + 0.02);
  } finally {
    await stop();
    quota.remove();
  }
});
