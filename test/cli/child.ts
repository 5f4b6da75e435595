/** Runs the compiled command line (`npm test` compiles it first) in processes of its own. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** ALTIPLANO_TEST_CLI names another build than dist/. */
export const MAIN =
  process.env.ALTIPLANO_TEST_CLI ??
  fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface ChildOptions {
  input?: string;
  env?: Record<string, string>;
  main?: string;
}

function start(args: readonly string[], options: ChildOptions): ChildProcessWithoutNullStreams {
  const { NODE_OPTIONS: _, ...env } = process.env;
  return spawn(process.execPath, [options.main ?? MAIN, ...args], {
    env: { ...env, ...options.env },
  });
}

/** Runs a command to its end; `watch` may act on the running process. */
export async function altiplano(
  args: readonly string[],
  options: ChildOptions = {},
  watch: (child: ChildProcessWithoutNullStreams) => void = () => {},
): Promise<Outcome> {
  const child = start(args, options);
  const outcome: Outcome = { code: null, stdout: '', stderr: '' };
  child.stdout.on('data', (chunk) => {
    outcome.stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    outcome.stderr += chunk;
  });
  watch(child);
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  outcome.code = await new Promise((resolve) => child.on('close', resolve));
  return outcome;
}

/** util-linux's `script`, which runs a command in a terminal. */
export const hasScript = spawnSync('script', ['--version']).stdout?.includes('util-linux') ?? false;

/** A command in a terminal: what is typed goes in, and all that the terminal shows comes out. */
export class Terminal {
  /** Everything shown, without colours and cursor movements. */
  shown = '';
  /** Everything shown, as the terminal got it. */
  raw = '';
  readonly code: Promise<number | null>;
  private readonly child: ChildProcessWithoutNullStreams;
  private changed = () => {};

  constructor(args: readonly string[], env: Record<string, string> = {}) {
    const { NODE_OPTIONS: _, NO_COLOR: __, ...inherited } = process.env;
    const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
    const command = [process.execPath, MAIN, ...args].map(quote).join(' ');
    this.child = spawn('script', ['-qefc', command, '/dev/null'], {
      env: { ...inherited, TERM: 'xterm', ...env },
    });
    this.child.stdout.on('data', (chunk) => {
      this.raw += chunk;
      // biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences are what goes
      this.shown = this.raw.replace(/\u001b(\[[0-9;?]*[A-Za-z]|[78])|\r/g, '');
      this.changed();
    });
    this.child.stdin.on('error', () => {});
    this.code = new Promise((resolve) => this.child.on('close', resolve));
  }

  type(text: string): void {
    this.child.stdin.write(text);
  }

  /** Waits until `text` has been shown `times` times. */
  see(text: string, times = 1): Promise<void> {
    return this.until(() => this.shown.split(text).length > times, JSON.stringify(text));
  }

  /** Waits until what is shown fulfils a condition; fails after 20 s. */
  async until(fulfilled: () => boolean, what = String(fulfilled)): Promise<void> {
    const late = AbortSignal.timeout(20_000);
    while (!fulfilled()) {
      if (late.aborted) throw new Error(`${what} did not come:\n${this.shown}`);
      await new Promise<void>((resolve) => {
        this.changed = resolve;
        setTimeout(resolve, 100);
      });
    }
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}
