// What the tests of CUDA code build: the simulated driver (test/ptx-simulator) and the native tests
// (test/native/cuda). Several test files may ask for the same at once: flock lets one build, and the
// others find it done.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

const root = process.cwd();
export const works = (command: string) => spawnSync(command, ['--version']).status === 0;

/** nvcc of CUDA 13 or later, where native/cuda/cuda.cmake finds it, too. */
export const nvcc = [
  'nvcc',
  ...['CUDA_HOME', 'CUDA_PATH'].flatMap((name) => {
    const folder = process.env[name];
    return folder === undefined ? [] : [join(folder, 'bin/nvcc')];
  }),
  '/usr/local/cuda/bin/nvcc',
].find(works);

/** What is missing for CUDA tests, or null. */
export const missing =
  process.platform !== 'linux'
    ? 'Linux'
    : nvcc === undefined
      ? 'nvcc'
      : (['cmake', 'flock'].find((tool) => !works(tool)) ?? null);

/** Runs a command; its output, or an error with the end of it. */
export function run(command: string, args: string[], environment: NodeJS.ProcessEnv = {}) {
  return new Promise<string>((resolve, reject) => {
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (text) => {
        output += text;
      });
    }
    child.on('error', reject);
    child.on('close', (status) => {
      if (status === 0) resolve(output);
      else reject(new Error(`${command}: exit status ${status}\n${output.slice(-8000)}`));
    });
  });
}

async function build(source: string, folder: string, target: string) {
  mkdirSync(join(root, 'build'), { recursive: true });
  const lock = join(root, 'build', `${folder}.lock`);
  const into = join(root, 'build', folder);
  await run('flock', [lock, 'cmake', '-S', join(root, source), '-B', into]);
  const parallel = String(availableParallelism());
  await run('flock', [lock, 'cmake', '--build', into, '--target', target, '--parallel', parallel]);
  return into;
}

/** The folder of the simulated libcuda.so.1, for LD_LIBRARY_PATH. */
export async function simulatedDriver() {
  return join(await build('test/ptx-simulator', 'ptx-simulator', 'ptx_driver'), 'driver');
}

/** The folder of the simulator's own test programs (ptx_NAME_test), and of all they need. */
export function simulatorTests() {
  return build('test/ptx-simulator', 'ptx-simulator', 'all');
}

/** The program of test/native/cuda. */
export async function cudaTest() {
  return join(await build('test/native/cuda', 'cuda-tests', 'cuda_test'), 'cuda_test');
}

export const hasGpu = existsSync('/dev/nvidiactl');
