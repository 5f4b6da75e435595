/**
 * The merges of a BPE vocabulary as integers: which two symbols make which third, and how early.
 *
 * A symbol is a token id, or, from `vocabSize` on, a character that is part of some piece without
 * being one itself. SentencePiece has no list of merges: any two neighbours whose concatenation is a
 * piece may merge, the better score first. Llama 2's pieces can be cut in 130,000 places: to try them
 * all took longer than anything else while a model loads, so a pair is looked up when a text first
 * has it. A tokenizer.json lists its merges, ranked by their order.
 */

import { MAX_VOCABULARY_SIZE } from './limits.js';
import { PieceType, type SentencePieceVocabulary } from './vocabulary.js';

// Found once: looking up a global is slow where code runs in a node:vm context, as under jest.
const { imul } = Math;

/** Slots of the hash table are four integers wide: left, right, merged symbol or `NEVER`, rank. */
const SLOT_WIDTH = 4;
const NEVER = -1;

/** A table that learns starts small. */
const FIRST_CAPACITY = 2 ** 12;

/**
 * When this many slots (4 MB) are half full it starts anew, so that no text makes it grow without
 * end. 200 KB of program text have some 10,000 pairs.
 */
const MOST_CAPACITY = 2 ** 18;

/**
 * Spreads a pair of symbols over a table. The seed is another one in every process: or a text, or the
 * ids of a tokenizer.json, could be made so that pairs lie on top of each other, and the search for
 * one go through all.
 */
const SEED = Math.floor(Math.random() * 2 ** 32);
function hashOf(left: number, right: number): number {
  const hash = imul(left ^ SEED, 0x9e3779b1);
  const both = imul((hash ^ (hash >>> 15)) + right, 0x85ebca6b);
  return both ^ (both >>> 15);
}

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
    const index = hashOf(left, right) >>> this.shift;
    this.bits[index >>> 5] |= 1 << (index & 31);
  }

  mayHave(left: number, right: number): boolean {
    const index = hashOf(left, right) >>> this.shift;
    return (this.bits[index >>> 5] & (1 << (index & 31))) !== 0;
  }
}

function powerOfTwoFrom(minimum: number): number {
  return 2 ** Math.ceil(Math.log2(minimum));
}

/** What two symbols merge into; undefined if they never do. */
type Join = (left: number, right: number) => { merged: number; rank: number } | undefined;

/** Merges by pair, characters by code point, and the pairs of characters that some piece contains. */
export class MergeTable {
  /** Of each symbol from `vocabSize` on: its code point. */
  readonly extraCodePoints: readonly number[];
  private readonly bmpSymbols: Int32Array;
  private readonly astralSymbols: ReadonlyMap<number, number>;
  private readonly neighbours: PairFilter;
  /** Open addressing; a left symbol of -1 is a free slot. */
  private slots: Int32Array;
  private mask: number;
  private used = 0;
  private readonly join: Join | undefined;

  /**
   * @param rules all merges, the earliest first; or a function to learn each from when it is needed
   */
  constructor(characters: Characters, rules: readonly MergeRule[] | Join) {
    this.extraCodePoints = characters.extra;
    this.bmpSymbols = characters.bmp;
    this.astralSymbols = characters.astral;
    this.neighbours = characters.neighbours;
    const learns = typeof rules === 'function';
    this.join = learns ? rules : undefined;
    const capacity = learns ? FIRST_CAPACITY : powerOfTwoFrom(Math.max(16, rules.length * 2));
    this.mask = capacity - 1;
    this.slots = emptySlots(capacity);
    if (!learns) {
      for (const [rank, { left, right, merged }] of rules.entries()) {
        this.insert(left, right, merged, rank);
      }
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

  /**
   * The slot of a pair, for {@link mergedAt} and {@link rankAt} until the next call; -1 if the two
   * never merge.
   */
  find(left: number, right: number): number {
    const slots = this.slots;
    let slot = this.firstSlot(left, right);
    for (;;) {
      const found = slots[slot];
      if (found < 0) return this.join === undefined ? -1 : this.learn(left, right, this.join);
      if (found === left && slots[slot + 1] === right) return slots[slot + 2] === NEVER ? -1 : slot;
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

  /** Keeps what becomes of a pair that is not here yet; as {@link find}. */
  private learn(left: number, right: number, join: Join): number {
    if (left < 0 || right < 0) return -1; // such symbols never merge
    if (this.used * 2 > this.mask) this.makeRoom();
    const pair = join(left, right);
    const slot = this.insert(left, right, pair?.merged ?? NEVER, pair?.rank ?? 0);
    return pair === undefined ? -1 : slot;
  }

  private makeRoom(): void {
    const before = this.slots;
    const capacity = this.mask + 1;
    this.used = 0;
    if (capacity === MOST_CAPACITY) {
      before.fill(-1);
      return;
    }
    this.mask = capacity * 2 - 1;
    this.slots = emptySlots(capacity * 2);
    for (let slot = 0; slot < before.length; slot += SLOT_WIDTH) {
      if (before[slot] < 0) continue;
      this.insert(before[slot], before[slot + 1], before[slot + 2], before[slot + 3]);
    }
  }

  /** Puts in a pair that is not there yet; its slot. */
  private insert(left: number, right: number, merged: number, rank: number): number {
    const slots = this.slots;
    let slot = this.firstSlot(left, right);
    while (slots[slot] >= 0) slot = this.nextSlot(slot);
    slots[slot] = left;
    slots[slot + 1] = right;
    slots[slot + 2] = merged;
    slots[slot + 3] = rank;
    this.used++;
    return slot;
  }

  private firstSlot(left: number, right: number): number {
    return (hashOf(left, right) & this.mask) * SLOT_WIDTH;
  }

  private nextSlot(slot: number): number {
    return (slot + SLOT_WIDTH) & (this.mask * SLOT_WIDTH + SLOT_WIDTH - 1);
  }
}

function emptySlots(capacity: number): Int32Array {
  return new Int32Array(capacity * SLOT_WIDTH).fill(-1);
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
 * @param idOf from piece to id
 */
export function mergesOfPieces(
  vocabulary: SentencePieceVocabulary,
  idOf: ReadonlyMap<string, number>,
): MergeTable {
  const { pieces, types } = vocabulary;
  const characters = collectCharacters(vocabulary);
  const { extra } = characters;
  const ranks = ranksOfScores(vocabulary.scores);
  let longest = 0;
  for (const piece of pieces) longest = Math.max(longest, piece.length);
  const textOf = (symbol: number) =>
    symbol < pieces.length ? pieces[symbol] : String.fromCodePoint(extra[symbol - pieces.length]);
  return new MergeTable(characters, (left, right) => {
    const first = textOf(left);
    const second = textOf(right);
    if (first.length + second.length > longest) return undefined;
    const text = first + second;
    const merged = idOf.get(text);
    if (merged === undefined || !isTextPiece(types[merged])) return undefined;
    return { merged, rank: ranks[merged] };
  });
}

/** The merges of a tokenizer.json, in order. */
export function mergesOfRules(
  vocabulary: SentencePieceVocabulary,
  rules: readonly MergeRule[],
): MergeTable {
  return new MergeTable(collectCharacters(vocabulary), rules);
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
