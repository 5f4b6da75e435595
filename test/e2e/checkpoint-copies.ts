/** Reads the weights of a Hugging Face folder into JavaScript, and writes changed copies of it. */
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { safetensorsBytes } from '../fixtures/safetensors-writer.js';
import { f16Value } from './rounding.js';

export interface Weights {
  name: string;
  /** Outermost first. */
  shape: number[];
  values: Float32Array;
}

/** The tensors of `model.safetensors`, in the order of their names. */
export function readWeights(folder: string): Weights[] {
  const file = readFileSync(join(folder, 'model.safetensors'));
  const headerBytes = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  delete header.__metadata__;
  return Object.keys(header)
    .sort()
    .map((name) => {
      const { dtype, shape, data_offsets: offsets } = header[name];
      const data = file.subarray(8 + headerBytes + offsets[0], 8 + headerBytes + offsets[1]);
      const size = dtype === 'F32' ? 4 : 2;
      const values = new Float32Array(data.length / size);
      for (let i = 0; i < values.length; i++) {
        if (dtype === 'F32') values[i] = data.readFloatLE(i * 4);
        else if (dtype === 'F16') values[i] = f16Value(data.readUInt16LE(i * 2));
        else values[i] = upperHalf(data.readUInt16LE(i * 2));
      }
      return { name, shape, values };
    });
}

const word = new DataView(new ArrayBuffer(4));

/** The f32 number whose upper 16 bits are given. */
function upperHalf(bits: number): number {
  word.setUint32(0, bits * 65536);
  return word.getFloat32(0);
}

const OTHER_FILES = ['config.json', 'generation_config.json', 'tokenizer.model'];

/** A copy of the folder in f32 whose matrices have their weights changed by `change`. */
export function writeChanged(
  folder: string,
  to: string,
  change: (x: number, name: string) => number,
): string {
  mkdirSync(to, { recursive: true });
  for (const name of OTHER_FILES) {
    if (existsSync(join(folder, name))) copyFileSync(join(folder, name), join(to, name));
  }
  const tensors = readWeights(folder).map(({ name, shape, values }) => {
    const changed = shape.length === 1 ? values : values.map((x) => change(x, name));
    return { name, dtype: 'F32', shape, data: new Uint8Array(changed.buffer) };
  });
  writeFileSync(join(to, 'model.safetensors'), safetensorsBytes(tensors));
  return to;
}
