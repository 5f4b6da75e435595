/** How a command ends: exit codes, and errors and warnings as people (or programs) read them. */
import { inspect } from 'node:util';
import { type AltiplanoError, aborted } from '../errors.js';
import type { CliContext } from './context.js';

export const EXIT_OK = 0;
export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;
/** 128 + SIGINT, as shells report it. */
export const EXIT_INTERRUPTED = 130;

/** The command was called in a way that it does not understand; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly code = 'ALTIPLANO_INVALID_ARGUMENT';
}

/**
 * Writes an error to stderr: `altiplano: <message> (<code>)`, or with `--json` one JSON object
 * `{level, code, message, subject?, expected?, found?, hint?}`. ALTIPLANO_DEBUG=1 adds the stack.
 */
export function reportError(context: CliContext, error: unknown, json: boolean): void {
  const { code, message, subject, expected, found, hint } = facts(error);
  const stack = context.env.ALTIPLANO_DEBUG === '1' ? inspect(error) : undefined;
  if (json) {
    const object = { level: 'error', code, message, subject, expected, found, hint, stack };
    context.stderr.write(`${JSON.stringify(object)}\n`);
    return;
  }
  const suffix = error instanceof UsageError ? '' : ` (${code})`;
  context.stderr.write(`altiplano: ${message}${suffix}\n`);
  if (stack !== undefined) context.stderr.write(`${stack}\n`);
}

/** Writes a warning to stderr, in the form of {@link reportError}. */
export function reportWarning(context: CliContext, message: string, json: boolean): void {
  context.stderr.write(
    json
      ? `${JSON.stringify({ level: 'warning', message })}\n`
      : `altiplano: warning: ${message.replace(/\s+/g, ' ')}\n`,
  );
}

function facts(error: unknown): Partial<AltiplanoError> & { code: string; message: string } {
  if (!(error instanceof Error)) return { code: 'ALTIPLANO_INTERNAL', message: String(error) };
  const { code, subject, expected, found, hint } = error as AltiplanoError;
  return {
    code: typeof code === 'string' ? code : ('ALTIPLANO_INTERNAL' as const),
    // One paragraph, whatever a message quotes.
    message: error.message.replace(/\s*\n\s*/g, ' ') || error.name,
    subject,
    expected,
    found,
    hint,
  } as ReturnType<typeof facts>;
}

/**
 * Runs `work` with a signal that Ctrl-C fires, and that fires too when nothing can be written any more.
 * A second Ctrl-C leaves at once.
 * @returns what `work` returns; 130 after Ctrl-C; 0 when nothing can be written any more: `run` looks
 *   into the reason
 */
export async function interruptible(
  context: CliContext,
  work: (signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const interrupt = new AbortController();
  const forget = context.onInterrupt(() => {
    if (interrupt.signal.aborted) context.exitNow(EXIT_INTERRUPTED);
    interrupt.abort(aborted('the command', 'SIGINT'));
  });
  try {
    const exitCode = await work(AbortSignal.any([interrupt.signal, context.outputClosed]));
    return interrupt.signal.aborted ? EXIT_INTERRUPTED : exitCode;
  } catch (error) {
    if (interrupt.signal.aborted) return EXIT_INTERRUPTED;
    if (context.outputClosed.aborted) return EXIT_OK;
    throw error;
  } finally {
    forget();
  }
}
