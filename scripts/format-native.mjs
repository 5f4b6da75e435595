/**
 * Runs clang-format over all C++ of the project; `--check` changes nothing and fails if a file is
 * not formatted. Releases of clang-format differ in details: version 14 (Debian 12's) decides.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const files = ['native', 'test/native', 'test/ptx-simulator', 'bench']
  .filter((folder) => existsSync(join(root, folder)))
  .flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true }).map((file) => join(folder, file)),
  )
  .filter((file) => /\.(cc|h|cu|cuh)$/.test(file));

const mode = process.argv.includes('--check') ? ['--dry-run', '-Werror'] : ['-i'];
const { status, error } = spawnSync('clang-format', [...mode, ...files], {
  cwd: root,
  stdio: 'inherit',
});
if (error) console.error(`clang-format does not start: ${error.message}`);
process.exitCode = status ?? 1;
