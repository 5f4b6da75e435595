/**
 * Checks of the arguments of the functions in `lib/kernels.ts`. Values are recognised by what they
 * are, not by `instanceof`: under jest, or from a `vm` context, typed arrays belong to another realm.
 */
import { AltiplanoError, invalidArgument, outOfRange, show } from '../errors.js';

/** The typed arrays that kernels work on, by name. */
interface ArrayTypes {
  Float32Array: Float32Array;
  Float64Array: Float64Array;
  Int8Array: Int8Array;
  Int32Array: Int32Array;
  Uint8Array: Uint8Array;
  Uint16Array: Uint16Array;
}

/** Sizes that native code accepts: products of two still fit into its 64-bit integers. */
const MOST_ELEMENTS = 2 ** 31;
// What native code accepts: far beyond any model, so that sizes in bytes fit into its integers.
export const MOST_HEADS = 2 ** 15;
export const MOST_HEAD_DIM = 2 ** 16;

// The getter reads what the array really is, from any realm, and gives undefined for anything else.
const typedArrayName = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Uint8Array.prototype),
  Symbol.toStringTag,
)?.get as (this: unknown) => string | undefined;

function isDetached(array: ArrayBufferView): boolean {
  try {
    new Uint8Array(array.buffer);
    return false;
  } catch {
    return true;
  }
}

/** `value` as a typed array of the type `type`. An array whose buffer was transferred is refused. */
export function typedArray<T extends keyof ArrayTypes>(
  value: unknown,
  subject: string,
  type: T,
): ArrayTypes[T] {
  if (typedArrayName.call(value) !== type) {
    throw invalidArgument('wrong type', { subject, expected: `a ${type}`, found: show(value) });
  }
  const array = value as ArrayTypes[T];
  if (array.length === 0 && isDetached(array)) {
    throw invalidArgument('the memory of this array was transferred elsewhere', {
      subject,
      expected: `a ${type}`,
      found: 'a detached one',
    });
  }
  return array;
}

/** {@link typedArray} with an exact length; `shape` says where the length comes from. */
export function typedArrayOf<T extends keyof ArrayTypes>(
  value: unknown,
  subject: string,
  type: T,
  length: number,
  shape: string,
): ArrayTypes[T] {
  const array = typedArray(value, subject, type);
  if (array.length !== length) {
    throw outOfRange('wrong length', {
      subject,
      expected: `${length} elements (${shape})`,
      found: `${array.length}`,
    });
  }
  return array;
}

/** The number of rows of `cols` elements in a non-empty array. */
export function rowsOf(array: Float32Array, subject: string, cols: number, shape: string): number {
  const rows = array.length / cols;
  if (!Number.isInteger(rows) || rows === 0) {
    throw outOfRange('wrong length', {
      subject,
      expected: `a multiple of ${cols} elements (${shape}), at least one`,
      found: `${array.length}`,
    });
  }
  return rows;
}

/** Plain numbers (an array of numbers or a typed array) as f64, each of them checked. */
export function numbers(
  value: unknown,
  subject: string,
  length: number,
  shape: string,
  expected: string,
  isValid: (x: number) => boolean,
): Float64Array {
  const isArray = Array.isArray(value);
  const isTyped =
    typedArrayName.call(value) !== undefined && !typedArrayName.call(value)?.startsWith('Big');
  if (!isArray && !isTyped) {
    throw invalidArgument('wrong type', {
      subject,
      expected: 'an array of numbers',
      found: show(value),
    });
  }
  const list = value as ArrayLike<unknown>;
  if (list.length !== length) {
    throw outOfRange('wrong length', {
      subject,
      expected: `${length} elements (${shape})`,
      found: `${list.length}`,
    });
  }
  return Float64Array.from({ length }, (_, i) => {
    const x = list[i];
    if (typeof x !== 'number') {
      throw invalidArgument('wrong type', {
        subject: `${subject}[${i}]`,
        expected: 'a number',
        found: show(x),
      });
    }
    if (!isValid(x)) {
      throw outOfRange('not usable', { subject: `${subject}[${i}]`, expected, found: show(x) });
    }
    return x;
  });
}

function number(value: unknown, subject: string, expected: string): number {
  if (typeof value !== 'number') {
    throw invalidArgument('wrong type', { subject, expected, found: show(value) });
  }
  return value;
}

/** An integer from 1 (or `min`) to `max`. */
export function size(value: unknown, subject: string, min = 1, max = MOST_ELEMENTS): number {
  const expected = `an integer from ${min} to ${max}`;
  const n = number(value, subject, expected);
  if (!Number.isInteger(n) || n < min || n > max) {
    throw outOfRange('not usable', { subject, expected, found: show(n) });
  }
  return n;
}

/** A number that is finite as f32, at least `min`. */
export function finite(value: unknown, subject: string, min = Number.NEGATIVE_INFINITY): number {
  const expected =
    min === Number.NEGATIVE_INFINITY ? 'a finite number' : `a finite number from ${min}`;
  const x = number(value, subject, expected);
  if (!Number.isFinite(Math.fround(x)) || x < min) {
    throw outOfRange('not usable', { subject, expected, found: show(x) });
  }
  return x;
}

export function boolean(value: unknown, subject: string): boolean {
  if (typeof value !== 'boolean') {
    throw invalidArgument('wrong type', { subject, expected: 'a boolean', found: show(value) });
  }
  return value;
}

/** One of a few values of the same kind. */
export function oneOf<const T extends string | number>(
  value: unknown,
  subject: string,
  values: readonly T[],
): T {
  const details = {
    subject,
    expected: `one of ${values.map(show).join(', ')}`,
    found: show(value),
  };
  if (typeof value !== typeof values[0]) throw invalidArgument('wrong type', details);
  if (!values.includes(value as T)) throw outOfRange('not usable', details);
  return value as T;
}

/** `value` as an object, so that its properties can be read. */
export function object<T extends object>(value: unknown, subject: string): Partial<T> {
  if (value === null || typeof value !== 'object') {
    throw invalidArgument('wrong type', { subject, expected: 'an object', found: show(value) });
  }
  return value as Partial<T>;
}

/** An options object with no other names than `names`: a misspelt option is never ignored. */
export function checkOptions<T extends object>(
  value: unknown,
  names: readonly (keyof T)[],
): Partial<T> {
  const checked = object<T>(value, 'options');
  for (const name of Object.keys(checked)) {
    if (!(names as readonly string[]).includes(name)) {
      throw invalidArgument('unknown option', {
        subject: name,
        expected: `one of ${names.join(', ')}`,
      });
    }
  }
  return checked;
}

/** A new typed array; throws ALTIPLANO_OUT_OF_MEMORY instead of the engine's RangeError. */
export function allocate<T>(type: new (length: number) => T, length: number): T {
  try {
    return new type(length);
  } catch (cause) {
    throw new AltiplanoError('ALTIPLANO_OUT_OF_MEMORY', 'the result cannot be allocated', {
      found: `${length} elements`,
      cause,
    });
  }
}
