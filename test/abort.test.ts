import { setMaxListeners } from 'node:events';
import { runInThisContext } from 'node:vm';
import { describe, expect, test } from '@jest/globals';
import { onAbort } from '../lib/abort.js';

// Node warns through its own process, of which jest gives tests a copy.
const nodeProcess = runInThisContext('process') as NodeJS.Process;

describe('onAbort', () => {
  test('calls once, or not at all after it was taken off', () => {
    const controller = new AbortController();
    const called: string[] = [];
    onAbort(controller.signal, () => called.push('stays'));
    onAbort(controller.signal, () => called.push('goes'))();
    controller.abort();
    controller.abort();
    expect(called).toEqual(['stays']);
  });

  test('one signal may serve many requests without a warning, unless the caller wants one', async () => {
    const many = (signal: AbortSignal) => {
      for (let i = 0; i < 50; i++) onAbort(signal, () => {});
    };
    const counts: number[] = [];
    const listener = (warning: Error & { count?: number }) => {
      if (warning.name === 'MaxListenersExceededWarning') counts.push(warning.count!);
    };
    nodeProcess.on('warning', listener);
    many(new AbortController().signal);
    const limited = new AbortController().signal;
    setMaxListeners(3, limited);
    many(limited);
    await new Promise(setImmediate);
    nodeProcess.off('warning', listener);
    expect(counts).toEqual([4]);
  });

  test('takes signals that are not Node’s own, and none', () => {
    let listener = () => {};
    const signal = {
      aborted: false,
      addEventListener: (_: string, added: () => void) => {
        listener = added;
      },
      removeEventListener: () => {},
    } as unknown as AbortSignal;
    let called = 0;
    onAbort(signal, () => called++);
    listener();
    expect(called).toBe(1);
    onAbort(undefined, () => {})();
    onAbort(null, () => {})();
  });
});
