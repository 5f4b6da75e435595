/**
 * The peer: node-llama-cpp, which is no dependency of this project. It is installed from npm into a
 * cache folder when it is first needed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export const PEER_VERSION = '3.22.1';

const PLATFORMS = {
  'linux x64': 'linux-x64',
  'linux arm64': 'linux-arm64',
  'darwin arm64': 'mac-arm64-metal',
  'darwin x64': 'mac-x64',
};

/** The version of node-llama-cpp in a folder; undefined without one. */
export function peerVersion(folder) {
  const manifest = join(folder, 'node_modules/node-llama-cpp/package.json');
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, 'utf8')).version : undefined;
}

function npm(folder, packages) {
  const npmCli = process.env.npm_execpath;
  const [command, ...first] = npmCli?.endsWith('.js') ? [process.execPath, npmCli] : ['npm'];
  // No scripts: they would look for a GPU, and compile. No optional packages: those are the binaries
  // for all platforms, GPUs included; the one that is needed is named.
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--no-save'];
  const args = [...first, 'install', '--prefix', folder, ...flags, ...packages];
  const { status } = spawnSync(command, args, { cwd: folder, stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new Error(`npm could not install ${packages.join(', ')}; see above`);
}

/** The packages of binaries that the peer needs; its CUDA build comes in two, beside the CPU's. */
export function binaryPackages(onGpu) {
  const platform = PLATFORMS[`${process.platform} ${process.arch}`];
  if (platform === undefined) {
    throw new Error(`node-llama-cpp for ${process.platform} ${process.arch}: use --peer FOLDER`);
  }
  const names = onGpu ? [platform, `${platform}-cuda`, `${platform}-cuda-ext`] : [platform];
  return names.map((name) => `@node-llama-cpp/${name}`);
}

/** Installs the peer unless it is there. @returns its folder */
export function installPeer(onGpu = false) {
  const packages = binaryPackages(onGpu);
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const folder = join(cache, 'altiplano', `node-llama-cpp-${PEER_VERSION}`);
  const isThere = packages.every((name) => existsSync(join(folder, 'node_modules', name)));
  if (peerVersion(folder) === PEER_VERSION && isThere) return folder;
  console.error(`Installing node-llama-cpp ${PEER_VERSION} into ${folder} ...`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  npm(
    folder,
    ['node-llama-cpp', ...packages].map((name) => `${name}@${PEER_VERSION}`),
  );
  return folder;
}
