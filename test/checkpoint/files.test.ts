import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { listFolder, pathKind, readBytes, withFile } from '../../lib/checkpoint/files.js';

const folder = mkdtempSync(join(tmpdir(), 'altiplano-files-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('reading files', () => {
  test('kinds of paths', async () => {
    const file = join(folder, 'a');
    writeFileSync(file, 'abc');
    expect(await pathKind(file)).toBe('file');
    expect(await pathKind(folder)).toBe('folder');
    expect(await pathKind(join(folder, 'b'))).toBeUndefined();
    expect(await pathKind(join(file, 'below-a-file'))).toBeUndefined();
  });

  test('a file that shrinks while it is read is a typed error', async () => {
    const file = join(folder, 'shrinks');
    writeFileSync(file, Buffer.alloc(100, 7));
    const reading = withFile(file, async (open) => {
      expect(open.sizeBytes).toBe(100);
      expect(await readBytes(open, 90, 10)).toEqual(Buffer.alloc(10, 7));
      truncateSync(file, 50);
      return readBytes(open, 0, 100);
    });
    await expect(reading).rejects.toMatchObject({
      code: 'ALTIPLANO_FILE_READ',
      expected: '100 bytes',
      found: '50',
    });
  });

  test('a folder that cannot be listed is a typed error', async () => {
    await expect(listFolder(join(folder, 'nowhere'))).rejects.toMatchObject({
      code: 'ALTIPLANO_FILE_READ',
      found: 'ENOENT',
    });
  });

  // Linux: reading one's own memory at address 0 fails with EIO, as a broken disk does.
  const onLinux = process.platform === 'linux' ? test : test.skip;
  onLinux('a read that fails is a typed error', async () => {
    const reading = withFile('/proc/self/mem', (open) => readBytes(open, 0, 8));
    await expect(reading).rejects.toMatchObject({ code: 'ALTIPLANO_FILE_READ', found: 'EIO' });
  });
});
