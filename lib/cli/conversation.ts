/** The conversation that `altiplano chat` keeps: a system message and the turns that still fit. */
import type { ChatMessage } from '../index.js';

export interface Turn {
  user: string;
  assistant: string;
}

export class Conversation {
  system?: string;
  readonly turns: Turn[] = [];

  constructor(system?: string) {
    this.system = system;
  }

  /** All messages, ending with `user`. */
  messages(user: string): ChatMessage[] {
    const messages: ChatMessage[] = [];
    if (this.system !== undefined) messages.push({ role: 'system', content: this.system });
    for (const turn of this.turns) {
      messages.push({ role: 'user', content: turn.user });
      messages.push({ role: 'assistant', content: turn.assistant });
    }
    messages.push({ role: 'user', content: user });
    return messages;
  }

  /**
   * Drops the oldest turns until the prompt that ends with `user` has at most `promptTokens` tokens.
   * The system message and `user` itself always stay, even if they alone are too long.
   * @param count the number of tokens that messages become
   * @returns how many turns were dropped
   */
  makeRoom(user: string, promptTokens: number, count: (messages: ChatMessage[]) => number): number {
    let dropped = 0;
    while (this.turns.length > 0 && count(this.messages(user)) > promptTokens) {
      this.turns.shift();
      dropped++;
    }
    return dropped;
  }
}
