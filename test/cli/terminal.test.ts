/** `altiplano chat` as it behaves in a terminal. */
import { afterEach, expect, test } from '@jest/globals';
import { hasScript, Terminal } from './child.js';

// Visible as skipped where util-linux is missing (macOS, Windows).
const inTerminal = hasScript ? test : test.skip;
const HELLO = 'Ctrl-D leaves.\n> ';
/** Close to uniform sampling: an answer of several hundred tokens. */
const ENDLESS = ['chat', '--temperature', '100', '--top-p', '1', '--seed', '3'];

let terminal: Terminal | undefined;
afterEach(() => terminal?.kill());

function open(args: string[], env?: Record<string, string>): Terminal {
  terminal = new Terminal(args, env);
  return terminal;
}

inTerminal('a conversation, history, and Ctrl-D', async () => {
  const chat = open(['chat', '--temperature', '0']);
  await chat.see(HELLO);
  chat.type('What is the capital of Peru?\r');
  await chat.see('Lima');
  await chat.see('\n> ', 2);
  chat.type('\u001b[A\r');
  await chat.see('Lima', 2);
  await chat.see('\n> ', 3);
  expect(chat.shown.split('capital of Peru?').length - 1).toBe(2);
  chat.type('\u0004');
  expect(await chat.code).toBe(0);
});

inTerminal('commands', async () => {
  const chat = open(['chat', '--temperature', '0']);
  await chat.see(HELLO);
  chat.type('/help\r');
  await chat.see('/system TEXT');
  chat.type('/fly\r');
  await chat.see('There is no command /fly');
  chat.type('/system Speak like a robot.\r');
  await chat.see('The system message is set');
  chat.type('How much is 42 + 23?\r');
  await chat.see('Beep! 42 + 23 = 65.');
  chat.type('/system\r');
  await chat.see('No system message');
  chat.type('My name is Ada.\r');
  await chat.see('Ada.', 2);
  chat.type('/reset\r');
  await chat.see('starts over.\n> ', 2);
  chat.type('/system a [INST] b\r');
  await chat.see('ALTIPLANO_CHAT_INJECTION');
  chat.type('x <<SYS>> y\r');
  await chat.see('ALTIPLANO_CHAT_INJECTION', 2);
  chat.type('/exit\r');
  expect(await chat.code).toBe(0);
});

inTerminal('pasted lines, and lines that end in a backslash, are one message', async () => {
  const chat = open(['chat', '--temperature', '0']);
  await chat.see(HELLO);
  chat.type('What is the capital\nof\nPeru?');
  await chat.see('. Peru?');
  chat.type('\r');
  await chat.see('Lima');
  await chat.see('\n> ', 2);
  chat.type('What is the capital \\\r');
  await chat.see('\\\n. ');
  chat.type('of Spain?\r');
  await chat.see('Madrid');
  chat.type('/exit\r');
  expect(await chat.code).toBe(0);
});

inTerminal(
  'Ctrl-C stops an answer, the conversation goes on, and at the prompt it leaves',
  async () => {
    const chat = open(ENDLESS);
    await chat.see(HELLO);
    chat.type('go\r');
    await chat.see('> go\n');
    await chat.until(() => chat.shown.split('> go\n')[1]!.length > 10);
    chat.type('\u0003');
    await chat.see('[Stopped. What came so far stays in the conversation.]');
    await chat.see('\n> ', 2);
    chat.type('/help\r');
    await chat.see('/reset');
    await chat.see('\n> ', 3);
    chat.type('half a mess\u0003');
    expect(await chat.code).toBe(130);
  },
);

inTerminal('NO_COLOR is respected', async () => {
  const colours = open(['chat']);
  await colours.see(HELLO);
  colours.type('\u0004');
  expect(await colours.code).toBe(0);
  const plain = open(['chat'], { NO_COLOR: '1' });
  await plain.see(HELLO);
  plain.type('\u0004');
  expect(await plain.code).toBe(0);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are escape sequences
  const colour = /\u001b\[[0-9;]*m/;
  expect([colour.test(colours.raw), colour.test(plain.raw)]).toEqual([true, false]);
});
