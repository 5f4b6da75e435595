// The performance model of the A100 (docs/a100-model.md): its arithmetic, and that it prints.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { run } from '../cuda/build.js';

const folder = join(process.cwd(), 'build/a100-model');

beforeAll(async () => {
  mkdirSync(folder, { recursive: true });
  await run('cmake', ['-S', 'bench/a100-model', '-B', folder]);
  await run('cmake', ['--build', folder]);
}, 300_000);

test('the model computes what hands compute', async () => {
  expect(await run(join(folder, 'a100_model_test'), [])).toBe('ok: 0 failures\n');
});

test('each section prints a table without holes', async () => {
  const output = await run(join(folder, 'a100_model'), []);
  expect(output).not.toMatch(/\b(nan|inf)\b/);
  const sections = output.split('### ').slice(1);
  expect(sections).toHaveLength(9);
  for (const section of sections) {
    const rows = section.split('\n').filter((line) => line.startsWith('| '));
    expect(rows.length).toBeGreaterThan(2);
  }
  const anchors = await run(join(folder, 'a100_model'), ['anchors']);
  expect(output.startsWith(anchors.trimEnd())).toBe(true);
});

// The model counts only if it reproduces both.
test('both published figures are met within 15 %', async () => {
  const anchors = await run(join(folder, 'a100_model'), ['anchors']);
  expect(anchors.match(/: within 15 %/g)).toHaveLength(2);
});

test('an unknown section is refused', async () => {
  await expect(run(join(folder, 'a100_model'), ['speed'])).rejects.toThrow('usage: a100_model');
});
