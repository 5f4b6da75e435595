import { describe, expect, test } from '@jest/globals';
import { run } from '../../lib/cli/program.js';
import { fakeContext } from './fake-context.js';

test('streams the text and ends the line', async () => {
  const context = fakeContext();
  expect(await run(['generate', 'one two'], context)).toBe(0);
  expect(context.stdout.text).toBe('re: one two\n');
  expect(context.stderr.text).toBe('');
  expect(context.model.disposed).toBe(1);
});

test.each([
  ['without PROMPT', ['generate']],
  ['with -', ['generate', '-']],
])('%s the prompt comes from standard input, less one newline', async (_, args) => {
  const context = fakeContext('piped\n\n');
  expect(await run(args, context)).toBe(0);
  expect(context.model.requests[0]!.prompt).toBe('piped\n');
});

test('a PROMPT given as an argument keeps its final newline', async () => {
  const context = fakeContext();
  expect(await run(['generate', 'typed\n'], context)).toBe(0);
  expect(context.model.requests[0]!.prompt).toBe('typed\n');
});

test('an empty PROMPT is a prompt', async () => {
  const context = fakeContext();
  expect(await run(['generate', ''], context)).toBe(0);
  expect(context.model.requests[0]!.prompt).toBe('');
});

test('standard input that is no UTF-8 is refused', async () => {
  const context = fakeContext();
  context.stdin = fakeContext(Buffer.from([0x61, 0xff]) as unknown as string).stdin;
  expect(await run(['generate'], context)).toBe(1);
  expect(context.stderr.text).toMatch('standard input: the text is not valid UTF-8');
});

test('--json prints one object', async () => {
  const context = fakeContext();
  expect(await run(['generate', 'x', '--json', '--max-tokens', '1'], context)).toBe(0);
  expect(JSON.parse(context.stdout.text)).toEqual({
    text: 're: x',
    tokens: [10, 11],
    promptTokens: 3,
    completionTokens: 2,
    finishReason: 'stop',
    seed: 9,
    timings: { loadMs: 7, prefillTokensPerSecond: 100, decodeTokensPerSecond: 50 },
  });
  expect(context.stderr.text).toBe('');
});

describe('--messages', () => {
  test('goes through the chat format', async () => {
    const messages = [
      { role: 'system', content: 's' },
      { role: 'user', content: 'hi' },
    ];
    const context = fakeContext(`\ufeff${JSON.stringify(messages)}`);
    expect(await run(['generate', '--messages', '-'], context)).toBe(0);
    expect(context.model.requests[0]!.prompt).toEqual(messages);
    expect(context.stdout.text).toBe('re: hi\n');
  });

  test.each([
    ['no JSON', '[{', 'found '],
    ['no array', '{"role":"user","content":"x"}', 'expected a JSON array'],
    ['a message without content', '[{"role":"user"}]', 'found {"role":"user"} as number 1'],
    ['null', '[null]', 'found null as number 1'],
  ])('refuses %s before the model is loaded', async (_, text, message) => {
    const context = fakeContext(text);
    expect(await run(['generate', '--messages', '-'], context)).toBe(2);
    expect(context.stderr.text).toContain(message);
    expect(context.model.loaded).toBeUndefined();
  });

  test('names a file that is not there', async () => {
    const context = fakeContext();
    expect(await run(['generate', '--messages', '/no/such.json'], context)).toBe(1);
    expect(context.stderr.text).toBe(
      'altiplano: /no/such.json: there is no such file (ALTIPLANO_FILE_NOT_FOUND)\n',
    );
  });
});

test('Ctrl-C keeps what came and gives 130', async () => {
  const context = fakeContext();
  context.model.onPiece = (piece) => piece === 'two ' && context.interrupt();
  expect(await run(['generate', 'one two three four'], context)).toBe(130);
  expect(context.stdout.text).toBe('re: one two \n');
  expect(context.stderr.text).toBe('');
  expect(context.exits).toEqual([]);
  expect(context.model.disposed).toBe(1);
});

test('a second Ctrl-C leaves at once', async () => {
  const context = fakeContext();
  context.model.onPiece = () => {
    context.interrupt();
    context.interrupt();
  };
  expect(await run(['generate', 'one two'], context)).toBe(130);
  expect(context.exits).toEqual([130]);
});

test('a reader that has gone ends the work without a word', async () => {
  const context = fakeContext();
  context.model.onPiece = () => context.closeOutput('EPIPE');
  expect(await run(['generate', 'one two three'], context)).toBe(0);
  expect(context.stdout.text).not.toMatch('three');
  expect(context.stderr.text).toBe('');
});

test('output that cannot be written is a failure', async () => {
  const context = fakeContext();
  context.model.onPiece = () => context.closeOutput('ENOSPC');
  expect(await run(['generate', 'one two three'], context)).toBe(1);
  expect(context.stderr.text).toBe('altiplano: write ENOSPC (ENOSPC)\n');
});

test('a terminal gets no escape sequences from the model', async () => {
  const reply = () => 'a\u001b[31mb\u009bc\td\ne';
  const terminal = fakeContext();
  terminal.stdout.isTTY = true;
  terminal.model.reply = reply;
  await run(['generate', 'x'], terminal);
  expect(terminal.stdout.text).toBe('a\ufffd[31mb\ufffdc\td\ne\n');

  const pipe = fakeContext();
  pipe.model.reply = reply;
  await run(['generate', 'x'], pipe);
  expect(pipe.stdout.text).toBe(`${reply()}\n`);
});
