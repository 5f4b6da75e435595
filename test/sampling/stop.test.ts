import { describe, expect, test } from '@jest/globals';
import { StopStrings } from '../../lib/sampling/index.js';
import { randomSource } from './rows.js';

/** What comes out for pieces, and after how many of them it stopped. */
function run(stops: string[], pieces: string[]) {
  const stop = new StopStrings(stops);
  const emitted: string[] = [];
  for (const [i, piece] of pieces.entries()) {
    const { text, stopped } = stop.push(piece);
    emitted.push(text);
    if (stopped) return { emitted, text: emitted.join('') + stop.end(), stoppedAt: i };
  }
  emitted.push(stop.end());
  return { emitted, text: emitted.join(''), stoppedAt: undefined };
}

/** Tries every end, from the first on, and every stop that could end there. */
function oracle(stops: string[], text: string): { text: string; end: number | undefined } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (ending.length === 0) continue;
    return { text: text.slice(0, end - Math.max(...ending.map((stop) => stop.length))), end };
  }
  return { text, end: undefined };
}

describe('StopStrings', () => {
  test.each([
    [['STOP'], ['abcSTOPdef'], ['abc'], 0],
    [['STOP'], ['abcS', 'TO', 'Pdef'], ['abc', '', ''], 2],
    // Held back only as long as it can still become a stop.
    [['STOP'], ['abcST', 'Ax'], ['abc', 'STAx', ''], undefined],
    [['STOP'], ['STO'], ['', 'STO'], undefined],
    [['aab'], ['aaa', 'a', 'b'], ['a', 'a', ''], 2],
    // The match that ends first wins; of those that end together the longest.
    [['abcd', 'bc'], ['abcd'], ['a'], 0],
    [['abc', 'bc'], ['xab', 'c'], ['x', ''], 1],
    [['\n\nQ:', '\n\n'], ['a\n', '\nQ:'], ['a', ''], 1],
    [[], ['a', 'b'], ['a', 'b', ''], undefined],
    [['x'], ['', 'x'], ['', ''], 1],
    [['🙂🙃'], ['a🙂', '🙂', '🙃'], ['a', '🙂', ''], 2],
  ] as [string[], string[], string[], number | undefined][])(
    'stops %j in %j give %j',
    (stops, pieces, emitted, stoppedAt) => {
      const result = run(stops, pieces);
      expect(result.emitted).toEqual(emitted);
      expect(result.stoppedAt).toBe(stoppedAt);
    },
  );

  test('agrees with a brute-force search, wherever the text is cut', () => {
    const random = randomSource(2);
    const word = (length: number) =>
      Array.from({ length }, () => 'ab🙂'[Math.floor(random() * 2)]).join('');
    let stoppedRuns = 0;
    for (let round = 0; round < 5000; round++) {
      const stops = Array.from({ length: 1 + Math.floor(random() * 3) }, () =>
        word(2 + Math.floor(random() * 6)),
      );
      const text = word(Math.floor(random() * 40));
      const pieces: string[] = [];
      for (let i = 0; i < text.length; ) {
        const length = Math.floor(random() * 5);
        pieces.push(text.slice(i, i + length));
        i += length;
      }
      const expected = oracle(stops, text);
      const result = run(stops, pieces);
      expect(result.text).toBe(expected.text);
      expect(result.stoppedAt !== undefined).toBe(expected.end !== undefined);
      if (expected.end === undefined) {
        // Nothing is held back that no stop could begin with.
        let seen = '';
        let emittedLength = 0;
        pieces.forEach((piece, i) => {
          seen += piece;
          emittedLength += result.emitted[i]!.length;
          let held = 0;
          for (const stop of stops) {
            for (let n = 1; n < stop.length; n++) {
              if (seen.endsWith(stop.slice(0, n))) held = Math.max(held, n);
            }
          }
          expect(seen.length - emittedLength).toBe(held);
        });
      } else {
        stoppedRuns++;
        const length = pieces.slice(0, result.stoppedAt! + 1).join('').length;
        const before = pieces.slice(0, result.stoppedAt!).join('').length;
        expect(before < expected.end && expected.end <= length).toBe(true);
      }
    }
    expect(stoppedRuns).toBeGreaterThan(1000);
  });

  test('never splits a surrogate pair', () => {
    const { emitted } = run(['🙃!'], ['a\ud83d', '\ude42b', '🙃', 'c']);
    expect(emitted).toEqual(['a', '🙂b', '', '🙃c', '']);
    expect(run(['x'], ['a\ud83d', '', '\ude42']).emitted).toEqual(['a', '', '🙂', '']);
  });

  test('a stopped text stays stopped', () => {
    const stop = new StopStrings(['x']);
    stop.push('axb');
    expect(stop.push('more')).toEqual({ text: '', stopped: true });
    expect(stop.push('')).toEqual({ text: '', stopped: true });
    expect(stop.end()).toBe('');
  });

  test('is linear for long stops that nearly match', () => {
    const length = 200_000;
    const stop = new StopStrings([`${'a'.repeat(length)}b`]);
    let emittedLength = 0;
    const start = performance.now();
    for (let i = 0; i < 2 * length; i++) emittedLength += stop.push('a').text.length;
    // Quadratic work would be 4e10 steps.
    expect(performance.now() - start).toBeLessThan(3000);
    expect(emittedLength).toBe(length);
    expect(stop.end()).toHaveLength(length);
  });
});
