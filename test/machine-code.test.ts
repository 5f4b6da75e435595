import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';

interface Kernel {
  name: string;
  registers: number;
  stackBytes: number;
  staticSharedBytes: number;
  spillBytes?: number;
  instructions: number;
  opcodes: Record<string, number>;
}
interface Script {
  machineCode(buffer: Buffer, name?: string): Kernel[];
  ptxasLog(log: string): Map<string, { registers: number; stackBytes: number; spillBytes: number }>;
  residentBlocks(kernel: { registers: number; sharedBytes: number; threads: number }): number;
  budgetProblems(kernels: Partial<Kernel>[], budgets: Record<string, object>): string[];
}
const path = join(process.cwd(), 'scripts/machine-code.mjs');
const { machineCode, ptxasLog, residentBlocks, budgetProblems } = (await import(
  pathToFileURL(path).href
)) as Script;

function find(tool: string): string | undefined {
  const candidates = [tool, `/usr/local/cuda/bin/${tool}`];
  return candidates.find((file) => spawnSync(file, ['--version']).status === 0);
}
const ptxas = find('ptxas');
const fatbinary = find('fatbinary');
const withPtxas = ptxas === undefined ? describe.skip : describe;
if (ptxas === undefined)
  console.warn('SKIPPED: machine code of known PTX, since there is no ptxas');

const head = '.version 8.0\n.target sm_80\n.address_size 64\n';

/** One of each, as little as makes ptxas use the instruction. */
const scalar = `${head}
.visible .entry scalar(.param .u64 p)
{
  .reg .b32 r<9>; .reg .b64 d<9>; .reg .f32 f<9>;
  .shared .align 16 .b8 tile[64];
  ld.param.u64 d1, [p];
  cvta.to.global.u64 d1, d1;
  mov.u32 r1, %tid.x;
  cvt.u64.u32 d2, r1;
  add.s64 d2, d1, d2;
  ld.global.u32 r2, [d2];
  cvt.rn.f32.s32 f1, r2;
  ex2.approx.ftz.f32 f2, f1;
  fma.rn.f32 f3, f1, f2, f2;
  st.shared.f32 [tile], f3;
  bar.sync 0;
  ld.shared.f32 f4, [tile+4];
  st.global.f32 [d2], f4;
  atom.global.add.u32 r3, [d2+8], r2;
  red.global.add.u32 [d2+12], r3;
  shfl.sync.bfly.b32 r4, r3, 1, 31, -1;
  st.global.u32 [d2+16], r4;
  ret;
}
`;

/** A kernel of `count` tensor-core multiplications of one kind behind a copy and a load. */
function tensor(name: string, count: number, instruction: string, accumulator: 'f' | 'r') {
  const type = accumulator === 'f' ? 'f32' : 's32';
  const c = `{${[0, 1, 2, 3].map((i) => `${accumulator}${i}`).join(', ')}}`;
  const start = [0, 1, 2, 3].map(
    (i) => `ld.global.${type} ${accumulator}${i}, [d1+${256 + 4 * i}];`,
  );
  const store = [0, 1, 2, 3].map((i) => `st.global.${type} [d1+${4 * i}], ${accumulator}${i};`);
  return `${head}
.visible .entry ${name}(.param .u64 p)
{
  .reg .b32 r<9>, a<4>, t; .reg .b64 d<9>; .reg .f32 f<9>;
  .shared .align 16 .b8 tile[512];
  ld.param.u64 d1, [p];
  cvta.to.global.u64 d1, d1;
  mov.u32 t, %tid.x;
  shl.b32 t, t, 4;
  mov.u32 r8, tile;
  add.u32 t, t, r8;
  ${start.join('\n  ')}
  cp.async.cg.shared.global [t], [d1], 16;
  cp.async.wait_all;
  bar.sync 0;
  ldmatrix.sync.aligned.m8n8.x4.shared.b16 {a0, a1, a2, a3}, [t];
  ${`${instruction} ${c}, {a0, a1, a2, a3}, {a0, a1}, ${c};\n  `.repeat(count)}
  ${store.join('\n  ')}
  ret;
}
`;
}

/** An array that is indexed with what only the run knows has to lie in local memory. */
const local = `${head}
.visible .entry local_array(.param .u64 p, .param .u32 i)
{
  .reg .b32 r<9>; .reg .b64 d<9>;
  .local .align 16 .b8 array[128];
  ld.param.u64 d1, [p];
  cvta.to.global.u64 d1, d1;
  ld.param.u32 r1, [i];
  cvt.u64.u32 d2, r1;
  mov.u64 d3, array;
  add.s64 d3, d3, d2;
  ld.global.u32 r2, [d1];
  st.local.u32 [d3], r2;
  ld.local.u32 r3, [array+64];
  st.global.u32 [d1], r3;
  ret;
}
`;

describe('the machine code of kernels', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'machine-code-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function compile(
    ptx: string,
    ...options: string[]
  ): { cubin: Buffer; log: string; file: string } {
    const file = join(folder, 'kernel.cubin');
    writeFileSync(join(folder, 'kernel.ptx'), ptx);
    const { status, stdout, stderr } = spawnSync(
      ptxas!,
      ['-arch=sm_80', '-v', ...options, join(folder, 'kernel.ptx'), '-o', file],
      { encoding: 'utf8' },
    );
    expect([status, stderr.includes('error')]).toEqual([0, false]);
    return { cubin: readFileSync(file), log: stdout + stderr, file };
  }

  withPtxas('as ptxas makes it', () => {
    test('has the scalar instructions of known PTX', () => {
      const [kernel, ...others] = machineCode(compile(scalar).cubin);
      expect(others).toEqual([]);
      expect(kernel).toMatchObject({ name: 'scalar', stackBytes: 0, staticSharedBytes: 64 });
      expect(kernel!.opcodes).toMatchObject({
        LDG: 1,
        I2F: 1,
        MUFU: 1,
        FFMA: 1,
        STS: 1,
        BAR: 1,
        LDS: 1,
        STG: 2,
        ATOMG: 1,
        RED: 1,
        SHFL: 1,
      });
      const counts = Object.values(kernel!.opcodes);
      expect(counts.reduce((a, b) => a + b)).toBe(kernel!.instructions);
    });

    test.each([
      ['f16', 'mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32', 'f', 'HMMA'],
      ['bf16', 'mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32', 'f', 'HMMA'],
      ['s8', 'mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32', 'r', 'IMMA'],
    ] as const)('counts tensor-core instructions of %s', (type, instruction, kind, mnemonic) => {
      for (const count of [1, 5]) {
        const name = `tensor_${type}_${count}`;
        const [kernel] = machineCode(compile(tensor(name, count, instruction, kind)).cubin);
        expect(kernel).toMatchObject({ name, staticSharedBytes: 512 });
        expect(kernel!.opcodes).toMatchObject({ [mnemonic]: count, LDSM: 1, LDGSTS: 1 });
      }
    });

    test('has stack where local memory is used, and registers as ptxas says', () => {
      const { cubin, log } = compile(local);
      const [kernel] = machineCode(cubin);
      expect(kernel).toMatchObject({ stackBytes: 128, opcodes: { LDL: 1, STL: 1 } });
      const known = ptxasLog(log).get('local_array');
      expect(known).toEqual({ registers: kernel!.registers, stackBytes: 128, spillBytes: 0 });
    });

    test('tells spills by the log', () => {
      // 64 numbers that are all alive at once do not fit into 24 registers.
      const many = Array.from({ length: 64 }, (_, i) => i);
      const ptx = `${head}.visible .entry spilling(.param .u64 p)\n{\n.reg .b32 r<64>; .reg .b64 d;
        ld.param.u64 d, [p];\ncvta.to.global.u64 d, d;
        ${many.map((i) => `ld.volatile.global.u32 r${i}, [d+${4 * i}];`).join('\n')}
        ${many.map((i) => `st.volatile.global.u32 [d+${4 * (63 - i)}], r${i};`).join('\n')}
        ret;\n}\n`;
      const { cubin, log } = compile(ptx, '--maxrregcount=24');
      const known = ptxasLog(log).get('spilling')!;
      expect(known.spillBytes).toBeGreaterThan(0);
      expect(machineCode(cubin)[0]!.opcodes.STL).toBeGreaterThan(0);
      const text = spawnSync(process.execPath, [path, join(folder, 'kernel.cubin')], {
        encoding: 'utf8',
      });
      expect(text.stdout).toMatch(/spilling +24 +\d+ +\?/);
    });

    test('is found in fat binaries, alone or inside other files', () => {
      if (fatbinary === undefined) return;
      const { file } = compile(scalar);
      const output = join(folder, 'kernel.fatbin');
      const { status } = spawnSync(fatbinary, [
        `--create=${output}`,
        '-64',
        '--compress-mode=none',
        `--image3=kind=elf,sm=80,file=${file}`,
        `--image3=kind=ptx,sm=80,file=${join(folder, 'kernel.ptx')}`,
      ]);
      expect(status).toBe(0);
      const fatbin = readFileSync(output);
      const inside = Buffer.concat([Buffer.alloc(1000, 0x50), fatbin, Buffer.alloc(77)]);
      const expected = machineCode(readFileSync(file));
      expect(machineCode(fatbin)).toEqual(expected);
      expect(machineCode(inside)).toEqual(expected);
    });

    test('is refused where it is damaged', () => {
      const { cubin } = compile(scalar);
      const clear = /damaged|no CUDA machine code|no 64-bit ELF|is compressed/;
      const read = (buffer: Buffer) => {
        try {
          machineCode(buffer);
        } catch (error) {
          return (error as Error).message;
        }
        return undefined;
      };
      const programHeaders = 4 * 56; // at the end, not read
      for (let length = 0; length < cubin.length - programHeaders; length += 97) {
        expect(read(cubin.subarray(0, length))).toMatch(clear);
      }
      let seed = 1;
      const random = (below: number) => {
        seed = (seed * 48271) % 0x7fffffff;
        return seed % below;
      };
      let refused = 0;
      for (let i = 0; i < 3000; ++i) {
        const damaged = Buffer.from(cubin);
        for (let n = 0; n < 4; ++n) damaged[random(damaged.length)] = random(256);
        if (i % 2 === 0) damaged.writeUInt32LE(0x7fffffff + random(0x7fffffff), random(60) + 4);
        const message = read(damaged);
        if (message !== undefined) {
          ++refused;
          expect(message).toMatch(clear);
        }
      }
      expect(refused).toBeGreaterThan(1000);
    });
  });

  test('is not looked for in other files', () => {
    expect(() => machineCode(Buffer.alloc(0), 'x')).toThrow('x holds no CUDA machine code');
    expect(() => machineCode(Buffer.from('text'), 'x')).toThrow('x holds no CUDA machine code');
    expect(() => machineCode(readFileSync(process.execPath).subarray(0, 1 << 20), 'node')).toThrow(
      'node holds no CUDA machine code',
    );
    const { status, stderr } = spawnSync(process.execPath, [path, join(folder, 'no-such-file')], {
      encoding: 'utf8',
    });
    expect(status).toBe(2);
    expect(stderr).toContain('no-such-file');
  });
});

describe('budgets', () => {
  const kernel = {
    name: 'gemm',
    registers: 96,
    stackBytes: 0,
    staticSharedBytes: 1024,
    spillBytes: 0,
    opcodes: { HMMA: 16, BAR: 1 },
  };

  test('are kept', () => {
    const gemm = {
      registers: 96,
      stackBytes: 0,
      spillBytes: 0,
      threads: 128,
      dynamicSharedBytes: 32768,
      residentBlocks: 4,
      opcodes: { HMMA: [16, 16], LDL: [0, 0], BAR: [1, 4] },
    };
    expect(budgetProblems([kernel], { gemm })).toEqual([]);
  });

  test.each([
    [{ registers: 95 }, 'gemm: registers 96, budget 95'],
    [{ staticSharedBytes: 1000 }, 'gemm: staticSharedBytes 1024, budget 1000'],
    [{ opcodes: { HMMA: [17, 32] } }, 'gemm: 16 HMMA, budget 17 to 32'],
    [{ opcodes: { LDSM: [1, 8] } }, 'gemm: 0 LDSM, budget 1 to 8'],
    [{ threads: 128, residentBlocks: 6 }, 'gemm: 5 resident blocks, wanted 6'],
    [
      { threads: 128, dynamicSharedBytes: 60000, residentBlocks: 3 },
      'gemm: 2 resident blocks, wanted 3',
    ],
  ])('%j is exceeded', (gemm, problem) => {
    expect(budgetProblems([kernel], { gemm })).toEqual([problem]);
  });

  test('name kernels that are missing on either side', () => {
    expect(budgetProblems([kernel], { gemv: {} })).toEqual([
      'gemm: has no budget',
      'gemv: is not there',
    ]);
  });

  test('of blocks on a multiprocessor follow from threads, registers and shared memory', () => {
    expect(residentBlocks({ registers: 32, sharedBytes: 0, threads: 1024 })).toBe(2);
    expect(residentBlocks({ registers: 33, sharedBytes: 0, threads: 1024 })).toBe(1);
    expect(residentBlocks({ registers: 16, sharedBytes: 0, threads: 32 })).toBe(32);
    expect(residentBlocks({ registers: 255, sharedBytes: 0, threads: 256 })).toBe(1);
    expect(residentBlocks({ registers: 64, sharedBytes: 163 * 1024, threads: 128 })).toBe(1);
    expect(residentBlocks({ registers: 64, sharedBytes: 81 * 1024, threads: 128 })).toBe(2);
  });
});
