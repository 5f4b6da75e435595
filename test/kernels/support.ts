/** What the kernel tests share: random data, the choice of a kernel table, comparisons. */
import { runInThisContext } from 'node:vm';
import { describe, expect } from '@jest/globals';
import { availableIsas } from '../../lib/kernels.js';

/** Half the distance of two neighbouring f32 numbers, relative: the error of one rounding. */
export const ROUNDING = 2 ** -24;

// jest gives tests a copy of the environment; native code reads the process's own.
const { env } = runInThisContext('process') as NodeJS.Process;

/** Calls `work` with `ALTIPLANO_ISA` set to `isa`. */
export function withIsa<T>(isa: string, work: () => T): T {
  const before = env.ALTIPLANO_ISA;
  env.ALTIPLANO_ISA = isa;
  try {
    return work();
  } finally {
    if (before === undefined) delete env.ALTIPLANO_ISA;
    else env.ALTIPLANO_ISA = before;
  }
}

type UseTable = <T>(work: () => T) => T;

/** A `describe` for each kernel table of this processor; `use` runs a function with that table. */
export function describeTables(name: string, tests: (use: UseTable) => void): void {
  describe.each(availableIsas())(`${name}, table %s`, (isa) => {
    tests((work) => withIsa(isa, work));
  });
}

/** A small generator with a fixed seed (mulberry32): numbers in [0, 1). */
export function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** f32 numbers evenly spread between -`size` and `size`. */
export function randomFloats(random: () => number, length: number, size = 1): Float32Array {
  return Float32Array.from({ length }, () => (2 * random() - 1) * size);
}

/** Fails at the first element that is farther from `expected(i)` than `bound(i)`. */
export function expectWithin(
  found: Float32Array,
  expected: (i: number) => number,
  bound: (i: number) => number,
): void {
  for (let i = 0; i < found.length; i++) {
    const error = Math.abs((found[i] as number) - expected(i));
    if (!(error <= bound(i))) {
      throw new Error(
        `element ${i}: found ${found[i]}, expected ${expected(i)} within ${bound(i)}, off by ${error}`,
      );
    }
  }
}

type Floats = Float32Array | Uint16Array | Int8Array | Uint8Array;

/** The bytes of an array, for comparisons bit by bit (NaN and -0 included). */
export function bytes(array: Floats): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

/** `work()`, with a check that it changes none of `inputs`. */
export function unchanged<T>(inputs: Floats[], work: () => T): T {
  const before = inputs.map((input) => Buffer.from(bytes(input)));
  const result = work();
  for (const [i, input] of inputs.entries()) {
    expect(bytes(input).equals(before[i] as Buffer)).toBe(true);
  }
  return result;
}

/** a[i], for arrays that are known to be long enough. */
export const at = (array: ArrayLike<number>, i: number): number => array[i] as number;
