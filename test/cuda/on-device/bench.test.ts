/** `npm run bench:gpu`: our side of it on a CUDA device, with a model of random weights. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';

const load = (path: string) => import(new URL(`../../../bench/${path}`, import.meta.url).href);
const { Engine } = await load('peer/engines.mjs');
const { writeSyntheticGguf } = await load('synthetic-gguf.mjs');

const folder = mkdtempSync(join(tmpdir(), 'bench-gpu-'));
const model = join(folder, 'tiny.gguf');
let engine: InstanceType<typeof Engine>;

beforeAll(async () => {
  const shape = { hidden: 128, intermediate: 128, layers: 1, heads: 2, kvHeads: 1, context: 64 };
  writeSyntheticGguf(model, shape, 'q8_0');
  engine = new Engine('altiplano');
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

test('speeds of one sequence and of a batch, the work, and nominal limits', async () => {
  const device = 'cuda:0';
  const opened = await engine.ask('open', {
    ...{ model, device, threads: 1, contextTokens: 32, sequences: 2 },
  });
  expect(opened).toMatchObject({ device, kv: 'f16', weights: 'int8 (group 32)' });
  const args = { promptTokens: 8, newTokens: 3, seed: 1 };
  const alone = await engine.ask('run', args);
  expect(alone.prefillTokensPerSecond).toBeGreaterThan(0);
  expect(alone.decodeTokensPerSecond).toBeGreaterThan(0);
  const together = await engine.ask('together', { ...args, sequences: 2 });
  expect(together.decodeTokensPerSecond).toBeGreaterThan(0);
  // q and o [128, 128], k and v [64, 128], gate, up and down [128, 128]; 8-bit codes and scales.
  const work = await engine.ask('work', { model, device, threads: 1 });
  expect(work.layerMacsPerToken).toBe((2 * 128 + 2 * 64 + 3 * 128) * 128);
  expect(work.weightsBytesPerToken).toBeGreaterThan(work.layerMacsPerToken);
  const { bytesPerSecond, macsPerSecond } = await engine.ask('limits', { device });
  expect(bytesPerSecond).toBeGreaterThan(1e11);
  // null: of an architecture that is not known
  expect(macsPerSecond === null || macsPerSecond > 1e12).toBe(true);
});
