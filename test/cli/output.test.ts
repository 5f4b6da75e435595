import { describe, expect, test } from '@jest/globals';
import { median } from '../../lib/cli/bench.js';
import { Conversation } from '../../lib/cli/conversation.js';
import { number, plural, styles, table, write } from '../../lib/cli/output.js';
import { fakeContext } from './fake-context.js';

test.each([
  [0.012345, '0.0123'],
  [12.345, '12.3'],
  [123.4, '123'],
  [4196608, '4,196,608'],
])('number(%d) is %s', (value, text) => {
  expect(number(value)).toBe(text);
});

test('plural', () => {
  expect([plural(1, 'turn'), plural(1200, 'turn')]).toEqual(['1 turn', '1,200 turns']);
});

test('table aligns columns and leaves no space at line ends', () => {
  expect(
    table(
      [
        ['a', '1', ''],
        ['bcd', '23', 'x'],
      ],
      [1],
    ),
  ).toBe('a     1\nbcd  23  x\n');
});

describe('styles', () => {
  const dim = (isTTY: boolean, env: Record<string, string>) => {
    const context = fakeContext();
    context.stderr.isTTY = isTTY;
    context.env = env;
    return styles(context, context.stderr).dim('x');
  };
  test('colour terminals', () => expect(dim(true, {})).toBe('\u001b[2mx\u001b[22m'));
  test.each([
    ['pipes', false, {}],
    ['NO_COLOR', true, { NO_COLOR: '1' }],
    ['dumb terminals', true, { TERM: 'dumb' }],
  ])('leave text alone for %s', (_, isTTY, env) => {
    expect(dim(isTTY, env as Record<string, string>)).toBe('x');
  });
});

test('write waits for a slow reader, and not for one that has gone', async () => {
  const { stdout } = fakeContext();
  let release = () => {};
  stdout._write = (_chunk, _encoding, done) => {
    release = done;
  };
  let written = false;
  const writing = write(stdout, 'x'.repeat(2 * stdout.writableHighWaterMark)).then(() => {
    written = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(written).toBe(false);
  release();
  await writing;
  stdout.destroy();
  await write(stdout, 'y');
  expect(stdout.listenerCount('drain')).toBe(0);
});

test('a conversation keeps its system message and the newest turns', () => {
  const conversation = new Conversation('s');
  for (const user of ['1', '2', '3']) conversation.turns.push({ user, assistant: 'a' });
  const count = (messages: unknown[]) => messages.length;
  expect(conversation.makeRoom('new', 8, count)).toBe(0);
  expect(conversation.makeRoom('new', 5, count)).toBe(2);
  expect(conversation.messages('new').map(({ content }) => content)).toEqual([
    's',
    '3',
    'a',
    'new',
  ]);
  expect(conversation.makeRoom('new', 0, count)).toBe(1);
  expect(conversation.messages('new')).toHaveLength(2);
});

test('median', () => {
  expect([median([3, 1, 2]), median([4, 1, 3, 2]), median([5])]).toEqual([2, 2.5, 5]);
});
