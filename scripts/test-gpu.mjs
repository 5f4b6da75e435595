/**
 * `npm run test:gpu`: the tests of the CUDA code on this machine's GPU instead of the simulated one:
 * the engine end to end (test/cuda/on-device) and the kernels (test/native/cuda). The same files that
 * `npm test` runs on the simulator.
 */
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { findGpus } from '../dist/devices.js';
import { root } from './build-native.mjs';

function run(command, args, env = {}) {
  console.log(`\n> ${command} ${args.join(' ')}`);
  const { status } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...env },
  });
  return status === 0;
}

function kernels() {
  const folder = 'build/cuda-tests';
  return (
    run('cmake', ['-S', 'test/native/cuda', '-B', folder]) &&
    run('cmake', ['--build', folder, '--parallel', String(availableParallelism())]) &&
    run(`${folder}/cuda_test`, [])
  );
}

function engine() {
  const jest = ['--experimental-vm-modules', 'node_modules/jest/bin/jest.js', '--runInBand'];
  return run(process.execPath, [...jest, 'test/cuda/on-device/'], { ALTIPLANO_TEST_DEVICE: 'gpu' });
}

const { problem, devices } = await findGpus();
const usable = devices.filter((device) => device.problem === null);
if (usable.length === 0) {
  console.error(`test:gpu: no GPU to test on: ${problem ?? devices[0].problem}`);
  process.exit(2);
}
for (const { index, name, computeCapability } of usable) {
  console.log(`cuda:${index}: ${name}, compute capability ${computeCapability}`);
}

const passed = [kernels(), engine()];
console.log("\nNot run on a GPU: injected failures, findings and counters are the simulator's");
console.log('(npm test has them); the tests of two GPUs say SKIPPED where there is one.');
process.exitCode = passed.every(Boolean) ? 0 : 1;
