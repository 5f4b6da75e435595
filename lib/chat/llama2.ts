/**
 * The chat format of Llama 2, as Meta's reference writes it (`Llama.chat_completion` in
 * https://github.com/meta-llama/llama, llama/generation.py): each turn is encoded on its own, between
 * BOS and EOS, which no text can produce.
 */

import { AltiplanoError } from '../errors.js';
import type { Tokenizer } from '../tokenizer/index.js';
import { type ChatMessage, checkMessages } from './messages.js';
import { pythonStrip } from './python-strip.js';

/** Markers of the format. They are ordinary text, so a message that holds one is refused. */
const MARKERS = ['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>'];

export interface ChatFormat {
  /** `llama2` is Meta's own format, `template` a Jinja template. */
  readonly kind: 'llama2' | 'template';
  /**
   * Token ids of a conversation, ready for the answer.
   * @throws `ALTIPLANO_CHAT_INVALID`, `ALTIPLANO_CHAT_INJECTION`, `ALTIPLANO_CHAT_TEMPLATE`
   */
  encode(messages: readonly ChatMessage[]): number[];
}

export function llama2Format(tokenizer: Tokenizer): ChatFormat {
  return { kind: 'llama2', encode: (messages) => encodeLlama2Chat(messages, tokenizer) };
}

/**
 * Token ids of a conversation, ready for the answer.
 *
 * - a completed turn: `BOS encode("[INST] {user} [/INST] {answer} ") EOS`
 * - the last turn: `BOS encode("[INST] {user} [/INST]")`
 *
 * `user` and `answer` are stripped as Python does it; a system message goes before the first user
 * message and is stripped together with it. Empty contents are allowed and leave their place empty.
 *
 * @throws `ALTIPLANO_CHAT_INVALID` for a conversation that breaks the rules,
 * `ALTIPLANO_CHAT_INJECTION` for a message that contains a marker, `ALTIPLANO_TOKENIZER_UNSUPPORTED`
 * for a tokenizer without BOS or EOS
 */
export function encodeLlama2Chat(messages: readonly ChatMessage[], tokenizer: Tokenizer): number[] {
  checkMessages(messages);
  refuseMarkers(messages);
  const { bosId, eosId } = tokenizer;
  if (bosId === undefined || eosId === undefined) {
    throw new AltiplanoError(
      'ALTIPLANO_TOKENIZER_UNSUPPORTED',
      'the Llama 2 chat format needs a tokenizer with BOS and EOS',
    );
  }
  const ids: number[] = [];
  for (const { text, completed } of llama2Turns(messages)) {
    ids.push(bosId);
    for (const id of tokenizer.encode(text)) ids.push(id);
    if (completed) ids.push(eosId);
  }
  return ids;
}

/** The texts between BOS and EOS. The messages were checked. */
export function llama2Turns(
  messages: readonly ChatMessage[],
): { text: string; completed: boolean }[] {
  const contents = messages.map((message) => message.content);
  if (messages[0].role === 'system') {
    const [system, user, ...rest] = contents;
    contents.splice(0, contents.length, `<<SYS>>\n${system}\n<</SYS>>\n\n${user}`, ...rest);
  }
  const turns: { text: string; completed: boolean }[] = [];
  for (let index = 0; index < contents.length; index += 2) {
    const question = `[INST] ${pythonStrip(contents[index])} [/INST]`;
    const answer = contents[index + 1];
    turns.push(
      answer === undefined
        ? { text: question, completed: false }
        : { text: `${question} ${pythonStrip(answer)} `, completed: true },
    );
  }
  return turns;
}

function refuseMarkers(messages: readonly ChatMessage[]): void {
  for (const [index, { content }] of messages.entries()) {
    const marker = MARKERS.find((candidate) => content.includes(candidate));
    if (marker !== undefined) {
      throw new AltiplanoError(
        'ALTIPLANO_CHAT_INJECTION',
        `message ${index} contains a marker of the chat format`,
        { subject: 'messages', found: marker, hint: 'Remove it, or break it up with a space.' },
      );
    }
  }
}
