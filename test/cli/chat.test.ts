import { expect, test } from '@jest/globals';
import { run } from '../../lib/cli/program.js';
import { fakeContext } from './fake-context.js';

const roles = (prompt: unknown) =>
  (prompt as { role: string; content: string }[]).map(({ role, content }) => [role, content]);

test('each line of standard input is a message; only the answers are printed', async () => {
  const context = fakeContext('one\n\n  \r\ntwo\r\n/exit');
  expect(await run(['chat', '--system', 'be kind', '--temperature', '0'], context)).toBe(0);
  expect(context.stdout.text).toBe('re: one\nre: two\nre: /exit\n');
  expect(context.stderr.text).toBe('');
  expect(roles(context.model.requests[1]!.prompt)).toEqual([
    ['system', 'be kind'],
    ['user', 'one'],
    ['assistant', 're: one'],
    ['user', 'two'],
  ]);
  expect(context.model.requests[1]!.options.temperature).toBe(0);
  expect(context.model.disposed).toBe(1);
});

test('a message that is refused is reported, and the conversation goes on without it', async () => {
  const context = fakeContext('one\nbad [INST]\ntwo\n');
  expect(await run(['chat'], context)).toBe(1);
  expect(context.stdout.text).toBe('re: one\nre: two\n');
  expect(context.stderr.text).toBe(
    'altiplano: a message contains [INST] (ALTIPLANO_CHAT_INJECTION)\n',
  );
  expect(roles(context.model.requests[1]!.prompt)).toEqual([
    ['user', 'one'],
    ['assistant', 're: one'],
    ['user', 'two'],
  ]);
});

test('an answer that no later request could contain is left out', async () => {
  const context = fakeContext('one\ntwo\n');
  context.model.reply = (prompt) => (prompt === 'one' ? 'say [INST]' : 'fine');
  expect(await run(['chat'], context)).toBe(0);
  expect(context.stdout.text).toBe('say [INST]\nfine\n');
  expect(context.stderr.text).toMatch('This turn is left out of the conversation');
  expect(roles(context.model.requests[1]!.prompt)).toEqual([['user', 'two']]);
});

test('a system message that is refused ends the command', async () => {
  const context = fakeContext('one\n');
  expect(await run(['chat', '--system', 'x [INST]'], context)).toBe(1);
  expect(context.stderr.text).toMatch('ALTIPLANO_CHAT_INJECTION');
  expect(context.model.requests).toHaveLength(0);
  expect(context.model.disposed).toBe(1);
});

test('a system message longer than the context is wrong usage', async () => {
  const context = fakeContext('one\n');
  context.model.info.contextTokens = 50;
  expect(await run(['chat', '--system', 'x'.repeat(60)], context)).toBe(2);
  expect(context.stderr.text).toMatch('more than the context of 50 can hold');
});

test('when the context is full the oldest turns go, and a note says so', async () => {
  // A token is a character: two turns of 10 + 14 and a message of 10 fit 60 tokens less a quarter.
  const lines = ['a', 'b', 'c', 'd'].map((letter) => letter.repeat(10));
  const context = fakeContext(lines.join('\n'));
  context.model.info.contextTokens = 60;
  expect(await run(['chat', '--system', 'S'], context)).toBe(0);
  const prompts = context.model.requests.map(({ prompt }) =>
    roles(prompt).map(([, text]) => text![0]),
  );
  expect(prompts).toEqual([
    ['S', 'a'],
    ['S', 'a', 'r', 'b'],
    ['S', 'b', 'r', 'c'],
    ['S', 'c', 'r', 'd'],
  ]);
  const note = '[The context of 60 tokens is full: the oldest turn was dropped.]\n';
  expect(context.stderr.text).toBe(note + note);
});

test('the cache for all sequences bounds the conversation as well', async () => {
  const context = fakeContext(`${'a'.repeat(10)}\n${'b'.repeat(10)}\n`);
  context.model.info.kvCacheTokens = 40;
  expect(await run(['chat'], context)).toBe(0);
  expect(context.stderr.text).toMatch('The context of 40 tokens is full');
});

test('Ctrl-C between lines of standard input ends with 130', async () => {
  const context = fakeContext('one\ntwo\nthree\n');
  context.model.onPiece = (piece) => piece === 'two' && context.interrupt();
  expect(await run(['chat'], context)).toBe(130);
  expect(context.stdout.text).toBe('re: one\nre: two\n');
});

test('an answer cut short says so', async () => {
  const context = fakeContext('one\n');
  const chat = context.model.chat.bind(context.model);
  context.model.chat = (messages, options) => {
    const generation = chat(messages, options);
    return { ...generation, result: Promise.resolve({ finishReason: 'length' }) };
  };
  expect(await run(['chat'], context)).toBe(0);
  expect(context.stdout.text).toBe('re: one\n');
  expect(context.stderr.text).toMatch('The answer ends here');
});
