/** The ends of a process and of worker threads, whatever the engine is doing. */
import { describe, expect, test } from '@jest/globals';
import { bigSpec, expectEnd, runChild, SOON_MS, smallSpec, temporaryFolder } from './support.js';

const folder = temporaryFolder();
const big = bigSpec(folder);
const small = smallSpec(folder);

describe('a process ends', () => {
  test.each(['exitInLoad', 'exitInStep'])('soon after process.exit(): %s', async (scenario) => {
    const outcome = await runChild(scenario, { big });
    expectEnd(outcome, 7);
    expect(outcome.leavingMs).toBeLessThan(SOON_MS);
  });

  test('soon after an uncaught exception in the middle of a step', async () => {
    const outcome = await runChild('exceptionInStep', { big });
    expect(outcome).toMatchObject({ code: 1, signal: null });
    expect(outcome.stderr).toContain('thrown on purpose');
    expect(outcome.leavingMs).toBeLessThan(SOON_MS);
  });

  test('after a step that nobody awaits', async () => {
    const outcome = await runChild('pending', { small });
    expectEnd(outcome);
    expect(outcome.report).toEqual({ stepEnded: true });
  });

  test('by itself with an idle model, which uses no processor time', async () => {
    const outcome = await runChild('idle', { big });
    expectEnd(outcome);
    expect(outcome.leavingMs).toBeLessThan(SOON_MS);
    expect((outcome.report as { cpuMs: number }).cpuMs).toBeLessThan(10);
  });
});

describe('worker threads', () => {
  test('load, step and dispose, several at once', async () => {
    const outcome = await runChild('workers', { small });
    expectEnd(outcome);
    expect(outcome.report).toEqual({ workers: Array(3).fill([0, 0]) });
  });

  test('may be terminated in the middle of a load or a step', async () => {
    const outcome = await runChild('terminate', { big, small });
    expectEnd(outcome);
    expect(outcome.report).toEqual({ codes: Array(16).fill(1), terminated: 16 });
    expect(outcome.leavingMs).toBeLessThan(SOON_MS);
  });
});
