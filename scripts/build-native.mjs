/**
 * Builds the addon from CMakeLists.txt with cmake-js: build/cmake holds CMake's files,
 * build/<config>/altiplano.node is the result. All ways to a native build end here: binding.gyp
 * (`node-gyp rebuild`, prebuildify), the install script, and the set-up of a clone.
 *
 *   node scripts/build-native.mjs [--config Release|Debug]
 *
 * cmake-js takes the headers from its dependency node-api-headers, because package.json names
 * `binary.napi_versions`: nothing is downloaded.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { explainMissing, missingTools } from './toolchain.mjs';

const require = createRequire(import.meta.url);

/** The package's folder. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/** The addon that a Release build makes. */
export const addonPath = join(root, 'build/Release/altiplano.node');

// Says from which sources the addon in build/Release was made.
const stampPath = join(root, 'build/native.sha256');

/** A hash over files and folders (all files in them), paths relative to the package. */
export function hashFiles(paths) {
  const hash = createHash('sha256');
  for (const path of paths) {
    const files = path.endsWith('/')
      ? readdirSync(join(root, path), { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath, entry.name))
          .sort()
      : [join(root, path)];
    for (const file of files) {
      if (!existsSync(file)) continue;
      const bytes = readFileSync(file);
      hash.update(`${file.slice(root.length)}\0${bytes.length}\0`).update(bytes);
    }
  }
  return hash.digest('hex');
}

function sourcesHash() {
  return hashFiles(['CMakeLists.txt', 'native/', 'scripts/build-native.mjs']);
}

/** True if build/Release holds the addon of the sources as they are now. */
export function nativeIsCurrent() {
  return (
    existsSync(addonPath) &&
    existsSync(stampPath) &&
    readFileSync(stampPath, 'utf8') === sourcesHash()
  );
}

/** Forgets CMake's files if they belong to another place (a folder that was moved or copied). */
function dropForeignCache(cmakeFolder) {
  const cache = join(cmakeFolder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
  if (join(home ?? '', '/') !== root) rmSync(cmakeFolder, { recursive: true });
}

/**
 * Builds the addon; what is up to date is not compiled again.
 * @param {string} config Release or Debug
 * @returns {boolean} false if it failed; the reason is then on standard error
 */
export function buildNative(config = 'Release') {
  const missing = missingTools(root);
  if (missing.length > 0) {
    console.error(explainMissing(missing));
    return false;
  }
  const hash = sourcesHash();
  const cmakeFolder = join(root, 'build/cmake');
  dropForeignCache(cmakeFolder);
  const cmakeJs = join(dirname(require.resolve('cmake-js/package.json')), 'bin/cmake-js');
  // Under node-gyp this process is a child of make, whose job server the inner make cannot reach.
  const { MAKEFLAGS: _, MFLAGS: __, MAKELEVEL: ___, ...env } = process.env;
  const { status } = spawnSync(
    process.execPath,
    // biome-ignore format: one option a line
    [
      cmakeJs, 'build',
      '--directory', root,
      '--out', cmakeFolder,
      '--config', config,
      '--log-level', 'warn',
      '--parallel', String(os.availableParallelism()),
    ],
    { stdio: 'inherit', cwd: root, env },
  );
  if (status !== 0) {
    console.error('altiplano: the native addon did not compile; the reason stands above.');
    return false;
  }
  if (config === 'Release') {
    mkdirSync(dirname(stampPath), { recursive: true });
    writeFileSync(stampPath, hash);
  }
  return true;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const at = process.argv.indexOf('--config');
  process.exitCode = buildNative(at < 0 ? 'Release' : process.argv[at + 1]) ? 0 : 1;
}
