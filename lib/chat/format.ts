/**
 * From a conversation to token ids, whatever the checkpoint's format. A template that renders as
 * Meta's format does is replaced by it, which is exact to the token and safe from injection. Any
 * other template is rendered, and its special tokens are parsed; those that stand in messages are
 * kept from it by marks.
 *
 * The marks: a character that occurs nowhere else is put around every visible character of every
 * message. No special token spans a mark, so text of a message cannot become one, nor help one come
 * about. Marks are taken out before text is encoded. White space gets none, so that templates can
 * trim. A template that looks into a message (for `</think>`, say) may act on the marks: this shows
 * when the rendering without marks differs. Then marks are put only into the special tokens' texts,
 * and if even that changes what the template writes, the conversation is refused.
 */

import { AltiplanoError, invalidArgument, show } from '../errors.js';
import type { Tokenizer } from '../tokenizer/index.js';
import { type ChatFormat, llama2Format, llama2Turns } from './llama2.js';
import { type ChatMessage, chatInvalid, checkMessages } from './messages.js';
import { ChatTemplate } from './template.js';

export interface ChatFormatOptions {
  tokenizer: Tokenizer;
  /** Jinja source. Without one the format is Llama 2's. */
  template?: string;
  /** What the template gets as `bos_token`. Default: the tokenizer's piece. */
  bosToken?: string;
  /** What the template gets as `eos_token`. Default: the tokenizer's piece. */
  eosToken?: string;
}

/** Conversations that tell Meta's format from others: with and without system, turns, and spaces. */
const PROBES: readonly (readonly ChatMessage[])[] = [
  [{ role: 'user', content: 'Hi' }],
  [{ role: 'user', content: ' \n Who are you? \t' }],
  [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Hi' },
  ],
  [
    { role: 'user', content: 'One' },
    { role: 'assistant', content: 'Two' },
    { role: 'user', content: 'Three' },
  ],
  [
    { role: 'system', content: ' Speak\n like a pirate. ' },
    { role: 'user', content: '  Ahoy ' },
    { role: 'assistant', content: ' Aye! \n' },
    { role: 'user', content: 'Where to?' },
    { role: 'assistant', content: 'The sea.' },
    { role: 'user', content: ' Go \n' },
  ],
];

/** Characters that Unicode keeps free for internal use (noncharacters). */
const MARK_CANDIDATES = Array.from({ length: 32 }, (_, index) =>
  String.fromCharCode(0xfdd0 + index),
);

/**
 * Decides how conversations become tokens.
 * @throws `ALTIPLANO_CHAT_TEMPLATE` for a template that cannot be parsed
 */
export function createChatFormat(options: ChatFormatOptions): ChatFormat {
  const { tokenizer, template } = options;
  const pieceOf = (id: number | undefined) => (id === undefined ? '' : tokenizer.piece(id));
  const bosToken = options.bosToken ?? pieceOf(tokenizer.bosId);
  const eosToken = options.eosToken ?? pieceOf(tokenizer.eosId);
  for (const [subject, value] of Object.entries({ bosToken, eosToken, template })) {
    if (value !== undefined && typeof value !== 'string') {
      throw invalidArgument('must be a string', { subject, found: show(value) });
    }
  }
  if (template === undefined) return llama2Format(tokenizer);
  const parsed = new ChatTemplate(template);
  if (rendersAsLlama2(parsed, bosToken, eosToken)) return llama2Format(tokenizer);
  return new TemplateFormat(parsed, template, tokenizer, bosToken, eosToken);
}

function rendersAsLlama2(template: ChatTemplate, bosToken: string, eosToken: string): boolean {
  return PROBES.every((messages) => {
    const expected = llama2Turns(messages)
      .map(({ text, completed }) => bosToken + text + (completed ? eosToken : ''))
      .join('');
    try {
      return template.render({ messages, bosToken, eosToken, now: new Date(0) }) === expected;
    } catch {
      // A template that refuses a probe is another format, and may accept real conversations.
      return false;
    }
  });
}

class TemplateFormat implements ChatFormat {
  readonly kind = 'template';

  constructor(
    private readonly template: ChatTemplate,
    private readonly source: string,
    private readonly tokenizer: Tokenizer,
    private readonly bosToken: string,
    private readonly eosToken: string,
  ) {}

  encode(messages: readonly ChatMessage[]): number[] {
    checkMessages(messages);
    const now = new Date();
    const render = (change: (content: string) => string): string =>
      this.template.render({
        messages: messages.map(({ role, content }) => ({ role, content: change(content) })),
        bosToken: this.bosToken,
        eosToken: this.eosToken,
        now,
      });
    const mark = this.freeMark(messages);
    const plain = render((content) => content);
    for (const change of [markEverything, this.markSpecial]) {
      const marked = this.tryRender(() => render((content) => change(content, mark)));
      if (marked?.replaceAll(mark, '') === plain) {
        return this.tokenizer.encodeWithSpecial(marked, { mark });
      }
    }
    throw new AltiplanoError(
      'ALTIPLANO_CHAT_INJECTION',
      'a message contains the text of a special token, and the chat template depends on it',
      { subject: 'messages', hint: 'Remove the text of special tokens from the messages.' },
    );
  }

  /** A marked message may make a template raise an error that the message itself does not. */
  private tryRender(render: () => string): string | undefined {
    try {
      return render();
    } catch {
      return undefined;
    }
  }

  private freeMark(messages: readonly ChatMessage[]): string {
    const mark = MARK_CANDIDATES.find(
      (candidate) =>
        !this.source.includes(candidate) &&
        !this.bosToken.includes(candidate) &&
        !this.eosToken.includes(candidate) &&
        !messages.some(({ content }) => content.includes(candidate)),
    );
    if (mark === undefined) {
      throw chatInvalid('the messages use up all noncharacters', {
        expected: 'one of U+FDD0 to U+FDEF unused',
      });
    }
    return mark;
  }

  /** A mark after the first character of each place where a special token's text begins. */
  private readonly markSpecial = (content: string, mark: string): string => {
    let marked = '';
    for (let index = 0; index < content.length; index++) {
      marked += content[index];
      if (this.tokenizer.hasSpecialAt(content, index)) marked += mark;
    }
    return marked;
  };
}

/** A mark before and after each visible character. */
function markEverything(content: string, mark: string): string {
  let marked = '';
  let afterMark = false;
  for (const character of content) {
    const visible = character.trim() !== '';
    if (visible && !afterMark) marked += mark;
    marked += character;
    if (visible) marked += mark;
    afterMark = visible;
  }
  return marked;
}
