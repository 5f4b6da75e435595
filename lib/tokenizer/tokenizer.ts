/** The public tokenizer: one face for every kind of tokenizer file. */

import { join } from 'node:path';
import { pathKind, readBytes, withFile } from '../checkpoint/files.js';
import type { TokenizerSource } from '../checkpoint/types.js';
import { AltiplanoError, invalidArgument, show } from '../errors.js';
import {
  type Codec,
  checkTokenId,
  type SpecialToken,
  type StreamingDecoder,
  wellFormed,
} from './codec.js';
import { MAX_CONFIG_FILE_BYTES, MAX_JSON_FILE_BYTES, MAX_MODEL_FILE_BYTES } from './limits.js';
import { LongestMatch } from './longest-match.js';
import { SentencePieceCodec } from './sentencepiece.js';
import type { TokenizerConfig } from './tokenizer-json.js';
import { tokenizerInvalid, tokenizerUnsupported } from './vocabulary.js';

export interface SpecialTextOptions {
  /** Special tokens that are parsed, by their text. Default: all of them. */
  allowed?: ReadonlySet<string>;
  /**
   * A character that marks text which is not to be parsed: no special token is found across it,
   * and it is taken out before ordinary text is encoded.
   */
  mark?: string;
}

/**
 * Text to token ids and back. Text is data: nothing in it is ever read as a special token, except by
 * {@link encodeWithSpecial}, which exists for chat templates.
 */
export class Tokenizer {
  /** Number of tokens: ids are 0 to `vocabSize - 1`. */
  readonly vocabSize: number;
  /** Beginning of sequence. */
  readonly bosId: number | undefined;
  /** End of sequence. */
  readonly eosId: number | undefined;
  readonly unkId: number | undefined;
  private readonly codec: Codec;
  private readonly special: LongestMatch;

  private constructor(codec: Codec) {
    this.codec = codec;
    this.vocabSize = codec.vocabSize;
    this.bosId = codec.bosId;
    this.eosId = codec.eosId;
    this.unkId = codec.unkId;
    // A special token of one character, or of white space only, could not be told from ordinary
    // text: such tokens are never parsed.
    this.special = new LongestMatch(
      [...codec.specialTokens.keys()].filter((text) => text.length > 1 && text.trim() !== ''),
    );
  }

  /**
   * Loads a tokenizer from a folder (`tokenizer.model` if there is one, else `tokenizer.json`), a
   * `.model`, `.json` or `.gguf` file.
   * @throws `ALTIPLANO_FILE_NOT_FOUND`, `ALTIPLANO_FILE_READ`, `ALTIPLANO_TOKENIZER_INVALID`,
   * `ALTIPLANO_TOKENIZER_UNSUPPORTED`; for GGUF also the errors of checkpoints
   */
  static async load(folderOrFile: string): Promise<Tokenizer> {
    if (typeof folderOrFile !== 'string' || folderOrFile === '') {
      throw invalidArgument('must be a path', {
        subject: 'folderOrFile',
        expected: 'a non-empty string',
        found: show(folderOrFile),
      });
    }
    const kind = await pathKind(folderOrFile);
    if (kind === undefined) {
      throw new AltiplanoError('ALTIPLANO_FILE_NOT_FOUND', 'no such file or folder', {
        subject: folderOrFile,
      });
    }
    if (kind === 'folder') return Tokenizer.fromSource(await findInFolder(folderOrFile));
    if (folderOrFile.endsWith('.model')) {
      return Tokenizer.fromSource({ kind: 'sentencepiece', file: folderOrFile });
    }
    if (folderOrFile.endsWith('.json')) {
      return Tokenizer.fromSource({
        kind: 'tokenizer-json',
        file: folderOrFile,
        ...(await configBeside(join(folderOrFile, '..'))),
      });
    }
    if (folderOrFile.endsWith('.gguf')) {
      const { openCheckpoint } = await import('../checkpoint/index.js');
      const { tokenizer } = await openCheckpoint(folderOrFile);
      if (tokenizer) return Tokenizer.fromSource(tokenizer);
      throw tokenizerInvalid(folderOrFile, 'the file holds no tokenizer');
    }
    throw tokenizerUnsupported(folderOrFile, 'not the name of a tokenizer file', {
      expected: 'a folder, or a file that ends in .model, .json or .gguf',
    });
  }

  /**
   * Makes the tokenizer that a checkpoint names.
   * @throws as {@link load}
   */
  static async fromSource(source: TokenizerSource): Promise<Tokenizer> {
    return (await Tokenizer.read(source))();
  }

  /**
   * Reads all files of the tokenizer that a checkpoint names; making it, which takes longer, is left
   * to the function that is returned.
   * @throws as {@link load}, and so does the function
   */
  static async read(source: TokenizerSource): Promise<() => Tokenizer> {
    const { file } = source;
    // The reader of a kind of file is imported when it is needed: modules take their time.
    switch (source.kind) {
      case 'sentencepiece': {
        const { parseSentencePieceModel } = await import('./sentencepiece-model.js');
        const bytes = await readLimited(file, MAX_MODEL_FILE_BYTES);
        return () =>
          new Tokenizer(new SentencePieceCodec(parseSentencePieceModel(bytes, file), file));
      }
      case 'vocabulary': {
        const { vocabulary } = source;
        if (vocabulary.model !== 'llama') {
          throw tokenizerUnsupported(file, 'a vocabulary of another kind', {
            expected: 'tokenizer.ggml.model "llama" (SentencePiece BPE)',
            found: show(vocabulary.model),
          });
        }
        return () => new Tokenizer(new SentencePieceCodec(vocabulary, file));
      }
      case 'tokenizer-json': {
        const { parseTokenizerJson } = await import('./tokenizer-json.js');
        const config = source.configFile ? await readConfig(source.configFile) : {};
        const bytes = await readLimited(file, MAX_JSON_FILE_BYTES);
        const parsed = parseTokenizerJson(bytes, file, config);
        if (parsed.kind === 'sentencepiece') {
          const { vocabulary, rules } = parsed;
          return () => new Tokenizer(new SentencePieceCodec(vocabulary, file, rules));
        }
        const { HuggingFaceCodec } = await import('./hugging-face.js');
        const { json, addedTokens } = parsed;
        return () => new Tokenizer(new HuggingFaceCodec(json, addedTokens, config, file));
      }
    }
  }

  /** Ids of a text, without BOS. Half surrogate pairs count as U+FFFD. */
  encode(text: string): number[] {
    checkText(text);
    return this.codec.encode(wellFormed(text), false);
  }

  /**
   * The text of token ids, as the SentencePiece library gives it: control tokens have no text, the
   * dummy prefix is taken off, and bytes that are no UTF-8 become U+FFFD.
   * @throws `ALTIPLANO_OUT_OF_RANGE` for an id that does not exist
   */
  decode(ids: ArrayLike<number>): string {
    const decoder = this.codec.decoder();
    let text = '';
    for (let index = 0; index < ids.length; index++) text += decoder.push(ids[index]);
    return text + decoder.end();
  }

  /**
   * A decoder for tokens that come one by one. Its pieces add up to `decode` of all tokens.
   *
   * @param context tokens before the first one, whose text has been shown already: the pieces then
   * are what follows, so that `decode(context)` and the pieces add up to
   * `decode([...context, ...ids])`. An unfinished character at the end of the context was shown as
   * U+FFFD and is not taken up again.
   */
  decoder(context: ArrayLike<number> = []): StreamingDecoder {
    const decoder = this.codec.decoder();
    for (let index = 0; index < context.length; index++) decoder.push(context[index]);
    decoder.flush();
    return decoder;
  }

  /** The token as the vocabulary has it, such as `▁Hello` or `<0x0A>`. */
  piece(id: number): string {
    checkTokenId(id, this.vocabSize);
    return this.codec.piece(id);
  }

  /** The id of a piece; undefined if there is none. */
  idOf(piece: string): number | undefined {
    return this.codec.idOf(piece);
  }

  /** Whether a token is a control token such as `<s>`, which has no text. */
  isControl(id: number): boolean {
    checkTokenId(id, this.vocabSize);
    return this.codec.isControl(id);
  }

  /** Special tokens by the text that stands for them in templates. */
  get specialTokens(): ReadonlyMap<string, SpecialToken> {
    return this.codec.specialTokens;
  }

  /** Whether the text of a special token stands at `index` of `text`. */
  hasSpecialAt(text: string, index: number): boolean {
    return this.special.at(text, index) !== undefined;
  }

  /**
   * Ids of a text in which special tokens are parsed: for text that a template wrote. What users
   * wrote must be marked, see {@link SpecialTextOptions.mark}. Of several special tokens at the same
   * place the longest counts.
   */
  encodeWithSpecial(text: string, options: SpecialTextOptions = {}): number[] {
    checkText(text);
    const { allowed, mark } = options;
    const ids: number[] = [];
    let start = 0;
    let before: SpecialToken | undefined;
    const finish = (end: number, after: SpecialToken | undefined) => {
      let ordinary = text.slice(start, end);
      if (mark) ordinary = ordinary.replaceAll(mark, '');
      if (before?.stripAfter) ordinary = ordinary.trimStart();
      if (after?.stripBefore) ordinary = ordinary.trimEnd();
      for (const id of this.codec.encode(wellFormed(ordinary), before !== undefined)) ids.push(id);
    };
    for (let index = 0; index < text.length; ) {
      const match = this.special.at(text, index);
      if (match === undefined || (allowed && !allowed.has(match))) {
        index++;
        continue;
      }
      const token = this.codec.specialTokens.get(match)!;
      finish(index, token);
      ids.push(token.id);
      index += match.length;
      start = index;
      before = token;
    }
    finish(text.length, undefined);
    return ids;
  }
}

function checkText(text: string): void {
  if (typeof text !== 'string') {
    throw invalidArgument('must be a string', { subject: 'text', found: show(text) });
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await pathKind(path)) === 'file';
}

async function findInFolder(folder: string): Promise<TokenizerSource> {
  const model = join(folder, 'tokenizer.model');
  if (await isFile(model)) return { kind: 'sentencepiece', file: model };
  const json = join(folder, 'tokenizer.json');
  if (await isFile(json)) {
    return { kind: 'tokenizer-json', file: json, ...(await configBeside(folder)) };
  }
  throw new AltiplanoError('ALTIPLANO_FILE_NOT_FOUND', 'the folder holds no tokenizer', {
    subject: folder,
    expected: 'tokenizer.model or tokenizer.json',
  });
}

async function configBeside(folder: string): Promise<{ configFile?: string }> {
  const configFile = join(folder, 'tokenizer_config.json');
  return (await isFile(configFile)) ? { configFile } : {};
}

async function readConfig(file: string): Promise<TokenizerConfig> {
  const { parseTokenizerConfig } = await import('./tokenizer-json.js');
  return parseTokenizerConfig(await readLimited(file, MAX_CONFIG_FILE_BYTES), file);
}

async function readLimited(file: string, maxBytes: number): Promise<Uint8Array> {
  return withFile(file, (open) => {
    if (open.sizeBytes > maxBytes) {
      throw tokenizerInvalid(file, 'far too large for a tokenizer', {
        expected: `at most ${maxBytes} bytes`,
        found: String(open.sizeBytes),
      });
    }
    return readBytes(open, 0, open.sizeBytes);
  });
}
