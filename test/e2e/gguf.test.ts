/** The same model as a GGUF file of every type gives what the Hugging Face folder gives. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { Llama, type LoadOptions } from '../../lib/index.js';
import type { EngineSpec } from '../../lib/native.js';
import { writeGguf } from './gguf-copy.js';
import type { GgufType } from './gguf-types.js';
import {
  Driver,
  describeModels,
  expectSameBits,
  isas,
  maxError,
  report,
  withIsa,
} from './support.js';

/** How far two f32 computations of the same logits may be apart: each is within 1e-3 of the truth. */
const F32_BOUND = 2e-3;

/** Whether the copy has Q6_K: rows of 64 weights, those of stories260K, hold no block of 256. */
const holdsQ6K = ({ spec }: { spec: EngineSpec }) => spec.hiddenSize % 256 === 0;

const root = mkdtempSync(join(tmpdir(), 'altiplano-gguf-'));
const measured: Record<string, string | number>[] = [];
afterAll(() => {
  rmSync(root, { recursive: true });
  report('GGUF files', measured);
});

describeModels('GGUF', ({ name, folder, golden }) => {
  /** GGUF files by name, written when they are first asked for. */
  const files = new Map<string, Promise<string>>();

  function gguf(type: GgufType, isDecoded = false): Promise<string> {
    const key = `${name}-${type}${isDecoded ? '-decoded' : ''}`;
    let file = files.get(key);
    if (file === undefined) {
      // Files in Q4_0 have their output head in Q6_K.
      const typeOf = (tensor: string) =>
        type === 'Q4_0' && tensor === 'output.weight' ? 'Q6_K' : type;
      file = writeGguf(folder, join(root, `${key}.gguf`), typeOf, isDecoded);
      files.set(key, file);
    }
    return file;
  }

  /** The logits of every token of every case. */
  async function logits(path: string, isa: string, options: LoadOptions) {
    const driver = await withIsa(isa, () => Driver.load(path, { threads: 2, ...options }));
    const rows: Float32Array[] = [];
    for (const { ids } of golden.cases) rows.push(...(await driver.logitsOf(ids)));
    const { spec } = driver;
    await driver.dispose();
    return { rows, spec };
  }

  describe.each(isas)('table %s', (isa) => {
    test.each([
      ['F32', 'f32'],
      ['F16', 'f16'],
      ['BF16', 'bf16'],
    ] as const)('%s: the same bits as the folder with the same weights', async (type, weights) => {
      const fromFolder = await logits(folder, isa, { weights, kv: 'f32' });
      const fromGguf = await logits(await gguf(type), isa, { kv: 'f32' });
      expect(fromGguf.spec.tensors.layers[0]!.q.format).toEqual({ type: weights });
      expect(fromGguf.spec.interleavedRotary).toBe(true);
      expectSameBits(fromGguf.rows, fromFolder.rows);
    });

    test.each([
      ['Q8_0', { type: 'int8', group: 32, zeroPoints: false }],
      ['Q4_0', { type: 'int4', group: 32, zeroPoints: false }],
      ['Q6_K', { type: 'f32' }],
    ] as const)('%s is kept without loss as %p', async (type, format) => {
      const file = await gguf(type);
      const kept = await logits(file, isa, { kv: 'f32', activations: 'f32' });
      const inF32 = await logits(file, isa, { kv: 'f32', weights: 'f32' });
      const decoded = await logits(await gguf(type, true), isa, { kv: 'f32' });
      if (type !== 'Q6_K' || holdsQ6K(kept)) {
        expect(kept.spec.tensors.layers[0]!.q).toMatchObject({ type, format });
      }
      if (type === 'Q4_0' && kept.spec.tensors.head && holdsQ6K(kept)) {
        expect(kept.spec.tensors.head).toMatchObject({ type: 'Q6_K', format: { type: 'f32' } });
      }
      expectSameBits(inF32.rows, decoded.rows);
      const error = Math.max(...kept.rows.map((row, i) => maxError(row, inF32.rows[i]!)));
      measured.push({ model: name, isa, file: type, 'kept against f32': error.toExponential(1) });
      expect(error).toBeLessThanOrEqual(type === 'Q6_K' ? 0 : F32_BOUND);
    });

    test('Q6_K becomes int8 by default, head and layers', async () => {
      const kept = await logits(await gguf('Q6_K'), isa, {});
      const inInt8 = await logits(await gguf('Q6_K'), isa, { weights: 'int8', weightGroup: 32 });
      const { layers, head } = kept.spec.tensors;
      const isKept = holdsQ6K(kept);
      for (const { type, format } of [layers[0]!.q, ...(head ? [head] : [])]) {
        expect({ type, format: format.type }).toEqual(
          isKept ? { type: 'Q6_K', format: 'int8' } : { type: 'F32', format: 'f32' },
        );
      }
      if (isKept) expectSameBits(kept.rows, inInt8.rows);
      const { spec } = await logits(await gguf('Q4_0'), isa, {});
      if (spec.tensors.head && isKept) {
        expect(spec.tensors.head).toMatchObject({ type: 'Q6_K', format: { type: 'int8' } });
      }
    });
  });

  test('text, tokens and log-probabilities are those of the folder', async () => {
    const options = { temperature: 0, maxTokens: 20, logprobs: 2, ignoreEos: true };
    const results = [];
    for (const path of [folder, await gguf('F32')]) {
      const llama = await Llama.load(path, { weights: 'f32' });
      const {
        timings: _,
        seed: __,
        ...rest
      } = await llama.generate(golden.cases[0]!.prompt, options).result;
      results.push({ ...rest, perplexity: await llama.perplexity(golden.perplexity.text) });
      await llama.dispose();
    }
    expect(results[1]).toEqual(results[0]);
  });
});
