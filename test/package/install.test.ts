import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';

/** The package as it lies in somebody's node_modules: without lib/, without an addon. */
describe('the install script', () => {
  let folder: string;
  let bin: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'install-'));
    bin = join(folder, 'bin');
    mkdirSync(bin);
    for (const path of ['package.json', 'CMakeLists.txt', 'binding.gyp', 'native', 'scripts']) {
      cpSync(path, join(folder, path), { recursive: true });
    }
    symlinkSync(join(process.cwd(), 'node_modules'), join(folder, 'node_modules'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** A program on the otherwise empty PATH. */
  const tool = (name: string, script: string) =>
    writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });

  const install = (script = 'install') => {
    const { npm_config_build_from_source: _, CXX: __, ...env } = process.env;
    return spawnSync(process.execPath, [join(folder, `scripts/${script}.mjs`)], {
      encoding: 'utf8',
      cwd: folder,
      env: { ...env, PATH: bin },
    });
  };

  test('says in one message that cmake, a compiler and make are missing, and how to get them', () => {
    const { status, stdout, stderr } = install();
    expect(status).toBe(1);
    expect(stdout).toBe('');
    expect(stderr.match(/is missing/g)).toHaveLength(1);
    expect(stderr).toMatch(/cmake \(3\.\d+ or later\), a C\+\+20 compiler .*, make \(or ninja\)\./);
    expect(stderr).toContain('apt-get install cmake build-essential');
    expect(stderr).toContain('xcode-select --install && brew install cmake');
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  test('names only what is missing', () => {
    tool('cmake', 'echo cmake version 3.30.0');
    tool('make', 'exit 0');
    expect(install().stderr).toMatch(/missing: a C\+\+20 compiler \(.*\)\.\n/);
  });

  test('says that cmake is too old', () => {
    tool('cmake', 'echo cmake version 3.5.1');
    for (const name of ['make', 'c++', 'g++']) tool(name, 'exit 0');
    expect(install().stderr).toMatch(/missing: cmake 3\.\d+ or later \(found 3\.5\.1\)\.\n/);
  });

  test('says that the compiler does not know C++20', () => {
    tool('cmake', 'echo cmake version 3.30.0');
    tool('make', 'exit 0');
    // Answers --version, but compiles nothing.
    tool('g++', '[ "$1" = --version ]');
    expect(install().stderr).toMatch(/missing: a compiler that knows C\+\+20 \("g\+\+" does not\)/);
  });

  test('takes a prebuilt addon that loads, without any tool', () => {
    const prebuilds = join(folder, 'prebuilds', `${process.platform}-${process.arch}`);
    mkdirSync(prebuilds, { recursive: true });
    cpSync('build/Release/altiplano.node', join(prebuilds, 'altiplano.node'));
    const { status, stderr } = install();
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(existsSync(join(folder, 'build'))).toBe(false);
  });

  test('does not take a prebuilt addon that does not load', () => {
    const prebuilds = join(folder, 'prebuilds', `${process.platform}-${process.arch}`);
    mkdirSync(prebuilds, { recursive: true });
    writeFileSync(join(prebuilds, 'altiplano.node'), 'for another machine');
    const { status, stderr } = install();
    expect(status).toBe(1);
    expect(stderr).toContain('is missing: cmake');
  });

  test('the set-up of a clone says the same, before it downloads anything', () => {
    mkdirSync(join(folder, 'lib'));
    const { status, stderr } = install('setup');
    expect(status).toBe(1);
    expect(stderr).toContain('is missing: cmake');
    expect(stderr).not.toContain('npm');
  });
});
