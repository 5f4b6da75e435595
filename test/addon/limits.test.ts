/** The limits of the machine as the addon measures them. */
import { expect, test } from '@jest/globals';
import { fromNative, native } from '../../lib/native.js';

const available = native().cpuInfo().available;

test('the peak of int8 multiply-adds is known where there is AVX2', async () => {
  const peak = await native().measureInt8Peak(1);
  if (!available.includes('avx2')) {
    expect(peak).toBeGreaterThanOrEqual(0);
    return;
  }
  // 32 to 128 in a cycle of 1 to 6 GHz; under an emulator or beside other work far fewer. No core
  // of today does 256 a cycle.
  expect(peak).toBeGreaterThan(1e8);
  expect(peak).toBeLessThan(256 * 6e9);
});

test('the read bandwidth is measured while Node goes on', async () => {
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const rate = await native().measureReadBandwidth(2 ** 28, 2);
  clearInterval(timer);
  expect(turns).toBeGreaterThan(0);
  // From a slow disk's speed to beyond any processor's caches.
  expect(rate).toBeGreaterThan(1e7);
  expect(rate).toBeLessThan(1e13);
});

test.each([
  ['no thread', () => native().measureInt8Peak(0)],
  ['half a thread', () => native().measureInt8Peak(1.5)],
  ['more threads than any machine takes', () => native().measureInt8Peak(1025)],
  ['no memory', () => native().measureReadBandwidth(0, 1)],
])('%s is an error with a code', async (_, measure) => {
  let thrown: unknown;
  try {
    await measure();
  } catch (error) {
    thrown = fromNative(error);
  }
  expect((thrown as { code?: string }).code).toMatch(/^ALTIPLANO_(OUT_OF_RANGE|INVALID_ARGUMENT)$/);
});
