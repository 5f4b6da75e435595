/**
 * Fills prebuilds/ for this platform: prebuildify -> node-gyp -> binding.gyp -> cmake-js, then
 * checks that the binary runs on older systems than this one. Further arguments go to prebuildify.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { addonPath, root } from './build-native.mjs';
import { portabilityProblems } from './check-portability.mjs';
import { fatbinTargets } from './machine-code.mjs';

const require = createRequire(import.meta.url);
// One binary for many GPUs: machine code for each generation that there is, PTX for later ones.
const env = { ALTIPLANO_CUDA_ARCHITECTURES: '80;86;89;90', ...process.env };

// node-gyp would download Node's headers, which this build does not even use; most installations
// have them beside the program.
const prefix = dirname(dirname(process.execPath));
if (!env.npm_config_nodedir && existsSync(join(prefix, 'include/node/common.gypi'))) {
  env.npm_config_nodedir = prefix;
}

const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
rmSync(folder, { recursive: true, force: true });
const prebuildify = join(dirname(require.resolve('prebuildify/package.json')), 'bin.js');
const { status } = spawnSync(
  process.execPath,
  [prebuildify, '--napi', '--strip', '--tag-libc', ...process.argv.slice(2)],
  { cwd: root, env, stdio: 'inherit' },
);
if (status !== 0) process.exit(status ?? 1);

const [name] = readdirSync(folder).filter((file) => file.endsWith('.node'));
const prebuilt = join(folder, name);
// prebuildify moves the addon away; the clone goes on with the same one.
mkdirSync(dirname(addonPath), { recursive: true });
copyFileSync(prebuilt, addonPath);

/** Fat binaries that lack code for some GPUs; a build without nvcc has none at all. */
function codeProblems(file) {
  const architectures = env.ALTIPLANO_CUDA_ARCHITECTURES.split(';');
  const wanted = ['compute_80', ...architectures.map((one) => `sm_${one}`)].sort().join(' ');
  return fatbinTargets(readFileSync(file), file)
    .map((targets) => targets.join(' '))
    .filter((found) => found !== wanted)
    .map((found) => `kernels for ${found}, expected ${wanted}`);
}

const problems =
  process.platform === 'linux' ? [...portabilityProblems(prebuilt), ...codeProblems(prebuilt)] : [];
for (const problem of problems) console.error(`${prebuilt}: ${problem}`);
if (problems.length > 0) process.exit(1);
console.log(prebuilt);
