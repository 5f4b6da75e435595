/**
 * What a command may touch: streams, environment, Ctrl-C and the library. Commands get all of it
 * through one object, so that tests run them without a process and without a model.
 */
import type { Readable, Writable } from 'node:stream';

/** The library as the commands use it, imported when a command first needs it. */
export type Library = typeof import('../index.js');

export type InputStream = Readable & { isTTY?: boolean };
export type OutputStream = Writable & { isTTY?: boolean; columns?: number };

export interface CliContext {
  stdin: InputStream;
  stdout: OutputStream;
  stderr: OutputStream;
  env: Readonly<Record<string, string | undefined>>;
  /**
   * Fires when nothing can be written to `stdout` any more, with the stream's error as its reason:
   * EPIPE if whoever read it has gone (`altiplano … | head -1`), others if, say, the disk is full.
   */
  outputClosed: AbortSignal;
  /** Calls `listener` at each Ctrl-C (SIGINT) until the returned function is called. */
  onInterrupt(listener: () => void): () => void;
  /** Calls `listener` with each warning of the library and of Node. */
  onWarning(listener: (warning: Error) => void): void;
  /** Leaves at once: for a second Ctrl-C, when the first one did not end the work. */
  exitNow(exitCode: number): void;
  library(): Promise<Library>;
}

/** The context of this process. */
export function processContext(): CliContext {
  const outputClosed = new AbortController();
  process.stdout.on('error', (error) => outputClosed.abort(error));
  // Where errors themselves cannot be written, only the exit code is left to tell of them.
  process.stderr.on('error', () => {});
  return {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    outputClosed: outputClosed.signal,
    onInterrupt(listener) {
      process.on('SIGINT', listener);
      return () => process.off('SIGINT', listener);
    },
    onWarning(listener) {
      // Node's own listener prints "(node:123) Warning: …": ours takes its place.
      process.removeAllListeners('warning');
      process.on('warning', listener);
    },
    exitNow: (exitCode) => process.exit(exitCode),
    library: () => import('../index.js'),
  };
}
