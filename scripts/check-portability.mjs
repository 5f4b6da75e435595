/**
 * Checks with objdump that a Linux binary runs on other systems than the one that built it: it asks
 * for no symbol of a glibc newer than 2.34, and for no libstdc++ or libgcc (linked statically).
 *
 *   node scripts/check-portability.mjs FILE.node
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The newest glibc that a prebuilt addon may ask for: that of RHEL 9 and its kin. */
export const newestGlibc = [2, 34];

/**
 * @param {string} dynamicSymbols what `objdump -T` prints
 * @param {string} headers what `objdump -p` prints
 * @returns {string[]} what keeps the binary from running elsewhere; empty if nothing
 */
export function portabilityProblemsOf(dynamicSymbols, headers) {
  const problems = [];
  for (const line of dynamicSymbols.split('\n')) {
    const match = /\*UND\*.*\(?GLIBC_(\d+)\.(\d+)[\d.]*\)?\s+(\S+)$/.exec(line);
    if (match === null) continue;
    const [major, minor] = [Number(match[1]), Number(match[2])];
    if (major > newestGlibc[0] || (major === newestGlibc[0] && minor > newestGlibc[1])) {
      problems.push(`${match[3]} needs glibc ${major}.${minor}`);
    }
  }
  for (const [, library] of headers.matchAll(/NEEDED\s+(\S+)/g)) {
    if (/^lib(stdc\+\+|gcc_s|gomp|atomic)\./.test(library)) problems.push(`needs ${library}`);
  }
  return problems;
}

/** {@link portabilityProblemsOf} a file. */
export function portabilityProblems(file) {
  const objdump = (option) => execFileSync('objdump', [option, file], { encoding: 'utf8' });
  return portabilityProblemsOf(objdump('-T'), objdump('-p'));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const problems = portabilityProblems(process.argv[2]);
  for (const problem of problems) console.error(`${process.argv[2]}: ${problem}`);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
