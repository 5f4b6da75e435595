/**
 * Which GPUs a build has machine code for (native/cuda/cuda.cmake): the prebuilt binary for all
 * generations, a build on the spot for the GPUs that nvidia-smi lists; and PTX for later ones, always.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { missing, nvcc, run } from './build.js';

const { fatbinTargets } = (await import(
  pathToFileURL(join(process.cwd(), 'scripts/machine-code.mjs')).href
)) as { fatbinTargets(buffer: Buffer): string[][] };

const describeCuda = missing === null ? describe : describe.skip;
if (missing !== null) console.warn(`SKIPPED: the architectures of CUDA builds, without ${missing}`);

describeCuda('machine code', () => {
  const folder = mkdtempSync(join(tmpdir(), 'architectures-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  const script = join(folder, 'flags.cmake');
  beforeAll(() => {
    writeFileSync(
      script,
      `include(${join(process.cwd(), 'native/cuda/cuda.cmake')})
       set(ALTIPLANO_NVCC ${nvcc})
       altiplano_cuda_architectures(architectures)
       altiplano_fatbin_flags(flags "\${architectures}")
       message("architectures \${architectures}\\nflags \${flags}")`,
    );
  });

  /** What CMake decides where nvidia-smi prints `text`, or is not there. */
  function decide(text: string | null, env: NodeJS.ProcessEnv = {}) {
    const fake = join(folder, 'nvidia-smi');
    rmSync(fake, { force: true });
    if (text !== null) {
      writeFileSync(fake, `#!/bin/sh\nprintf '${text}'\n`);
      chmodSync(fake, 0o755);
    }
    const PATH = `${folder}:${process.env.PATH}`;
    const { ALTIPLANO_CUDA_ARCHITECTURES: _, ...inherited } = process.env;
    const { stderr } = spawnSync('cmake', ['-P', script], {
      encoding: 'utf8',
      env: { ...inherited, PATH, ...env },
    });
    const lists = /architectures (.*)\nflags (.*)\n/.exec(stderr);
    if (lists === null) throw new Error(stderr);
    return { architectures: lists[1]!.split(';'), flags: lists[2]!.split(';') };
  }

  test.each<[string, string | null, string[]]>([
    ['no GPU', '', ['80']],
    ['one GPU', '8.9\\n', ['89']],
    ['several GPUs', '8.0\\n9.0\\n8.0\\n', ['80', '90']],
    ['GPUs that are too old', '7.5\\n6.1\\n', ['80']],
    ['an old GPU beside a newer one', '7.5\\n12.0\\n', ['120']],
    ['a GPU that nvcc does not know yet', '99.0\\n', ['80']],
    ['a driver that does not answer', 'NVIDIA-SMI has failed\\n', ['80']],
  ])('%s', (_, text, expected) => {
    const { architectures, flags } = decide(text);
    expect(architectures).toEqual(expected);
    for (const sm of expected) expect(flags).toContain(`arch=compute_${sm},code=sm_${sm}`);
  });

  test('what is asked for counts more', () => {
    const asked = decide('9.0\\n', { ALTIPLANO_CUDA_ARCHITECTURES: '80;86' });
    expect(asked.architectures).toEqual(['80', '86']);
  });

  test('the prebuilt binary holds code for all generations, and PTX as text', async () => {
    const prebuild = readFileSync('scripts/prebuild.mjs', 'utf8');
    const all = /ALTIPLANO_CUDA_ARCHITECTURES: '(.*?)'/.exec(prebuild)![1]!;
    expect(all).toBe('80;86;89;90');
    const { flags } = decide(null, { ALTIPLANO_CUDA_ARCHITECTURES: all });
    const source = join(folder, 'kernel.cu');
    writeFileSync(source, 'extern "C" __global__ void tiny(int* x) { ++*x; }\n');
    const binary = join(folder, 'kernel.fatbin');
    await run(nvcc!, [...flags, '-o', binary, source]);
    expect(fatbinTargets(readFileSync(binary))).toEqual([
      ['compute_80', 'sm_80', 'sm_86', 'sm_89', 'sm_90'],
    ]);
    expect(readFileSync(binary, 'latin1')).toContain('.entry tiny(');
  }, 120_000);
});
