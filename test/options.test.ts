import { runInNewContext } from 'node:vm';
import { describe, expect, test } from '@jest/globals';
import {
  type GenerateOptions,
  type LoadOptions,
  resolveGenerateOptions,
  resolveLoadOptions,
} from '../lib/options.js';

const vocabSize = 100;
const generate = (options?: unknown, defaults = {}) =>
  resolveGenerateOptions(options as GenerateOptions, defaults, vocabSize);
const load = (options?: unknown) => resolveLoadOptions(options as LoadOptions);

function thrownBy(action: () => unknown): Error & Record<string, unknown> {
  try {
    action();
  } catch (error) {
    return error as Error & Record<string, unknown>;
  }
  throw new Error('nothing was thrown');
}

describe('resolveGenerateOptions', () => {
  test('fills in Llama 2’s defaults', () => {
    const { seed, ...rest } = generate();
    expect(rest).toEqual({
      maxTokens: Number.POSITIVE_INFINITY,
      temperature: 0.6,
      topP: 0.9,
      topK: 0,
      minP: 0,
      repetitionPenalty: 1,
      frequencyPenalty: 0,
      presencePenalty: 0,
      penaltyTokens: Number.POSITIVE_INFINITY,
      logitBias: new Map(),
      stop: [],
      stopTokens: [],
      ignoreEos: false,
      logprobs: null,
      signal: null,
    });
    expect(Number.isSafeInteger(seed)).toBe(true);
    expect(generate().seed).not.toBe(seed);
  });

  test('the checkpoint overrides the defaults, the caller overrides both', () => {
    const checkpoint = { temperature: 0.9, topP: 0.6, topK: 40, repetitionPenalty: 1.1 };
    expect(generate({}, checkpoint)).toMatchObject(checkpoint);
    const caller = { temperature: 0, topP: 1, topK: 0, repetitionPenalty: 1 };
    expect(generate(caller, checkpoint)).toMatchObject(caller);
    expect(generate({ temperature: undefined, topK: 3 }, checkpoint)).toMatchObject({
      ...checkpoint,
      topK: 3,
    });
  });

  test('the checkpoint’s ends of sequence join the caller’s stop tokens', () => {
    const { stopTokens } = generate({ stopTokens: [5, 7, 5] }, { eosTokenIds: [7, 2, 100_000] });
    expect(stopTokens).toEqual([5, 7, 2]);
  });

  test('a checkpoint’s value that is out of range is the checkpoint’s fault, and can be overridden', () => {
    expect(thrownBy(() => generate({}, { temperature: -1 }))).toMatchObject({
      code: 'ALTIPLANO_CHECKPOINT_INVALID',
      subject: 'generation defaults of the checkpoint: temperature',
      found: '-1',
      hint: 'Pass the option "temperature" to override it',
    });
    expect(generate({ temperature: 1 }, { temperature: -1 }).temperature).toBe(1);
  });

  test.each<[string, unknown, unknown]>([
    ['maxTokens', 1, 1],
    ['maxTokens', Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
    ['temperature', 0, 0],
    ['temperature', 1e-9, 0],
    ['temperature', 1e-6, 1e-6],
    ['temperature', 100, 100],
    ['topP', 0, 0],
    ['topP', 1, 1],
    ['topK', 0, 0],
    ['minP', 1, 1],
    ['repetitionPenalty', 0.01, 0.01],
    ['frequencyPenalty', -2, -2],
    ['presencePenalty', 2, 2],
    ['penaltyTokens', 0, 0],
    ['seed', Number.MIN_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
    ['seed', Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ['stop', 'END', ['END']],
    ['stop', ['a', '🙂', 'a'], ['a', '🙂']],
    ['stop', [], []],
    ['stopTokens', [0, 99], [0, 99]],
    ['ignoreEos', true, true],
    ['logprobs', 0, 0],
    ['logprobs', 20, 20],
    [
      'logitBias',
      { 0: 1, 99: Number.NEGATIVE_INFINITY, 5: 0 },
      new Map([
        [0, 1],
        [99, Number.NEGATIVE_INFINITY],
      ]),
    ],
    ['logitBias', new Map([[3, -100]]), new Map([[3, -100]])],
  ])('%s may be %p', (name, value, expected) => {
    expect(generate({ [name]: value })).toHaveProperty(name, expected);
  });

  test.each<[string, unknown]>([
    ['maxTokens', '5'],
    ['maxTokens', null],
    ['temperature', '0.5'],
    ['temperature', 1n],
    ['topP', [0.5]],
    ['topK', true],
    ['minP', {}],
    ['repetitionPenalty', null],
    ['frequencyPenalty', 'high'],
    ['presencePenalty', () => 1],
    ['penaltyTokens', 'all'],
    ['seed', 5n],
    ['stop', 5],
    ['stop', ['a', 5]],
    ['stop', new Set(['a'])],
    ['stopTokens', 5],
    ['stopTokens', ['5']],
    ['stopTokens', new Int32Array([5])],
    ['ignoreEos', 1],
    ['logprobs', true],
    ['logitBias', [1, 2]],
    ['logitBias', 5],
    ['logitBias', null],
    ['logitBias', { 5: '1' }],
    ['logitBias', new Map([[5, null]])],
    ['logitBias', new Float32Array(3)],
    ['signal', {}],
    ['signal', new AbortController()],
    ['signal', null],
  ])('%s may not be %p: wrong type', (name, value) => {
    const error = thrownBy(() => generate({ [name]: value }));
    expect(error).toMatchObject({ code: 'ALTIPLANO_INVALID_ARGUMENT', subject: name });
    expect(error).toBeInstanceOf(TypeError);
    expect(error.expected).toMatch(/^(an?|true or false)\b/);
    expect(error.found).toEqual(expect.any(String));
  });

  test.each<[string, unknown]>([
    ['maxTokens', 0],
    ['maxTokens', 1.5],
    ['maxTokens', Number.NaN],
    ['maxTokens', Number.NEGATIVE_INFINITY],
    ['temperature', -0.1],
    ['temperature', 100.1],
    ['temperature', Number.NaN],
    ['temperature', Number.POSITIVE_INFINITY],
    ['topP', 1.01],
    ['topP', -0.01],
    ['topP', Number.NaN],
    ['topK', -1],
    ['topK', 0.5],
    ['topK', Number.NaN],
    ['topK', Number.POSITIVE_INFINITY],
    ['minP', 1.01],
    ['minP', Number.NaN],
    ['repetitionPenalty', 0],
    ['repetitionPenalty', Number.NaN],
    ['frequencyPenalty', 2.1],
    ['frequencyPenalty', Number.NaN],
    ['presencePenalty', -2.1],
    ['penaltyTokens', -1],
    ['penaltyTokens', Number.NaN],
    ['seed', 0.5],
    ['seed', 2 ** 53],
    ['seed', Number.NaN],
    ['stop', ''],
    ['stop', ['a', '']],
    ['stop', '\ud83d'],
    ['stop', '\ude42a'],
    ['stopTokens', [-1]],
    ['stopTokens', [100]],
    ['stopTokens', [1.5]],
    ['logprobs', -1],
    ['logprobs', 21],
    ['logprobs', 0.5],
    ['logitBias', { 100: 1 }],
    ['logitBias', { '-1': 1 }],
    ['logitBias', { '01': 1 }],
    ['logitBias', { five: 1 }],
    ['logitBias', new Map([['5', 1]])],
    ['logitBias', { 5: Number.NaN }],
    ['logitBias', { 5: Number.POSITIVE_INFINITY }],
    ['logitBias', { 5: 1e7 }],
  ])('%s may not be %p: out of range', (name, value) => {
    const error = thrownBy(() => generate({ [name]: value }));
    expect(error).toMatchObject({ code: 'ALTIPLANO_OUT_OF_RANGE', subject: name });
    expect(error).toBeInstanceOf(RangeError);
    expect(error.expected).toMatch(/^(a|an) /);
    expect(error.found).toEqual(expect.any(String));
  });

  test('there is a most number of stop strings', () => {
    const stops = Array.from({ length: 129 }, (_, i) => `stop ${i}`);
    expect(generate({ stop: stops.slice(1) }).stop).toHaveLength(128);
    expect(thrownBy(() => generate({ stop: stops }))).toBeInstanceOf(RangeError);
  });

  test('the message says all of it', () => {
    expect(thrownBy(() => generate({ topP: 1.5 })).message).toBe(
      'topP: is out of range (expected a number from 0 to 1, found 1.5)',
    );
    expect(thrownBy(() => generate({ stopTokens: [3, 500] })).message).toBe(
      'stopTokens: is out of range (expected an array of token ids from 0 to 99, found [3, 500])',
    );
    expect(thrownBy(() => generate({ logitBias: { 5: '1' } })).found).toBe('{ 5: "1" }');
  });

  test.each([
    ['max_tokens', 'maxTokens'],
    ['maxNewTokens', 'maxTokens'],
    ['temprature', 'temperature'],
    ['top_p', 'topP'],
    ['TopK', 'topK'],
    ['repetition_penalty', 'repetitionPenalty'],
    ['stops', 'stop'],
    ['stop-tokens', 'stopTokens'],
    ['logProbs', 'logprobs'],
  ])('unknown names suggest the nearest: %s', (name, nearest) => {
    const error = thrownBy(() => generate({ [name]: 1 }));
    expect(error).toMatchObject({
      code: 'ALTIPLANO_INVALID_ARGUMENT',
      subject: name,
      hint: `Did you mean "${nearest}"?`,
    });
    expect(error).toBeInstanceOf(TypeError);
  });

  test.each(['beams', 'constructor', '__proto__x', 'x'.repeat(300)])(
    'names that resemble none list all: %s',
    (name) => {
      const error = thrownBy(() => generate({ [name]: 1 }));
      expect(error.code).toBe('ALTIPLANO_INVALID_ARGUMENT');
      expect(error.expected).toContain('maxTokens, temperature');
      expect(error.message.length).toBeLessThan(400);
    },
  );

  test('an unknown name is an error even when its value is undefined', () => {
    expect(thrownBy(() => generate({ topq: undefined })).hint).toBe('Did you mean "topP"?');
  });

  test.each([null, 5, 'topP', [], new Map(), () => ({})])('options may not be %p', (options) => {
    expect(thrownBy(() => generate(options))).toMatchObject({
      code: 'ALTIPLANO_INVALID_ARGUMENT',
      subject: 'options',
    });
  });

  test('values of another realm are as good', () => {
    const foreign = runInNewContext(
      '({ stop: ["a"], stopTokens: [1], logitBias: new Map([[2, 3]]), topK: 4 })',
    );
    expect(generate(foreign)).toMatchObject({ stop: ['a'], stopTokens: [1], topK: 4 });
    expect([...generate(foreign).logitBias]).toEqual([[2, 3]]);
    expect([...generate(runInNewContext('({ logitBias: { 2: 3 } })')).logitBias]).toEqual([[2, 3]]);
  });

  test('a signal is passed on as it is', () => {
    const { signal } = new AbortController();
    expect(generate({ signal }).signal).toBe(signal);
    expect(load({ signal }).signal).toBe(signal);
  });

  test('each option is read once, and later changes by the caller have no effect', () => {
    let reads = 0;
    const stop = ['a'];
    const stopTokens = [1];
    const logitBias = new Map([[1, 1]]);
    const resolved = generate({
      get topP() {
        reads++;
        return 0.5;
      },
      stop,
      stopTokens,
      logitBias,
    });
    stop.push('b');
    stopTokens.push(2);
    logitBias.set(2, 2);
    expect(reads).toBe(1);
    expect(resolved).toMatchObject({ topP: 0.5, stop: ['a'], stopTokens: [1] });
    expect(resolved.logitBias.size).toBe(1);
  });
});

describe('resolveLoadOptions', () => {
  test('fills in the defaults', () => {
    expect(load()).toEqual({
      weights: 'auto',
      weightGroup: 32,
      zeroPoints: false,
      activations: 'auto',
      kv: 'auto',
      contextTokens: null,
      kvCacheTokens: null,
      threads: null,
      device: 'auto',
      onProgress: null,
      signal: null,
    });
  });

  test('takes what it is given', () => {
    const onProgress = () => {};
    const given = {
      weights: 'int4',
      weightGroup: 128,
      zeroPoints: true,
      activations: 'f32',
      kv: 'f16',
      contextTokens: 4096,
      kvCacheTokens: 65536,
      threads: 4,
      device: 'cuda:1',
      onProgress,
    };
    expect(load(given)).toEqual({ ...given, signal: null });
  });

  test.each<[string, unknown, 'TypeError' | 'RangeError']>([
    ['weights', 'int5', 'RangeError'],
    ['weights', 4, 'TypeError'],
    ['kv', 'int4', 'RangeError'],
    ['kv', true, 'TypeError'],
    ['weightGroup', 48, 'RangeError'],
    ['weightGroup', '32', 'TypeError'],
    ['zeroPoints', 1, 'TypeError'],
    ['contextTokens', 0, 'RangeError'],
    ['contextTokens', Number.NaN, 'RangeError'],
    ['contextTokens', Number.POSITIVE_INFINITY, 'RangeError'],
    ['contextTokens', '4096', 'TypeError'],
    ['kvCacheTokens', 1.5, 'RangeError'],
    ['kvCacheTokens', null, 'TypeError'],
    ['threads', 0, 'RangeError'],
    ['threads', 1025, 'RangeError'],
    ['threads', 'all', 'TypeError'],
    ['device', 'gpu', 'RangeError'],
    ['device', 0, 'TypeError'],
    ['onProgress', {}, 'TypeError'],
    ['signal', 'abort', 'TypeError'],
  ])('%s may not be %p', (name, value, type) => {
    const error = thrownBy(() => load({ weights: 'int8', [name]: value }));
    expect(error).toMatchObject({
      subject: name,
      code: type === 'TypeError' ? 'ALTIPLANO_INVALID_ARGUMENT' : 'ALTIPLANO_OUT_OF_RANGE',
    });
    expect(error).toBeInstanceOf(type === 'TypeError' ? TypeError : RangeError);
  });

  test('an unknown device is told of those that there are', () => {
    expect(thrownBy(() => load({ device: 'gpu' })).expected).toContain('"auto", "cpu", "cuda"');
  });

  test.each(['auto', 'cpu', 'cuda', 'cuda:0', 'cuda:12'])('%s is a device', (device) => {
    expect(load({ device }).device).toBe(device);
  });

  test.each(['', 'CPU', 'cuda:', 'cuda:01', 'cuda:-1', 'cuda:1.5', 'cuda:1000', ' cuda'])(
    '%j is none',
    (device) => {
      expect(thrownBy(() => load({ device }))).toMatchObject({ code: 'ALTIPLANO_OUT_OF_RANGE' });
    },
  );

  test.each([{ weightGroup: 64 }, { zeroPoints: true }, { weights: 'f16', weightGroup: 32 }])(
    'options of quantized weights need quantized weights: %j',
    (options) => {
      expect(thrownBy(() => load(options))).toMatchObject({
        code: 'ALTIPLANO_INVALID_ARGUMENT',
        expected: 'weights "int8" or "int4"',
      });
    },
  );

  test('unknown names suggest the nearest', () => {
    expect(thrownBy(() => load({ thread: 2 })).hint).toBe('Did you mean "threads"?');
    expect(thrownBy(() => load({ context_tokens: 2 })).hint).toBe('Did you mean "contextTokens"?');
  });
});
