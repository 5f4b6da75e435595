/**
 * Stop strings in streamed text. All stops are followed at once by Knuth, Morris and Pratt's
 * automaton: constant time per character and stop on average, however long the stops are and
 * however the text is cut into pieces.
 */

/** One stop and how much of it the text so far ends with. */
class Matcher {
  readonly #stop: string;
  /** failures[n]: the longest proper prefix of the stop that its first n units end with. */
  readonly #failures: Int32Array;
  matched = 0;

  constructor(stop: string) {
    this.#stop = stop;
    this.#failures = new Int32Array(stop.length + 1);
    for (let n = 1, prefix = 0; n < stop.length; n++) {
      while (prefix > 0 && stop[n] !== stop[prefix]) prefix = this.#failures[prefix]!;
      if (stop[n] === stop[prefix]) prefix++;
      this.#failures[n + 1] = prefix;
    }
  }

  /** Takes one UTF-16 unit; true if the stop is complete. */
  take(unit: string): boolean {
    while (this.matched > 0 && this.#stop[this.matched] !== unit) {
      this.matched = this.#failures[this.matched]!;
    }
    if (this.#stop[this.matched] === unit) this.matched++;
    return this.matched === this.#stop.length;
  }
}

/** Text that waits, as the pieces that came: joining them at every step would be quadratic. */
class Waiting {
  #pieces: string[] = [];
  #first = 0;
  length = 0;

  push(text: string): void {
    if (text.length === 0) return;
    this.#pieces.push(text);
    this.length += text.length;
  }

  /** Removes and returns the first `length` units. */
  take(length: number): string {
    this.length -= length;
    const taken: string[] = [];
    for (let rest = length; rest > 0; ) {
      const piece = this.#pieces[this.#first]!;
      if (piece.length > rest) {
        taken.push(piece.slice(0, rest));
        this.#pieces[this.#first] = piece.slice(rest);
        break;
      }
      taken.push(piece);
      rest -= piece.length;
      this.#first++;
    }
    // Forget what was taken, at a cost that the taken pieces have paid for.
    if (this.#first * 2 > this.#pieces.length) {
      this.#pieces = this.#pieces.slice(this.#first);
      this.#first = 0;
    }
    return taken.join('');
  }
}

/**
 * Passes text on up to the first stop string. A stop is found as soon as its last character comes;
 * of stops that end at the same character the longest counts. Only text that may still become part
 * of a stop is held back. What is passed on is well-formed UTF-16 if the whole text is.
 */
export class StopStrings {
  readonly #matchers: readonly Matcher[];
  readonly #waiting = new Waiting();
  #stopped = false;

  /** @param stops non-empty, well-formed strings */
  constructor(stops: readonly string[]) {
    this.#matchers = stops.map((stop) => new Matcher(stop));
  }

  /**
   * Takes the next piece.
   * @returns the text that can be passed on, and whether a stop was found; behind a stop everything
   *   is dropped
   */
  push(text: string): { text: string; stopped: boolean } {
    if (this.#stopped || text === '') return { text: '', stopped: this.#stopped };
    const before = this.#waiting.length;
    this.#waiting.push(text);
    for (let i = 0; i < text.length; i++) {
      let longest = 0;
      for (const matcher of this.#matchers) {
        if (matcher.take(text[i]!)) longest = Math.max(longest, matcher.matched);
      }
      if (longest > 0) {
        this.#stopped = true;
        return { text: this.#waiting.take(before + i + 1 - longest), stopped: true };
      }
    }
    let held = 0;
    for (const { matched } of this.#matchers) held = Math.max(held, matched);
    if (held === 0 && isHighSurrogate(text.at(-1))) held = 1;
    return { text: this.#waiting.take(this.#waiting.length - held), stopped: false };
  }

  /** The text that was held back, when no more comes; empty after a stop. */
  end(): string {
    return this.#stopped ? '' : this.#waiting.take(this.#waiting.length);
  }
}

function isHighSurrogate(unit: string | undefined): boolean {
  return unit !== undefined && unit >= '\uD800' && unit <= '\uDBFF';
}
