/**
 * How fast our tokenizer encodes text that it has never seen, against the two JavaScript tokenizers
 * that people use for Llama 2. Prints MB/s of each and our ratio to both.
 *
 *     npm run setup && npm run bench:tokenizer
 *
 * Every figure is the first call of a fresh process: nothing is cached, nothing is compiled. The
 * texts are made (their random numbers are seeded), so that no stretch of them comes twice, and all
 * three tokenizers must agree on the ids. Llama 2's vocabulary and merges are taken from
 * llama-tokenizer-js, which carries them.
 */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const TEXT_BYTES = 200_000;
const TOKENIZERS = ['altiplano', 'llama-tokenizer-js', '@huggingface/tokenizers'];

/** Where the compiled library lies; for trying another build. */
const dist = resolve(
  process.env.ALTIPLANO_DIST ?? fileURLToPath(new URL('../dist', import.meta.url)),
);

/** mulberry32: a small seeded generator, so that every run measures the same text. */
function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Words put together from syllables, with sentences, numbers and names. */
function prose(random, alphabet) {
  const pick = (list) => list[Math.floor(random() * list.length)];
  const words = [];
  let bytes = 0;
  let sentenceLeft = 12;
  let begins = true;
  while (bytes < TEXT_BYTES) {
    let word = '';
    const syllables = 1 + Math.floor(random() * 4);
    for (let count = 0; count < syllables; count++) {
      word += pick(alphabet.onsets) + pick(alphabet.vowels) + pick(alphabet.codas);
    }
    if (random() < 0.02) word = String(Math.floor(random() * 1e6));
    if (begins || random() < 0.04) word = word.charAt(0).toUpperCase() + word.slice(1);
    begins = false;
    if (--sentenceLeft === 0) {
      sentenceLeft = 5 + Math.floor(random() * 15);
      word += pick(['.', '.', '.', '?', '!', '.\n\n']);
      begins = true;
    } else if (random() < 0.08) {
      word += ',';
    }
    words.push(word);
    bytes += Buffer.byteLength(word) + 1;
  }
  return words.join(' ');
}

function code(random) {
  const lines = [];
  let bytes = 0;
  const name = () => {
    let text = '';
    for (let left = 3 + Math.floor(random() * 8); left > 0; left--) {
      text += String.fromCharCode(97 + Math.floor(random() * 26));
    }
    return text;
  };
  while (bytes < TEXT_BYTES) {
    const indent = '  '.repeat(Math.floor(random() * 4));
    const line = `${indent}${name()}_${name()}(${name()}[${Math.floor(random() * 999)}]) => ${name()};`;
    lines.push(line);
    bytes += line.length + 1;
  }
  return lines.join('\n');
}

const LATIN = {
  onsets: 'b c d f g h j k l m n p r s t v w br ch cl dr fr gr pl pr sh sl sp st th tr wh'.split(
    ' ',
  ),
  vowels: 'a e i o u ai ea ee io ou oo'.split(' '),
  codas: ['', '', '', 'n', 'r', 's', 't', 'l', 'd', 'm', 'nd', 'ng', 'st', 'ck', 'rt'],
};
const CYRILLIC = {
  onsets: 'б в г д ж з к л м н п р с т ф х ц ч ш ст пр тр'.split(' '),
  vowels: 'а е и о у ы э ю я'.split(' '),
  codas: ['', '', 'н', 'р', 'с', 'т', 'л', 'й', 'ть'],
};
const CHINESE = {
  onsets: Array.from({ length: 3000 }, (_, index) => String.fromCharCode(0x4e00 + 7 * index)),
  vowels: [''],
  codas: [''],
};

const TEXTS = [
  ['made words, Latin letters (a)', () => prose(randomOf(1), LATIN)],
  ['made words, Latin letters (b)', () => prose(randomOf(2), LATIN)],
  ['made words, Cyrillic letters', () => prose(randomOf(3), CYRILLIC)],
  ['Chinese characters', () => prose(randomOf(4), CHINESE)],
  ['made program text', () => code(randomOf(5))],
];

/** Llama 2's tokenizer as a tokenizer.json, in the form that Hugging Face gives it. */
async function llama2TokenizerJson() {
  const { default: peer } = await import('llama-tokenizer-js');
  const special = (id, content) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  });
  return {
    version: '1.0',
    added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>')],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(peer.vocabById.map((piece, id) => [piece, id])),
      merges: [...peer.merges.keys()],
    },
  };
}

/** Gives a function from text to ids without BOS. */
async function loadTokenizer(name, jsonFile) {
  if (name === 'altiplano') {
    const { Tokenizer } = await import(pathToFileURL(join(dist, 'tokenizer/index.js')).href);
    const tokenizer = await Tokenizer.load(jsonFile);
    return (text) => tokenizer.encode(text);
  }
  if (name === 'llama-tokenizer-js') {
    const { default: tokenizer } = await import('llama-tokenizer-js');
    return (text) => tokenizer.encode(text, false);
  }
  const { Tokenizer } = await import('@huggingface/tokenizers');
  const { readFileSync } = await import('node:fs');
  const tokenizer = new Tokenizer(JSON.parse(readFileSync(jsonFile, 'utf8')), {});
  return (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
}

/** Runs in a process of its own: one tokenizer, one text, one call. */
async function measure(name, textIndex, jsonFile) {
  const text = TEXTS[textIndex][1]();
  const encode = await loadTokenizer(name, jsonFile);
  const start = process.hrtime.bigint();
  const ids = encode(text);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const { createHash } = await import('node:crypto');
  const hash = createHash('sha256').update(ids.join(' ')).digest('hex');
  process.stdout.write(
    JSON.stringify({ bytes: Buffer.byteLength(text), tokens: ids.length, seconds, hash }),
  );
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), 'altiplano-bench-'));
  try {
    const jsonFile = join(folder, 'tokenizer.json');
    writeFileSync(jsonFile, JSON.stringify(await llama2TokenizerJson()));
    console.log(
      'Encoding with the Llama 2 vocabulary: MB/s of the first call in a fresh process.\n',
    );
    const speeds = Object.fromEntries(TOKENIZERS.map((name) => [name, []]));
    for (const [index, [label]] of TEXTS.entries()) {
      const results = TOKENIZERS.map((name) =>
        JSON.parse(
          execFileSync(process.execPath, [
            fileURLToPath(import.meta.url),
            '--measure',
            name,
            String(index),
            jsonFile,
          ]).toString(),
        ),
      );
      const [ours] = results;
      console.log(`${label}: ${ours.bytes} bytes, ${ours.tokens} tokens`);
      results.forEach((result, which) => {
        const speed = result.bytes / result.seconds / 1e6;
        speeds[TOKENIZERS[which]].push(speed);
        const note = result.hash === ours.hash ? '' : '  (OTHER IDS)';
        console.log(`  ${TOKENIZERS[which].padEnd(24)} ${speed.toFixed(2).padStart(7)}${note}`);
      });
      if (results.some((result) => result.hash !== ours.hash)) process.exitCode = 1;
    }
    const medians = TOKENIZERS.map((name) => median(speeds[name]));
    console.log('\nmedian over the texts');
    TOKENIZERS.forEach((name, which) => {
      const ratio =
        which === 0
          ? ''
          : `  altiplano is ${(medians[0] / medians[which]).toFixed(1)} times as fast`;
      console.log(`  ${name.padEnd(24)} ${medians[which].toFixed(2).padStart(7)}${ratio}`);
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[2] === '--measure') {
  await measure(process.argv[3], Number(process.argv[4]), process.argv[5]);
} else {
  await main();
}
