/** Reading the text that a command works on: from an argument, a file or standard input. */
import { readFile } from 'node:fs/promises';
import { AltiplanoError } from '../errors.js';
import type { CliContext } from './context.js';
import { UsageError } from './failure.js';

/** All of standard input as text. */
export async function readStdin(context: CliContext, signal: AbortSignal): Promise<string> {
  const chunks: Buffer[] = [];
  const stop = () => context.stdin.destroy();
  signal.addEventListener('abort', stop);
  try {
    for await (const chunk of context.stdin) chunks.push(Buffer.from(chunk));
  } finally {
    signal.removeEventListener('abort', stop);
  }
  signal.throwIfAborted();
  return decode(Buffer.concat(chunks), 'standard input');
}

/** A text file; `-` is standard input. */
export async function readText(
  context: CliContext,
  file: string,
  signal: AbortSignal,
): Promise<string> {
  if (file === '-') return readStdin(context, signal);
  let content: Buffer;
  try {
    content = await readFile(file, { signal });
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw missing
      ? new AltiplanoError('ALTIPLANO_FILE_NOT_FOUND', 'there is no such file', {
          subject: file,
          cause,
        })
      : new AltiplanoError('ALTIPLANO_FILE_READ', 'the file cannot be read', {
          subject: file,
          found: (cause as Error).message,
          cause,
        });
  }
  return decode(content, file);
}

/**
 * The text that an optional argument stands for: itself, or standard input for `-` and, where that is
 * no terminal, for no argument at all.
 */
export async function textArgument(
  context: CliContext,
  name: string,
  argument: string | undefined,
  signal: AbortSignal,
): Promise<{ text: string; fromStdin: boolean }> {
  if (argument !== undefined && argument !== '-') return { text: argument, fromStdin: false };
  const missing = new UsageError(
    `missing argument ${name}: give it as one (quoted) argument, or pipe it to standard input`,
  );
  if (argument === undefined && context.stdin.isTTY) throw missing;
  const text = await readStdin(context, signal);
  if (argument === undefined && text === '') throw missing;
  return { text, fromStdin: true };
}

function decode(content: Buffer, subject: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content);
  } catch (cause) {
    throw new AltiplanoError('ALTIPLANO_FILE_READ', 'the text is not valid UTF-8', {
      subject,
      hint: 'Convert it first, for instance with iconv',
      cause,
    });
  }
}
