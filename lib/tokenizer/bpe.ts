/**
 * SentencePiece's BPE (bpe_model.cc): of all neighbours that may merge, those with the best score
 * merge first, the leftmost of equals; until none is left.
 *
 * No merge can span two characters that are neighbours in no piece, so a text falls into segments
 * that are merged one by one: words, mostly, since no piece goes on after a space. A short segment
 * is searched again for each merge, which for a few symbols beats any queue. A long one (text without
 * spaces) uses a heap, n log n.
 */

import type { MergeTable } from './merge-table.js';

// Found once: looking up a global is slow where code runs in a node:vm context, as under jest.
const { floor } = Math;

/** From this number of symbols on a heap is faster than searching (measured). */
const HEAP_FROM_SYMBOLS = 32;

/** Heap keys are `rank * POSITION_RANGE + position`: below 2^53, so exact in a double. */
const POSITION_RANGE = 2 ** 31;

/**
 * Merges segments of symbols. It owns buffers that grow to the longest segment seen; a large one is
 * let go by {@link release}.
 */
export class BpeMerger {
  /** The segment: filled by the caller up to `length`, then replaced by the merged symbols. */
  symbols = new Int32Array(256);
  length = 0;
  private readonly pairRank = new Int32Array(HEAP_FROM_SYMBOLS);
  private readonly pairMerged = new Int32Array(HEAP_FROM_SYMBOLS);

  /**
   * @param table the merges
   * @param onPair called for each possible merge that is considered (SentencePiece's `rev_merge`)
   */
  constructor(
    private readonly table: MergeTable,
    private readonly onPair?: (merged: number, left: number, right: number) => void,
  ) {}

  /** Adds a symbol to the segment. Negative symbols never merge. */
  push(symbol: number): void {
    if (this.length === this.symbols.length) {
      const larger = new Int32Array(this.length * 2);
      larger.set(this.symbols);
      this.symbols = larger;
    }
    this.symbols[this.length++] = symbol;
  }

  /** Merges the segment in place; afterwards `symbols` holds `length` merged symbols. */
  merge(): void {
    if (this.length < 2) return;
    if (this.length < HEAP_FROM_SYMBOLS && !this.onPair) this.mergeBySearch();
    else this.mergeByHeap();
  }

  /** Empties the segment, and gives back the memory of a very long one. */
  release(): void {
    this.length = 0;
    if (this.symbols.length > 2 ** 16) this.symbols = new Int32Array(256);
  }

  private mergeBySearch(): void {
    const { symbols, pairRank, pairMerged } = this;
    let last = this.length - 1;
    for (let index = 0; index < last; index++) this.rankPair(index);
    for (;;) {
      let best = -1;
      let bestRank = POSITION_RANGE;
      for (let index = 0; index < last; index++) {
        const rank = pairRank[index];
        if (rank < bestRank && rank >= 0) {
          best = index;
          bestRank = rank;
        }
      }
      if (best < 0) break;
      symbols[best] = pairMerged[best];
      // The symbol after `best` is gone; pairs are named after their left symbol.
      for (let index = best + 1; index < last; index++) {
        symbols[index] = symbols[index + 1];
        pairRank[index] = pairRank[index + 1];
        pairMerged[index] = pairMerged[index + 1];
      }
      last--;
      if (best > 0) this.rankPair(best - 1);
      if (best < last) this.rankPair(best);
    }
    this.length = last + 1;
  }

  /** Looks up the pair of the symbols at `index` and `index + 1`. */
  private rankPair(index: number): void {
    const slot = this.table.find(this.symbols[index], this.symbols[index + 1]);
    if (slot < 0) {
      this.pairRank[index] = -1;
      return;
    }
    this.pairRank[index] = this.table.rankAt(slot);
    this.pairMerged[index] = this.table.mergedAt(slot);
  }

  private mergeByHeap(): void {
    const { symbols, table, onPair } = this;
    const count = this.length;
    const next = new Int32Array(count);
    const previous = new Int32Array(count);
    const pairRank = new Int32Array(count).fill(-1);
    const pairMerged = new Int32Array(count);
    const heap = new KeyHeap(count);
    for (let index = 0; index < count; index++) {
      previous[index] = index - 1;
      next[index] = index + 1 < count ? index + 1 : -1;
    }
    const consider = (left: number): number => {
      const right = next[left];
      const slot = right < 0 ? -1 : table.find(symbols[left], symbols[right]);
      if (slot < 0) {
        pairRank[left] = -1;
        return -1;
      }
      const rank = table.rankAt(slot);
      const merged = table.mergedAt(slot);
      pairRank[left] = rank;
      pairMerged[left] = merged;
      onPair?.(merged, symbols[left], symbols[right]);
      return rank * POSITION_RANGE + left;
    };
    for (let index = 0; index + 1 < count; index++) {
      const key = consider(index);
      if (key >= 0) heap.append(key);
    }
    heap.heapify();
    while (heap.length > 0) {
      const key = heap.pop();
      const rank = floor(key / POSITION_RANGE);
      const left = key - rank * POSITION_RANGE;
      // Every pair that may merge has its key in the heap, so an old key that happens to equal the
      // pair's present one does no harm: it is the best there is.
      if (pairRank[left] !== rank) continue;
      const right = next[left];
      const after = next[right];
      symbols[left] = pairMerged[left];
      next[left] = after;
      if (after >= 0) previous[after] = left;
      pairRank[right] = -1;
      if (previous[left] >= 0) {
        const newKey = consider(previous[left]);
        if (newKey >= 0) heap.push(newKey);
      }
      const newKey = consider(left);
      if (newKey >= 0) heap.push(newKey);
    }
    let length = 0;
    for (let index = 0; index >= 0; index = next[index]) symbols[length++] = symbols[index];
    this.length = length;
  }
}

/** A binary min-heap of numbers in a typed array. */
class KeyHeap {
  length = 0;
  private keys: Float64Array;

  constructor(capacity: number) {
    this.keys = new Float64Array(Math.max(16, capacity));
  }

  /** Adds a key without keeping the order; {@link heapify} must follow. */
  append(key: number): void {
    if (this.length === this.keys.length) {
      const larger = new Float64Array(this.length * 2);
      larger.set(this.keys);
      this.keys = larger;
    }
    this.keys[this.length++] = key;
  }

  heapify(): void {
    for (let index = (this.length >>> 1) - 1; index >= 0; index--) this.siftDown(index);
  }

  push(key: number): void {
    this.append(key);
    const keys = this.keys;
    let index = this.length - 1;
    while (index > 0) {
      const parent = (index - 1) >>> 1;
      if (keys[parent] <= key) break;
      keys[index] = keys[parent];
      index = parent;
    }
    keys[index] = key;
  }

  pop(): number {
    const top = this.keys[0];
    this.length--;
    if (this.length > 0) {
      this.keys[0] = this.keys[this.length];
      this.siftDown(0);
    }
    return top;
  }

  private siftDown(start: number): void {
    const { keys, length } = this;
    const key = keys[start];
    let index = start;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= length) break;
      if (child + 1 < length && keys[child + 1] < keys[child]) child++;
      if (keys[child] >= key) break;
      keys[index] = keys[child];
      index = child;
    }
    keys[index] = key;
  }
}
