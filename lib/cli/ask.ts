/** Asking for a message in a terminal: line editing, history, and pasted text of many lines. */
import { createInterface } from 'node:readline';
import type { InputStream, OutputStream } from './context.js';

export type Asked =
  | { kind: 'message'; text: string }
  /** Ctrl-C. */
  | { kind: 'interrupt' }
  /** Ctrl-D, or the terminal has gone. */
  | { kind: 'end' };

export interface AskOptions {
  input: InputStream;
  output: OutputStream;
  prompt: string;
  /** The prompt of further lines of the same message. */
  continuation: string;
  /** Earlier lines, newest first, for the arrow keys; the new ones are put in front. */
  history: string[];
}

const HISTORY_LINES = 1000;

/**
 * Nobody types a line this fast after another: lines that come closer together were pasted and are
 * one message. (The terminal's own paste brackets would tell for certain, but not every one has them.)
 */
const PASTE_GAP_MS = 30;

/**
 * Asks once. Lines pasted together become one message, as do lines that end in a backslash and the
 * line after them.
 */
export function ask({ input, output, prompt, continuation, history }: AskOptions): Promise<Asked> {
  return new Promise((resolve) => {
    const reader = createInterface({
      input,
      output,
      prompt,
      terminal: true,
      history: [...history],
      historySize: HISTORY_LINES,
      removeHistoryDuplicates: true,
    });
    let lines: string[] = [];
    let timer: NodeJS.Timeout | undefined;
    let asked: Asked = { kind: 'end' };

    const finish = (answer: Asked) => {
      asked = answer;
      reader.close();
    };
    const settle = () => {
      const unfinished = lines.at(-1)!.endsWith('\\');
      // What stands in the edit line is the end of a paste: it waits for Enter.
      if (!unfinished && reader.line === '') {
        finish({ kind: 'message', text: lines.join('\n') });
        return;
      }
      if (unfinished) lines[lines.length - 1] = lines.at(-1)!.slice(0, -1);
      reader.setPrompt(continuation);
      reader.prompt(true);
    };
    reader.on('line', (line) => {
      lines.push(line);
      clearTimeout(timer);
      timer = setTimeout(settle, PASTE_GAP_MS);
    });
    reader.on('history', (all: string[]) => {
      history.splice(0, history.length, ...all);
    });
    reader.on('SIGINT', () => finish({ kind: 'interrupt' }));
    reader.on('close', () => {
      clearTimeout(timer);
      lines = [];
      resolve(asked);
    });
    reader.prompt();
  });
}
