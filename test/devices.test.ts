/** What a machine without a driver shows of its GPUs. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { hasNvidiaGpu } from '../lib/devices.js';

const hasDriver = existsSync('/dev/nvidia0') || existsSync('/dev/dxg');
const testWithout = hasDriver ? test.skip : test;

testWithout.each<[string, [vendor: string, kind: string][], boolean]>([
  ['none', [], false],
  [
    'an A100',
    [
      ['0x8086', '0x060000'],
      ['0x10de', '0x030200'],
    ],
    true,
  ],
  ['a graphics card', [['0x10de', '0x030000']], true],
  ['one of another maker', [['0x1002', '0x030000']], false],
  [
    "NVIDIA's network and sound",
    [
      ['0x10de', '0x020000'],
      ['0x10de', '0x040300'],
    ],
    false,
  ],
])('the PCI bus shows %s', (_, devices, expected) => {
  const folder = mkdtempSync(join(tmpdir(), 'altiplano-pci-'));
  devices.forEach(([vendor, kind], i) => {
    mkdirSync(join(folder, `0000:00:0${i}.0`));
    writeFileSync(join(folder, `0000:00:0${i}.0`, 'vendor'), `${vendor}\n`);
    writeFileSync(join(folder, `0000:00:0${i}.0`, 'class'), `${kind}\n`);
  });
  expect(hasNvidiaGpu(folder)).toBe(expected);
  rmSync(folder, { recursive: true });
});

testWithout('a system without a PCI bus has none', () => {
  expect(hasNvidiaGpu('/there/is/no/such/folder')).toBe(false);
});
