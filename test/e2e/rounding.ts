/** Float32 to the 16-bit formats and back, by arithmetic on numbers: unlike native, which uses bits. */

// Read once: jest's global object is slow, and there are millions of weights.
const { abs, floor, log2, max, sign } = Math;

/** The exponent of a number's highest binary digit. */
function exponentOf(size: number): number {
  // Math.log2 may be off by one at powers of two; the loops put that right.
  let exponent = floor(log2(size));
  while (2 ** exponent > size) exponent--;
  while (2 ** (exponent + 1) <= size) exponent++;
  return exponent;
}

/**
 * The nearest number with `digits` significant binary digits, ties to even, and no smaller unit than
 * 2^`leastExponent`.
 */
function roundTo(x: number, digits: number, leastExponent: number): number {
  if (x === 0 || x - x !== 0) return x;
  const size = abs(x);
  const unit = 2 ** max(exponentOf(size) - digits + 1, leastExponent);
  const steps = size / unit; // exact: unit is a power of two
  const below = floor(steps);
  const rest = steps - below;
  const isUp = rest > 0.5 || (rest === 0.5 && below % 2 === 1);
  return sign(x) * (isUp ? below + 1 : below) * unit;
}

/** The nearest f16 value (11 digits, units down to 2^-24). */
export const toF16 = (x: number): number => roundTo(x, 11, -24);

/** The nearest bf16 value (8 digits, units down to 2^-133). */
export const toBf16 = (x: number): number => roundTo(x, 8, -133);

/** The bits of a value that f16 holds. */
export function f16Bits(x: number): number {
  const signBit = x < 0 || 1 / x < 0 ? 0x8000 : 0;
  const size = abs(x);
  if (size < 2 ** -14) return signBit | (size * 2 ** 24);
  const exponent = exponentOf(size);
  return signBit | ((exponent + 15) << 10) | ((size / 2 ** exponent - 1) * 1024);
}

/** The value of f16 bits. */
export function f16Value(bits: number): number {
  const factor = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  return factor * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

const word = new DataView(new ArrayBuffer(4));

/** The bits of a value that bf16 holds: the upper half of its f32 bits. */
export function bf16Bits(x: number): number {
  word.setFloat32(0, x);
  return word.getUint16(0);
}
