/** Short forms of the errors that checkpoint readers throw; each caller writes `throw invalid(…)`. */
import { AltiplanoError, aborted, type ErrorDetails } from '../errors.js';

type Details = Omit<ErrorDetails, 'subject'>;

/** The file is damaged or contradicts itself. */
export function invalid(subject: string, message: string, details: Details = {}): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_CHECKPOINT_INVALID', message, { subject, ...details });
}

/** The file is sound, but asks for something that altiplano does not do. */
export function unsupported(
  subject: string,
  message: string,
  details: Details = {},
): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_CHECKPOINT_UNSUPPORTED', message, { subject, ...details });
}

/** Throws an `ALTIPLANO_ABORTED` error if the signal has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw aborted('Opening the checkpoint', signal.reason);
}
