/** The published types, in a strict project that checks libraries too. */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';

const root = fileURLToPath(new URL('../..', import.meta.url));
let folder: string;

function tsc(cwd: string, args: readonly string[]): string {
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const { stdout, stderr } = spawnSync(process.execPath, [compiler, ...args], {
    cwd,
    encoding: 'utf8',
    env: { PATH: process.env.PATH },
  });
  return stdout + stderr;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'altiplano-types-'));
  const installed = join(folder, 'node_modules', 'altiplano');
  mkdirSync(installed, { recursive: true });
  cpSync(join(root, 'package.json'), join(installed, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(installed, 'node_modules'));
  symlinkSync(join(root, 'node_modules', '@types'), join(folder, 'node_modules', '@types'));
  const emit = ['-p', 'tsconfig.build.json', '--emitDeclarationOnly'];
  expect(tsc(root, [...emit, '--outDir', join(installed, 'dist')])).toBe('');
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(
    join(folder, 'use.ts'),
    `import { AltiplanoError, Llama, Tokenizer } from 'altiplano';
import type { ChatMessage, ErrorCode, GenerateOptions, GenerationResult, LoadOptions } from 'altiplano';
import { matmul } from 'altiplano/kernels';

export async function answer(messages: ChatMessage[], signal: AbortSignal): Promise<GenerationResult> {
  const load: LoadOptions = { weights: 'int8', onProgress: ({ doneBytes }) => doneBytes.toFixed() };
  const llama = await Llama.load(undefined, load);
  const options: GenerateOptions = { maxTokens: 3, stop: ['x'], logitBias: new Map([[3, 1]]), signal };
  const generation = llama.chat(messages, options);
  for await (const text of generation) text.toUpperCase();
  await llama.dispose();
  return generation.result;
}
export const codeOf = (error: unknown): ErrorCode | undefined =>
  error instanceof AltiplanoError ? error.code : undefined;
export const ids = async (): Promise<number[]> => (await Tokenizer.load('folder')).encode('text');
export const product: Float32Array = matmul(new Float32Array(1), {
  type: 'f32', rows: 1, cols: 1, values: new Float32Array(1),
});
// @ts-expect-error an option that does not exist
export const wrong: GenerateOptions = { max_tokens: 3 };
`,
  );
});
afterAll(() => rmSync(folder, { recursive: true }));

// Without Node's types the DOM brings AbortSignal, but nothing of ES2022 brings Symbol.asyncDispose.
test.each([
  ['nodenext', 'nodenext', ['--types', 'node']],
  ['nodenext', 'nodenext', ['--types', '', '--lib', 'es2022,dom']],
  ['esnext', 'bundler', ['--types', 'node']],
  ['esnext', 'bundler', ['--types', '', '--lib', 'es2022,dom']],
])('module %s, resolution %s, %j', (module, resolution, args) => {
  const strict = ['--noEmit', '--strict', '--skipLibCheck', 'false', '--target', 'es2022'];
  const exact = ['--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess'];
  const how = ['--module', module, '--moduleResolution', resolution, ...args];
  expect(tsc(folder, [...strict, ...exact, ...how, 'use.ts'])).toBe('');
});
