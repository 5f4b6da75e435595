import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { type ChatMessage, encodeLlama2Chat } from '../../lib/chat/index.js';
import { pythonStrip } from '../../lib/chat/python-strip.js';
import { Tokenizer } from '../../lib/tokenizer/index.js';
import { DEMO_MODEL, LLAMA2_FOLDER, tokenizerOf, vocabularyOf } from '../tokenizer/vocabularies.js';

const system = (content: string): ChatMessage => ({ role: 'system', content });
const user = (content: string): ChatMessage => ({ role: 'user', content });
const assistant = (content: string): ChatMessage => ({ role: 'assistant', content });

const llama2Test = existsSync(LLAMA2_FOLDER) ? test : test.skip;

let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await Tokenizer.load(DEMO_MODEL);
});

const turn = (text: string) => [1, ...tokenizer.encode(text)];

describe("Meta's format", () => {
  test('one turn', () => {
    expect(encodeLlama2Chat([user(' Hello!\n')], tokenizer)).toEqual(turn('[INST] Hello! [/INST]'));
  });

  llama2Test('one turn of Llama 2 (needs ../shared)', async () => {
    const llama2 = await Tokenizer.load(LLAMA2_FOLDER);
    expect(encodeLlama2Chat([user('hi')], llama2)).toEqual([
      1, 518, 25580, 29962, 7251, 518, 29914, 25580, 29962,
    ]);
  });

  test('completed turns end with a space and EOS, each encoded on its own', () => {
    const messages = [
      user('One'),
      assistant(' Two \n'),
      user('Three'),
      assistant('Four'),
      user('?'),
    ];
    expect(encodeLlama2Chat(messages, tokenizer)).toEqual([
      ...turn('[INST] One [/INST] Two '),
      2,
      ...turn('[INST] Three [/INST] Four '),
      2,
      ...turn('[INST] ? [/INST]'),
    ]);
  });

  test('a system message folds into the first user message before trimming', () => {
    expect(encodeLlama2Chat([system(' Be brief.\n'), user(' Hi ')], tokenizer)).toEqual(
      turn('[INST] <<SYS>>\n Be brief.\n\n<</SYS>>\n\n Hi [/INST]'),
    );
  });

  test('the messages of the golden prompts', () => {
    const golden = JSON.parse(readFileSync(resolve('models/demo/golden.json'), 'utf8'));
    let compared = 0;
    for (const { prompt, ids } of golden.cases) {
      const match = /^\[INST\] ((?:(?!\[INST\])[\s\S])*) \[\/INST\]$/.exec(prompt);
      if (!match || match[1].includes('<<SYS>>')) continue;
      compared++;
      expect(encodeLlama2Chat([user(match[1])], tokenizer)).toEqual(ids);
    }
    expect(compared).toBeGreaterThan(0);
  });

  test('empty messages leave their place empty', () => {
    expect(encodeLlama2Chat([user('')], tokenizer)).toEqual(turn('[INST]  [/INST]'));
    expect(encodeLlama2Chat([user('a'), assistant(''), user('b')], tokenizer)).toEqual([
      ...turn('[INST] a [/INST]  '),
      2,
      ...turn('[INST] b [/INST]'),
    ]);
  });

  test('control tokens in messages stay text', () => {
    const ids = encodeLlama2Chat([user('a </s><s> b'), assistant('<unk>'), user('c')], tokenizer);
    expect(ids.filter((id) => tokenizer.isControl(id))).toEqual([1, 2, 1]);
  });

  test.each(['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>'])(
    '%s in a message is refused',
    (marker) => {
      const messages = [system('s'), user('u'), assistant('a'), user('v')];
      messages.forEach((message, index) => {
        const bad = messages.with(index, { ...message, content: `x${marker}y` });
        expect(() => encodeLlama2Chat(bad, tokenizer)).toThrow(
          expect.objectContaining({
            code: 'ALTIPLANO_CHAT_INJECTION',
            message: expect.stringContaining(`message ${index}`),
          }),
        );
      });
    },
  );

  test.each<[string, unknown, RegExp]>([
    ['nothing', undefined, /array of messages/],
    ['a string', 'hi', /array of messages/],
    ['no messages', [], /message 0 from the user, found no messages/],
    ['a system message only', [system('s')], /message 1 from the user/],
    ['an answer first', [assistant('a')], /message 0 .*user or system, found assistant/],
    ['an answer after system', [system('s'), assistant('a')], /message 1 .*expected user/],
    ['two questions', [user('a'), user('b')], /message 1 .*expected assistant, found user/],
    ['an answer last', [user('a'), assistant('b')], /end with a user message.*message 2/],
    ['system in the middle', [user('a'), system('b'), user('c')], /message 1 .*found system/],
    ['two system messages', [system('a'), system('b'), user('c')], /message 1 .*expected user/],
    ['another role', [{ role: 'tool', content: 'x' }], /message 0 .*unknown role.*"tool"/],
    ['no role', [{ content: 'x' }], /message 0 .*unknown role/],
    ['no content', [{ role: 'user' }], /message 0 has no text/],
    ['content that is an array', [{ role: 'user', content: [] }], /message 0 has no text/],
    ['another property', [{ ...user('x'), name: 'y' }], /unknown property.*"name"/],
    ['a message that is null', [user('a'), null], /message 1 is no message/],
    ['a message that is text', ['hi'], /message 0 is no message/],
  ])('%s is no conversation', (_, messages, message) => {
    expect(() => encodeLlama2Chat(messages as ChatMessage[], tokenizer)).toThrow(
      expect.objectContaining({
        code: 'ALTIPLANO_CHAT_INVALID',
        message: expect.stringMatching(message),
      }),
    );
  });

  test('a tokenizer without BOS or EOS is refused', async () => {
    const bare = await tokenizerOf(vocabularyOf([], { bosId: undefined }));
    expect(() => encodeLlama2Chat([user('a')], bare)).toThrow(
      expect.objectContaining({ code: 'ALTIPLANO_TOKENIZER_UNSUPPORTED' }),
    );
  });
});

describe("Python's str.strip", () => {
  test('takes what Python takes, and nothing else', () => {
    // [chr(c) for c in range(0x10000) if chr(c).isspace()] in Python 3
    const spaces = [
      0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x85, 0xa0, 0x1680, 0x2000,
      0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
      0x2029, 0x202f, 0x205f, 0x3000,
    ];
    const taken = [];
    for (let code = 0; code < 0x10000; code++) {
      const character = String.fromCharCode(code);
      if (pythonStrip(`${character}x${character}`) === 'x') taken.push(code);
    }
    expect(taken).toEqual(spaces);
  });

  test('leaves the middle alone, and nothing of nothing', () => {
    expect(pythonStrip(' \x1c a \x85 b\ufeff ')).toBe('a \x85 b\ufeff');
    expect(pythonStrip(' \n ')).toBe('');
    expect(pythonStrip('')).toBe('');
  });
});
