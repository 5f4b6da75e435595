/**
 * The install script. In an installed package: done if the prebuilt addon loads on this machine,
 * else compile. In a clone (which has lib/): always the addon of the clone's own sources.
 * `npm install --build-from-source` compiles in any case.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { buildNative, nativeIsCurrent, root } from './build-native.mjs';

const require = createRequire(import.meta.url);

/** Loads it in a child process: a binary for another machine may well kill its process. */
function loads() {
  try {
    const path = require('node-gyp-build').resolve(root);
    return spawnSync(process.execPath, ['-e', 'require(process.argv[1])', path]).status === 0;
  } catch {
    return false; // neither prebuilt nor built
  }
}

const fromSource = ['true', 'altiplano'].includes(process.env.npm_config_build_from_source ?? '');
const isClone = existsSync(join(root, 'lib'));
if (isClone || fromSource) {
  if (!nativeIsCurrent() && !buildNative()) process.exit(1);
} else if (!loads() && !(buildNative() && loads())) {
  process.exit(1);
}
