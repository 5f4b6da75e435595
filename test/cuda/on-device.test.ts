/**
 * The tests of test/cuda/on-device on the simulated device: jest in a process of its own, since a
 * driver is found when the process starts. And what only the simulator can do: failures of the driver,
 * through the command line.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { missing, simulatedDriver } from './build.js';

const describeCuda = missing === null ? describe : describe.skip;
if (missing !== null) console.warn(`SKIPPED: the engine on a CUDA device, without ${missing}`);

/** A line of the simulator's report: a launch, or the end of the process. */
interface Line {
  kernel?: string;
  findings?: string[];
  exit?: boolean;
  contexts?: number;
  allocations?: number;
  streams?: number;
  modules?: number;
}

describeCuda('on the simulated device', () => {
  const folder = mkdtempSync(join(tmpdir(), 'altiplano-device-'));
  let driver: string;
  beforeAll(async () => {
    driver = await simulatedDriver();
  }, 900_000);
  afterAll(() => rmSync(folder, { recursive: true }));

  function node(args: string[], env: NodeJS.ProcessEnv = {}) {
    const { CUDA_VISIBLE_DEVICES: _, ...inherited } = process.env;
    return spawnSync(process.execPath, args, {
      encoding: 'utf8',
      env: { ...inherited, LD_LIBRARY_PATH: driver, PTX_SIMULATOR_MEMORY: '4G', ...env },
      maxBuffer: 2 ** 28,
    });
  }

  const altiplano = (args: string[], env?: NodeJS.ProcessEnv) =>
    node(['dist/cli/main.js', ...args], env);

  const generate = (env?: NodeJS.ProcessEnv, device = 'cuda') =>
    altiplano(
      ['generate', '--device', device, '--max-tokens', '2', '--temperature', '0', 'The cat'],
      env,
    );

  function lines(file: string): Line[] {
    return readFileSync(file, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
  }

  test.each(['golden', 'life', 'several', 'bench', 'chat-eval'])(
    '%s: the tests pass, without findings, and nothing is left behind',
    (name) => {
      const reports = join(folder, `${name}.jsonl`);
      const { status, stdout, stderr } = node(
        [
          '--experimental-vm-modules',
          '--disable-warning=ExperimentalWarning',
          'node_modules/jest/bin/jest.js',
          '--runInBand',
          `test/cuda/on-device/${name}.test.ts`,
        ],
        {
          ALTIPLANO_TEST_DEVICE: 'simulator',
          PTX_SIMULATOR_DEVICES: name === 'several' ? '2' : '1',
          PTX_SIMULATOR_REPORT: reports,
        },
      );
      process.stderr.write(stderr.split('\n\n').slice(0, 2).join('\n')); // what was measured
      expect({ status, output: status === 0 ? '' : stdout + stderr }).toEqual({
        status: 0,
        output: '',
      });
      const found = lines(reports);
      expect(found.filter(({ kernel }) => kernel !== undefined).length).toBeGreaterThan(50);
      expect(found.flatMap(({ findings }) => findings ?? [])).toEqual([]);
      const ends = found.filter(({ exit }) => exit); // of each process that had a driver
      expect(ends).not.toEqual([]);
      // The benchmark's engine is a process that ends with its model.
      for (const end of name === 'bench' ? [] : ends) {
        expect(end).toMatchObject({ contexts: 0, allocations: 0, streams: 0, modules: 0 });
      }
    },
    900_000,
  );

  test('a step launches what bench/a100-model counts, in its order', () => {
    const reports = join(folder, 'launches.jsonl');
    expect(generate({ PTX_SIMULATOR_REPORT: reports }).status).toBe(0);
    const kernels = lines(reports).flatMap(
      ({ kernel }) => kernel?.replace(/_(f16|bf16).*/, '') ?? [],
    );
    const layer = 'rmsnorm matmul attention_decode matmul rmsnorm matmul matmul';
    const step = ['embed', ...Array(4).fill(layer), 'rmsnorm matmul row_results'];
    expect(kernels.slice(kernels.lastIndexOf('embed')).join(' ')).toBe(step.join(' '));
  });

  test('the command line generates, and doctor names the device', () => {
    const { status, stdout, stderr } = generate();
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.length).toBeGreaterThan(1);
    const doctor = altiplano(['doctor', '--json']);
    const { devices, gpu } = JSON.parse(doctor.stdout);
    expect(devices.map(({ kind }: { kind: string }) => kind)).toEqual(['cpu', 'cuda:0']);
    expect(gpu).toMatchObject({ used: true, built: true, reason: null, problem: null });
    expect(altiplano(['doctor']).stdout).toMatch(/cuda:0 .*compute capability 8\.0/);
  });

  test('bench names the limits of the device as nominal', () => {
    const args = ['bench', '--device', 'cuda', '--prompt-tokens', '8', '--new-tokens', '2'];
    const { stdout } = altiplano([...args, '--runs', '1']);
    expect(stdout).toMatch(/^read bandwidth +1\.9 TiB\/s, nominal$/m);
    expect(stdout).toMatch(/^f16 peak +155,\d+ billion multiply-adds\/s, nominal$/m);
    const results = JSON.parse(altiplano([...args, '--runs', '1', '--json']).stdout);
    expect(results).toMatchObject({ limits: 'nominal', int8MacsPerSecond: null });
    expect(results.decodeBandwidthShare).toBeGreaterThan(0);
    expect(results.prefillPeakShare).toBeGreaterThan(0);
  });

  test('of several devices each can be chosen, and one that is not there is told of them', () => {
    const env = { PTX_SIMULATOR_DEVICES: '2' };
    const { devices } = JSON.parse(altiplano(['doctor', '--json'], env).stdout);
    expect(devices.map(({ kind }: { kind: string }) => kind)).toEqual(['cpu', 'cuda:0', 'cuda:1']);
    const reports = join(folder, 'second.jsonl');
    const second = generate({ ...env, PTX_SIMULATOR_REPORT: reports }, 'cuda:1');
    expect(second).toMatchObject({ status: 0, stderr: '', stdout: generate().stdout });
    expect(lines(reports).flatMap(({ findings }) => findings ?? [])).toEqual([]);
    const third = generate(env, 'cuda:2');
    expect(third.stderr).toMatch(/device "cuda:2": there are 2: cuda:0 to cuda:1/);
    expect(third.status).toBe(1);
  });

  test.each<[string, NodeJS.ProcessEnv, RegExp]>([
    ['no driver', { LD_LIBRARY_PATH: '', CUDA_VISIBLE_DEVICES: '' }, /no NVIDIA driver|no GPU/],
    ['no device', { PTX_SIMULATOR_DEVICES: '0' }, /finds no GPU/],
    ['a driver that does not start', { PTX_SIMULATOR_FAIL: 'cuInit:1:803' }, /cuInit says CUDA_/],
    [
      'a driver that does not tell its version',
      { PTX_SIMULATOR_FAIL: 'cuDriverGetVersion:1:999' },
      /does not tell its version/,
    ],
  ])('%s: "cuda" is refused, "auto" takes the CPU, doctor tells', (_, env, reason) => {
    const refused = generate(env);
    expect(refused.stderr).toMatch(reason);
    expect(refused.stderr).toMatch(/device "cuda"/);
    expect(refused.status).toBe(1);
    const onCpu = generate(env, 'auto');
    expect({ status: onCpu.status, stderr: onCpu.stderr }).toEqual({ status: 0, stderr: '' });
    const { devices, gpu } = JSON.parse(altiplano(['doctor', '--json'], env).stdout);
    expect(devices).toHaveLength(1);
    expect(gpu).toMatchObject({ used: false, reason: expect.stringMatching(reason) });
  });

  test.each<[string, NodeJS.ProcessEnv, RegExp]>([
    [
      'a driver that is too old',
      { PTX_SIMULATOR_DRIVER_VERSION: '12080' },
      /driver is too old: it offers CUDA 12\.8, and CUDA 13\.0 \(release 580 or later\) is needed/,
    ],
    [
      'a GPU that is too old',
      { PTX_SIMULATOR_CAPABILITY: '75' },
      /its compute capability is 7\.5, and 8\.0 \(Ampere\) or later is needed/,
    ],
  ])(
    '%s: "cuda" is refused, "auto" warns once and takes the CPU, doctor tells',
    (_, env, reason) => {
      for (const device of ['cuda', 'cuda:0']) {
        const refused = generate(env, device);
        expect(refused.stderr).toMatch(reason);
        expect(refused.stderr).toContain(`device "${device}"`);
        expect(refused.status).toBe(1);
      }
      const program = `
      import { Llama } from './dist/index.js';
      process.on('warning', ({ name, message }) => console.log(name, message));
      for (let i = 0; i < 2; i++) {
        const llama = await Llama.load(undefined, { contextTokens: 64 });
        console.log(llama.info.device);
        await llama.dispose();
      }
      await Llama.load(undefined, { device: 'cuda' }).catch(({ code }) => console.log(code));`;
      const args = ['--no-warnings', '--input-type=module', '-e', program];
      const { stdout, stderr } = node(args, env);
      const told = stdout.trim().split('\n');
      const warnings = told.filter((line) => line.startsWith('AltiplanoWarning'));
      expect(stderr).toBe('');
      expect(warnings).toEqual([expect.stringMatching(reason)]);
      expect(told.filter((line) => !warnings.includes(line))).toEqual([
        ...['cpu', 'cpu'],
        'ALTIPLANO_DEVICE_UNAVAILABLE',
      ]);

      const { devices, gpu } = JSON.parse(altiplano(['doctor', '--json'], env).stdout);
      expect(devices.map(({ kind }: { kind: string }) => kind)).toEqual(['cpu']);
      expect(gpu).toMatchObject({ used: false, reason: expect.stringMatching(reason) });
      expect(altiplano(['doctor'], env).stdout).toMatch(
        new RegExp(`cuda:0 NVIDIA .*NOT USED, .*${reason.source}`),
      );
    },
  );

  test('beside a GPU that is too old, the other one is taken', () => {
    const env = { PTX_SIMULATOR_DEVICES: '2', PTX_SIMULATOR_CAPABILITY: '75,80' };
    const reports = join(folder, 'newer.jsonl');
    const { status, stderr } = generate({ ...env, PTX_SIMULATOR_REPORT: reports }, 'auto');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(lines(reports).some(({ kernel }) => kernel !== undefined)).toBe(true);
    expect(generate(env, 'cuda').status).toBe(0);
    expect(generate(env, 'cuda:0').stderr).toMatch(/compute capability is 7\.5/);
  });

  test('a device that cannot be used is named in one warning', () => {
    // The first attribute that is asked for.
    const env = { PTX_SIMULATOR_FAIL: 'cuDeviceGetAttribute:1:1' };
    const { status, stderr } = generate(env, 'auto');
    expect(stderr).toMatch(/the GPU is not used: .*cuDeviceGetAttribute failed.*on the CPU/s);
    expect(status).toBe(0);
  });

  test('memory that runs out is told with the numbers', () => {
    const { status, stderr } = generate({ PTX_SIMULATOR_FAIL_ALLOCATION: '3' });
    expect(stderr).toMatch(/has no memory for .*: asked for \d+ bytes, \d+ are free of \d+/);
    expect(status).toBe(1);
  });

  test('ALTIPLANO_CUDA_SYNCHRONOUS=1 names the kernel that fails, with its shape', () => {
    const env = { PTX_SIMULATOR_FAIL_LAUNCH: '40', ALTIPLANO_CUDA_SYNCHRONOUS: '1' };
    expect(generate(env).stderr).toMatch(
      /failed \(kernel \w+, grid \d+ x \d+ x \d+, block .*GPU 0 .*CUDA_ERROR_LAUNCH_FAILED/,
    );
  });

  test.each([1, 40, 80])('kernel %d that fails ends the request, not the process', (n) => {
    const { status, signal, stderr } = generate({ PTX_SIMULATOR_FAIL_LAUNCH: String(n) });
    expect(stderr).toMatch(/cu\w+ failed \(.*GPU 0 \(.*\)\): CUDA_ERROR_LAUNCH_FAILED/);
    expect({ status, signal }).toEqual({ status: 1, signal: null });
  });
});
