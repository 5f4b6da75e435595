import { expect, test } from '@jest/globals';
import { PagePool } from '../../lib/generation/pages.js';

test('hands out every page once, low ids first, and then none', () => {
  const pool = new PagePool(3);
  expect([pool.size, pool.freePages]).toEqual([3, 3]);
  expect([pool.allocate(), pool.allocate(), pool.allocate()]).toEqual([0, 1, 2]);
  expect(pool.freePages).toBe(0);
  expect(pool.allocate()).toBeUndefined();
  pool.release(1);
  expect(pool.freePages).toBe(1);
  expect(pool.allocate()).toBe(1);
});

test('a shared page is free when its last user has gone', () => {
  const pool = new PagePool(2);
  const page = pool.allocate()!;
  expect(pool.isShared(page)).toBe(false);
  pool.retain(page);
  expect(pool.isShared(page)).toBe(true);
  pool.release(page);
  expect(pool.isShared(page)).toBe(false);
  expect(pool.freePages).toBe(1);
  pool.release(page);
  expect(pool.freePages).toBe(2);
  // It starts anew.
  expect(pool.allocate()).toBe(page);
  expect(pool.isShared(page)).toBe(false);
});

test('pages that nobody uses cannot be released, retained or asked about', () => {
  const pool = new PagePool(2);
  const page = pool.allocate()!;
  pool.release(page);
  const internal = expect.objectContaining({ code: 'ALTIPLANO_INTERNAL' });
  for (const id of [page, 1, 2, -1, 0.5, Number.NaN]) {
    expect(() => pool.release(id)).toThrow(internal);
    expect(() => pool.retain(id)).toThrow(internal);
    expect(() => pool.isShared(id)).toThrow(internal);
  }
  expect(pool.freePages).toBe(2);
});
