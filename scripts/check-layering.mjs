/**
 * Holds the code to its layers: lib -> addon -> llama -> backend.h <- cpu, cuda; util below all.
 * Node's headers stay in addon/, vector intrinsics in cpu/avx*, cpuid in cpu/dispatch.cc, CUDA's
 * header in cuda/; in lib/ only native.ts loads the addon, and nothing but the command line and the
 * server uses cli/ and server/.
 *
 *   node scripts/check-layering.mjs [FOLDER]
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Which layers of native/ each layer may include; every layer may include itself. */
const mayInclude = {
  addon: ['llama', 'backend.h', 'cpu', 'cuda', 'util'],
  llama: ['backend.h', 'util'],
  'backend.h': ['util'],
  cpu: ['backend.h', 'util'],
  cuda: ['backend.h', 'util'],
  util: [],
};

/** Headers of the outside that only some files may include. */
const reserved = [
  { header: /^(napi|node_api|js_native_api)[\w-]*\.h$/, files: /^addon\// },
  { header: /^(\w*intrin|arm_neon|arm_sve)\.h$/, files: /^cpu\/avx\w*\.(cc|h)$/ },
  { header: /^cpuid\.h$/, files: /^cpu\/dispatch\.cc$/ },
  { header: /^(cuda|cuda_\w+|nv\w+)\.h$/, files: /^cuda\// },
];

const layerOf = (path) => path.split('/')[0];

function checkNative(root, complain) {
  const folder = join(root, 'native');
  for (const file of filesOf(folder, /\.(cc|h|cu|cuh)$/)) {
    const text = readFileSync(join(folder, file), 'utf8');
    const from = layerOf(file);
    const allowed = mayInclude[from];
    if (allowed === undefined) {
      complain(`native/${file}`, 1, `"${from}" is no layer of native/`);
      continue;
    }
    text.split('\n').forEach((line, index) => {
      const say = (message) => complain(`native/${file}`, index + 1, message);
      const include = /^\s*#\s*include\s*(["<])([^">]+)[">]/.exec(line);
      if (include !== null) {
        const [, quote, path] = include;
        for (const { header, files } of reserved) {
          if (header.test(path) && !files.test(file)) say(`<${path}> may not be included here`);
        }
        if (quote === '"') {
          if (!existsSync(join(folder, path))) say(`"${path}" is no path from native/`);
          else if (layerOf(path) !== from && !allowed.includes(layerOf(path)))
            say(`${from} may not include "${path}"`);
        }
      }
      if (/__builtin_cpu_(supports|is|init)\b/.test(line) && file !== 'cpu/dispatch.cc') {
        say('only cpu/dispatch.cc asks which processor this is');
      }
    });
  }
}

function checkLibrary(root, complain) {
  const folder = join(root, 'lib');
  for (const file of filesOf(folder, /\.ts$/)) {
    const text = readFileSync(join(folder, file), 'utf8');
    text.split('\n').forEach((line, index) => {
      const say = (message) => complain(`lib/${file}`, index + 1, message);
      const path = /(?:\bfrom|\bimport|\brequire|\bimport\()\s*\(?['"]([^'"]+)['"]/.exec(line)?.[1];
      if (path === undefined) return;
      if (path === 'node-gyp-build' || path.endsWith('.node')) {
        if (file !== 'native.ts') say('only lib/native.ts loads the addon');
      }
      if (!path.startsWith('.')) return;
      const target = normalize(join(dirname(file), path));
      if (target.startsWith('..')) say(`"${path}" lies outside lib/`);
      for (const top of ['cli', 'server']) {
        if (layerOf(target) === top && layerOf(file) !== top && layerOf(file) !== 'cli') {
          say(`only the command line may import ${top}/`);
        }
      }
    });
  }
}

function filesOf(folder, pattern) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true })
    .filter((file) => pattern.test(file))
    .sort();
}

/**
 * @param {string} root a folder with native/ and lib/
 * @returns {string[]} the violations, as "file:line: what is wrong"
 */
export function layeringViolations(root) {
  const violations = [];
  const complain = (file, line, message) => violations.push(`${file}:${line}: ${message}`);
  checkNative(root, complain);
  checkLibrary(root, complain);
  return violations;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = process.argv[2] ?? fileURLToPath(new URL('..', import.meta.url));
  const violations = layeringViolations(root);
  for (const violation of violations) console.error(violation);
  process.exitCode = violations.length > 0 ? 1 : 0;
}
