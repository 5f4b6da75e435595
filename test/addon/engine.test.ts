/** The native engine through its typed boundary: order, cancellation, dispose, and hostile arguments. */
import { describe, expect, test } from '@jest/globals';
import { AltiplanoError } from '../../lib/errors.js';
import {
  type EngineSpec,
  fromNative,
  type NativeEngine,
  native,
  type StepPlan,
  type StepResult,
} from '../../lib/native.js';
import { bigSpec, smallSpec, temporaryFolder, wholePlan } from './support.js';

const folder = temporaryFolder();
const small = smallSpec(folder);
const big = bigSpec(folder);
const { Engine } = native();

async function loaded(spec = small): Promise<NativeEngine> {
  const engine = new Engine();
  await engine.load(spec);
  return engine;
}

/** The code of the error that a call throws or rejects with, through fromNative. */
async function codeOf(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (thrown) {
    const error = fromNative(thrown);
    expect(error).toBeInstanceOf(AltiplanoError);
    expect(error).toBeInstanceOf(Error); // of this realm
    expect((error as Error).message).not.toBe('');
    expect((error as Error).cause).toBe(thrown);
    return (error as AltiplanoError).code;
  }
  return 'nothing was thrown';
}

describe('an engine', () => {
  test('answers steps in order while several are queued, as another beside it does', async () => {
    const engines = await Promise.all([loaded(), loaded({ ...small, threads: 1 })]);
    const lengths = [5, 33, 64, 1, 20];
    const answers = await Promise.all(
      engines.map(async (engine) => {
        const settled: number[] = [];
        const results = await Promise.all(
          lengths.map(async (length, i) => {
            const result = await engine.step(wholePlan(length));
            settled.push(i);
            return result;
          }),
        );
        expect(settled).toEqual(lengths.map((_, i) => i));
        return results;
      }),
    );
    expect(answers[0]).toEqual(answers[1]);
    const [first] = answers[0]!;
    expect(first!.fullLogits).toHaveLength(small.vocabSize);
    expect(first!.candidateLogits[0]).toBe(Math.max(...first!.fullLogits));
    expect(first!.finite[0]).toBe(1);
    await Promise.all(engines.map((engine) => engine.dispose()));
  });

  test('copies a plan before step() returns', async () => {
    const engine = await loaded();
    const expected = await engine.step(wholePlan(40));

    const changed = wholePlan(40);
    const afterChange = engine.step(changed);
    for (const array of Object.values(changed)) array.fill(-1);

    const detached = wholePlan(40);
    const afterDetaching = engine.step(detached);
    for (const array of Object.values(detached) as StepPlan[keyof StepPlan][]) {
      structuredClone(array, { transfer: [array.buffer as ArrayBuffer] });
      expect(array).toHaveLength(0);
    }
    expect(await afterChange).toEqual(expected);
    expect(await afterDetaching).toEqual(expected);
    // Detached arrays are empty ones.
    expect(await codeOf(() => engine.step(detached))).toBe('ALTIPLANO_OUT_OF_RANGE');
    await engine.dispose();
  });

  test('takes arrays that are parts of larger buffers', async () => {
    const engine = await loaded();
    const plan = wholePlan(40);
    const expected = await engine.step(plan);
    const part = Object.fromEntries(
      Object.entries(plan).map(([key, array]) => {
        const Type = array.constructor as Int32ArrayConstructor;
        const larger = new Type(array.length + 7).fill(77);
        larger.set(array as Int32Array, 3);
        return [key, larger.subarray(3, 3 + array.length)];
      }),
    );
    expect(await engine.step(part as unknown as StepPlan)).toEqual(expected);
    await engine.dispose();
  });

  test('reports progress while it loads', async () => {
    const engine = new Engine();
    expect(engine.progress()).toEqual({ doneBytes: 0, totalBytes: 0 });
    const seen: number[] = [];
    let isLoading = true;
    const loading = engine.load(big).finally(() => {
      isLoading = false;
    });
    while (isLoading) {
      await new Promise((resolve) => setTimeout(resolve, 2));
      seen.push(engine.progress().doneBytes);
    }
    await loading;
    const { doneBytes, totalBytes } = engine.progress();
    expect(doneBytes).toBe(totalBytes);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
    expect(seen.some((bytes) => bytes > 0 && bytes < totalBytes)).toBe(true);
    await engine.dispose();
  });

  test('cancels what runs and what is queued, and goes on with what comes after', async () => {
    const engine = new Engine();
    const cancelled = engine.load(big);
    const queued = engine.load(small);
    while (engine.progress().doneBytes === 0)
      await new Promise((resolve) => setTimeout(resolve, 1));
    engine.cancel();
    const later = engine.load(small);
    expect(await codeOf(() => cancelled)).toBe('ALTIPLANO_ABORTED');
    expect(await codeOf(() => queued)).toBe('ALTIPLANO_ABORTED');
    await later;

    const expected = await engine.step(wholePlan(40));
    const steps = Array.from({ length: 50 }, () => engine.step(wholePlan(64)));
    engine.cancel();
    const after = engine.step(wholePlan(40));
    const codes = await Promise.all(steps.map((step) => codeOf(() => step)));
    expect(codes.at(-1)).toBe('ALTIPLANO_ABORTED'); // the first ones may have been quick
    expect(await after).toEqual(expected);
    await engine.dispose();
    engine.cancel(); // of no effect
  });
});

describe('dispose', () => {
  test('waits for a load and for steps, and both calls for the same end', async () => {
    const engine = new Engine();
    const events: string[] = [];
    const log = (what: string) => () => void events.push(what);
    const all = [
      engine.load(small).then(log('loaded')),
      engine.step(wholePlan(64)).then(log('step')),
      engine.dispose().then(log('disposed')),
      engine.dispose().then(log('disposed again')),
    ];
    await Promise.all(all);
    expect(events).toEqual(['loaded', 'step', 'disposed', 'disposed again']);
    await engine.dispose();
    expect(await codeOf(() => engine.step(wholePlan(1)))).toBe('ALTIPLANO_DISPOSED');
    expect(await codeOf(() => engine.load(small))).toBe('ALTIPLANO_DISPOSED');
  });

  test('of an engine that never loaded, or whose load failed', async () => {
    await new Engine().dispose();
    const engine = new Engine();
    const missing = structuredClone(small);
    missing.tensors.finalNorm.file = `${folder}/none`;
    expect(await codeOf(() => engine.load(missing))).toBe('ALTIPLANO_FILE_NOT_FOUND');
    expect(await codeOf(() => engine.step(wholePlan(1)))).toBe('ALTIPLANO_DISPOSED');
    await engine.dispose();
  });

  test('in the middle of reading a plan', async () => {
    const engine = await loaded();
    const plan = { ...wholePlan(3) };
    let disposing: Promise<void> | undefined;
    Object.defineProperty(plan, 'pageCopies', {
      get() {
        disposing = engine.dispose();
        return new Int32Array(0);
      },
    });
    expect(await codeOf(() => engine.step(plan))).toBe('ALTIPLANO_DISPOSED');
    await disposing;
  });
});

describe('arguments', () => {
  /** Nothing of this is right anywhere, but for numbers in some places. */
  const junk: unknown[] = [
    undefined,
    null,
    true,
    'text',
    Symbol('s'),
    10n,
    Number.NaN,
    -1,
    0.5,
    2 ** 53,
    Number.NEGATIVE_INFINITY,
    {},
    [],
    new Float32Array(2),
    new Float64Array(2),
    new Int32Array(2),
    new BigInt64Array(2),
    new Uint8ClampedArray(2),
    new DataView(new ArrayBuffer(8)),
    new ArrayBuffer(8),
    () => 1,
  ];
  const codes =
    /^ALTIPLANO_(INVALID_ARGUMENT|OUT_OF_RANGE|INTERNAL|CHECKPOINT_[A-Z]+|FILE_[A-Z_]+)$/;

  test('that are no specs and no plans', async () => {
    const engine = await loaded();
    for (const value of junk) {
      const call = (run: (value: never) => unknown) => codeOf(() => run(value as never));
      expect(await call((v) => new Engine().load(v))).toBe('ALTIPLANO_INVALID_ARGUMENT');
      expect(await call((v) => native().estimate(v))).toBe('ALTIPLANO_INVALID_ARGUMENT');
      expect(await call((v) => engine.step(v))).toBe('ALTIPLANO_INVALID_ARGUMENT');
    }
    await engine.dispose();
  });

  test('with one wrong field in a spec', async () => {
    const accepted: unknown[] = [];
    const wrongSpecs: { what: unknown[]; wrong: EngineSpec }[] = [];
    const replaceIn = (object: object, spec: EngineSpec) => {
      for (const [key, original] of Object.entries(object)) {
        for (const value of junk) {
          const isHead = key === 'head' && value === undefined; // tied embeddings
          const isName = key === 'name' && value === 'text';
          const isEps = key === 'rmsNormEps' && value === 0.5;
          if (isHead || isName || isEps) continue;
          Object.assign(object, { [key]: value });
          wrongSpecs.push({ what: [key, value], wrong: cloned(spec) });
        }
        Object.assign(object, { [key]: original });
      }
    };
    const spec = cloned(small);
    replaceIn(spec, spec);
    replaceIn(spec.tensors, spec);
    replaceIn(spec.tensors.layers[1]!, spec);
    replaceIn(spec.tensors.head!, spec);
    spec.tensors.head!.format = { type: 'int8', group: 32, zeroPoints: true };
    replaceIn(spec.tensors.head!.format, spec);
    expect(wrongSpecs.length).toBeGreaterThan(700);
    for (const { what, wrong } of wrongSpecs) {
      const engine = new Engine();
      if (!codes.test(await codeOf(() => engine.load(wrong)))) accepted.push(what);
      await engine.dispose();
    }
    // What happens to be right.
    expect(accepted).toEqual([
      ['interleavedRotary', true],
      ['gpu', null],
      ['zeroPoints', true],
    ]);
  });

  test('with one wrong field in a plan', async () => {
    const engine = await loaded();
    const accepted: unknown[] = [];
    const plan = wholePlan(3);
    const expected = await engine.step(plan);
    for (const key of Object.keys(plan)) {
      for (const value of junk) {
        const wrong = { ...plan, [key]: value } as StepPlan;
        if (!codes.test(await codeOf(() => engine.step(wrong)))) accepted.push([key, value]);
      }
    }
    const pages = Int32Array.of(0, 0); // happen to be right
    expect(accepted).toEqual([
      ['blockTable', pages],
      ['pageCopies', pages],
    ]);
    expect(await engine.step(plan)).toEqual(expected);
    await engine.dispose();
  });

  test('that throw when they are read pass their own error on', async () => {
    const own = new Error('a getter of the caller');
    const hostile = () =>
      new Proxy(
        {},
        {
          get() {
            throw own;
          },
        },
      ) as never;
    const engine = await loaded();
    for (const run of [
      () => new Engine().load(hostile()),
      () => engine.step(hostile()),
      () => native().estimate(hostile()),
    ]) {
      expect(run).toThrow(own);
    }
    await engine.dispose();
  });

  test('of other kinds: no new, another receiver', () => {
    expect(() => (Engine as unknown as () => unknown)()).toThrow();
    const { load, step, dispose, cancel, progress } = Engine.prototype as NativeEngine;
    for (const method of [load, step, dispose, cancel, progress] as (() => unknown)[]) {
      for (const receiver of [undefined, {}, [], Engine, new Proxy(new Engine(), {})]) {
        expect(() => method.call(receiver)).toThrow();
      }
    }
  });
});

describe('errors of files', () => {
  test('name the tensor', async () => {
    const cases: [string, (spec: EngineSpec['tensors']) => unknown, string][] = [
      ['embedding', (t) => Object.assign(t.embedding, { file: folder }), 'ALTIPLANO_FILE_READ'],
      [
        'layers.1.up',
        (t) => Object.assign(t.layers[1]!.up, { file: '/none' }),
        'ALTIPLANO_FILE_NOT_FOUND',
      ],
      ['finalNorm', (t) => Object.assign(t.finalNorm, { offset: 1e12 }), 'ALTIPLANO_FILE_READ'],
      ['head', (t) => Object.assign(t.head!, { rows: 1 }), 'ALTIPLANO_CHECKPOINT_INVALID'],
    ];
    for (const [name, damage, code] of cases) {
      const spec = cloned(small);
      damage(spec.tensors);
      const engine = new Engine();
      const error = (await engine.load(spec).catch(fromNative)) as AltiplanoError;
      expect(error).toMatchObject({ code, message: expect.stringContaining(`tensor ${name}`) });
      await engine.load(small); // the engine is empty, not broken
      const { finite }: StepResult = await engine.step(wholePlan(5));
      expect(finite).toHaveLength(1);
      await engine.dispose();
    }
  });
});

/** A deep copy, but for what no copy can be made of. */
function cloned<T>(value: T): T {
  if (Array.isArray(value)) return value.map(cloned) as T;
  if (
    value === null ||
    typeof value !== 'object' ||
    Object.getPrototypeOf(value) !== Object.prototype
  ) {
    return value;
  }
  return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, cloned(v)])) as T;
}
