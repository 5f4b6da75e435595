import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';

const script = join(process.cwd(), 'scripts/check-layering.mjs');

/** Runs the check as CI does; its complaints, one a line. */
function check(folder?: string): { status: number | null; complaints: string[] } {
  const args = folder === undefined ? [script] : [script, folder];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  return { status, complaints: stderr.split('\n').filter(Boolean) };
}

/** A small tree that keeps to the layers. */
const sound: Record<string, string> = {
  'native/addon/addon.cc':
    '#include <napi.h>\n#include "llama/engine.h"\n#include "cpu/kernels.h"\n',
  'native/llama/engine.h': '#include "backend.h"\n#include "util/error.h"\n',
  'native/backend.h': '#include "util/error.h"\n',
  'native/cpu/kernels.h': '#include "backend.h"\n',
  'native/cpu/avx2.cc': '#include <immintrin.h>\n#include "cpu/kernels.h"\n',
  'native/cpu/dispatch.cc': '#include <cpuid.h>\nbool b = __builtin_cpu_supports("avx2");\n',
  'native/cuda/driver.cc': '#include <cuda.h>\n',
  'native/util/error.h': '#include <string>\n',
  'lib/native.ts': "const addon = require('node-gyp-build')(root);\n",
  'lib/llama.ts': "import { native } from './native.js';\n",
  'lib/cli/main.ts':
    "import { Llama } from '../llama.js';\nimport { serve } from '../server/http.js';\n",
  'lib/server/http.ts': "import { Llama } from '../llama.js';\n",
};

describe('the layering check', () => {
  let folder: string;

  const plant = (file: string, text: string) => {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), text);
  };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'layering-'));
    for (const [file, text] of Object.entries(sound)) plant(file, text);
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('finds nothing in this project', () => {
    expect(check()).toEqual({ status: 0, complaints: [] });
  });

  test('finds nothing in a sound tree', () => {
    expect(check(folder)).toEqual({ status: 0, complaints: [] });
  });

  test.each([
    ['llama includes cpu', 'native/llama/a.cc', '#include "cpu/kernels.h"'],
    ['llama includes the addon', 'native/llama/a.cc', '#include "addon/addon.cc"'],
    ['cpu includes llama', 'native/cpu/a.cc', '#include "llama/engine.h"'],
    ['cpu includes cuda', 'native/cpu/a.cc', '#include "cuda/driver.cc"'],
    ['backend.h includes llama', 'native/backend.h', '#include "llama/engine.h"'],
    ['util includes the backend', 'native/util/a.h', '  #  include "backend.h"'],
    ['a path that is none from native/', 'native/cpu/a.cc', '#include "kernels.h"'],
    ['a path upwards', 'native/cpu/a.cc', '#include "../util/error.h"'],
    ['a layer that nobody knows', 'native/misc/a.cc', ''],
    ['napi.h outside the addon', 'native/llama/a.cc', '#include <napi.h>'],
    ['node_api.h outside the addon', 'native/util/a.cc', '#include <node_api.h>'],
    ['intrinsics in portable code', 'native/cpu/portable.cc', '#include <immintrin.h>'],
    ['intrinsics outside cpu', 'native/util/a.cc', '#include <emmintrin.h>'],
    ['cpuid outside dispatch.cc', 'native/cpu/avx2.cc', '#include <cpuid.h>'],
    ['a builtin for cpuid', 'native/util/a.cc', 'bool b = __builtin_cpu_supports("avx2");'],
    ['cuda.h outside cuda', 'native/cpu/a.cc', '#include <cuda.h>'],
    ['a second loader of the addon', 'lib/a.ts', "const addon = require('node-gyp-build')(dir);"],
    ['the addon by its path', 'lib/a.ts', "const addon = require('./x.node');"],
    ['the library imports the command line', 'lib/a.ts', "import { run } from './cli/main.js';"],
    ['the server imports the command line', 'lib/server/a.ts', "import '../cli/main.js';"],
    ['a dynamic import of the server', 'lib/a.ts', "await import('./server/http.js');"],
    ['an import from outside lib', 'lib/a.ts', "import x from '../package.json';"],
  ])('complains: %s', (_, file, line) => {
    plant(file, `// first line\n${line}\n`);
    const { status, complaints } = check(folder);
    expect(status).toBe(1);
    expect(complaints).toHaveLength(1);
    expect(complaints[0]).toMatch(new RegExp(`^${file}:${line === '' ? 1 : 2}: `));
  });
});
