/** Models on two CUDA devices in one process: side by side, in memory of their own. */
import { afterAll, expect, test } from '@jest/globals';
import { findGpus } from '../../../lib/devices.js';
import { estimateMemory, Llama, type LoadOptions } from '../../../lib/index.js';
import { demoFolder, demoGolden } from '../../e2e/support.js';

const { devices } = await findGpus();
const usable = devices.filter(({ problem }) => problem === null);
const testTwo = usable.length >= 2 ? test : test.skip;
if (usable.length < 2) console.warn('SKIPPED: models on two GPUs, with one');

const SMALL = { kvCacheTokens: 1024, threads: 1 } as const;
const first = { ...SMALL, device: 'cuda:0' } as const;
const second = { ...SMALL, device: 'cuda:1' } as const;

const free = async (options: LoadOptions) =>
  (await estimateMemory(demoFolder, options)).availableBytes;

const held = ({ info: { memory } }: Llama) =>
  memory.weightsBytes + memory.kvBytes + memory.workspaceBytes;

/** All prompts at once. */
const answers = (llama: Llama, maxTokens: number) =>
  Promise.all(
    demoGolden.cases.map(async ({ ids }) => {
      const { tokens } = await llama.generate(ids, { temperature: 0, maxTokens }).result;
      return tokens;
    }),
  );
const expected = (count: number) => demoGolden.cases.map(({ greedy }) => greedy.slice(0, count));

const loaded: Llama[] = [];
afterAll(() => Promise.all(loaded.map((llama) => llama.dispose())));
async function load(options: LoadOptions) {
  const llama = await Llama.load(demoFolder, options);
  loaded.push(llama);
  return llama;
}

testTwo('two models generate at once; one that is disposed leaves the other alone', async () => {
  const before = [await free(first), await free(second)];
  const [a, b] = await Promise.all([load(first), load(second)]);
  expect([a.info.device, b.info.device]).toEqual(['cuda:0', 'cuda:1']);
  expect(await Promise.all([answers(a, 4), answers(b, 4)])).toEqual([expected(4), expected(4)]);
  expect(before[0]! - (await free(first))).toBeGreaterThanOrEqual(held(a));
  expect(before[1]! - (await free(second))).toBeGreaterThanOrEqual(held(b));

  const running = answers(b, 4);
  await a.dispose();
  expect(await free(first)).toBe(before[0]); // at once, and all of it
  expect(await running).toEqual(expected(4));
  expect(before[1]! - (await free(second))).toBeGreaterThanOrEqual(held(b));
  await b.dispose();
  expect(await free(second)).toBe(before[1]);
});

testTwo('a device without the memory leaves the other and itself usable', async () => {
  const a = await load(first);
  const before = await free(second);
  const running = answers(a, 4);
  await expect(load({ ...second, kvCacheTokens: 2 ** 28 })).rejects.toMatchObject({
    code: 'ALTIPLANO_OUT_OF_MEMORY',
    message: expect.stringMatching(/available on cuda:1/),
  });
  expect(await running).toEqual(expected(4));
  expect(await free(second)).toBe(before);
  const b = await load(second);
  expect(await answers(b, 2)).toEqual(expected(2));
  await Promise.all([a.dispose(), b.dispose()]);
});
