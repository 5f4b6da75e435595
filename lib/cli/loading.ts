/** Loading a model for a command, and the bar that shows how far long work has come. */

import { join } from 'node:path';
import { formatBytes } from '../format-bytes.js';
import type { Llama, LoadOptions } from '../index.js';
import { packageRoot } from '../native.js';
import type { CliContext } from './context.js';
import { loadOptions, type ModelFlags } from './flags.js';

/** The model that comes with the package, for commands that need a path. */
export const DEMO_MODEL = join(packageRoot, 'models', 'demo');

/** Work that ends sooner shows no bar: one that flashes up tells nobody anything. */
const QUIET_MS = 250;

export interface Progress {
  update(done: number, total: number): void;
  /** Removes the bar. */
  stop(): void;
}

/** A bar on stderr, where that is a terminal; `format` turns amounts into text. */
export async function progressBar(
  context: CliContext,
  label: string,
  format: (amount: number) => string,
): Promise<Progress> {
  if (!context.stderr.isTTY) return { update() {}, stop() {} };
  const { default: cliProgress } = await import('cli-progress');
  const bar = new cliProgress.SingleBar({
    stream: context.stderr,
    format: `${label} {bar} {percentage} % · {doneText} of {totalText}`,
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 30,
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false,
  });
  const started = performance.now();
  let shown = false;
  return {
    update(done, total) {
      if (total <= 0 || performance.now() - started < QUIET_MS) return;
      const text = { doneText: format(done), totalText: format(total) };
      if (!shown) bar.start(total, done, text);
      else bar.update(done, text);
      shown = true;
    },
    stop() {
      if (shown) bar.stop();
      shown = false;
    },
  };
}

/** Loads the model that the flags ask for (by default the demo model), with a loading bar. */
export async function loadModel(
  context: CliContext,
  flags: ModelFlags,
  signal: AbortSignal,
): Promise<Llama> {
  const { Llama } = await context.library();
  const bar = await progressBar(context, 'Loading', formatBytes);
  const options: LoadOptions = {
    ...loadOptions(flags),
    signal,
    onProgress: ({ doneBytes, totalBytes }) => bar.update(doneBytes, totalBytes),
  };
  try {
    return await Llama.load(flags.model, options);
  } finally {
    bar.stop();
  }
}
