/**
 * The pages of the KV cache: which are free, and how many sequences use each one. A page may be
 * shared (a common prefix, a fork); whoever wants to write to a shared page copies it first.
 */
import { AltiplanoError } from '../errors.js';

export class PagePool {
  readonly #free: number[] = [];
  readonly #references: Uint32Array;

  /** @param pages how many pages there are; ids are 0 .. pages-1 */
  constructor(pages: number) {
    this.#references = new Uint32Array(pages);
    // Popped from the end: low ids first, so that little memory is touched while little is used.
    for (let page = pages - 1; page >= 0; page--) this.#free.push(page);
  }

  get size(): number {
    return this.#references.length;
  }

  get freePages(): number {
    return this.#free.length;
  }

  /** A page with one reference, or undefined if all are in use. */
  allocate(): number | undefined {
    const page = this.#free.pop();
    if (page !== undefined) this.#references[page] = 1;
    return page;
  }

  /** Another user of a page. */
  retain(page: number): void {
    this.#check(page);
    this.#references[page]!++;
  }

  /** One user less; a page without users is free. */
  release(page: number): void {
    this.#check(page);
    if (--this.#references[page]! === 0) this.#free.push(page);
  }

  isShared(page: number): boolean {
    this.#check(page);
    return this.#references[page]! > 1;
  }

  #check(page: number): void {
    if (!(this.#references[page]! > 0)) {
      throw new AltiplanoError('ALTIPLANO_INTERNAL', `page ${page} of the KV cache is not in use`);
    }
  }
}
