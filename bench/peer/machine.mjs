/** The machine: what it is, which processors to use, and CPU quotas. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const read = (path) => readFileSync(path, 'utf8').trim();

export function machineFacts() {
  const model = cpus()[0]?.model ?? 'unknown processor';
  const [gigabytes, count] = [Math.round(totalmem() / 1e9), cpus().length];
  return `${model}, ${count} CPUs, ${gigabytes} GB, ${process.platform} ${release()} ${process.arch}`;
}

/** The share of all processors that is in use now, 0 to 1, seen over a second. */
export async function usedShare() {
  const sum = (times) => Object.values(times).reduce((a, b) => a + b, 0);
  const sample = () =>
    cpus().reduce(
      ({ idle, all }, { times }) => ({ idle: idle + times.idle, all: all + sum(times) }),
      { idle: 0, all: 0 },
    );
  const before = sample();
  await sleep(1000);
  const after = sample();
  return 1 - (after.idle - before.idle) / Math.max(1, after.all - before.all);
}

/**
 * Milliseconds in which processors of this virtual machine had work and the host ran something else,
 * all processors together, since the start; in steps of 10. 0 where the system does not tell.
 */
export function stolenMs() {
  if (!existsSync('/proc/stat')) return 0;
  const [, , , , , , , , stolen = 0] = read('/proc/stat').split('\n', 1)[0].split(/\s+/);
  return 10 * stolen;
}

/** "0-2,5" as [0, 1, 2, 5]. */
function parseCpuList(list) {
  return list.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/**
 * As many processors as there are threads, each of another core, as `taskset -c` takes them: beside
 * them a busy process disturbs nobody on a larger machine. undefined if there are no more than that.
 */
export function cpusFor(threads) {
  const allowed = parseCpuList(/^Cpus_allowed_list:\s*(.+)$/m.exec(read('/proc/self/status'))[1]);
  if (allowed.length <= threads) return undefined;
  const isFirstOfCore = (cpu) => {
    const siblings = `/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`;
    return !existsSync(siblings) || parseCpuList(read(siblings))[0] === cpu;
  };
  const cores = allowed.filter(isFirstOfCore);
  return (cores.length >= threads ? cores : allowed).slice(0, threads).join(',');
}

/** Folders in which a control group with a CPU quota may be made, with the version of cgroups. */
function cpuCgroups() {
  if (process.platform !== 'linux') return [];
  const paths = read('/proc/self/cgroup').split('\n');
  const mounts = read('/proc/self/mountinfo').split('\n');
  const find = (version, isController, isMount) => {
    const mount = mounts.find((line) => isMount(line.split(' - ')[1]))?.split(' ')[4];
    const line = paths.map((path) => path.split(':')).find(([, list]) => isController(list));
    if (mount === undefined || line === undefined) return [];
    // Our own group first, then the root: in version 2 a group with processes has no controllers
    // for its children, and in a container the mount itself may be our group.
    return [...new Set([join(mount, line[2], '.'), join(mount, '.')])].map((folder) => ({
      version,
      folder,
    }));
  };
  const hasCpu = (list) => list.split(',').includes('cpu');
  return [
    ...find(1, hasCpu, (fs) => fs.startsWith('cgroup ') && hasCpu(fs.split(' ')[2])),
    ...find(
      2,
      (list) => list === '',
      (fs) => fs.startsWith('cgroup2 '),
    ),
  ];
}

/** Makes a control group in a folder. */
function makeQuota({ version, folder: parent }, cpusGranted) {
  const folder = join(parent, `altiplano-bench-${process.pid}`);
  const periodUs = 100_000;
  const quotaUs = cpusGranted * periodUs;
  mkdirSync(folder);
  const remove = () => {
    process.off('exit', remove);
    const pause = new Int32Array(new SharedArrayBuffer(4));
    // At an early end (Ctrl-C) its processes have been killed, but take a moment to go.
    for (let tries = 0; existsSync(folder) && tries < 100; tries++) {
      try {
        rmdirSync(folder);
      } catch {
        Atomics.wait(pause, 0, 0, 20);
      }
    }
  };
  process.once('exit', remove);
  try {
    const set = (name, value) => writeFileSync(join(folder, name), String(value), { flag: 'r+' });
    if (version === 1) {
      set('cpu.cfs_period_us', periodUs);
      set('cpu.cfs_quota_us', quotaUs);
    } else {
      set('cpu.max', `${quotaUs} ${periodUs}`); // not there: no cpu controller
    }
  } catch (error) {
    remove();
    throw error;
  }
  return { add: (pid) => writeFileSync(join(folder, 'cgroup.procs'), String(pid)), remove };
}

/**
 * A control group with a quota of CPU time; `add` puts a process into it, `remove` ends it when its
 * processes have ended.
 * @throws Error saying why this machine does not allow it
 */
export function cpuQuota(cpusGranted) {
  let reason = 'there is no cgroup with a cpu controller';
  for (const parent of cpuCgroups()) {
    try {
      return makeQuota(parent, cpusGranted);
    } catch (error) {
      reason = error.message;
    }
  }
  throw new Error(`no CPU quota can be set: ${reason}`);
}
