/**
 * SentencePiece BPE: text to ids and back exactly as the SentencePiece library does it
 * (bpe_model.cc, normalizer.cc and sentencepiece_processor.cc of
 * https://github.com/google/sentencepiece), for identity normalisation.
 */

import { BpeMerger } from './bpe.js';
import { type Codec, type ContextDecoder, checkTokenId, type SpecialToken } from './codec.js';
import { LongestMatch } from './longest-match.js';
import { type MergeRule, type MergeTable, mergesOfPieces, mergesOfRules } from './merge-table.js';
import { Utf8Decoder, utf8BytesOf } from './utf8.js';
import {
  byteOfPiece,
  checkVocabulary,
  DEFAULT_UNKNOWN_SURFACE,
  PieceType,
  type SentencePieceVocabulary,
  SPACE_SYMBOL,
} from './vocabulary.js';

const SPACE_CODE = 0x20;
const SPACE_SYMBOL_CODE = 0x2581;

/**
 * Symbols that never merge are negative: `~id` is a user-defined token found in the text,
 * `~(UNKNOWN_BASE + codePoint)` a character that is in no piece.
 */
const UNKNOWN_BASE = 2 ** 24;

export class SentencePieceCodec implements Codec {
  readonly vocabSize: number;
  readonly bosId: number | undefined;
  readonly eosId: number | undefined;
  readonly unkId: number | undefined;
  readonly specialTokens: ReadonlyMap<string, SpecialToken>;
  private readonly pieces: readonly string[];
  private readonly types: Int32Array;
  private readonly ids: ReadonlyMap<string, number>;
  private readonly byteIds: Int32Array | undefined;
  /** Byte of each byte token. */
  private readonly bytes: ReadonlyMap<number, number>;
  private readonly table: MergeTable;
  private readonly userDefined: LongestMatch;
  private readonly hasUnused: boolean;
  private readonly addSpacePrefix: boolean;
  private readonly prefixFirstOnly: boolean;
  private readonly removeExtraWhitespaces: boolean;
  private readonly unknownSurface: string;
  private readonly merger: BpeMerger;

  /**
   * @param vocabulary is checked here
   * @param file where it comes from, for messages
   * @param rules the merges of a tokenizer.json; without them the scores decide
   * @throws `ALTIPLANO_TOKENIZER_INVALID`
   */
  constructor(vocabulary: SentencePieceVocabulary, file: string, rules?: readonly MergeRule[]) {
    const { idOf, byteIds, unkId } = checkVocabulary(vocabulary, file);
    this.vocabSize = vocabulary.pieces.length;
    this.bosId = vocabulary.bosId;
    this.eosId = vocabulary.eosId;
    this.unkId = unkId;
    this.pieces = vocabulary.pieces;
    this.types = vocabulary.types;
    this.ids = idOf;
    this.byteIds = byteIds;
    this.table = rules ? mergesOfRules(vocabulary, rules) : mergesOfPieces(vocabulary, idOf);
    this.merger = new BpeMerger(this.table);
    this.addSpacePrefix = vocabulary.addSpacePrefix ?? true;
    this.prefixFirstOnly = vocabulary.prefixScheme === 'first';
    this.removeExtraWhitespaces = vocabulary.removeExtraWhitespaces ?? false;
    this.unknownSurface = vocabulary.unknownSurface ?? DEFAULT_UNKNOWN_SURFACE;
    const special = new Map<string, SpecialToken>();
    const userDefined: string[] = [];
    const bytes = new Map<number, number>();
    let hasUnused = false;
    this.pieces.forEach((piece, id) => {
      const type = this.types[id];
      if (type === PieceType.control) {
        special.set(piece, { id, stripBefore: false, stripAfter: false });
      } else if (type === PieceType.userDefined) {
        userDefined.push(piece.replaceAll(' ', SPACE_SYMBOL));
        // GGUF files may hold such pieces with plain spaces. No text merges into one: it was taken
        // whole before, where it stands.
        if (piece.includes(' ')) idOf.set(piece.replaceAll(' ', SPACE_SYMBOL), id);
      } else if (type === PieceType.unused) {
        hasUnused = true;
      } else if (type === PieceType.byte) {
        bytes.set(id, byteOfPiece(piece)!);
      }
    });
    this.specialTokens = special;
    this.bytes = bytes;
    this.userDefined = new LongestMatch(userDefined);
    this.hasUnused = hasUnused;
  }

  encode(text: string, afterSpecial: boolean): number[] {
    const normalized = this.normalize(text, afterSpecial);
    const ids: number[] = [];
    if (this.hasUnused) this.encodeWithUnused(normalized, ids);
    else this.encodeSegments(normalized, ids);
    return ids;
  }

  piece(id: number): string {
    return this.pieces[id];
  }

  idOf(piece: string): number | undefined {
    return this.ids.get(piece);
  }

  isControl(id: number): boolean {
    return this.types[id] === PieceType.control;
  }

  decoder(): ContextDecoder {
    return new SentencePieceDecoder({
      pieces: this.pieces,
      types: this.types,
      bytes: this.bytes,
      unknownSurface: this.unknownSurface,
      dropsFirstSpace: this.addSpacePrefix || this.removeExtraWhitespaces,
      dropsLeadingSpaces: this.removeExtraWhitespaces,
    });
  }

  /** Dummy prefix and white space. Spaces become U+2581 later, character by character. */
  private normalize(text: string, afterSpecial: boolean): string {
    if (text.length === 0) return '';
    const prefix = this.addSpacePrefix && !(this.prefixFirstOnly && afterSpecial);
    let normalized = prefix ? SPACE_SYMBOL + text : text;
    if (this.removeExtraWhitespaces) {
      normalized = (prefix ? SPACE_SYMBOL : '') + text.replace(/^ +/, '').replace(/ +/g, ' ');
      // At the end SentencePiece drops U+2581 as well, be it typed or the dummy prefix.
      let end = normalized.length;
      while (end > 0 && (normalized[end - 1] === ' ' || normalized[end - 1] === SPACE_SYMBOL)) {
        end--;
      }
      normalized = normalized.slice(0, end);
    }
    return this.userDefined.size > 0 ? normalized.replaceAll(' ', SPACE_SYMBOL) : normalized;
  }

  /** Segments are merged as soon as they end: where no merge can span the next character. */
  private encodeSegments(text: string, ids: number[]): void {
    const { table, merger } = this;
    let previous = -1;
    for (let index = 0; index < text.length; index += this.lastLength) {
      const symbol = this.symbolAt(text, index);
      if (previous < 0 || symbol < 0 || !table.mayJoin(previous, symbol)) this.finishSegment(ids);
      merger.push(symbol);
      previous = symbol;
    }
    this.finishSegment(ids);
  }

  private finishSegment(ids: number[]): void {
    const { merger } = this;
    merger.merge();
    for (let index = 0; index < merger.length; index++) this.emit(merger.symbols[index], ids);
    merger.release();
  }

  /** Length in UTF-16 units of the last symbol found by {@link symbolAt}. */
  private lastLength = 0;

  private symbolAt(text: string, index: number): number {
    if (this.userDefined.size > 0) {
      const match = this.userDefined.at(text, index);
      if (match !== undefined) {
        this.lastLength = match.length;
        return ~this.ids.get(match)!;
      }
    }
    let codePoint = text.codePointAt(index)!;
    this.lastLength = codePoint < 0x10000 ? 1 : 2;
    if (codePoint === SPACE_CODE) codePoint = SPACE_SYMBOL_CODE;
    const symbol = this.table.symbolOf(codePoint);
    return symbol >= 0 ? symbol : ~(UNKNOWN_BASE + codePoint);
  }

  private emit(symbol: number, ids: number[]): void {
    if (symbol >= 0 && symbol < this.vocabSize) ids.push(symbol);
    else if (symbol >= 0)
      this.emitUnknown(this.table.extraCodePoints[symbol - this.vocabSize], ids);
    else if (~symbol < UNKNOWN_BASE) ids.push(~symbol);
    else this.emitUnknown(~symbol - UNKNOWN_BASE, ids);
  }

  /** Byte tokens, or one unknown token for a run of unknown characters. */
  private emitUnknown(codePoint: number, ids: number[]): void {
    if (this.byteIds) {
      for (const byte of utf8BytesOf(codePoint)) ids.push(this.byteIds[byte]);
    } else if (ids.at(-1) !== this.unkId) {
      ids.push(this.unkId!);
    }
  }

  /**
   * With unused pieces, SentencePiece takes those in the result apart again, by the last way of
   * making them that it considered anywhere in the text: so this goes over the text as a whole.
   */
  private encodeWithUnused(text: string, ids: number[]): void {
    const parts = new Map<number, [number, number]>();
    const merger = new BpeMerger(this.table, (merged, left, right) => {
      if (this.types[merged] === PieceType.unused) parts.set(merged, [left, right]);
    });
    for (let index = 0; index < text.length; index += this.lastLength) {
      merger.push(this.symbolAt(text, index));
    }
    merger.merge();
    const stack: number[] = [];
    for (let index = 0; index < merger.length; index++) {
      stack.push(merger.symbols[index]);
      while (stack.length > 0) {
        const symbol = stack.pop()!;
        const made = parts.get(symbol);
        if (made) stack.push(made[1], made[0]);
        else this.emit(symbol, ids);
      }
    }
  }
}

interface DecoderSettings {
  pieces: readonly string[];
  types: Int32Array;
  /** Of byte tokens: their byte. */
  bytes: ReadonlyMap<number, number>;
  unknownSurface: string;
  dropsFirstSpace: boolean;
  dropsLeadingSpaces: boolean;
}

class SentencePieceDecoder implements ContextDecoder {
  private readonly bytes = new Utf8Decoder();
  /** No text has come yet, and no space was dropped: the next leading space is. */
  private atStart = true;

  constructor(private readonly settings: DecoderSettings) {}

  push(id: number): string {
    const { pieces, types } = this.settings;
    checkTokenId(id, pieces.length);
    const type = types[id];
    if (type === PieceType.byte) {
      const text = this.bytes.push(this.settings.bytes.get(id)!);
      if (text.length > 0) this.atStart = false;
      return text;
    }
    let text = this.bytes.end();
    if (text.length > 0) this.atStart = false;
    if (type === PieceType.control) return text;
    if (type === PieceType.unknown) {
      text += this.settings.unknownSurface;
    } else {
      let surface = pieces[id];
      if (this.atStart && this.settings.dropsFirstSpace && surface.startsWith(SPACE_SYMBOL)) {
        surface = surface.slice(SPACE_SYMBOL.length);
        // With remove_extra_whitespaces the leading spaces of later tokens go as well.
        if (!this.settings.dropsLeadingSpaces) this.atStart = false;
      }
      text += surface.replaceAll(SPACE_SYMBOL, ' ');
    }
    if (text.length > 0) this.atStart = false;
    return text;
  }

  flush(): void {
    if (this.bytes.end().length > 0) this.atStart = false;
  }

  end(): string {
    const text = this.bytes.end();
    this.atStart = true;
    return text;
  }
}
