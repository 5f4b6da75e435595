import { describe, expect, test } from '@jest/globals';
import { run } from '../../lib/cli/program.js';
import { AltiplanoError } from '../../lib/errors.js';
import { fakeContext } from './fake-context.js';

const COMMANDS = ['chat', 'generate', 'tokenize', 'inspect', 'perplexity', 'bench', 'doctor'];

describe('help', () => {
  test('lists every command, on stdout', async () => {
    const context = fakeContext();
    expect(await run(['--help'], context)).toBe(0);
    for (const command of COMMANDS) expect(context.stdout.text).toMatch(`\n  ${command} `);
    expect(context.stderr.text).toBe('');
  });

  test.each(COMMANDS)('of %s says what it does, with examples', async (command) => {
    const context = fakeContext();
    expect(await run([command, '--help'], context)).toBe(0);
    expect(context.stdout.text).toMatch(`Usage: altiplano ${command}`);
    expect(context.stdout.text).toMatch(`Examples:\n  `);
    expect(context.stderr.text).toBe('');
  });

  test('without a command goes to stderr, as wrong usage', async () => {
    const context = fakeContext();
    expect(await run([], context)).toBe(2);
    expect(context.stdout.text).toBe('');
    expect(context.stderr.text).toMatch('Usage: altiplano');
  });

  test('--version prints the version of the package', async () => {
    const context = fakeContext();
    expect(await run(['--version'], context)).toBe(0);
    expect(context.stdout.text).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('wrong usage gives exit code 2 and names the option', () => {
  test.each([
    [['fly'], "unknown command 'fly'"],
    [['generate', '--wings'], "unknown option '--wings'"],
    [['generate', 'a', 'b'], 'Expected 1 argument but got 2'],
    [
      ['generate', 'x', '--top-p', '1.5'],
      "'--top-p <p>' argument '1.5' is invalid. Expected a number from 0 to 1.",
    ],
    [['generate', 'x', '--top-p', 'much'], "'--top-p <p>' argument 'much' is invalid"],
    [
      ['generate', 'x', '--temperature', ''],
      "'--temperature <t>' argument '' is invalid. Expected a number from 0 to 100.",
    ],
    [['generate', 'x', '--temperature', 'NaN'], "'--temperature <t>' argument 'NaN' is invalid"],
    [
      ['generate', 'x', '--max-tokens', '0'],
      "'--max-tokens <n>' argument '0' is invalid. Expected a whole number of at least 1.",
    ],
    [['generate', 'x', '--max-tokens', '1e3'], "'--max-tokens <n>' argument '1e3' is invalid"],
    [['generate', 'x', '--max-tokens', '2.5'], "'--max-tokens <n>' argument '2.5' is invalid"],
    [['generate', 'x', '--top-k', '-1'], "'--top-k <n>' argument '-1' is invalid"],
    [['generate', 'x', '--min-p', '2'], "'--min-p <p>' argument '2' is invalid"],
    [
      ['generate', 'x', '--repetition-penalty', '0'],
      "argument '0' is invalid. Expected a number from 0.01 to 100.",
    ],
    [
      ['generate', 'x', '--frequency-penalty', '3'],
      "argument '3' is invalid. Expected a number from -2 to 2.",
    ],
    [['generate', 'x', '--presence-penalty', '-3'], "argument '-3' is invalid"],
    [
      ['generate', 'x', '--seed', '99999999999999999999'],
      "'--seed <n>' argument '99999999999999999999' is invalid. Expected a whole number.",
    ],
    [
      ['generate', 'x', '--threads', '0'],
      "argument '0' is invalid. Expected a whole number from 1 to 1024.",
    ],
    [
      ['generate', 'x', '--weights', 'int2'],
      "argument 'int2' is invalid. Allowed choices are auto, f32, f16, bf16, int8, int4.",
    ],
    [['generate', 'x', '--kv', 'int4'], 'Allowed choices are auto, f32, f16, bf16, int8.'],
    [['generate', 'x', '--logprobs', '2'], 'add --json'],
    [['generate', 'x', '--messages', 'y'], 'exclude each other'],
    [['generate'], 'missing argument PROMPT'],
    [['tokenize'], 'missing argument TEXT'],
    [['perplexity'], "required option '-f, --file <text>' not specified"],
    [['inspect', 'a', '--model', 'b'], 'give one of them'],
    [['bench', '--runs', '0'], "'--runs <n>' argument '0' is invalid"],
  ])('%j', async (args, message) => {
    const context = fakeContext();
    expect(await run(args, context)).toBe(2);
    expect(context.stderr.text).toMatch(/^altiplano: [^\n]+\n$/);
    expect(context.stderr.text).toContain(message);
    expect(context.stdout.text).toBe('');
    expect(context.model.loaded).toBeUndefined();
  });

  test('as JSON with --json', async () => {
    const context = fakeContext();
    expect(await run(['generate', 'x', '--json', '--top-p', '7'], context)).toBe(2);
    expect(JSON.parse(context.stderr.text)).toMatchObject({
      level: 'error',
      code: 'ALTIPLANO_INVALID_ARGUMENT',
      message: expect.stringContaining("argument '7'"),
    });
    expect(context.stdout.text).toBe('');
  });

  test('a prompt that looks like --json is a prompt', async () => {
    const context = fakeContext();
    expect(await run(['generate', '--top-p', '7', '--', '--json'], context)).toBe(2);
    expect(context.stderr.text).toMatch(/^altiplano: /);
  });
});

describe('failures give exit code 1', () => {
  const failing = () => {
    const context = fakeContext();
    context.model.failure = new AltiplanoError(
      'ALTIPLANO_FILE_NOT_FOUND',
      'there is\nno such folder',
      {
        subject: '/nowhere',
        hint: 'Look elsewhere',
      },
    );
    return context;
  };

  test('one paragraph with the code', async () => {
    const context = failing();
    expect(await run(['generate', 'x', '--model', '/nowhere'], context)).toBe(1);
    expect(context.stderr.text).toBe(
      'altiplano: /nowhere: there is no such folder. Look elsewhere (ALTIPLANO_FILE_NOT_FOUND)\n',
    );
    expect(context.stdout.text).toBe('');
  });

  test('one object with --json', async () => {
    const context = failing();
    expect(await run(['generate', 'x', '--model', '/nowhere', '--json'], context)).toBe(1);
    expect(JSON.parse(context.stderr.text)).toEqual({
      level: 'error',
      code: 'ALTIPLANO_FILE_NOT_FOUND',
      message: '/nowhere: there is no such folder. Look elsewhere',
      subject: '/nowhere',
      hint: 'Look elsewhere',
    });
  });

  test('the stack with ALTIPLANO_DEBUG=1 only', async () => {
    const context = failing();
    context.env.ALTIPLANO_DEBUG = '1';
    expect(await run(['generate', 'x'], context)).toBe(1);
    expect(context.stderr.text).toMatch(/\n {4}at /);
  });

  test('an error of unknown kind is reported too', async () => {
    const context = fakeContext();
    context.model.failure = new Error('boom');
    expect(await run(['generate', 'x'], context)).toBe(1);
    expect(context.stderr.text).toBe('altiplano: boom (ALTIPLANO_INTERNAL)\n');
  });
});

test('warnings are lines on stderr, objects with --json', async () => {
  const plain = fakeContext();
  await run(['generate', 'x'], plain);
  plain.warn(new Error('eps is\n1e-6'));
  expect(plain.stderr.text).toBe('altiplano: warning: eps is 1e-6\n');

  const json = fakeContext();
  await run(['generate', 'x', '--json', '--max-tokens', '1'], json);
  json.warn(new Error('eps is 1e-6'));
  expect(JSON.parse(json.stderr.text)).toEqual({ level: 'warning', message: 'eps is 1e-6' });
});

test('the flags become the options of the library', async () => {
  const context = fakeContext();
  const loading = [
    '--model',
    'm',
    '--weights',
    'int8',
    '--kv',
    'f16',
    '--context-tokens',
    '99',
    '--threads',
    '3',
  ];
  const sampling = [
    ...[
      '--max-tokens',
      '4',
      '--temperature',
      '0.5',
      '--top-p',
      '0.7',
      '--top-k',
      '8',
      '--min-p',
      '0.1',
    ],
    ...['--repetition-penalty', '1.1', '--frequency-penalty', '0.2', '--presence-penalty', '-0.3'],
    ...['--seed', '-5', '--stop', 'a', '--stop', 'b'],
  ];
  expect(await run(['generate', 'x', ...loading, ...sampling], context)).toBe(0);
  expect(context.model.loaded).toMatchObject({
    source: 'm',
    options: { weights: 'int8', kv: 'f16', contextTokens: 99, threads: 3 },
  });
  expect(context.model.requests[0]!.options).toMatchObject({
    maxTokens: 4,
    temperature: 0.5,
    topP: 0.7,
    topK: 8,
    minP: 0.1,
    repetitionPenalty: 1.1,
    frequencyPenalty: 0.2,
    presencePenalty: -0.3,
    seed: -5,
    stop: ['a', 'b'],
  });
});

test('options that were not given are left to the library', async () => {
  const context = fakeContext();
  expect(await run(['generate', 'x'], context)).toBe(0);
  expect(Object.keys(context.model.loaded!.options).sort()).toEqual(['onProgress', 'signal']);
  expect(Object.keys(context.model.requests[0]!.options)).toEqual(['signal']);
});
