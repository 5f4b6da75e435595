/** Vocabularies for tests: real ones, random ones, and the same one as a tokenizer.json. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import peer from 'llama-tokenizer-js';
import { PieceType, type SentencePieceVocabulary, Tokenizer } from '../../lib/tokenizer/index.js';

export const DEMO_MODEL = resolve('models/demo/tokenizer.model');

/** Llama 2's own tokenizer is not shipped: it lies beside the project where that is developed. */
export const LLAMA2_FOLDER = resolve('../shared/tokenizers/llama2');

export type Random = () => number;

/** mulberry32. */
export function randomOf(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(random: Random, list: ArrayLike<T>): T {
  return list[Math.floor(random() * list.length)];
}

export const BYTE_PIECES = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
);

export type Entry = [piece: string, score: number, type: number];

/** A vocabulary: `<unk>`, `<s>`, `</s>`, the bytes if wanted, then `entries`. */
export function vocabularyOf(
  entries: readonly Entry[],
  settings: Partial<SentencePieceVocabulary> = {},
): SentencePieceVocabulary {
  const byteFallback = settings.byteFallback ?? true;
  const all: Entry[] = [
    ['<unk>', 0, PieceType.unknown],
    ['<s>', 0, PieceType.control],
    ['</s>', 0, PieceType.control],
    ...(byteFallback ? BYTE_PIECES : []).map((piece): Entry => [piece, 0, PieceType.byte]),
    ...entries,
  ];
  return {
    model: 'llama',
    pieces: all.map(([piece]) => piece),
    scores: Float32Array.from(all, ([, score]) => score),
    types: Int32Array.from(all, ([, , type]) => type),
    bosId: 1,
    eosId: 2,
    unkId: 0,
    addSpacePrefix: true,
    ...settings,
    byteFallback,
  };
}

export function tokenizerOf(vocabulary: SentencePieceVocabulary): Promise<Tokenizer> {
  return Tokenizer.fromSource({ kind: 'vocabulary', file: 'made for a test', vocabulary });
}

/** The steps before the model in the two forms that Llama 2's tokenizer.json has had. */
export const JSON_FORMS = {
  'prepending normalizer': {
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
  },
  Metaspace: {
    normalizer: null,
    pre_tokenizer: {
      type: 'Metaspace',
      replacement: '▁',
      prepend_scheme: 'first',
      split: false,
    },
  },
};

/** A tokenizer.json from pieces and merges, as Hugging Face converts Llama 2's tokenizer. */
export function llamaTokenizerJson(
  pieces: readonly string[],
  merges: readonly unknown[],
  form: keyof typeof JSON_FORMS = 'prepending normalizer',
) {
  return {
    version: '1.0',
    added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    ...JSON_FORMS[form],
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges,
    },
  };
}

/** The merges of a SentencePiece vocabulary in order of score, equal ones by the ids of the parts. */
export function mergesByScore({ pieces, scores, types }: SentencePieceVocabulary): string[] {
  const ids = new Map(pieces.map((piece, id) => [piece, id]));
  const merges: { text: string; score: number; left: number; right: number }[] = [];
  pieces.forEach((piece, id) => {
    if (types[id] !== PieceType.normal) return;
    for (let cut = 1; cut < piece.length; cut++) {
      const left = ids.get(piece.slice(0, cut));
      const right = ids.get(piece.slice(cut));
      if (left === undefined || right === undefined) continue;
      merges.push({ text: `${pieces[left]} ${pieces[right]}`, score: scores[id], left, right });
    }
  });
  merges.sort((a, b) => b.score - a.score || a.left - b.left || a.right - b.right);
  return merges.map((merge) => merge.text);
}

/** Llama 2's vocabulary and merges as llama-tokenizer-js carries them. */
export function llama2Json(form: keyof typeof JSON_FORMS = 'prepending normalizer') {
  return llamaTokenizerJson(peer.vocabById, [...peer.merges.keys()], form);
}

/** Runs `use` with a folder that holds these files. */
export async function withFolder<T>(
  files: Record<string, string | Uint8Array | object>,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'altiplano-tokenizer-'));
  try {
    for (const [name, content] of Object.entries(files)) {
      const raw = typeof content === 'string' || content instanceof Uint8Array;
      writeFileSync(join(folder, name), raw ? content : JSON.stringify(content));
    }
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Text of many scripts, spaces and oddities. */
export function randomText(random: Random, length: number): string {
  const alphabets = [
    'etaoinshrdlu',
    ' ',
    ' ETAOINSHRDLUabcdefgh0123456789.,;:!?\'"()[]<>/\\\n\t',
    'éàßøñçüабвгдежзиклмнопрст▁λφ',
    '日本語的一是不了人我在有他這한국어ไทย',
  ];
  const clusters = [
    '😀',
    '👩‍👧',
    '🇺🇸',
    '[INST]',
    '</s>',
    '<0x0A>',
    '   ',
    '\r\n',
    '\u0000',
    '\ud83d',
    '\ufeff',
  ];
  let text = '';
  while (text.length < length) {
    const list = random() < 0.1 ? clusters : [...pick(random, alphabets)];
    for (let left = 1 + Math.floor(random() * 6); left > 0; left--) text += pick(random, list);
  }
  return text;
}
