/** Native memory is freed: on dispose at once, and when a model is dropped. In processes of their own. */
import { describe, expect, test } from '@jest/globals';
import { openCheckpoint } from '../../lib/checkpoint/index.js';
import { DEMO_MODEL_PATH } from '../../lib/llama.js';
import { planLoad } from '../../lib/load-plan.js';
import { resolveLoadOptions } from '../../lib/options.js';
import {
  bigSpec,
  expectEnd,
  isSanitized,
  runChild,
  smallSpec,
  temporaryFolder,
} from './support.js';

const folder = temporaryFolder();
const big = bigSpec(folder);
const medium = {
  ...big,
  layers: 2,
  tensors: { ...big.tensors, layers: big.tensors.layers.slice(0, 2) },
};
const small = smallSpec(folder);
const options = { kvCacheTokens: 512, contextTokens: 256, threads: 1 };
const demo = planLoad(await openCheckpoint(DEMO_MODEL_PATH), resolveLoadOptions(options)).spec;

/** What a scenario of engine-child.mjs adds to the resident memory, in MiB. */
async function growth(scenario: string, nodeOptions: readonly string[] = ['--expose-gc']) {
  const outcome = await runChild(scenario, { medium, small, demo }, nodeOptions);
  expectEnd(outcome);
  return outcome.report as { grownMiB: number; peakMiB: number };
}

/** Allocators keep some of what is freed. */
const SLACK_MIB = 60;

// AddressSanitizer keeps freed memory back, and finds what is lost by itself.
(isSanitized ? describe.skip : describe)('memory', () => {
  test('is freed when models are dropped', async () => {
    // 12 models of 60 MiB. The promise of the last load may keep one engine for a while.
    const { grownMiB } = await growth('drop');
    expect(grownMiB).toBeLessThan(60 + SLACK_MIB);
  });

  test('of dropped models makes V8 collect garbage in time', async () => {
    const { peakMiB } = await growth('drop', []);
    expect(peakMiB).toBeLessThan(360); // of 720
  });

  test('is freed when models are dropped while they work', async () => {
    const { grownMiB } = await growth('dropBusy');
    expect(grownMiB).toBeLessThan(SLACK_MIB);
  });

  // 200 times 13 MiB; fewer where a load takes longer.
  test.each(['dispose', 'fail', 'disposePublic', 'dropPublic'])(
    'does not leak in many loads of the demo model: %s',
    async (scenario) => {
      const { grownMiB } = await growth(scenario);
      expect(grownMiB).toBeLessThan(SLACK_MIB);
    },
  );
});
