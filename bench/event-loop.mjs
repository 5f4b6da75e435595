// Does model work block the event loop? Eight callers generate from one model while a 5 ms timer runs;
// the lateness of the timer is compared with a control in which as many threads burn the same cores
// without any model call.
//   node bench/event-loop.mjs MODEL [seconds]
// MODEL: meant for a model of 1.1B shape, for instance TinyLlama in Q4_0 (GGUF). Prompts are token ids.
import { Worker } from 'node:worker_threads';
import { Llama } from '../dist/index.js';

const TIMER_MS = 5;
const CALLERS = 8;
const [source, seconds = '10'] = process.argv.slice(2);
const measureMs = Number(seconds) * 1000;

/** Lateness of a 5 ms timer in milliseconds, sorted. */
async function lateness() {
  const late = [];
  const end = performance.now() + measureMs;
  while (performance.now() < end) {
    const due = performance.now() + TIMER_MS;
    await new Promise((resolve) => setTimeout(resolve, TIMER_MS));
    // Node rounds timers to whole milliseconds; a timer never counts as early.
    late.push(Math.max(0, performance.now() - due));
  }
  return late.sort((a, b) => a - b);
}

function report(name, late) {
  const at = (share) => late[Math.min(late.length - 1, Math.floor(share * late.length))].toFixed(1);
  console.log(
    `${name.padEnd(28)} median ${at(0.5)} ms, 99 % ${at(0.99)} ms, worst ${at(1)} ms (${late.length} timers)`,
  );
  return Number(at(0.99));
}

const llama = await Llama.load(source);
const { threads, name, weights, config } = llama.info;
console.log(
  `${name}, ${weights}, ${threads} threads; ${CALLERS} callers with prompts of 32 tokens, default sampling`,
);

const abort = new AbortController();
let pieces = 0;
const callers = Array.from({ length: CALLERS }, async (_, caller) => {
  for (let turn = 0; !abort.signal.aborted; turn++) {
    const prompt = Array.from(
      { length: 32 },
      (_, i) => (7919 * (caller + turn + i)) % config.vocabSize,
    );
    const generation = llama.generate(prompt, {
      maxTokens: 64,
      ignoreEos: true,
      signal: abort.signal,
    });
    for await (const _text of generation) pieces++;
  }
});
// Prompts and the first tokens first: what is measured is mostly decoding, with new prompts between.
while (pieces < CALLERS) await new Promise((resolve) => setTimeout(resolve, 100));
const busy = await lateness();
abort.abort();
await Promise.all(callers);
const shared = llama.stats.mostSequencesInStep;
await llama.dispose();

const burners = Array.from({ length: threads }, () => new Worker('for (;;);', { eval: true }));
await new Promise((resolve) => setTimeout(resolve, 200));
const control = await lateness();
for (const burner of burners) await burner.terminate();

report('control, no model calls', control);
const late = report(`${CALLERS} callers (up to ${shared} a step)`, busy);
console.log(
  `${pieces} pieces of text; limit: 20 ms late at 99 %: ${late <= 20 ? 'kept' : 'missed'}`,
);
process.exitCode = late <= 20 ? 0 : 1;
