/**
 * What a valid option is: a valibot schema for each, and how a value that fails becomes an error
 * that says what was expected, what was found, and which name was probably meant.
 *
 * Values are recognised by shape, not by `instanceof`: under jest, or from a `vm` context, arrays,
 * maps and signals belong to another realm.
 */
import * as v from 'valibot';
import type { DeviceName } from './devices.js';
import { type AltiplanoError, invalidArgument, outOfRange, show } from './errors.js';
import type { LoadProgress } from './options.js';

const MOST_STOPS = 128;
const MOST_TOKENS = 2 ** 30;

// --- schemas ---------------------------------------------------------------------------------
// A schema's own failure means "wrong kind" (TypeError), a failed action "out of range"
// (RangeError). The description is what the error message says was expected.

const kind = <T>(is: (value: unknown) => boolean) => v.custom<T>(is);
const anyNumber = kind<number>((value) => typeof value === 'number');
const anyString = kind<string>((value) => typeof value === 'string');

const between = (min: number, max: number) =>
  v.pipe(
    anyNumber,
    v.minValue(min),
    v.maxValue(max),
    v.description(`a number from ${min} to ${max}`),
  );

const integerBetween = (min: number, max: number) =>
  v.pipe(
    anyNumber,
    v.safeInteger(),
    v.minValue(min),
    v.maxValue(max),
    v.description(`an integer from ${min} to ${max}`),
  );

const integerOrInfinity = (min: number) =>
  v.pipe(
    anyNumber,
    v.check((value) => value === Number.POSITIVE_INFINITY || Number.isSafeInteger(value)),
    v.minValue(min),
    v.description(`an integer from ${min}`),
  );

const oneOf = <const T extends readonly string[]>(...names: T) =>
  v.pipe(
    anyString,
    v.values(names),
    v.transform((value) => value as T[number]),
    v.description(`one of ${names.map(show).join(', ')}`),
  );

/** A lone half of a surrogate pair can occur in no text, so it could never match. */
const loneSurrogate = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

const stopStrings = v.pipe(
  kind<string | readonly string[]>(
    (value) =>
      typeof value === 'string' ||
      (Array.isArray(value) && value.every((item) => typeof item === 'string')),
  ),
  v.transform((value) => (typeof value === 'string' ? [value] : [...new Set(value)])),
  v.check((stops) => stops.length <= MOST_STOPS),
  v.check((stops) => stops.every((stop) => stop.length > 0 && !loneSurrogate.test(stop))),
  v.description(`a non-empty, well-formed string or an array of at most ${MOST_STOPS} of them`),
);

export const isTokenId = (id: number, vocabSize: number) =>
  Number.isInteger(id) && id >= 0 && id < vocabSize;

const tokenIds = (vocabSize: number) =>
  v.pipe(
    kind<readonly number[]>(
      (value) => Array.isArray(value) && value.every((item) => typeof item === 'number'),
    ),
    v.check((ids) => ids.every((id) => isTokenId(id, vocabSize))),
    v.description(`an array of token ids from 0 to ${vocabSize - 1}`),
  );

const isMap = (value: unknown): value is ReadonlyMap<unknown, unknown> =>
  Object.prototype.toString.call(value) === '[object Map]';
const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  Object.prototype.toString.call(value) === '[object Object]';

/** "12" is an id as an object's name; a map's keys must be numbers. */
const toId = (key: unknown) =>
  typeof key === 'string' && /^(0|[1-9][0-9]*)$/.test(key) ? Number(key) : key;

const isBias = (bias: number) => bias === Number.NEGATIVE_INFINITY || Math.abs(bias) <= 1e6;

const logitBias = (vocabSize: number) =>
  v.pipe(
    kind<object>((value) => isMap(value) || isPlainObject(value)),
    v.transform((value): [unknown, unknown][] =>
      isMap(value)
        ? [...value]
        : Object.entries(value).map(([name, bias]): [unknown, unknown] => [toId(name), bias]),
    ),
    kind<[number, number][]>((entries) =>
      (entries as [unknown, unknown][]).every(([, bias]) => typeof bias === 'number'),
    ),
    v.check((entries) => entries.every(([id, bias]) => isTokenId(id, vocabSize) && isBias(bias))),
    v.description(
      `an object or Map from token ids (0 to ${vocabSize - 1}) to numbers from -1e6 to 1e6 or -Infinity`,
    ),
  );

const abortSignal = v.pipe(
  kind<AbortSignal>((value) => {
    const signal = value as Partial<AbortSignal> | null;
    return (
      typeof signal === 'object' &&
      signal !== null &&
      typeof signal.aborted === 'boolean' &&
      typeof signal.addEventListener === 'function' &&
      typeof signal.removeEventListener === 'function'
    );
  }),
  v.description('an AbortSignal'),
);

const trueOrFalse = v.pipe(
  kind<boolean>((value) => typeof value === 'boolean'),
  v.description('true or false'),
);

const callback = <T>() =>
  v.pipe(
    kind<(argument: T) => void>((value) => typeof value === 'function'),
    v.description('a function'),
  );

/** Schemas of `GenerateOptions`; token ids must be below `vocabSize`. */
export const generateSchemas = (vocabSize: number) => ({
  maxTokens: integerOrInfinity(1),
  temperature: between(0, 100),
  topP: between(0, 1),
  topK: integerBetween(0, MOST_TOKENS),
  minP: between(0, 1),
  repetitionPenalty: between(0.01, 100),
  frequencyPenalty: between(-2, 2),
  presencePenalty: between(-2, 2),
  penaltyTokens: integerOrInfinity(0),
  logitBias: logitBias(vocabSize),
  seed: integerBetween(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: stopStrings,
  stopTokens: tokenIds(vocabSize),
  ignoreEos: trueOrFalse,
  logprobs: integerBetween(0, 20),
  signal: abortSignal,
});

/** Schemas of `LoadOptions`. */
export const loadSchemas = {
  weights: oneOf('auto', 'f32', 'f16', 'bf16', 'int8', 'int4'),
  weightGroup: v.pipe(
    anyNumber,
    v.values([32, 64, 128]),
    v.transform((value) => value as 32 | 64 | 128),
    v.description('32, 64 or 128'),
  ),
  zeroPoints: trueOrFalse,
  activations: oneOf('auto', 'int8', 'f32'),
  kv: oneOf('auto', 'f32', 'f16', 'bf16', 'int8'),
  contextTokens: integerBetween(1, MOST_TOKENS),
  kvCacheTokens: integerBetween(1, MOST_TOKENS),
  threads: integerBetween(1, 1024),
  device: v.pipe(
    anyString,
    v.regex(/^(auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?)$/),
    v.transform((value) => value as DeviceName),
    v.description('one of "auto", "cpu", "cuda", or a GPU such as "cuda:1"'),
  ),
  onProgress: callback<LoadProgress>(),
  signal: abortSignal,
};

/** Schemas of `PerplexityOptions`. */
export const perplexitySchemas = {
  onProgress: callback<{ doneTokens: number; totalTokens: number }>(),
  signal: abortSignal,
};

// --- checking --------------------------------------------------------------------------------

type Schema = v.GenericSchema<unknown, unknown>;
type Checked<S extends Record<string, Schema>> = { [K in keyof S]?: v.InferOutput<S[K]> };

/** Shows the item that is wrong rather than "an array of 3". */
function showFound(value: unknown): string {
  if (Array.isArray(value) && value.length <= 8) return `[${value.map(show).join(', ')}]`;
  if (isPlainObject(value) && Object.keys(value).length <= 4) {
    return `{ ${Object.entries(value)
      .map(([name, item]) => `${name}: ${show(item)}`)
      .join(', ')} }`;
  }
  return show(value);
}

/**
 * The value as the schema turns it out.
 * @param fail makes the error instead of `invalidArgument` and `outOfRange`
 */
export function checkValue<S extends Schema>(
  schema: S,
  name: string,
  value: unknown,
  fail?: (details: { subject: string; expected: string; found: string }) => Error,
): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const details = {
    subject: name,
    // biome-ignore lint/suspicious/noExplicitAny: valibot types descriptions per schema kind
    expected: v.getDescription(schema as any) ?? 'another value',
    found: showFound(value),
  };
  if (fail !== undefined) throw fail(details);
  throw result.issues[0].kind === 'schema'
    ? invalidArgument('has the wrong type', details)
    : outOfRange('is out of range', details);
}

/** The values that were given, each read once and checked; `undefined` counts as not given. */
export function checkOptions<S extends Record<string, Schema>>(
  schemas: S,
  options: unknown,
): Checked<S> {
  if (options === undefined) return {};
  if (!isPlainObject(options)) {
    throw invalidArgument('must be an object', {
      subject: 'options',
      expected: 'an object',
      found: show(options),
    });
  }
  const checked: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    const schema = Object.hasOwn(schemas, name) ? schemas[name] : undefined;
    if (schema === undefined) throw unknownOption(name, Object.keys(schemas));
    if (value !== undefined) checked[name] = checkValue(schema, name, value);
  }
  return checked as Checked<S>;
}

function unknownOption(name: string, known: readonly string[]): AltiplanoError {
  const nearest = nearestName(name, known);
  return invalidArgument('is not an option', {
    subject: name.length > 80 ? `${name.slice(0, 77)}...` : name,
    expected: nearest === undefined ? `one of ${known.join(', ')}` : undefined,
    hint: nearest === undefined ? undefined : `Did you mean "${nearest}"?`,
  });
}

/** The known name within a third of `name`'s length in edits, however it is cased or joined. */
function nearestName(name: string, known: readonly string[]): string | undefined {
  const plain = (text: string) => text.toLowerCase().replace(/[_-]/g, '');
  if (name.length > 64) return undefined;
  let nearest: string | undefined;
  let least = Math.max(2, Math.floor(name.length / 3)) + 1;
  for (const candidate of known) {
    const edits = editDistance(plain(name), plain(candidate));
    if (edits < least) [nearest, least] = [candidate, edits];
  }
  return nearest;
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
