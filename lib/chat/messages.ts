/** Conversations as callers give them, and the checks that hold for every chat format. */

import { AltiplanoError, type ErrorDetails, show } from '../errors.js';

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant';
  /** The text. It may be empty: the turn then has no text, but it is there. */
  content: string;
}

const ROLES = ['system', 'user', 'assistant'];

export function chatInvalid(message: string, details: ErrorDetails = {}): AltiplanoError {
  return new AltiplanoError('ALTIPLANO_CHAT_INVALID', message, { subject: 'messages', ...details });
}

/**
 * Checks a conversation: an array of messages with a known role and text and nothing else, in which
 * a system message can only be the first, user and assistant take turns, and the user has the last
 * word.
 * @throws `ALTIPLANO_CHAT_INVALID` with the index of the message and what was expected
 */
export function checkMessages(messages: readonly ChatMessage[]): void {
  if (!Array.isArray(messages)) {
    throw chatInvalid('not a conversation', {
      expected: 'an array of messages',
      found: show(messages),
    });
  }
  for (const [index, message] of messages.entries()) checkMessage(message, index);
  const turns = messages[0]?.role === 'system' ? messages.slice(1) : messages;
  const offset = messages.length - turns.length;
  for (const [turn, { role }] of turns.entries()) {
    const expected = turn % 2 === 0 ? 'user' : 'assistant';
    if (role !== expected) {
      throw chatInvalid(`message ${turn + offset} has the wrong role`, {
        expected: turn === 0 && offset === 0 ? 'user or system' : expected,
        found: role,
      });
    }
  }
  if (turns.length % 2 === 0) {
    throw chatInvalid('the conversation does not end with a user message', {
      expected: `message ${messages.length} from the user`,
      found: messages.length === 0 ? 'no messages' : 'the end',
    });
  }
}

function checkMessage(message: unknown, index: number): void {
  const what = `message ${index}`;
  if (typeof message !== 'object' || message === null || Array.isArray(message)) {
    throw chatInvalid(`${what} is no message`, {
      expected: 'an object with role and content',
      found: show(message),
    });
  }
  const { role, content, ...rest } = message as Record<string, unknown>;
  if (typeof role !== 'string' || !ROLES.includes(role)) {
    throw chatInvalid(`${what} has an unknown role`, {
      expected: ROLES.join(', '),
      found: show(role),
    });
  }
  if (typeof content !== 'string') {
    throw chatInvalid(`${what} has no text`, {
      expected: 'a string as content',
      found: show(content),
    });
  }
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) {
    throw chatInvalid(`${what} has an unknown property`, {
      expected: 'role and content only',
      found: show(unknown),
    });
  }
}
