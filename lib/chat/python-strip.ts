/**
 * Python's `str.strip()`. What Python takes for white space (`str.isspace`: Unicode's White_Space and
 * U+001C to U+001F) is not what JavaScript's `trim` does: `trim` leaves U+001C to U+001F and U+0085,
 * and takes U+FEFF.
 */
const PYTHON_SPACES =
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008' +
  '\u2009\u200a\u2028\u2029\u202f\u205f\u3000';

export function pythonStrip(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && PYTHON_SPACES.includes(text[start])) start++;
  while (end > start && PYTHON_SPACES.includes(text[end - 1])) end--;
  return text.slice(start, end);
}
