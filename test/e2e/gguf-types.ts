/**
 * The tensor types of GGUF files, written and read as ggml defines them (ggml-common.h); the encoders
 * choose scales and codes as ggml's reference ones do. Independent of the engine.
 */
import { bf16Bits, f16Bits, f16Value, toBf16, toF16 } from './rounding.js';

export type GgufType = 'F32' | 'F16' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q6_K';

const { abs, min, max, round } = Math;

/** Writes `blockBytes` for each `blockElements` weights. */
function blocks(
  values: Float32Array,
  blockElements: number,
  blockBytes: number,
  write: (block: Float32Array, out: Buffer) => void,
): Uint8Array {
  const bytes = Buffer.alloc((values.length / blockElements) * blockBytes);
  for (let i = 0; i * blockElements < values.length; i++) {
    write(
      values.subarray(i * blockElements, (i + 1) * blockElements),
      bytes.subarray(i * blockBytes, (i + 1) * blockBytes),
    );
  }
  return bytes;
}

function halves(values: Float32Array, bits: (x: number) => number): Uint8Array {
  const bytes = Buffer.alloc(values.length * 2);
  for (let i = 0; i < values.length; i++) bytes.writeUInt16LE(bits(values[i]!), i * 2);
  return bytes;
}

/** The weight of the largest size. */
function largest(block: Float32Array): number {
  let most = 0;
  for (let i = 0; i < block.length; i++) if (abs(block[i]!) > abs(most)) most = block[i]!;
  return most;
}

interface GgufTypeCodec {
  typeId: number;
  /** Rows must be a whole number of blocks. */
  blockElements: number;
  encode(values: Float32Array): Uint8Array;
}

/** How each type is written. */
export const GGUF_CODECS: Record<GgufType, GgufTypeCodec> = {
  F32: {
    typeId: 0,
    blockElements: 1,
    encode: (values) => new Uint8Array(Float32Array.from(values).buffer),
  },
  F16: {
    typeId: 1,
    blockElements: 1,
    encode: (values) => halves(values, (x) => f16Bits(toF16(x))),
  },
  BF16: {
    typeId: 30,
    blockElements: 1,
    encode: (values) => halves(values, (x) => bf16Bits(toBf16(x))),
  },
  Q8_0: {
    typeId: 8,
    blockElements: 32,
    encode: (values) =>
      blocks(values, 32, 34, (block, out) => {
        const bits = f16Bits(toF16(abs(largest(block)) / 127));
        const scale = f16Value(bits);
        out.writeUInt16LE(bits, 0);
        for (let i = 0; i < 32; i++) {
          const code = scale === 0 ? 0 : round(block[i]! / scale);
          out.writeInt8(max(-127, min(127, code)), 2 + i);
        }
      }),
  },
  Q4_0: {
    typeId: 2,
    blockElements: 32,
    encode: (values) =>
      blocks(values, 32, 18, (block, out) => {
        const bits = f16Bits(toF16(largest(block) / -8));
        const scale = f16Value(bits);
        const code = (x: number) => (scale === 0 ? 8 : max(0, min(15, round(x / scale) + 8)));
        out.writeUInt16LE(bits, 0);
        for (let i = 0; i < 16; i++) out[2 + i] = code(block[i]!) | (code(block[i + 16]!) << 4);
      }),
  },
  Q6_K: { typeId: 14, blockElements: 256, encode: (values) => blocks(values, 256, 210, writeQ6K) },
};

/** Sixteen groups of sixteen weights: six-bit codes, an 8-bit scale for each, one scale for all. */
function writeQ6K(block: Float32Array, out: Buffer): void {
  const groups = Array.from({ length: 16 }, (_, g) => block.subarray(g * 16, g * 16 + 16));
  const scales = groups.map((group) => abs(largest(group)) / 31);
  const bits = f16Bits(toF16(max(...scales) / 127));
  const unit = f16Value(bits);
  out.writeUInt16LE(bits, 208);
  const codes = new Uint8Array(256);
  groups.forEach((group, g) => {
    const scale = unit === 0 ? 0 : min(127, round(scales[g]! / unit));
    out.writeInt8(scale, 192 + g);
    for (let i = 0; i < 16; i++) {
      const code = scale === 0 ? 0 : round(group[i]! / (unit * scale));
      codes[g * 16 + i] = max(-32, min(31, code)) + 32;
    }
  });
  for (let half = 0; half < 2; half++) {
    for (let i = 0; i < 32; i++) {
      const [a, b, c, d] = [0, 32, 64, 96].map((at) => codes[half * 128 + at + i]!);
      out[half * 64 + i] = (a! & 15) | ((c! & 15) << 4);
      out[half * 64 + 32 + i] = (b! & 15) | ((d! & 15) << 4);
      out[128 + half * 32 + i] = (a! >> 4) | ((b! >> 4) << 2) | ((c! >> 4) << 4) | ((d! >> 4) << 6);
    }
  }
}

/** The weights of blocks, exact in float32. */
function decodeBlocks(
  bytes: Uint8Array,
  blockElements: number,
  blockBytes: number,
  read: (block: Buffer, out: Float32Array) => void,
): Float32Array {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = file.length / blockBytes;
  const values = new Float32Array(count * blockElements);
  for (let i = 0; i < count; i++) {
    read(
      file.subarray(i * blockBytes, (i + 1) * blockBytes),
      values.subarray(i * blockElements, (i + 1) * blockElements),
    );
  }
  return values;
}

/** What the quantized types stand for. */
export const GGUF_DECODERS = {
  Q8_0: (bytes: Uint8Array) =>
    decodeBlocks(bytes, 32, 34, (block, out) => {
      const scale = f16Value(block.readUInt16LE(0));
      for (let i = 0; i < 32; i++) out[i] = scale * block.readInt8(2 + i);
    }),
  Q4_0: (bytes: Uint8Array) =>
    decodeBlocks(bytes, 32, 18, (block, out) => {
      const scale = f16Value(block.readUInt16LE(0));
      for (let i = 0; i < 16; i++) {
        out[i] = scale * ((block[2 + i]! & 15) - 8);
        out[i + 16] = scale * ((block[2 + i]! >> 4) - 8);
      }
    }),
  Q6_K: (bytes: Uint8Array) =>
    decodeBlocks(bytes, 256, 210, (block, out) => {
      const unit = f16Value(block.readUInt16LE(208));
      for (let i = 0; i < 256; i++) {
        // Weight i: half i / 128, quarter of that half, place in the quarter.
        const half = i >> 7;
        const quarter = (i >> 5) & 3;
        const place = i & 31;
        const low = block[half * 64 + (quarter % 2) * 32 + place]!;
        const high = block[128 + half * 32 + place]!;
        const code = ((low >> (quarter < 2 ? 0 : 4)) & 15) | (((high >> (2 * quarter)) & 3) << 4);
        out[i] = unit * block.readInt8(192 + (i >> 4)) * (code - 32);
      }
    }),
} as const;
