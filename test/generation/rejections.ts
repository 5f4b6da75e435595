/** Sees unhandled rejections without letting them end the test run. */
import { runInThisContext } from 'node:vm';

// jest's `process` is a copy; rejections are reported to the real one.
const realProcess = runInThisContext('process') as NodeJS.Process;

/** The reasons of promises that were rejected while `work` ran, with nobody to handle it. */
export async function rejectionsDuring(work: () => Promise<void>): Promise<unknown[]> {
  const reasons: unknown[] = [];
  const others = realProcess.listeners('unhandledRejection');
  realProcess.removeAllListeners('unhandledRejection');
  realProcess.on('unhandledRejection', (reason) => reasons.push(reason));
  try {
    await work();
    // They are reported when the microtasks of a turn have run.
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  } finally {
    realProcess.removeAllListeners('unhandledRejection');
    for (const listener of others) realProcess.on('unhandledRejection', listener);
  }
  return reasons;
}
