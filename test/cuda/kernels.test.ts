// The CUDA kernels: on the simulated device, on a GPU where there is one, and as
// machine code (docs/cuda-kernels.md).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { cudaTest, hasGpu, missing, nvcc, run, simulatedDriver } from './build.js';

const describeCuda = missing === null ? describe : describe.skip;
if (missing !== null) console.warn(`SKIPPED: CUDA kernels, without ${missing}`);

describeCuda('CUDA kernels', () => {
  let driver: string;
  let program: string;
  beforeAll(async () => {
    driver = await simulatedDriver();
    program = await cudaTest();
  }, 900_000);

  test('are right on the simulated device, and move what the model says', async () => {
    const output = await run(program, [], { LD_LIBRARY_PATH: driver });
    expect(output).toContain('simulated');
    expect(output).toContain(' 0 failed');
  }, 600_000);

  (hasGpu ? test : test.skip)(
    'are right on a GPU',
    async () => {
      const output = await run(program, [], { CUDA_VISIBLE_DEVICES: '0' });
      expect(output).not.toContain('simulated');
    },
    300_000,
  );
});

interface Script {
  machineCode(buffer: Buffer, name?: string): { name: string; spillBytes?: number }[];
  ptxasLog(log: string): Map<string, { spillBytes: number }>;
  budgetProblems(kernels: object[], budgets: object): string[];
}
const { machineCode, ptxasLog, budgetProblems } = (await import(
  pathToFileURL(join(process.cwd(), 'scripts/machine-code.mjs')).href
)) as Script;

const sources = [
  'attention_decode',
  'attention_prefill',
  'matmul_f16',
  'matmul_int8',
  'matmul_int4',
  'matmul_w8a8',
  'matmul_bf16',
  'matmul_pack',
  'quantize',
  'rmsnorm',
];

describeCuda('machine code of the kernels that matter', () => {
  test('keeps to its budgets', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kernels-'));
    try {
      const kernels = [];
      for (const source of sources) {
        const cubin = join(folder, `${source}.cubin`);
        const log = await run(nvcc!, [
          ...[
            '-std=c++20',
            '-O3',
            '-Inative',
            '-arch=sm_80',
            '--expt-relaxed-constexpr',
            '--allow-unsupported-compiler',
          ],
          ...['-cubin', '-Xptxas', '-v', '-o', cubin, `native/cuda/${source}.cu`],
        ]);
        const known = ptxasLog(log);
        for (const kernel of machineCode(readFileSync(cubin), source)) {
          kernel.spillBytes = known.get(kernel.name)?.spillBytes;
          expect(kernel.spillBytes).toBeDefined();
          kernels.push(kernel);
        }
      }
      const budgets = JSON.parse(readFileSync('test/cuda/budgets.json', 'utf8'));
      expect(budgetProblems(kernels, budgets)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 300_000);
});
