/**
 * Makes a clone ready to use, and does nothing when it is: dependencies, native addon, compiled
 * TypeScript. `npm start` and `npm test` run it first; `--only=lib` compiles the TypeScript alone.
 * It uses nothing but Node until the dependencies are there.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildNative, hashFiles, nativeIsCurrent, root } from './build-native.mjs';
import { explainMissing, missingTools } from './toolchain.mjs';

const say = (text) => console.error(`altiplano set-up: ${text}`);

function fail(text) {
  console.error(text);
  process.exit(1);
}

/** True if node_modules holds what package-lock.json names (optional packages aside). */
function dependenciesAreCurrent() {
  const read = (path) => JSON.parse(readFileSync(join(root, path), 'utf8')).packages;
  if (!existsSync(join(root, 'node_modules/.package-lock.json'))) return false;
  const installed = read('node_modules/.package-lock.json');
  return Object.entries(read('package-lock.json')).every(
    ([path, { version, optional }]) =>
      path === '' || optional || installed[path]?.version === version,
  );
}

function setUpDependencies() {
  if (dependenciesAreCurrent()) return;
  say('installing the dependencies (npm ci) ...');
  // Without scripts: the addon is built below, where its output can be seen.
  const npm = process.env.npm_execpath;
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund'];
  const { status } = npm?.endsWith('.js')
    ? spawnSync(process.execPath, [npm, ...args], { cwd: root, stdio: 'inherit' })
    : spawnSync('npm', args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) fail('altiplano set-up: "npm ci" failed; the reason stands above.');
}

function setUpNative() {
  if (nativeIsCurrent()) return;
  say('building the native addon (a minute or two the first time) ...');
  if (!buildNative()) process.exit(1);
}

/** Puts what a compiled module re-exports of a package into the module itself. */
async function bundleInPlace(esbuild, module) {
  const path = join(root, 'dist', module);
  await esbuild.build({
    absWorkingDir: root, // comments in the file name what it was made of, from here
    entryPoints: [path],
    outfile: path,
    allowOverwrite: true,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    logLevel: 'error',
    // Of this package only the tensor types are wanted; it does not say that the rest can go.
    alias: { '@huggingface/tasks': join(root, 'node_modules/@huggingface/tasks/dist/esm/gguf.js') },
  });
  rmSync(path.replace(/js$/, 'd.ts')); // would name the package, which users need not have
}

async function setUpLibrary() {
  const sources = ['lib/', 'scripts/setup.mjs', 'tsconfig.json', 'tsconfig.build.json'];
  const hash = hashFiles([...sources, 'package-lock.json']);
  const stampPath = join(root, 'build/lib.sha256');
  const stamped = existsSync(stampPath) && readFileSync(stampPath, 'utf8') === hash;
  if (stamped && existsSync(join(root, 'dist/index.js'))) return;
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  if (!existsSync(tsc)) {
    return say('TypeScript is not installed (a production install): dist/ is left as it is');
  }
  const esbuild = await import('esbuild').catch(({ message }) => {
    fail(`altiplano set-up: npm ci is needed first (${message})`);
  });
  say('compiling the TypeScript ...');
  // From nothing, so that no file of a deleted source stays behind.
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  const args = [tsc, '-p', 'tsconfig.build.json'];
  const { status } = spawnSync(process.execPath, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) fail('altiplano set-up: the TypeScript does not compile; see above.');
  await bundleInPlace(esbuild, 'checkpoint/gguf-library.js');
  mkdirSync(join(root, 'build'), { recursive: true });
  writeFileSync(stampPath, hash);
}

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  fail(`altiplano needs Node 20.19 or later; this is ${process.version}.`);
}
if (process.argv.includes('--only=lib')) {
  await setUpLibrary();
} else {
  if (!nativeIsCurrent()) {
    const missing = missingTools(root); // before the minutes that npm ci may take
    if (missing.length > 0) fail(explainMissing(missing));
  }
  setUpDependencies();
  setUpNative();
  await setUpLibrary();
}
