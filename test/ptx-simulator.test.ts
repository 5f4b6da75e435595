// Builds the PTX simulator with its tests and kernels, and runs them (test/ptx-simulator/README.md).
// What needs the CUDA toolkit is skipped where there is none.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { hasGpu, nvcc, run, simulatorTests, works } from './cuda/build.js';

const root = process.cwd();
const source = join(root, 'test/ptx-simulator');

// The tests in PTX text need no CUDA toolkit.
const missing = ['cmake', 'c++', 'flock'].filter((tool) => !works(tool));
if (process.platform !== 'linux') missing.push('Linux');
const describeBuilt = missing.length > 0 ? describe.skip : describe;
const testKernels = nvcc === undefined ? test.skip : test;
if (missing.length > 0) console.warn(`SKIPPED: the PTX simulator, without ${missing.join(', ')}`);
else if (nvcc === undefined) console.warn('SKIPPED: kernels on the PTX simulator, without nvcc');

const header = ['CUDA_HOME', 'CUDA_PATH']
  .flatMap((name) => process.env[name] ?? [])
  .concat('/usr/local/cuda', '/usr')
  .some((folder) => existsSync(join(folder, 'include/cuda.h')));

/** Those whose kernels nvcc compiles, or that look at what it made. */
const kernelTests = ['planted_bugs', 'mutation', 'kernels', 'kernel_counters', 'host_versus_ptx'];
const textTests = readdirSync(join(source, 'tests'))
  .map((file) => /^(\w+)_test\.cc$/.exec(file)?.[1])
  .filter((name): name is string => name !== undefined && !kernelTests.includes(name));

describeBuilt('the PTX simulator', () => {
  let build: string;
  beforeAll(async () => {
    build = await simulatorTests();
  }, 900_000);

  for (const name of textTests) {
    const runnable = header || !name.startsWith('driver_') ? test : test.skip;
    runnable(
      `passes its test of ${name}`,
      async () => {
        await run(join(build, `ptx_${name}_test`), []);
      },
      180_000,
    );
  }

  testKernels(
    'runs kernels through the driver API',
    async () => {
      // The simulator stands where the driver stands.
      const output = await run(join(build, 'ptx_kernels_test'), [], {
        LD_LIBRARY_PATH: join(build, 'driver'),
      });
      expect(output).toContain('(simulated)');
    },
    180_000,
  );

  (hasGpu && nvcc !== undefined ? test : test.skip)(
    'gives the results that a GPU gives',
    async () => {
      const output = await run(join(build, 'ptx_kernels_test'), []);
      expect(output).not.toContain('(simulated)');
    },
    180_000,
  );

  testKernels(
    'counts what a kernel does',
    async () => {
      await run(join(build, 'ptx_kernel_counters_test'), []);
    },
    180_000,
  );

  testKernels(
    'computes what the host computes',
    async () => {
      await run(join(build, 'ptx_host_versus_ptx_test'), []);
    },
    180_000,
  );

  testKernels(
    'finds planted bugs on every seed',
    async () => {
      await run(join(build, 'ptx_planted_bugs_test'), []);
    },
    180_000,
  );

  testKernels(
    'comes with kernel tests that notice nine mutants of ten',
    async () => {
      const output = await run(join(build, 'ptx_mutation_test'), []);
      expect(output).toMatch(/\d+ mutants: .* killed/);
    },
    180_000,
  );

  testKernels('comes with kernels that keep to their budgets', async () => {
    const { machineCode, ptxasLog, budgetProblems } = await import(
      pathToFileURL(join(root, 'scripts/machine-code.mjs')).href
    );
    const budgets = JSON.parse(readFileSync(join(source, 'kernels/budgets.json'), 'utf8'));
    const folder = join(build, 'kernels');
    const kernels = readdirSync(folder)
      .filter((file) => file.endsWith('.fatbin'))
      .flatMap((file) => {
        const log = ptxasLog(
          readFileSync(join(folder, file.replace('.fatbin', '.ptxas.log')), 'utf8'),
        );
        const found: { name: string }[] = machineCode(readFileSync(join(folder, file)), file);
        return found.map((kernel) => ({ ...kernel, spillBytes: log.get(kernel.name).spillBytes }));
      });
    expect(budgetProblems(kernels, budgets)).toEqual([]);
  });
});
