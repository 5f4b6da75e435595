/**
 * How the benchmark talks to its engines, each of which is a process of its own: a command is a line
 * of JSON on file descriptor 4, its answer one on 3 (libraries print to the others, and whoever
 * touches process.stdin makes it non-blocking).
 *
 * A child waits for its next command in a blocking read, so between two commands nothing of it runs:
 * no timer, no callback, and a generation that is under way stands still. That is how engines take
 * turns in the middle of a long generation.
 */
import { readFileSync, readSync, writeSync } from 'node:fs';

const ANSWERS = 3;
const COMMANDS = 4;

let unread = '';

/** The next command; undefined at the end. */
function readLine() {
  const chunk = Buffer.alloc(1 << 16);
  while (!unread.includes('\n')) {
    const length = readSync(COMMANDS, chunk);
    if (length === 0) return undefined;
    unread += chunk.toString('utf8', 0, length);
  }
  const end = unread.indexOf('\n');
  const line = unread.slice(0, end);
  unread = unread.slice(end + 1);
  return line;
}

/** The child's side: carries out commands, functions from arguments to an answer, until the end. */
export async function serve(commands) {
  for (let line = readLine(); line !== undefined; line = readLine()) {
    const { command, ...args } = JSON.parse(line);
    let answer;
    try {
      answer = { result: (await commands[command](args)) ?? null };
    } catch (error) {
      answer = { error: error instanceof Error ? error.message : String(error) };
    }
    writeSync(ANSWERS, `${JSON.stringify(answer)}\n`);
  }
  process.exit(0);
}

/**
 * The same ids for every engine (Knuth's MMIX generator, high bits), among those that are whole
 * pieces of text in all Llama 2 vocabularies. Another `seed` is another prompt: no engine may
 * remember one that it has read.
 */
export function promptTokens(count, seed) {
  let state = BigInt(seed) * 7919n + 42n;
  return Array.from({ length: count }, () => {
    state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffff_ffff_ffff_ffffn;
    return 300 + Number((state >> 33n) % 31_000n);
  });
}

/** The most memory that this process ever held, in bytes: VmHWM. */
export function peakMemoryBytes() {
  const status = readFileSync('/proc/self/status', 'utf8');
  return Number(/^VmHWM:\s*(\d+) kB/m.exec(status)[1]) * 1024;
}

/** Tokens after the first per second, from the time of each token in milliseconds. */
export const tokensPerSecond = (times) => ((times.length - 1) * 1000) / (times.at(-1) - times[0]);
