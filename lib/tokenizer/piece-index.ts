/**
 * Finds the ways to cut pieces into two pieces. Llama 2's 32,000 pieces can be cut in 130,000 places,
 * and all of them are tried while a model loads: so this is typed arrays from end to end, no string
 * is made, and nothing is left to the garbage collector.
 *
 * The hash of a text is a polynomial of its UTF-16 units: the hashes of all beginnings of a piece
 * take one pass over it, those of all ends another.
 */

// Found once: looking up a global is slow where code runs in a node:vm context, as under jest.
const { imul } = Math;

/** The base of the polynomial: odd, with bits all over. */
const BASE = 0x9e3779b1;

export class PieceIndex {
  /** UTF-16 units of all pieces, one piece after the other. */
  private readonly units: Uint16Array;
  /** [pieces + 1] piece i is units[starts[i]] .. units[starts[i + 1] - 1]. */
  private readonly starts: Int32Array;
  /** Open addressing: hash and id, two and two; an id of -1 is a free slot. */
  private readonly slots: Int32Array;
  private readonly mask: number;
  /** Of the piece that is being cut: the hash of its end behind each cut. */
  private readonly endHashes: Int32Array;

  /** @param pieces their texts; none is found before it was {@link add}ed */
  constructor(pieces: readonly string[]) {
    let length = 0;
    let longest = 0;
    for (const piece of pieces) {
      length += piece.length;
      if (piece.length > longest) longest = piece.length;
    }
    this.units = new Uint16Array(length);
    this.starts = new Int32Array(pieces.length + 1);
    const { units, starts } = this;
    let at = 0;
    for (let id = 0; id < pieces.length; id++) {
      const piece = pieces[id];
      for (let index = 0; index < piece.length; index++) units[at++] = piece.charCodeAt(index);
      starts[id + 1] = at;
    }
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(8, pieces.length * 2)));
    this.slots = new Int32Array(capacity * 2).fill(-1);
    this.mask = capacity - 1;
    this.endHashes = new Int32Array(longest + 1);
  }

  /** Makes a piece known. No two known pieces may have the same text. */
  add(id: number): void {
    const { units, starts, slots } = this;
    let hash = 0;
    for (let index = starts[id]; index < starts[id + 1]; index++) {
      hash = (imul(hash, BASE) + units[index]) | 0;
    }
    let slot = this.firstSlot(hash);
    while (slots[slot + 1] >= 0) slot = this.nextSlot(slot);
    slots[slot] = hash;
    slots[slot + 1] = id;
  }

  /** Calls back for each way to cut a piece into two known pieces, from left to right. */
  cuts(id: number, found: (left: number, right: number) => void): void {
    const { units, starts, endHashes } = this;
    const start = starts[id];
    const end = starts[id + 1];
    let hash = 0;
    for (let cut = end - 1, power = 1; cut > start; cut--) {
      hash = (hash + imul(units[cut], power)) | 0;
      power = imul(power, BASE);
      endHashes[cut - start] = hash;
    }
    hash = 0;
    for (let cut = start + 1; cut < end; cut++) {
      hash = (imul(hash, BASE) + units[cut - 1]) | 0;
      const left = this.lookUp(hash, start, cut);
      if (left < 0) continue;
      const right = this.lookUp(endHashes[cut - start], cut, end);
      if (right >= 0) found(left, right);
    }
  }

  /** The known piece that consists of some units; -1 if there is none. */
  private lookUp(hash: number, start: number, end: number): number {
    const { slots } = this;
    for (let slot = this.firstSlot(hash); slots[slot + 1] >= 0; slot = this.nextSlot(slot)) {
      if (slots[slot] === hash && this.equals(slots[slot + 1], start, end)) return slots[slot + 1];
    }
    return -1;
  }

  private equals(id: number, start: number, end: number): boolean {
    const { units, starts } = this;
    const from = starts[id];
    if (starts[id + 1] - from !== end - start) return false;
    for (let index = start; index < end; index++) {
      if (units[from + index - start] !== units[index]) return false;
    }
    return true;
  }

  private firstSlot(hash: number): number {
    return ((hash ^ (hash >>> 15)) & this.mask) * 2;
  }

  private nextSlot(slot: number): number {
    return (slot + 2) & (this.mask * 2 + 1);
  }
}
