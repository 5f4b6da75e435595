/** Finds out what lies at a path and opens it with the reader for that format. */
import { basename, dirname, join } from 'node:path';
import { AltiplanoError, invalidArgument, show } from '../errors.js';
import { listFolder, pathKind, readBytes, withFile } from './files.js';
import { throwIfAborted, unsupported } from './refuse.js';
import type { Checkpoint } from './types.js';

// The reader of a format is imported when a checkpoint has that format: modules take their time.
const huggingFace = () => import('./huggingface.js');
const gguf = () => import('./gguf.js');

export interface OpenCheckpointOptions {
  /** Stops the opening between two reads, with an `ALTIPLANO_ABORTED` error. */
  signal?: AbortSignal;
}

async function openFolder(folder: string, signal: AbortSignal | undefined): Promise<Checkpoint> {
  const names = await listFolder(folder);
  const ggufFiles = names.filter((name) => name.toLowerCase().endsWith('.gguf'));
  const { INDEX_FILE, noWeights, openHuggingFace, SINGLE_FILE } = await huggingFace();
  const hasSafetensors = names.includes(SINGLE_FILE) || names.includes(INDEX_FILE);
  if (names.includes('config.json') && hasSafetensors) {
    return openHuggingFace(folder, folder, undefined, signal);
  }
  if (ggufFiles.length > 1) {
    throw unsupported(folder, 'the folder holds several GGUF files', {
      found: `${ggufFiles.slice(0, 3).join(', ')}${ggufFiles.length > 3 ? ', …' : ''}`,
      hint: 'Give the path of one of them.',
    });
  }
  const [ggufFile] = ggufFiles;
  if (ggufFile === undefined) throw noWeights(folder, names);
  return (await gguf()).openGguf(join(folder, ggufFile), signal);
}

async function startsLikeGguf(path: string): Promise<boolean> {
  return withFile(path, async (file) => {
    if (file.sizeBytes < 4) return false;
    return (await readBytes(file, 0, 4)).toString('latin1') === 'GGUF';
  });
}

async function openFile(path: string, signal: AbortSignal | undefined): Promise<Checkpoint> {
  // By content first: files in the Hugging Face cache are named by their hash.
  if ((await startsLikeGguf(path)) || path.toLowerCase().endsWith('.gguf')) {
    return (await gguf()).openGguf(path, signal);
  }
  if (path.endsWith('.safetensors')) {
    return (await huggingFace()).openHuggingFace(path, dirname(path), basename(path), signal);
  }
  throw unsupported(path, 'not a checkpoint', {
    expected: 'a Hugging Face folder, a .safetensors file in one, or a GGUF file',
  });
}

/**
 * Opens a checkpoint: a Hugging Face folder (`config.json` with `model.safetensors`, or shards with
 * `model.safetensors.index.json`), a `.safetensors` file in such a folder (a shard stands for all of
 * them), a GGUF file, or a folder with exactly one GGUF file.
 *
 * Only headers and metadata are read. Every tensor's place has been checked when this returns: it
 * lies inside its file, has the size that type and shape demand, overlaps no other, and has the
 * shape that the configuration demands.
 *
 * @throws ALTIPLANO_INVALID_ARGUMENT (the path is no path), ALTIPLANO_FILE_NOT_FOUND,
 *   ALTIPLANO_FILE_READ, ALTIPLANO_CHECKPOINT_INVALID (damaged, or contradicts itself),
 *   ALTIPLANO_CHECKPOINT_UNSUPPORTED (sound, with a feature that altiplano lacks),
 *   ALTIPLANO_TOKENIZER_INVALID (the vocabulary of a GGUF file), ALTIPLANO_ABORTED
 */
export async function openCheckpoint(
  path: string,
  options: OpenCheckpointOptions = {},
): Promise<Checkpoint> {
  if (typeof path !== 'string' || path === '' || path.includes('\0')) {
    throw invalidArgument('the path of a checkpoint must be a non-empty string', {
      found: show(path),
    });
  }
  throwIfAborted(options.signal);
  switch (await pathKind(path)) {
    case 'file':
      return openFile(path, options.signal);
    case 'folder':
      return openFolder(path, options.signal);
    case 'other':
      throw new AltiplanoError('ALTIPLANO_FILE_READ', 'neither a file nor a folder', {
        subject: path,
      });
    default:
      throw new AltiplanoError('ALTIPLANO_FILE_NOT_FOUND', 'no such file or folder', {
        subject: path,
        hint: 'Give a Hugging Face folder, a .safetensors file in one, or a GGUF file.',
      });
  }
}
