/**
 * JSON from files that are not to be trusted. `JSON.parse` lets the last of several equal keys win
 * and builds whatever the text describes; a scan before it refuses equal keys, deep nesting and
 * absurd numbers of values, in one pass and with little memory.
 */
import { type AltiplanoError, type ErrorDetails, show } from '../errors.js';
import { MAX_JSON_DEPTH, MAX_JSON_VALUES } from './limits.js';
import { invalid } from './refuse.js';

/** How a caller's JSON differs from a checkpoint's. */
export interface JsonRules {
  /** The most values; default {@link MAX_JSON_VALUES}. */
  maxValues?: number;
  /** Makes the error; default: one with the code ALTIPLANO_CHECKPOINT_INVALID. */
  refuse?: (subject: string, message: string, details?: ErrorDetails) => AltiplanoError;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPENING = new Set([0x7b, 0x5b]); // { [
const CLOSING = new Set([0x7d, 0x5d]); // } ]

/** Index of the quote that ends the string opened at `start`, or the text's length. */
function endOfString(text: string, start: number): number {
  let i = start + 1;
  while (i < text.length && text.charCodeAt(i) !== QUOTE) {
    i += text.charCodeAt(i) === BACKSLASH ? 2 : 1;
  }
  return i;
}

/** True if the next character from `i` on that is no white space is a colon. */
function colonFollows(text: string, i: number): boolean {
  while (i < text.length && text.charCodeAt(i) <= 0x20) i++;
  return text.charCodeAt(i) === COLON;
}

/** In valid JSON, exactly the strings before a colon are keys: no more of the grammar is needed. */
function scan(text: string, subject: string, { maxValues, refuse }: Required<JsonRules>): void {
  const keysByDepth: Set<string>[] = [];
  let values = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) {
      const end = endOfString(text, i);
      const keys = keysByDepth.at(-1);
      if (keys !== undefined && colonFollows(text, end + 1)) {
        // An escaped spelling of a key is the same key; one that does not parse fails below.
        const raw = text.slice(i, end + 1);
        const key = raw.includes('\\') ? String(parse(raw, subject, refuse)) : raw.slice(1, -1);
        if (keys.has(key)) throw refuse(subject, 'the same key twice', { found: show(key) });
        keys.add(key);
      }
      i = end;
    } else if (OPENING.has(code)) {
      keysByDepth.push(new Set());
      values++;
      if (keysByDepth.length > MAX_JSON_DEPTH) {
        throw refuse(subject, 'JSON is nested too deeply', {
          expected: `at most ${MAX_JSON_DEPTH} levels`,
        });
      }
    } else if (CLOSING.has(code)) {
      keysByDepth.pop();
    } else if (code === COMMA) {
      values++;
    }
    if (values > maxValues) {
      throw refuse(subject, 'JSON has too many values', {
        expected: `at most ${maxValues}`,
      });
    }
  }
}

function parse(text: string, subject: string, refuse: Required<JsonRules>['refuse']): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw refuse(subject, 'not valid JSON', {
      found: cause instanceof Error ? cause.message.slice(0, 120) : undefined,
      cause,
    });
  }
}

/**
 * Parses JSON.
 *
 * @param bytes UTF-8 text without byte order mark
 * @param subject the file, for messages
 * @throws ALTIPLANO_CHECKPOINT_INVALID (or what `rules` say) for bad UTF-8 or JSON, equal keys in
 *   one object, or more nesting or values than `limits.ts` allows
 */
export function parseJson(bytes: Uint8Array, subject: string, rules: JsonRules = {}): unknown {
  const { maxValues = MAX_JSON_VALUES, refuse = invalid } = rules;
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw refuse(subject, 'not valid UTF-8', { cause });
  }
  scan(text, subject, { maxValues, refuse });
  return parse(text, subject, refuse);
}

/** True for a JSON object (not an array, not null). */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
