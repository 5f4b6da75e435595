import { expect, test } from '@jest/globals';
import { formatBytes } from '../lib/format-bytes.js';

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1024, '1.0 KiB'],
  [150 * 1024, '150 KiB'],
  [2.5 * 2 ** 30, '2.5 GiB'],
  [1023 * 2 ** 20, '1023 MiB'],
  [3 * 2 ** 50, '3072 TiB'],
])('%d bytes are %s', (size, text) => {
  expect(formatBytes(size)).toBe(text);
});
