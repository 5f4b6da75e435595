/** The benchmark's side of the engines: starts them, sends commands, stops them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const SCRIPTS = {
  altiplano: 'engine-altiplano.mjs',
  peer: 'engine-node-llama-cpp.mjs',
};

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts a process that ends with this one at the latest. */
export function start(args, { env = {}, cpus, ...options }) {
  // Without the variables of the npm run that we may be part of: it knows nothing of the engines. Nor
  // do these need certificates, which Node.js would read before anything else (30 ms).
  const { NODE_OPTIONS: _, NODE_EXTRA_CA_CERTS: __, ...inherited } = process.env;
  const command = [process.execPath, ...args];
  if (cpus !== undefined) command.unshift('taskset', '-c', cpus);
  const child = spawn(command[0], command.slice(1), { env: { ...inherited, ...env }, ...options });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

export class Engine {
  /** What it printed to its standard error, the end of it. */
  #complaints = '';
  #answers = '';
  #waiting = [];
  #child;
  #ended;
  #failure;

  /**
   * @param {'altiplano' | 'peer'} kind
   * @param {{ env?: object, cpus?: string }} [options] environment variables on top of ours, and
   *   the processors to run on (`taskset -c`)
   */
  constructor(kind, options = {}) {
    const script = fileURLToPath(new URL(SCRIPTS[kind], import.meta.url));
    const stdio = ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'];
    this.kind = kind;
    this.startedAt = performance.now();
    this.#child = start([script], { ...options, stdio });
    this.#child.stdio[4].on('error', () => {}); // its end is reported by `close`
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#complaints = (this.#complaints + text).slice(-1000);
    });
    this.#child.stdio[3].setEncoding('utf8').on('data', (text) => this.#read(text));
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => this.#fail(error.message, resolve));
      this.#child.once('close', (code, signal) => {
        const lines = this.#complaints.trim().split('\n');
        const why = lines.find((line) => line.includes('Error:')) ?? lines.at(-1);
        this.#fail(`ended with ${signal ?? code}${why ? `: ${why.trim()}` : ''}`, resolve);
      });
    });
  }

  get pid() {
    return this.#child.pid;
  }

  /** Sends a command. @returns its answer @throws what the engine threw, or how it ended */
  ask(command, args = {}) {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    this.#child.stdio[4].write(`${JSON.stringify({ command, ...args })}\n`);
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  async close() {
    this.#child.stdio[4].end();
    await this.#ended;
  }

  #read(text) {
    this.#answers += text;
    for (let end = this.#answers.indexOf('\n'); end !== -1; end = this.#answers.indexOf('\n')) {
      const { result, error } = JSON.parse(this.#answers.slice(0, end));
      this.#answers = this.#answers.slice(end + 1);
      const { resolve, reject } = this.#waiting.shift();
      if (error === undefined) resolve(result);
      else reject(new Error(`${this.kind}: ${error}`));
    }
  }

  #fail(reason, resolve) {
    this.#failure ??= new Error(`${this.kind} ${reason}`);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
    resolve();
  }
}

/** A loop that keeps one core busy, at a nice value, until it is stopped. */
export async function busyLoop(nice, cpus) {
  // The main thread ends the process with us, even if we are killed.
  const program = `
    const { Worker } = require('node:worker_threads');
    require('node:os').setPriority(${nice});
    new Worker('for (;;);', { eval: true }).on('online', () => console.log('on'));
    process.stdin.on('end', () => process.exit()).resume();`;
  // A session of its own, as another program's would be: Linux shares the processors among sessions
  // first (autogroups), and a nice value only counts within one.
  const child = start(['-e', program], {
    cpus,
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  const stop = async () => {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  return { pid: child.pid, stop };
}
