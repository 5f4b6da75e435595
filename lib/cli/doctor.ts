/**
 * `altiplano doctor`: what this machine is and what altiplano makes of it. Every part stands on its
 * own: it is there for the day on which something does not load.
 */

import { readFileSync, statSync } from 'node:fs';
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { findGpus, hasNvidiaGpu } from '../devices.js';
import { formatBytes } from '../format-bytes.js';
import { type CpuInfo, type Gpus, native, nativePath, packageRoot } from '../native.js';
import type { CliContext } from './context.js';
import { EXIT_FAILURE, EXIT_OK } from './failure.js';
import { addJson } from './flags.js';
import { plural, table, write, writeJson } from './output.js';
import { type Finish, packageVersion } from './program.js';

const DETAILS = `
Put its output into a bug report. The exit code is 1 if the native addon does not work.

Examples:
  altiplano doctor
  ALTIPLANO_ISA=portable altiplano doctor --json
`;

export function doctorCommand(context: CliContext, finish: Finish): Command {
  const command = new Command('doctor')
    .summary('show platform, processor, native addon and devices')
    .description(
      'Shows the platform, the instruction sets, which native binary was loaded from where, the devices,\n' +
        'and why a GPU is or is not used.',
    );
  return addJson(command, 'altiplano, platform, cpu, memory, addon, kernels, devices, gpu')
    .addHelpText('after', DETAILS)
    .action(async (flags: { json?: boolean }) => {
      finish(await doctor(context, flags));
    });
}

/** Runs the command. @returns the exit code */
export async function doctor(context: CliContext, flags: { json?: boolean }): Promise<number> {
  const findings = await examine(context.env);
  if (flags.json) await writeJson(context, findings);
  else await write(context.stdout, report(findings));
  return findings.addon.loaded && 'selected' in findings.kernels ? EXIT_OK : EXIT_FAILURE;
}

type Findings = Awaited<ReturnType<typeof examine>>;

async function examine(env: CliContext['env']) {
  const addon = examineAddon();
  const kernels = examineKernels(env, addon.loaded);
  const gpu = await examineGpu(addon.loaded);
  return {
    altiplano: { version: packageVersion(), folder: packageRoot },
    platform: {
      os: process.platform,
      arch: process.arch,
      release: release(),
      node: process.version,
      nodeApi: process.versions.napi ?? null,
      libc: libc(),
    },
    cpu: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      logicalCores: cpus().length,
      usableCores: availableParallelism(),
      instructionSets: instructionSets(),
    },
    memory: { totalBytes: totalmem(), availableBytes: availableMemory() },
    addon,
    kernels,
    devices: [
      ...('selected' in kernels ? [{ kind: 'cpu', threads: kernels.threads }] : []),
      ...gpu.devices
        .filter(({ problem }) => problem === null)
        .map(({ index, name }) => ({ kind: `cuda:${index}`, name })),
    ],
    gpu,
  };
}

type Addon =
  | { loaded: true; path: string; kind: string; sizeBytes: number }
  | { loaded: false; path: string | null; error: string };

function examineAddon(): Addon {
  let path: string | null = null;
  try {
    path = nativePath();
    native();
    return { loaded: true, path, kind: binaryKind(path), sizeBytes: statSync(path).size };
  } catch (error) {
    return { loaded: false, path, error: (error as Error).message.replace(/\s*\n\s*/g, ' ') };
  }
}

/** node-gyp-build prefers what was compiled here to what the package brought along. */
function binaryKind(path: string): string {
  return path.startsWith(join(packageRoot, 'prebuilds'))
    ? 'prebuilt, from the package'
    : 'compiled on this machine';
}

type Kernels =
  | { forced: string | null; error: string }
  | {
      forced: string | null;
      available: string[];
      selected: string;
      physicalCores: number;
      /** null: no quota. */
      quotaCores: number | null;
      threads: number;
    };

function examineKernels(env: CliContext['env'], addonLoaded: boolean): Kernels {
  const forced = env.ALTIPLANO_ISA || null; // empty: not set
  if (!addonLoaded) return { forced, error: 'the native addon does not load' };
  let info: CpuInfo;
  try {
    info = native().cpuInfo();
  } catch (error) {
    return { forced, error: (error as Error).message };
  }
  return {
    forced,
    available: info.available,
    selected: info.selected,
    physicalCores: info.physicalCores,
    quotaCores: Number.isFinite(info.quotaCores) ? info.quotaCores : null,
    threads: info.defaultThreads,
  };
}

/** What there is of CUDA, and why a GPU is not used. */
async function examineGpu(addonLoaded: boolean) {
  const release = firstLine('/proc/driver/nvidia/version')?.match(/\d+\.\d+(\.\d+)?/)?.[0] ?? null;
  const gpus: Gpus = addonLoaded
    ? await findGpus()
    : {
        built: false,
        library: null,
        cudaVersion: 0,
        problem: 'the native addon does not load',
        devices: [],
      };
  const used = gpus.devices.some(({ problem }) => problem === null);
  const first = gpus.devices[0];
  const reason = used ? null : (gpus.problem ?? `${first?.name}: ${first?.problem}`);
  return {
    used,
    reason,
    ...gpus,
    release,
    present: used || gpus.devices.length > 0 || hasNvidiaGpu(),
  };
}

function firstLine(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').split('\n')[0];
  } catch {
    return undefined;
  }
}

/** Those that matter for numerical kernels, in the spelling of /proc/cpuinfo. */
const NOTABLE =
  /^(sse4_2|avx|f16c|fma|avx2|avx_vnni|avx512(f|bw|vl|_vnni|_bf16|_fp16)|amx_(tile|int8|bf16)|asimd|asimddp|i8mm|bf16|sve|sve2)$/;

/** null where the system does not tell. */
function instructionSets(): string[] | null {
  try {
    const flags = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(
      readFileSync('/proc/cpuinfo', 'utf8'),
    )?.[1];
    return flags?.split(' ').filter((flag) => NOTABLE.test(flag)) ?? null;
  } catch {
    return null;
  }
}

function availableMemory(): number {
  try {
    const kibibytes = /^MemAvailable:\s*(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1];
    return kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
  } catch {
    return freemem();
  }
}

function libc(): string | null {
  if (process.platform !== 'linux') return null;
  const { report } = process as { report?: { excludeNetwork?: boolean; getReport(): unknown } };
  if (report === undefined) return null;
  // Looking up the names of network interfaces can take seconds.
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime === undefined ? 'musl' : `glibc ${header.glibcVersionRuntime}`;
}

function report(findings: Findings): string {
  const { altiplano, platform, cpu, memory, addon, kernels, gpu } = findings;
  const libcText = platform.libc === null ? '' : `, ${platform.libc}`;
  const rows = [
    ['altiplano', `${altiplano.version} in ${altiplano.folder}`],
    ['platform', `${platform.os} ${platform.release}, ${platform.arch}${libcText}`],
    ['Node.js', `${platform.node}, Node-API ${platform.nodeApi}`],
    ['processor', `${cpu.model}, ${plural(cpu.usableCores, 'usable core')} of ${cpu.logicalCores}`],
    ['instruction sets', cpu.instructionSets?.join(' ') ?? 'not known on this system'],
    [
      'memory',
      `${formatBytes(memory.availableBytes)} available of ${formatBytes(memory.totalBytes)}`,
    ],
  ];
  if (addon.loaded) {
    rows.push(['native addon', `${addon.path} (${addon.kind}, ${formatBytes(addon.sizeBytes)})`]);
  } else {
    rows.push(['native addon', `DOES NOT LOAD: ${addon.error}`]);
    rows.push(['', `binary: ${addon.path ?? 'none found under build/ or prebuilds/'}`]);
  }
  if ('selected' in kernels) {
    const why = kernels.forced === null ? 'the best of' : 'by ALTIPLANO_ISA, of';
    const quota = kernels.quotaCores === null ? 'no quota' : `a quota of ${kernels.quotaCores}`;
    rows.push(['kernels', `${kernels.selected}, ${why} ${kernels.available.join(', ')}`]);
    rows.push([
      'threads',
      `${kernels.threads} by default: ${plural(kernels.physicalCores, 'physical core')}, ${quota}`,
    ]);
  } else {
    rows.push(['kernels', `none: ${kernels.error}`]);
  }
  rows.push(['devices', findings.devices.map(({ kind }) => kind).join(', ') || 'none']);
  gpu.devices.forEach((device, i) => {
    const facts = `compute capability ${device.computeCapability}, ${formatBytes(device.totalBytes)}`;
    const state = device.problem === null ? '' : `: NOT USED, ${device.problem}`;
    rows.push([i === 0 ? 'GPUs' : '', `cuda:${device.index} ${device.name} (${facts})${state}`]);
  });
  if (!gpu.used && gpu.devices.length === 0) rows.push(['GPU', `not used: ${gpu.reason}`]);
  const driver = gpu.release === null ? '' : `release ${gpu.release}, `;
  rows.push([
    'NVIDIA driver',
    gpu.library === null
      ? `none loaded (${driver}${gpu.present ? 'a GPU is there' : 'no GPU of NVIDIA is there'})`
      : `${gpu.library} (${driver}CUDA ${Math.floor(gpu.cudaVersion / 1000)}.${(gpu.cudaVersion % 1000) / 10})`,
  ]);
  return table(rows);
}
