/**
 * The merges of a BPE vocabulary as integers: which two symbols make which third, and how early.
 *
 * A symbol is a token id, or, from `vocabSize` on, a character that is part of some piece without
 * being one itself. SentencePiece has no list of merges: any two neighbours whose concatenation is a
 * piece may merge, the better score first. So every way to cut a piece into two symbols is one entry
 * here, ranked by the piece's score. A tokenizer.json lists its merges, ranked by their order.
 */

import { MAX_SPLIT_WORK, MAX_VOCABULARY_SIZE } from './limits.js';
import { PieceIndex } from './piece-index.js';
import { PieceType, type SentencePieceVocabulary, tokenizerInvalid } from './vocabulary.js';

// Found once: looking up a global is slow where code runs in a node:vm context, as under jest.
const { imul } = Math;

/** Slots of the hash table are four integers wide: left, right, merged symbol, rank. */
const SLOT_WIDTH = 4;

/** Two odd constants spread a pair of symbols over the table (Fibonacci hashing). */
const HASH_LEFT = 0x9e3779b1;
const HASH_RIGHT = 0x85ebca6b;

/** One merge of a tokenizer.json: token ids of both parts and of the result. */
export interface MergeRule {
  left: number;
  right: number;
  merged: number;
}

/** A set of pairs of symbols that may hold more than was put in: a bit for each hash. */
class PairFilter {
  private readonly bits: Uint32Array;
  private readonly shift: number;

  /** @param mostPairs how often `add` will be called at most */
  constructor(mostPairs: number) {
    // Most pairs are added many times: Llama 2's 3,300 take 256 KB, and 0.2 % of others are let through.
    const bitCount = powerOfTwoFrom(Math.max(1024, mostPairs * 8));
    this.bits = new Uint32Array(bitCount / 32);
    this.shift = 32 - Math.log2(bitCount);
  }

  add(left: number, right: number): void {
    const index = (imul(left, HASH_LEFT) ^ imul(right, HASH_RIGHT)) >>> this.shift;
    this.bits[index >>> 5] |= 1 << (index & 31);
  }

  mayHave(left: number, right: number): boolean {
    const index = (imul(left, HASH_LEFT) ^ imul(right, HASH_RIGHT)) >>> this.shift;
    return (this.bits[index >>> 5] & (1 << (index & 31))) !== 0;
  }
}

function powerOfTwoFrom(minimum: number): number {
  return 2 ** Math.ceil(Math.log2(minimum));
}

/** Merges by pair, characters by code point, and the pairs of characters that some piece contains. */
export class MergeTable {
  /** Of each symbol from `vocabSize` on: its code point. */
  readonly extraCodePoints: readonly number[];
  private readonly bmpSymbols: Int32Array;
  private readonly astralSymbols: ReadonlyMap<number, number>;
  private readonly slots: Int32Array;
  private readonly mask: number;
  private readonly neighbours: PairFilter;

  /** @param entries left, right, merged symbol and rank, four numbers for each merge */
  constructor(entries: ArrayLike<number>, characters: Characters) {
    this.extraCodePoints = characters.extra;
    this.bmpSymbols = characters.bmp;
    this.astralSymbols = characters.astral;
    this.neighbours = characters.neighbours;
    const capacity = powerOfTwoFrom(Math.max(16, (entries.length / SLOT_WIDTH) * 2));
    this.mask = capacity - 1;
    this.slots = new Int32Array(capacity * SLOT_WIDTH).fill(-1);
    for (let entry = 0; entry < entries.length; entry += SLOT_WIDTH) {
      let slot = this.firstSlot(entries[entry], entries[entry + 1]);
      while (this.slots[slot] >= 0) slot = this.nextSlot(slot);
      for (let i = 0; i < SLOT_WIDTH; i++) this.slots[slot + i] = entries[entry + i];
    }
  }

  /** The symbol of a code point; -1 for a character that no piece contains. */
  symbolOf(codePoint: number): number {
    return codePoint < 0x10000
      ? this.bmpSymbols[codePoint]
      : (this.astralSymbols.get(codePoint) ?? -1);
  }

  /** False if no merge can ever span these two neighbouring characters, given as symbols. */
  mayJoin(left: number, right: number): boolean {
    return this.neighbours.mayHave(left, right);
  }

  /** The slot of a pair, for {@link mergedAt} and {@link rankAt}; -1 if the two never merge. */
  find(left: number, right: number): number {
    const slots = this.slots;
    let slot = this.firstSlot(left, right);
    for (;;) {
      const found = slots[slot];
      if (found < 0) return -1;
      if (found === left && slots[slot + 1] === right) return slot;
      slot = this.nextSlot(slot);
    }
  }

  mergedAt(slot: number): number {
    return this.slots[slot + 2];
  }

  /** The lower, the earlier. */
  rankAt(slot: number): number {
    return this.slots[slot + 3];
  }

  private firstSlot(left: number, right: number): number {
    const hash = imul(left, HASH_LEFT) ^ imul(right, HASH_RIGHT);
    return ((hash ^ (hash >>> 15)) & this.mask) * SLOT_WIDTH;
  }

  private nextSlot(slot: number): number {
    return (slot + SLOT_WIDTH) & (this.mask * SLOT_WIDTH + SLOT_WIDTH - 1);
  }
}

/** The characters that pieces are made of. */
interface Characters {
  bmp: Int32Array;
  astral: Map<number, number>;
  extra: number[];
  /** Symbols of characters that are neighbours in some piece. */
  neighbours: PairFilter;
}

/** Whether text may turn into this piece by merging (or by being this one character). */
function isTextPiece(type: number): boolean {
  return type === PieceType.normal || type === PieceType.userDefined || type === PieceType.unused;
}

/** Gives each character in the text pieces a symbol, and notes which characters are neighbours. */
function collectCharacters(vocabulary: SentencePieceVocabulary): Characters {
  const { pieces, types } = vocabulary;
  const bmp = new Int32Array(0x10000).fill(-1);
  const astral = new Map<number, number>();
  const extra: number[] = [];
  let units = 0;
  const assign = (codePoint: number, symbol: number) => {
    if (codePoint < 0x10000) bmp[codePoint] = symbol;
    else astral.set(codePoint, symbol);
  };
  const textPieces: string[] = [];
  for (let id = 0; id < pieces.length; id++) {
    const piece = pieces[id];
    if (!isTextPiece(types[id])) continue;
    const codePoint = piece.codePointAt(0)!;
    if (piece.length === characterLength(codePoint)) assign(codePoint, id);
    else {
      textPieces.push(piece);
      units += piece.length;
    }
  }
  const neighbours = new PairFilter(units);
  for (const piece of textPieces) {
    let previous = -1;
    for (let index = 0; index < piece.length; ) {
      const codePoint = piece.codePointAt(index)!;
      index += characterLength(codePoint);
      let symbol = codePoint < 0x10000 ? bmp[codePoint] : (astral.get(codePoint) ?? -1);
      if (symbol < 0) {
        symbol = pieces.length + extra.length;
        extra.push(codePoint);
        assign(codePoint, symbol);
      }
      if (previous >= 0) neighbours.add(previous, symbol);
      previous = symbol;
    }
  }
  return { bmp, astral, extra, neighbours };
}

function characterLength(codePoint: number): number {
  return codePoint < 0x10000 ? 1 : 2;
}

/**
 * The merges of a SentencePiece vocabulary (already checked).
 * @throws `ALTIPLANO_TOKENIZER_INVALID` if the pieces are so long that finding the merges would hang
 */
export function mergesOfPieces(vocabulary: SentencePieceVocabulary, file: string): MergeTable {
  const { pieces, types } = vocabulary;
  let splitWork = 0;
  for (const piece of pieces) splitWork += piece.length ** 2;
  if (splitWork > MAX_SPLIT_WORK) throw tokenizerInvalid(file, 'too many long tokens');

  const characters = collectCharacters(vocabulary);
  // A symbol's text, by its number. A cut inside a surrogate pair finds nothing, since no symbol is
  // half a pair.
  const symbols = [...pieces, ...characters.extra.map((code) => String.fromCodePoint(code))];
  const index = new PieceIndex(symbols);
  for (let id = 0; id < symbols.length; id++) {
    if (id >= pieces.length || isTextPiece(types[id])) index.add(id);
  }
  const ranks = ranksOfScores(vocabulary.scores);
  let entries = new Int32Array(2 ** 16);
  let length = 0;
  let merged = 0;
  const add = (left: number, right: number) => {
    if (length === entries.length) {
      const larger = new Int32Array(length * 2);
      larger.set(entries);
      entries = larger;
    }
    entries[length++] = left;
    entries[length++] = right;
    entries[length++] = merged;
    entries[length++] = ranks[merged];
  };
  for (; merged < pieces.length; merged++) {
    if (isTextPiece(types[merged])) index.cuts(merged, add);
  }
  return new MergeTable(entries.subarray(0, length), characters);
}

/** The merges of a tokenizer.json, in order. */
export function mergesOfRules(
  vocabulary: SentencePieceVocabulary,
  rules: readonly MergeRule[],
): MergeTable {
  const entries = rules.flatMap(({ left, right, merged }, rank) => [left, right, merged, rank]);
  return new MergeTable(entries, collectCharacters(vocabulary));
}

/** Rank 0 for the best score; equal scores share a rank. */
function ranksOfScores(scores: Float32Array): Int32Array {
  const ranks = new Int32Array(scores.length);
  // Most vocabularies are in the order of their scores: nothing to sort.
  let id = 1;
  while (id < scores.length && scores[id] <= scores[id - 1]) {
    ranks[id] = ranks[id - 1] + (scores[id] < scores[id - 1] ? 1 : 0);
    id++;
  }
  if (id >= scores.length) return ranks;
  // Score and id as one number that is in the order of the scores.
  const bits = new Int32Array(scores.slice().buffer);
  const keys = new Float64Array(scores.length);
  for (id = 0; id < bits.length; id++) {
    const sign = bits[id] >> 31;
    keys[id] = ((bits[id] ^ (sign >>> 1)) - sign) * MAX_VOCABULARY_SIZE + id; // -0 and 0 are the same
  }
  keys.sort();
  let rank = -1;
  let before = NaN;
  for (let at = keys.length - 1; at >= 0; at--) {
    const order = Math.floor(keys[at] / MAX_VOCABULARY_SIZE);
    if (order !== before) rank++;
    before = order;
    ranks[keys[at] - order * MAX_VOCABULARY_SIZE] = rank;
  }
  return ranks;
}
