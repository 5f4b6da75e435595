/** Reading small parts of files, with typed errors. */
import { type FileHandle, open, readdir, realpath, stat } from 'node:fs/promises';
import { AltiplanoError } from '../errors.js';
import { parseJson } from './json.js';
import { MAX_CONFIG_BYTES } from './limits.js';
import { invalid } from './refuse.js';

function errorCode(error: unknown): string | undefined {
  return (error as { code?: string }).code;
}

/** The error for a system call that failed. */
function readFailure(path: string, cause: unknown): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_FILE_READ', 'cannot be read', {
    subject: path,
    found: errorCode(cause),
    cause,
  });
}

/** What lies at a path (links followed); undefined if nothing does. */
export async function pathKind(path: string): Promise<'file' | 'folder' | 'other' | undefined> {
  try {
    const stats = await stat(path);
    if (stats.isFile()) return 'file';
    return stats.isDirectory() ? 'folder' : 'other';
  } catch (cause) {
    const code = errorCode(cause);
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw readFailure(path, cause);
  }
}

/** The names in a folder, sorted. @throws ALTIPLANO_FILE_READ */
export async function listFolder(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort();
  } catch (cause) {
    throw readFailure(path, cause);
  }
}

/** A file that is open for reading. */
export interface OpenFile {
  /** As the caller named it, for messages. */
  path: string;
  /** Absolute, links resolved. */
  realPath: string;
  sizeBytes: number;
  handle: FileHandle;
}

/**
 * Opens a file, passes it to `use` and closes it.
 *
 * @throws ALTIPLANO_FILE_NOT_FOUND, ALTIPLANO_FILE_READ; also what `use` throws
 */
export async function withFile<T>(path: string, use: (file: OpenFile) => Promise<T>): Promise<T> {
  const kind = await pathKind(path);
  if (kind === undefined) {
    throw new AltiplanoError('ALTIPLANO_FILE_NOT_FOUND', 'no such file', { subject: path });
  }
  // Asked before opening: to open a pipe would wait for its writer.
  if (kind !== 'file') {
    throw new AltiplanoError('ALTIPLANO_FILE_READ', 'not a regular file', { subject: path });
  }
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, 'r');
    const { size } = await handle.stat();
    return await use({ path, realPath: await realpath(path), sizeBytes: size, handle });
  } catch (cause) {
    if (cause instanceof AltiplanoError || errorCode(cause) === undefined) throw cause;
    throw readFailure(path, cause);
  } finally {
    await handle?.close();
  }
}

/**
 * Reads `length` bytes from `offset` on; the caller has checked that they lie inside the file.
 *
 * @throws ALTIPLANO_FILE_READ if the file has shrunk since
 */
export async function readBytes(file: OpenFile, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.handle.read(buffer, filled, length - filled, offset + filled);
    if (bytesRead === 0) {
      throw new AltiplanoError('ALTIPLANO_FILE_READ', 'the file shrank while it was read', {
        subject: file.path,
        expected: `${offset + length} bytes`,
        found: `${offset + filled}`,
      });
    }
    filled += bytesRead;
  }
  return buffer;
}

/**
 * Reads and parses a small JSON file.
 *
 * @throws ALTIPLANO_FILE_NOT_FOUND, ALTIPLANO_FILE_READ, ALTIPLANO_CHECKPOINT_INVALID
 */
export async function readJsonFile(path: string): Promise<unknown> {
  return parseJson(await readSmallFile(path), path);
}

/** The bytes of a configuration file, at most {@link MAX_CONFIG_BYTES}. */
export async function readSmallFile(path: string): Promise<Buffer> {
  return withFile(path, (file) => {
    if (file.sizeBytes > MAX_CONFIG_BYTES) {
      throw invalid(path, 'the file is too large for a configuration', {
        expected: `at most ${MAX_CONFIG_BYTES} bytes`,
        found: `${file.sizeBytes}`,
      });
    }
    return readBytes(file, 0, file.sizeBytes);
  });
}
