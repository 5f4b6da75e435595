import { describe, expect, test } from '@jest/globals';
import {
  availableIsas,
  fromBfloat16,
  fromFloat16,
  toBfloat16,
  toFloat16,
} from '../../lib/kernels.js';
import { at, bytes, describeTables, generator, unchanged, withIsa } from './support.js';

const everyHalf = Uint16Array.from({ length: 65536 }, (_, i) => i);

/** An IEEE half as its definition says. */
function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function roundHalfEven(x: number): number {
  const low = Math.floor(x);
  const part = x - low;
  if (part !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** The nearest number with `fractionBits` bits after the first one and exponents from `least` on. */
function nearest(x: number, fractionBits: number, least: number): number {
  if (x === 0 || !Number.isFinite(x)) return x;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(x))), least);
  const unit = 2 ** (exponent - fractionBits);
  return Math.sign(x) * roundHalfEven(Math.abs(x) / unit) * unit;
}

/** f32 numbers of all exponents, and exact ties between neighbours of both 16-bit formats. */
function hardFloats(): Float32Array {
  const random = generator(1);
  const bits = Uint32Array.from({ length: 50_000 }, () => Math.floor(random() * 2 ** 32));
  const any = new Float32Array(bits.buffer).filter((x) => !Number.isNaN(x));
  const halfTies = Array.from({ length: 0x7bff }, (_, i) => (halfValue(i) + halfValue(i + 1)) / 2);
  const bfloatTies = Array.from(
    { length: 1000 },
    () => Math.floor(random() * 0x7f7f) * 65536 + 32768,
  );
  const ties = new Float32Array(Uint32Array.from(bfloatTies).buffer);
  const special = [
    0,
    -0,
    1 / 0,
    -1 / 0,
    65504,
    65519.99,
    65520,
    2 ** -25,
    1.5 * 2 ** -25,
    2 ** -149,
  ];
  return Float32Array.from([...any, ...halfTies, ...ties, ...special]);
}

describeTables('16-bit floats', (use) => {
  test('every f16 becomes its value', () => {
    const floats = use(() => unchanged([everyHalf], () => fromFloat16(everyHalf)));
    const wrong = [...everyHalf].filter((h) => !Object.is(at(floats, h), halfValue(h)));
    expect(wrong).toEqual([]);
  });

  test('every f16 and bf16 survives the way to f32 and back', () => {
    for (const [from, to, infinity] of [
      [fromFloat16, toFloat16, 0x7c00],
      [fromBfloat16, toBfloat16, 0x7f80],
    ] as const) {
      const back = use(() => to(from(everyHalf)));
      const floats = use(() => from(everyHalf));
      const wrong = [...everyHalf].filter((h) => {
        const isNan = (h & 0x7fff) > infinity;
        return isNan
          ? !Number.isNaN(at(floats, h)) || (at(back, h) & 0x7fff) <= infinity
          : at(back, h) !== h;
      });
      expect(wrong).toEqual([]);
    }
  });

  test('f32 is rounded to the nearest, ties to even', () => {
    const floats = hardFloats();
    const half = use(() => unchanged([floats], () => fromFloat16(toFloat16(floats))));
    const bfloat = use(() => fromBfloat16(toBfloat16(floats)));
    for (const [i, x] of floats.entries()) {
      const rounded = nearest(x, 10, -14);
      const expected =
        Math.abs(rounded) > 65504 ? Math.sign(x) * Number.POSITIVE_INFINITY : rounded;
      if (!Object.is(at(half, i), expected)) throw new Error(`f16: ${x} became ${half[i]}`);
      const expectedBfloat = Math.fround(nearest(x, 7, -126));
      if (!Object.is(at(bfloat, i), expectedBfloat))
        throw new Error(`bf16: ${x} became ${bfloat[i]}`);
    }
  });

  test('every length works, none included', () => {
    const floats = Float32Array.from({ length: 40 }, (_, i) => i - 20);
    for (let length = 0; length <= 40; length++) {
      // An odd start: vector loads find no alignment.
      const x = floats.subarray(40 - length);
      expect([...use(() => fromFloat16(toFloat16(x)))]).toEqual([...x]);
      expect([...use(() => fromBfloat16(toBfloat16(x)))]).toEqual([...x]);
    }
  });
});

describe('16-bit floats', () => {
  test('all tables give the same bits', () => {
    const floats = hardFloats();
    const results = availableIsas().map((isa) =>
      withIsa(isa, () => [
        bytes(toFloat16(floats)).toString('base64'),
        bytes(toBfloat16(floats)).toString('base64'),
      ]),
    );
    for (const result of results) expect(result).toEqual(results[0]);
  });
});
