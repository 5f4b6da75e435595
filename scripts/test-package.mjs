/**
 * Tries the package as its users meet it: packs a tarball with a prebuilt addon, installs it in
 * empty folders, and runs it. Takes a few minutes; dependencies come from the npm registry.
 *
 *   node scripts/test-package.mjs [--skip-prebuild]   (then prebuilds/ must be filled)
 */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root } from './build-native.mjs';

const work = mkdtempSync(join(tmpdir(), 'altiplano-package-'));
const quiet = ['--no-audit', '--no-fund', '--prefer-offline'];
let passed = 0;

/** An environment without what a surrounding npm and the home folder put in. */
function cleanEnvironment(path = process.env.PATH) {
  const config = (key) => execFileSync('npm', ['config', 'get', key], { encoding: 'utf8' }).trim();
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('npm_') && !/^(NODE_OPTIONS|CXX|CC|ALTIPLANO_.*)$/.test(name),
  );
  return {
    ...Object.fromEntries(kept),
    PATH: path,
    HOME: join(work, 'home'),
    npm_config_cache: config('cache'),
    npm_config_userconfig: config('userconfig'),
  };
}

/** Runs a command; the test ends here if it does not end as expected. */
function run(command, args, { cwd = root, env = clean, fails = false } = {}) {
  const result = spawnSync(command, args, { cwd, env, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (result.error) throw result.error;
  if ((result.status !== 0) !== fails) {
    console.error(result.stdout, result.stderr);
    throw new Error(`${command} ${args.join(' ')}: exit code ${result.status}`);
  }
  return result;
}

function check(what, holds, details = '') {
  if (!holds) throw new Error(`not so: ${what} ${details}`);
  console.log(`  ok: ${what}`);
  passed++;
}

function emptyApp(name) {
  const folder = join(work, name);
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  return folder;
}

/** What a user's first program does, from an ES module, from CommonJS and from the shell. */
function tryPackage(app, env, wantedBinary) {
  writeFileSync(
    join(app, 'first.mjs'),
    `import { Llama } from 'altiplano';
     import * as kernels from 'altiplano/kernels';
     const llama = await Llama.load();
     const question = [{ role: 'user', content: 'What is the capital of France?' }];
     let streamed = '';
     const chat = llama.chat(question, { temperature: 0, maxTokens: 32 });
     for await (const piece of chat) streamed += piece;
     const { text, finishReason } = await chat.result;
     await llama.dispose();
     console.log(JSON.stringify({ same: streamed === text, text, finishReason,
       kernels: Object.values(kernels).filter((f) => typeof f === 'function').length }));`,
  );
  const first = JSON.parse(run('node', ['first.mjs'], { cwd: app, env }).stdout);
  check(
    'an ES module chats with the demo model',
    first.same && /Paris/.test(first.text),
    first.text,
  );
  check('altiplano/kernels exports functions', first.kernels > 0);

  writeFileSync(
    join(app, 'first.cjs'),
    `const { Llama } = require('altiplano');
     Llama.load().then(async (llama) => {
       const { text } = await llama.generate('Once', { temperature: 0, maxTokens: 8 }).result;
       await llama.dispose();
       console.log(text);
     });`,
  );
  const cjs = run('node', ['first.cjs'], { cwd: app, env });
  check('CommonJS can require it', cjs.stdout.trim() !== '' && cjs.stderr === '', cjs.stderr);

  // Modules that are imported when they are needed included.
  writeFileSync(
    join(app, 'modules.mjs'),
    `import { readdirSync } from 'node:fs';
     const dist = new URL('node_modules/altiplano/dist/', import.meta.url);
     const modules = readdirSync(dist, { recursive: true })
       .filter((name) => name.endsWith('.js') && name !== 'cli/main.js');
     for (const name of modules) await import(new URL(name, dist));
     console.log(modules.length);`,
  );
  const modules = Number(run('node', ['modules.mjs'], { cwd: app, env }).stdout);
  check('every module finds what it imports', modules > 50, modules);

  // A header of one entry: its architecture, which is another one.
  const text = (value) =>
    Buffer.concat([Buffer.from([value.length, ...Array(7).fill(0)]), Buffer.from(value)]);
  writeFileSync(
    join(app, 'other.gguf'),
    Buffer.concat([
      Buffer.from('GGUF'),
      Buffer.from(Uint32Array.of(3, 0, 0, 1, 0).buffer),
      ...[text('general.architecture'), Buffer.from([8, 0, 0, 0]), text('mamba')],
    ]),
  );
  const inspect = ['--no-install', 'altiplano', 'inspect', '--model', 'other.gguf'];
  const other = spawnSync('npx', inspect, { cwd: app, env, encoding: 'utf8' });
  check('GGUF files are read', /mamba/.test(other.stderr), other.stderr);

  const doctor = run('npx', ['--no-install', 'altiplano', 'doctor'], { cwd: app, env });
  check(
    `the addon comes from ${wantedBinary}`,
    doctor.stdout.includes(wantedBinary),
    doctor.stdout,
  );
  const help = run('npx', ['--no-install', 'altiplano', 'chat', '--help'], { cwd: app, env });
  check('the command line helps', /--model/.test(help.stdout));
}

function tryTypes(app) {
  writeFileSync(
    join(app, 'typed.mts'),
    `import { Llama } from 'altiplano';
     import { softmax } from 'altiplano/kernels';
     const llama: Llama = await Llama.load(undefined, { threads: 1 });
     const { text } = await llama.chat([{ role: 'user', content: 'Hello' }]).result;
     export const result: string = text;
     export const f: unknown = softmax;
     // @ts-expect-error an option that does not exist
     llama.chat([], { temprature: 1 });\n`,
  );
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')];
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2023', ...types];
  run('node', [tsc, ...options, 'typed.mts'], { cwd: app });
  check('the types serve a strict TypeScript program', true);
}

mkdirSync(join(work, 'home'));
const clean = cleanEnvironment();

// A PATH with node and npm, but neither cmake nor a compiler.
const bin = join(work, 'bin');
mkdirSync(bin);
for (const name of ['node', 'npm', 'npx', 'sh', 'env']) {
  const found = execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim();
  symlinkSync(realpathSync(found), join(bin, name));
}
const bare = { ...clean, PATH: bin };

try {
  console.log('packing');
  if (!process.argv.includes('--skip-prebuild')) run('npm', ['run', 'prebuild']);
  run('npm', ['pack', '--pack-destination', work]);
  const tarball = join(
    work,
    readdirSync(work).find((name) => name.endsWith('.tgz')),
  );
  const files = run('tar', ['-tzf', tarball]).stdout.split('\n');
  const unwanted = files.filter((file) => /^package\/(test|lib|build|bench|shared)\//.test(file));
  check('the tarball has no tests and no sources of dist/', unwanted.length === 0, unwanted);
  for (const wanted of [
    ...['LICENSE', 'README.md', 'CMakeLists.txt', 'binding.gyp', 'scripts/install.mjs'],
    ...['dist/index.js', 'dist/index.d.ts', 'dist/kernels.d.ts', 'models/demo/model.safetensors'],
    `prebuilds/${process.platform}-${process.arch}/`,
  ]) {
    check(
      `the tarball has ${wanted}`,
      files.some((f) => f.startsWith(`package/${wanted}`)),
    );
  }

  console.log('installing with --ignore-scripts, without cmake and compiler');
  const ignoring = emptyApp('ignore-scripts');
  run('npm', ['install', '--ignore-scripts', ...quiet, tarball], { cwd: ignoring, env: bare });
  tryPackage(ignoring, bare, `prebuilds/${process.platform}-${process.arch}`);
  tryTypes(ignoring);

  console.log('installing with scripts, without cmake and compiler');
  const plain = emptyApp('plain');
  run('npm', ['install', ...quiet, tarball], { cwd: plain, env: bare });
  check('nothing was compiled', !existsSync(join(plain, 'node_modules/altiplano/build')));

  // The same tarball as a platform without a prebuilt addon sees it.
  run('tar', ['-xzf', tarball, '-C', work]);
  rmSync(join(work, 'package/prebuilds'), { recursive: true });
  const bareTarball = join(work, 'without-prebuilds.tgz');
  run('tar', ['-czf', bareTarball, '-C', work, 'package']);

  console.log('installing without a prebuilt addon, without cmake and compiler');
  const lacking = emptyApp('lacking');
  const options = { cwd: lacking, env: bare, fails: true };
  const { stderr } = run('npm', ['install', ...quiet, bareTarball], options);
  const message = /altiplano: the native addon must be compiled here.*is missing: cmake/g;
  check('one message says what is missing', stderr.match(message)?.length === 1, stderr);

  console.log('installing without a prebuilt addon: it is compiled');
  const compiling = emptyApp('compiling');
  run('npm', ['install', ...quiet, bareTarball], { cwd: compiling });
  tryPackage(compiling, bare, 'build/Release');
} finally {
  rmSync(work, { recursive: true, force: true });
}
console.log(`package: ${passed} checks passed`);
