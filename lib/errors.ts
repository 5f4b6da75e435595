/**
 * The errors of altiplano. Every error that a caller can cause or meet has a stable `code`, and says
 * what it is about, what was expected, what was found and what to do.
 */

export type ErrorCode =
  /** An argument or option of the wrong kind (also a `TypeError`). */
  | 'ALTIPLANO_INVALID_ARGUMENT'
  /** An argument or option of the right kind with a value out of its range (also a `RangeError`). */
  | 'ALTIPLANO_OUT_OF_RANGE'
  /** A file or folder that does not exist. */
  | 'ALTIPLANO_FILE_NOT_FOUND'
  /** A file that cannot be read, or that changed while it was read. */
  | 'ALTIPLANO_FILE_READ'
  /** A checkpoint file that is damaged or contradicts itself. */
  | 'ALTIPLANO_CHECKPOINT_INVALID'
  /** A sound checkpoint with a feature that is not supported. */
  | 'ALTIPLANO_CHECKPOINT_UNSUPPORTED'
  /** A tokenizer file that is damaged or contradicts itself. */
  | 'ALTIPLANO_TOKENIZER_INVALID'
  /** A sound tokenizer of a kind that is not supported. */
  | 'ALTIPLANO_TOKENIZER_UNSUPPORTED'
  /** A conversation that breaks the rules of the chat format. */
  | 'ALTIPLANO_CHAT_INVALID'
  /** A message that contains markers of the chat format. */
  | 'ALTIPLANO_CHAT_INJECTION'
  /** A chat template that cannot be parsed or rendered. */
  | 'ALTIPLANO_CHAT_TEMPLATE'
  /** A prompt longer than the context. */
  | 'ALTIPLANO_CONTEXT_OVERFLOW'
  /** A request that could never fit into the KV cache. */
  | 'ALTIPLANO_KV_CACHE_TOO_SMALL'
  /** Not enough memory for the weights, the KV cache or the workspace. */
  | 'ALTIPLANO_OUT_OF_MEMORY'
  /** Use after dispose. */
  | 'ALTIPLANO_DISPOSED'
  /** The caller's `AbortSignal` fired (the error's name is `AbortError`). */
  | 'ALTIPLANO_ABORTED'
  /** The native addon is missing or does not load. */
  | 'ALTIPLANO_NATIVE_MISSING'
  /** A device that is not there or not supported. */
  | 'ALTIPLANO_DEVICE_UNAVAILABLE'
  /** A call of the CUDA driver failed; the message names it, the kernel and the device. */
  | 'ALTIPLANO_CUDA_FAILED'
  /** The model produced logits that are not numbers. */
  | 'ALTIPLANO_NUMERIC'
  /** A defect of altiplano itself: please report it. */
  | 'ALTIPLANO_INTERNAL';

export interface ErrorDetails {
  /** What the error is about: a file, a tensor, an option. */
  subject?: string;
  /** What was expected. */
  expected?: string;
  /** What was found. */
  found?: string;
  /** What the reader can do. */
  hint?: string;
  cause?: unknown;
}

function compose(message: string, details: ErrorDetails): string {
  let text = details.subject === undefined ? message : `${details.subject}: ${message}`;
  const facts = [];
  if (details.expected !== undefined) facts.push(`expected ${details.expected}`);
  if (details.found !== undefined) facts.push(`found ${details.found}`);
  if (facts.length > 0) text += ` (${facts.join(', ')})`;
  if (details.hint !== undefined) text += `. ${details.hint}`;
  return text;
}

/**
 * An error with a stable `code`. `instanceof AltiplanoError` also holds for the `TypeError` and
 * `RangeError` objects that {@link invalidArgument} and {@link outOfRange} make.
 */
export class AltiplanoError extends Error {
  readonly code: ErrorCode;
  readonly subject?: string;
  readonly expected?: string;
  readonly found?: string;
  readonly hint?: string;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(
      compose(message, details),
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.code = code;
    describe(this, details);
  }

  static override [Symbol.hasInstance](value: unknown): boolean {
    return (
      value instanceof Error &&
      typeof (value as { code?: unknown }).code === 'string' &&
      (value as unknown as { code: string }).code.startsWith('ALTIPLANO_')
    );
  }
}
Object.defineProperty(AltiplanoError.prototype, 'name', { value: 'AltiplanoError' });

function describe(error: Error, details: ErrorDetails): void {
  const { subject, expected, found, hint } = details;
  Object.assign(
    error,
    subject !== undefined && { subject },
    expected !== undefined && { expected },
    found !== undefined && { found },
    hint !== undefined && { hint },
  );
}

/** A `TypeError` with code `ALTIPLANO_INVALID_ARGUMENT`. */
export function invalidArgument(message: string, details: ErrorDetails = {}): AltiplanoError {
  const error = new TypeError(compose(message, details), { cause: details.cause });
  describe(error, details);
  return Object.assign(error, { code: 'ALTIPLANO_INVALID_ARGUMENT' as const });
}

/** A `RangeError` with code `ALTIPLANO_OUT_OF_RANGE`. */
export function outOfRange(message: string, details: ErrorDetails = {}): AltiplanoError {
  const error = new RangeError(compose(message, details), { cause: details.cause });
  describe(error, details);
  return Object.assign(error, { code: 'ALTIPLANO_OUT_OF_RANGE' as const });
}

/** An `AbortError` with code `ALTIPLANO_ABORTED`; `cause` is the signal's reason. */
export function aborted(what: string, reason?: unknown): AltiplanoError {
  const error = new AltiplanoError('ALTIPLANO_ABORTED', `${what} was aborted`, { cause: reason });
  Object.defineProperty(error, 'name', { value: 'AbortError', configurable: true });
  return error;
}

/** A value as an error message shows it: short, quoted, never huge. */
export function show(value: unknown): string {
  let text: string;
  if (typeof value === 'string') text = JSON.stringify(value);
  else if (typeof value === 'bigint') text = `${value}n`;
  else if (typeof value === 'function') text = 'a function';
  else if (ArrayBuffer.isView(value)) text = `a ${value.constructor.name}`;
  else if (Array.isArray(value)) text = `an array of ${value.length}`;
  else if (value !== null && typeof value === 'object') text = 'an object';
  else text = String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
