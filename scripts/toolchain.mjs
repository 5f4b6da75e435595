/**
 * Looks for the tools that compiling the addon takes, so that whoever lacks one reads one clear
 * message instead of a build log. Uses nothing but Node: it also runs where no dependency is
 * installed yet.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What CMake must find: a program that includes this must compile. */
const cxx20Probe = '#include <bit>\n#include <span>\nint f(std::span<int> s) { return s[0]; }\n';

function run(command, args, input = '') {
  return spawnSync(command, args, { encoding: 'utf8', input, timeout: 60_000 });
}

function works(command) {
  return run(command, ['--version']).status === 0;
}

function isOlder(version, wanted) {
  const [a, b] = [version, wanted].map((v) => v.split('.').map(Number));
  for (let i = 0; i < b.length; i++) {
    if ((a[i] ?? 0) !== b[i]) return (a[i] ?? 0) < b[i];
  }
  return false;
}

function cmakeProblem(root) {
  const lists = readFileSync(join(root, 'CMakeLists.txt'), 'utf8');
  const wanted = /cmake_minimum_required\(VERSION ([\d.]+)/i.exec(lists)?.[1] ?? '3.20';
  const { status, stdout } = run('cmake', ['--version']);
  if (status !== 0) return `cmake (${wanted} or later)`;
  const found = /version ([\d.]+)/.exec(stdout)?.[1] ?? '0';
  return isOlder(found, wanted) ? `cmake ${wanted} or later (found ${found})` : undefined;
}

function compilerProblem() {
  // cmake-js insists on g++ or clang++; CMake itself then prefers $CXX and c++.
  if (!works('g++') && !works('clang++'))
    return 'a C++20 compiler (g++ 10 or clang++ 12, or later)';
  const compiler = process.env.CXX?.split(' ')[0] || ['c++', 'g++', 'clang++'].find(works);
  const { status } = run(compiler, ['-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], cxx20Probe);
  return status === 0 ? undefined : `a compiler that knows C++20 ("${compiler}" does not)`;
}

/**
 * Names of what is missing for a native build; empty if all is there.
 * @param {string} root the package's folder, for the CMake version that CMakeLists.txt asks for
 * @returns {string[]}
 */
export function missingTools(root) {
  const build = works('ninja') || works('make') ? undefined : 'make (or ninja)';
  return [cmakeProblem(root), compilerProblem(), build].filter((problem) => problem !== undefined);
}

/**
 * The message for {@link missingTools}: what is missing and how to get it.
 * @param {string[]} missing not empty
 */
export function explainMissing(missing) {
  return [
    `altiplano: the native addon must be compiled here, and this is missing: ${missing.join(', ')}.`,
    '  Debian, Ubuntu:  sudo apt-get install cmake build-essential',
    '  Fedora:          sudo dnf install cmake gcc-c++ make',
    '  macOS:           xcode-select --install && brew install cmake',
    'Then repeat the command.',
  ].join('\n');
}
