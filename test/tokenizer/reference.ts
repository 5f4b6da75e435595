/**
 * SentencePiece's BPE in its plainest form: a list of candidate pairs that is searched for the best
 * one, on strings. A translation of what bpe_model.cc and normalizer.cc say, with none of the
 * structures that make ours fast; it costs the square of the length.
 */

import { PieceType, type SentencePieceVocabulary } from '../../lib/tokenizer/index.js';

interface Candidate {
  left: number;
  right: number;
  score: number;
  length: number;
}

export function referenceEncode(vocabulary: SentencePieceVocabulary, text: string): number[] {
  const { pieces, scores, types } = vocabulary;
  const mergeable = new Map<string, number>();
  const userDefined: string[] = [];
  pieces.forEach((piece, id) => {
    if ([PieceType.normal, PieceType.userDefined, PieceType.unused].includes(types[id] as 1)) {
      mergeable.set(piece, id);
    }
    if (types[id] === PieceType.userDefined) userDefined.push(piece);
  });
  const unkId = types.indexOf(PieceType.unknown);
  const symbols: { text: string; previous: number; next: number; frozen: boolean }[] = [];
  let rest = normalize(vocabulary, text);
  while (rest.length > 0) {
    const defined = userDefined
      .filter((piece) => rest.startsWith(piece))
      .sort((a, b) => b.length - a.length)[0];
    const symbol = defined ?? String.fromCodePoint(rest.codePointAt(0) as number);
    rest = rest.slice(symbol.length);
    const index = symbols.length;
    symbols.push({
      text: symbol,
      previous: index - 1,
      next: rest.length > 0 ? index + 1 : -1,
      frozen: defined !== undefined,
    });
  }

  const candidates: Candidate[] = [];
  const madeFrom = new Map<string, [string, string]>();
  const consider = (left: number, right: number) => {
    if (left < 0 || right < 0 || symbols[left].frozen || symbols[right].frozen) return;
    const joined = symbols[left].text + symbols[right].text;
    const id = mergeable.get(joined);
    if (id === undefined) return;
    candidates.push({ left, right, score: scores[id], length: joined.length });
    if (types[id] === PieceType.unused) {
      madeFrom.set(joined, [symbols[left].text, symbols[right].text]);
    }
  };
  for (let index = 1; index < symbols.length; index++) consider(index - 1, index);
  while (candidates.length > 0) {
    let best = 0;
    candidates.forEach((candidate, index) => {
      const { score, left } = candidates[best];
      if (candidate.score > score || (candidate.score === score && candidate.left < left)) {
        best = index;
      }
    });
    const [{ left, right, length }] = candidates.splice(best, 1);
    const a = symbols[left];
    const b = symbols[right];
    if (a.text === '' || b.text === '' || a.text.length + b.text.length !== length) continue;
    a.text += b.text;
    a.next = b.next;
    if (b.next >= 0) symbols[b.next].previous = left;
    b.text = '';
    consider(a.previous, left);
    consider(left, a.next);
  }

  const ids: number[] = [];
  let previousUnknown = false;
  const output = (piece: string) => {
    const id = mergeable.get(piece);
    const parts = madeFrom.get(piece);
    if (id !== undefined && types[id] === PieceType.unused && parts) {
      parts.forEach(output);
    } else if (id !== undefined) {
      ids.push(id);
      previousUnknown = false;
    } else if (vocabulary.byteFallback) {
      for (const byte of Buffer.from(piece)) {
        ids.push(pieces.indexOf(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`));
      }
    } else {
      if (!previousUnknown) ids.push(unkId);
      previousUnknown = true;
    }
  };
  for (let index = symbols.length > 0 ? 0 : -1; index >= 0; index = symbols[index].next) {
    output(symbols[index].text);
  }
  return ids;
}

function normalize(vocabulary: SentencePieceVocabulary, text: string): string {
  let input = text;
  if (vocabulary.removeExtraWhitespaces) {
    while (input.startsWith(' ')) input = input.slice(1);
  }
  if (input === '') return '';
  let normalized = vocabulary.addSpacePrefix ? '▁' : '';
  let afterSpace = false;
  for (const character of input) {
    if (character === ' ' && afterSpace && vocabulary.removeExtraWhitespaces) continue;
    normalized += character === ' ' ? '▁' : character;
    afterSpace = character === ' ';
  }
  if (vocabulary.removeExtraWhitespaces) {
    while (normalized.endsWith('▁')) normalized = normalized.slice(0, -1);
  }
  return normalized;
}
