/**
 * altiplano beside node-llama-cpp on the same GGUF files, same threads, same run: prints how the
 * goals (rows.mjs) stand. docs/performance.md says how it is measured.
 *
 *   npm run setup && npm run bench:peer -- --models FOLDER
 *
 * On a GPU, beside its CUDA build, with rows of its own and nominal limits:
 *
 *   npm run setup && npm run bench:gpu -- --models FOLDER
 *
 * FOLDER holds 1b-q4_0.gguf, 1b-q8_0.gguf and 7b-q4_0.gguf; for those that are missing it says how
 * to get them. node-llama-cpp is installed into a cache folder on first use. Leave the machine
 * otherwise idle; all rows take about half an hour with two cores.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { chooseGpu } from '../../dist/devices.js';
import { cpuInfo } from '../../dist/index.js';
import { resolveLoadOptions } from '../../dist/options.js';
import { installPeer, peerVersion } from './install.mjs';
import { machineFacts, usedShare } from './machine.mjs';
import {
  measureBusy,
  measureContext,
  measureFirstToken,
  measureMemory,
  measureSpeeds,
} from './measure.mjs';
import { explainModels, modelPath } from './models.mjs';
import { judge, markdownTable, summary, textTable } from './report.mjs';
import { allRows, chooseRows, gpuRows } from './rows.mjs';

const USAGE = `usage: npm run bench:peer -- --models FOLDER [options]
  --models FOLDER   where the GGUF files are
  --only LIST       some rows: prefill, decode, context, together, avx2, first-token, memory, busy,
                    quota; or one model's, for instance prefill:7b-q4_0
  --runs N          how often; the median counts (default 5)
  --threads N       of each engine (default 2)
  --device NAME     cpu (default), cuda or cuda:1: other rows, decode and prefill
  --peer FOLDER     where node-llama-cpp is installed (default: a cache folder, installed from npm)
  --json FILE       writes all figures, after every row
  --markdown        prints Markdown
  --quick           short prompts, few tokens: tries the benchmark out, the figures mean little`;

const MEASURES = {
  context: measureContext,
  firstToken: measureFirstToken,
  memory: measureMemory,
  busy: measureBusy,
};

function options() {
  const { values } = parseArgs({
    options: {
      models: { type: 'string' },
      only: { type: 'string' },
      runs: { type: 'string', default: '5' },
      threads: { type: 'string', default: '2' },
      device: { type: 'string', default: 'cpu' },
      peer: { type: 'string' },
      json: { type: 'string' },
      markdown: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const count = (name) => {
    const value = Number(values[name]);
    if (Number.isInteger(value) && value >= 1 && value <= 1000) return value;
    throw new Error(`--${name}: expected a whole number from 1, found ${values[name]}`);
  };
  if (values.models === undefined) throw new Error('--models FOLDER is missing');
  const { device, quick, only } = values;
  if (!/^(cpu|cuda(:\d+)?)$/.test(device)) {
    throw new Error(`--device: expected cpu, cuda or cuda:1, found ${device}`);
  }
  return {
    ...values,
    rows: chooseRows((device === 'cpu' ? allRows : gpuRows)(quick), only),
    runs: count('runs'),
    threads: count('threads'),
  };
}

/** Whether two rows can be measured in engines that were opened once. */
const sameEngines = (a, b) =>
  ['model', 'env', 'contextTokens'].every((name) => a[name] === b[name]) &&
  (a.contextTokens === undefined || a.sequences === b.sequences);

/** The GPU to measure on; says why, and ends the process, if there is none that can be used. */
async function chooseDevice(name) {
  if (name === 'cpu') return { device: name, gpu: null };
  try {
    const gpu = await chooseGpu(resolveLoadOptions({ device: name }));
    return { device: `cuda:${gpu.index}`, gpu };
  } catch (error) {
    console.error(`no GPU to measure on: ${error.message}`);
    process.exit(2);
  }
}

/** Measures all rows; `report` gets each one's outcome as it comes. */
async function measure(rows, bench, report) {
  const isSpeed = ({ kind }) => MEASURES[kind] === undefined;
  const done = new Set();
  const finish = (row, result) => {
    done.add(row);
    report(judge(row, result));
  };
  for (const row of rows) {
    if (done.has(row)) continue;
    // What runs in the same engines is measured together: loading takes longer than most runs.
    const together = isSpeed(row) ? rows.filter((r) => isSpeed(r) && sameEngines(r, row)) : [row];
    console.error(`${new Date().toLocaleTimeString()}  ${together.map((r) => r.title).join('; ')}`);
    try {
      if (!existsSync(modelPath(bench.folder, row.model))) {
        throw new Error(`${row.model}.gguf is missing`);
      }
      if (isSpeed(row)) await measureSpeeds(together, bench, finish);
      else finish(row, await MEASURES[row.kind](row, bench));
    } catch (error) {
      for (const r of together.filter((r) => !done.has(r))) finish(r, { reason: error.message });
    }
  }
}

async function main() {
  const { rows, models, runs, threads, json, markdown, quick, ...given } = options();
  const { device, gpu } = await chooseDevice(given.device);
  const folder = resolve(models);
  for (const line of explainModels(folder, [...new Set(rows.map(({ model }) => model))])) {
    console.error(line);
  }
  const peer = given.peer === undefined ? installPeer(gpu !== null) : resolve(given.peer);
  const version = peerVersion(peer);
  if (version === undefined) throw new Error(`--peer: node-llama-cpp is not installed in ${peer}`);
  const root = new URL('../../', import.meta.url);
  const facts = {
    date: new Date().toISOString().slice(0, 10),
    machine: machineFacts(),
    command: `npm run bench:peer -- ${process.argv.slice(2).join(' ')}`,
    versions: {
      altiplano: JSON.parse(readFileSync(new URL('package.json', root), 'utf8')).version,
      'node-llama-cpp': version,
      node: process.version,
    },
    device: gpu?.name ?? 'cpu',
    kernels: gpu === null ? cpuInfo().selected : `sm_${gpu.computeCapability.replace('.', '')}`,
    threads,
    runs,
    quick,
    usedShareBefore: await usedShare(),
  };
  if (facts.usedShareBefore > 0.05) {
    const share = Math.round(100 * facts.usedShareBefore);
    facts.warning = `the machine is not idle: other programs used ${share} % of it at the start`;
    console.error(`Warning: ${facts.warning}`);
  }
  const outcomes = [];
  await measure(rows, { runs, threads, folder, peer, device }, (outcome) => {
    outcomes.push(outcome);
    if (json) writeFileSync(json, `${JSON.stringify({ ...facts, rows: outcomes }, null, 2)}\n`);
  });
  const order = rows.map(({ title }) => title);
  outcomes.sort((a, b) => order.indexOf(a.title) - order.indexOf(b.title));
  const versions = Object.entries(facts.versions).map(([name, v]) => `${name} ${v}`);
  const turns = Math.max(...rows.map(({ turnsPerRun = 1 }) => turnsPerRun));
  const again = outcomes.reduce((sum, outcome) => sum + (outcome.again ?? 0), 0);
  const head = [
    `${facts.date}, ${facts.machine}`,
    ...(gpu === null ? [] : [`${device}: ${gpu.name}, limits by its clocks, not measured`]),
    `${versions.join(', ')}; altiplano's kernels: ${facts.kernels}`,
    `${threads} threads each, medians of ${runs} alternating runs${turns > 1 ? `, decoding in ${turns} turns each` : ''}`,
    ...(again
      ? [`${again} turns taken again: the host of this virtual machine took its processors`]
      : []),
    facts.command,
    ...(quick ? ['--quick: these figures mean little'] : []),
    ...(facts.warning ? [`Warning: ${facts.warning}`] : []),
  ];
  const table = (markdown ? markdownTable : textTable)(outcomes);
  console.log([head.join(markdown ? '  \n' : '\n'), '', table, summary(outcomes)].join('\n'));
  process.exitCode = outcomes.some(({ checks }) => checks.some((c) => c.verdict === 'missed'))
    ? 1
    : 0;
}

process.on('SIGINT', () => process.exit(130));
process.on('SIGTERM', () => process.exit(143));
try {
  await main();
} catch (error) {
  console.error(`${error.message}\n${USAGE}`);
  process.exitCode = 2;
}
