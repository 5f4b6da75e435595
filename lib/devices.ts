/** Where a model runs: the CPU or a GPU, what was asked for and what there is. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AltiplanoError, invalidArgument } from './errors.js';
import { fromNative, type Gpu, type Gpus, native } from './native.js';
import type { ResolvedLoadOptions } from './options.js';

/** A device as callers name it. */
export type DeviceName = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;

/** A device that was chosen, and the memory that a model may take there. */
export interface Place {
  /** null: the CPU. */
  readonly gpu: Gpu | null;
  readonly availableBytes: number;
}

/** What the driver, the kernels and other processes may still take of a GPU. */
const RESERVED_BYTES = 256 * 2 ** 20;
const RESERVED_SHARE = 0.02;

/** As Linux writes the vendor, and the class of display controllers (0x03....: VGA, 3D). */
const PCI_NVIDIA = '0x10de';
const PCI_DISPLAY = '0x03';

/** The driver and its devices. @throws ALTIPLANO_NATIVE_MISSING */
export async function findGpus(): Promise<Gpus> {
  try {
    return await native().gpus();
  } catch (error) {
    throw fromNative(error);
  }
}

/** Why a device of {@link Gpus} cannot be used; undefined if it can. */
function problemOf({ problem, devices }: Gpus, index: number): string | undefined {
  const device = devices[index];
  if (device !== undefined) {
    return device.problem === null ? undefined : `${device.name}: ${device.problem}`;
  }
  if (problem !== null || devices.length === 0) return problem ?? 'there is no GPU';
  return `there are ${devices.length}: cuda:0${devices.length > 1 ? ` to cuda:${devices.length - 1}` : ''}`;
}

/** What only the CPU does; undefined if a GPU does it as well. */
function cpuOnly({ weights, activations }: ResolvedLoadOptions) {
  if (weights === 'f32') return { name: 'weights', value: 'f32' };
  if (activations === 'f32') return { name: 'activations', value: 'f32' };
  return undefined;
}

/**
 * The GPU that a model is to be loaded on; null for the CPU. `auto` takes the first that can be used,
 * if there is one and nothing is asked for that only the CPU does.
 * @throws ALTIPLANO_DEVICE_UNAVAILABLE for a GPU that is asked for and cannot be used; TypeError
 *   (ALTIPLANO_INVALID_ARGUMENT) for options that it does not have
 */
export async function chooseGpu(options: ResolvedLoadOptions): Promise<Gpu | null> {
  const { device } = options;
  if (device === 'cpu') return null;
  const exact = cpuOnly(options);
  if (device === 'auto') {
    if (exact !== undefined) return null;
    const gpus = await findGpus();
    const usable = gpus.devices.find(({ problem }) => problem === null);
    if (usable === undefined && isThere(gpus)) {
      warnOnce(`the GPU is not used: ${problemOf(gpus, 0)}. Models run on the CPU.`);
    }
    return usable ?? null;
  }
  if (exact !== undefined) {
    throw invalidArgument('is for the CPU only', {
      subject: exact.name,
      expected: `another value with device "${device}"`,
      found: `"${exact.value}"`,
      hint: 'GPUs multiply in f16 or bf16',
    });
  }
  const gpus = await findGpus();
  const index = device === 'cuda' ? firstUsable(gpus) : Number(device.slice('cuda:'.length));
  const problem = problemOf(gpus, index);
  if (problem !== undefined) {
    throw new AltiplanoError('ALTIPLANO_DEVICE_UNAVAILABLE', problem, {
      subject: `device "${device}"`,
      hint: 'Use device "auto" or "cpu"; "altiplano doctor" shows more',
    });
  }
  return gpus.devices[index]!;
}

/** 0 where none can be used. */
function firstUsable({ devices }: Gpus): number {
  return Math.max(
    0,
    devices.findIndex(({ problem }) => problem === null),
  );
}

/** Whether the machine has a GPU of NVIDIA's, usable or not. */
function isThere({ devices }: Gpus): boolean {
  return devices.length > 0 || hasNvidiaGpu();
}

/**
 * Whether the system shows a GPU of NVIDIA's, with a driver or without: a device of the driver (or of
 * Windows, for the Linux in it), or one on the PCI bus, which containers see that were given none.
 */
export function hasNvidiaGpu(pciDevices = '/sys/bus/pci/devices'): boolean {
  if (existsSync('/dev/nvidia0') || existsSync('/dev/dxg')) return true;
  const read = (device: string, file: string) =>
    readFileSync(join(pciDevices, device, file), 'utf8').trim();
  try {
    return readdirSync(pciDevices).some(
      (device) =>
        read(device, 'vendor') === PCI_NVIDIA && read(device, 'class').startsWith(PCI_DISPLAY),
    );
  } catch {
    return false; // no Linux, or one that hides its devices
  }
}

const warned = new Set<string>();

function warnOnce(text: string): void {
  if (warned.has(text)) return;
  warned.add(text);
  process.emitWarning(text, 'AltiplanoWarning');
}

/**
 * Memory that a model may take of a GPU now.
 * @throws ALTIPLANO_CUDA_FAILED, ALTIPLANO_OUT_OF_MEMORY
 */
export async function availableGpuBytes(gpu: Gpu): Promise<number> {
  try {
    const freeBytes = await native().gpuFreeBytes(gpu.index);
    return Math.max(0, freeBytes - RESERVED_BYTES - Math.ceil(RESERVED_SHARE * gpu.totalBytes));
  } catch (error) {
    throw fromNative(error);
  }
}
