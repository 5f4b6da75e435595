/** Typed access to GGUF metadata: every value is checked for its kind where it is asked for. */
import { show } from '../errors.js';
import { type GgufLayout, type Numbers, readGgufNumbers, readGgufStrings } from './gguf-layout.js';
import { invalid } from './refuse.js';

export class GgufMetadata {
  readonly subject: string;
  private readonly values: Readonly<Record<string, unknown>>;
  private readonly layout: GgufLayout;
  /** What {@link strings} has read: vocabularies are long, and asked for twice. */
  private readonly stringArrays = new Map<string, string[]>();

  /**
   * @param values as `@huggingface/gguf` gives them: 64-bit integers are BigInts; long arrays are empty
   * @param layout of the same file, where strings and arrays are read from
   */
  constructor(subject: string, values: Readonly<Record<string, unknown>>, layout: GgufLayout) {
    this.subject = subject;
    this.values = values;
    this.layout = layout;
  }

  has(key: string): boolean {
    return this.layout.values.has(key);
  }

  private get(key: string): unknown {
    return this.has(key) ? this.values[key] : undefined;
  }

  private wrongKind(key: string, expected: string) {
    return invalid(this.subject, `${key} is of the wrong kind`, {
      expected,
      found: show(this.get(key)),
    });
  }

  /** A number of any width. @throws ALTIPLANO_CHECKPOINT_INVALID if it is something else */
  number(key: string): number | undefined {
    if (!this.has(key)) return undefined;
    const value = this.get(key);
    if (typeof value !== 'number' && typeof value !== 'bigint') {
      throw this.wrongKind(key, 'a number');
    }
    return Number(value);
  }

  /** A number that must be there. @throws ALTIPLANO_CHECKPOINT_INVALID */
  requiredNumber(key: string): number {
    const value = this.number(key);
    if (value === undefined) throw invalid(this.subject, `${key} is missing`);
    return value;
  }

  /** @throws ALTIPLANO_CHECKPOINT_INVALID if it is something else, or no UTF-8 */
  string(key: string): string | undefined {
    if (!this.has(key)) return undefined;
    const strings = readGgufStrings(this.layout, key, this.subject);
    if (strings === undefined || Array.isArray(this.get(key))) {
      throw this.wrongKind(key, 'a string');
    }
    return strings[0];
  }

  /** @throws ALTIPLANO_CHECKPOINT_INVALID if it is something else */
  boolean(key: string): boolean | undefined {
    if (!this.has(key)) return undefined;
    const value = this.get(key);
    if (typeof value !== 'boolean') throw this.wrongKind(key, 'a boolean');
    return value;
  }

  /** @throws ALTIPLANO_CHECKPOINT_INVALID if it is something else, or no UTF-8 */
  strings(key: string): string[] | undefined {
    if (!this.has(key)) return undefined;
    const known = this.stringArrays.get(key);
    if (known !== undefined) return known;
    const strings = readGgufStrings(this.layout, key, this.subject);
    if (strings === undefined || !Array.isArray(this.get(key))) {
      throw this.wrongKind(key, 'an array of strings');
    }
    this.stringArrays.set(key, strings);
    return strings;
  }

  /** @throws ALTIPLANO_CHECKPOINT_INVALID if it is missing or something else */
  numbers(key: string): Numbers {
    const numbers = readGgufNumbers(this.layout, key);
    if (numbers === undefined) throw this.wrongKind(key, 'an array of numbers');
    return numbers;
  }
}
