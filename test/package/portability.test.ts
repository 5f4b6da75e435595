import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from '@jest/globals';

interface Check {
  portabilityProblemsOf(dynamicSymbols: string, headers: string): string[];
}
const url = pathToFileURL(join(process.cwd(), 'scripts/check-portability.mjs')).href;
const { portabilityProblemsOf } = (await import(url)) as Check;

// As objdump -T of binutils 2.35 and 2.40 prints them: with and without parentheses.
const fine = `
0000000000000000      DF *UND*	0000000000000000 (GLIBC_2.34) pthread_create
0000000000000000      DF *UND*	0000000000000000  GLIBC_2.2.5 memcpy
0000000000000000      D  *UND*	0000000000000000  Base        napi_create_object
000000000000f870 g    DF .text	000000000000001c  Base        napi_register_module_v1
`;
const headers = '  NEEDED               libm.so.6\n  NEEDED               libc.so.6\n';

describe('the check of a prebuilt binary', () => {
  test('accepts symbols up to glibc 2.34', () => {
    expect(portabilityProblemsOf(fine, headers)).toEqual([]);
  });

  test.each([
    ['2.35', '_dl_find_object', ' (GLIBC_2.35)'],
    ['2.38', '__isoc23_strtol', '  GLIBC_2.38'],
    ['3.0', 'future', ' (GLIBC_3.0)'],
  ])('names symbols of glibc %s', (version, name, tag) => {
    const line = `0000000000000000      DF *UND*	0000000000000000${tag} ${name}\n`;
    expect(portabilityProblemsOf(fine + line, headers)).toEqual([`${name} needs glibc ${version}`]);
  });

  test.each(['libstdc++.so.6', 'libgcc_s.so.1'])('refuses a dynamic %s', (library) => {
    const more = `${headers}  NEEDED               ${library}\n`;
    expect(portabilityProblemsOf(fine, more)).toEqual([`needs ${library}`]);
  });

  const onLinux = process.platform === 'linux' ? test : test.skip;
  onLinux('fails on a program that links libstdc++, and says why', () => {
    const folder = mkdtempSync(join(tmpdir(), 'portability-'));
    const program = join(folder, 'program');
    writeFileSync(`${program}.cc`, '#include <iostream>\nint main() { std::cout << 1; }\n');
    expect(spawnSync('c++', ['-o', program, `${program}.cc`]).status).toBe(0);
    const script = join(process.cwd(), 'scripts/check-portability.mjs');
    const { status, stderr } = spawnSync(process.execPath, [script, program], { encoding: 'utf8' });
    rmSync(folder, { recursive: true });
    expect(status).toBe(1);
    expect(stderr).toContain('needs libstdc++.so.6');
  });
});
