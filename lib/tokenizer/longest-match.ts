/** Finds the longest of a set of strings at a position of a text. */

export class LongestMatch {
  /** First UTF-16 unit -> the lengths of the strings that begin with it, longest first. */
  private readonly lengths = new Map<number, number[]>();
  private readonly strings: ReadonlySet<string>;

  constructor(strings: Iterable<string>) {
    this.strings = new Set(strings);
    for (const string of this.strings) {
      const first = string.charCodeAt(0);
      const lengths = this.lengths.get(first);
      if (!lengths) this.lengths.set(first, [string.length]);
      else if (!lengths.includes(string.length)) lengths.push(string.length);
    }
    for (const lengths of this.lengths.values()) lengths.sort((a, b) => b - a);
  }

  get size(): number {
    return this.strings.size;
  }

  /** The longest string that stands at `index`; undefined if none does. */
  at(text: string, index: number): string | undefined {
    const lengths = this.lengths.get(text.charCodeAt(index));
    if (!lengths) return undefined;
    for (const length of lengths) {
      const candidate = text.slice(index, index + length);
      if (this.strings.has(candidate)) return candidate;
    }
    return undefined;
  }
}
