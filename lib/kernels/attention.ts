/** Attention. Part of `lib/kernels.ts`. */
import { invalidArgument, outOfRange, show } from '../errors.js';
import type { KvType } from '../native.js';
import {
  allocate,
  boolean,
  checkOptions,
  finite,
  MOST_HEAD_DIM,
  MOST_HEADS,
  oneOf,
  rowsOf,
  size,
  typedArray,
  typedArrayOf,
} from './arguments.js';
import { run } from './run.js';

/** In the order of native/util/kv_type.h. */
const KV_TYPES = ['f32', 'f16', 'int8', 'bf16'] as const satisfies KvType[];

export interface AttentionOptions {
  heads: number;
  /** Heads of keys and values, a divisor of `heads`: each serves heads / kvHeads consecutive query
   * heads (grouped-query attention). Default: `heads`. */
  kvHeads?: number;
  headDim: number;
  /** True: token t sees keys 0 .. firstPosition + t. False: every token sees every key. Default true. */
  causal?: boolean;
  /** The position of the first token among the keys. Default: keys - tokens, so that the last token
   * sees every key. */
  firstPosition?: number;
  /** Factor of the scores. Default 1 / sqrt(headDim). */
  scale?: number;
  /** Element type in which keys and values are kept, as in a model's KV cache. Default "f32". */
  kv?: KvType;
}

/**
 * Scaled dot-product attention: softmax(q k^T * scale) v for each head (Vaswani et al., 2017), by an
 * online softmax over pages of keys (Milakov and Gimelshein, 2018).
 *
 * With sizes in megabytes this takes long: the work grows with tokens * keys * heads * headDim.
 * @param q [tokens, heads * headDim]
 * @param k [keys, kvHeads * headDim]
 * @param v [keys, kvHeads * headDim]
 * @returns [tokens, heads * headDim]
 */
export function attention(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  options: AttentionOptions,
): Float32Array {
  const o = checkOptions<AttentionOptions>(options, [
    'heads',
    'kvHeads',
    'headDim',
    'causal',
    'firstPosition',
    'scale',
    'kv',
  ]);
  const heads = size(o.heads, 'heads', 1, MOST_HEADS);
  const kvHeads = size(o.kvHeads ?? heads, 'kvHeads', 1, heads);
  if (heads % kvHeads !== 0) {
    throw outOfRange('not usable', {
      subject: 'kvHeads',
      expected: `a divisor of heads (${heads})`,
      found: show(kvHeads),
    });
  }
  const headDim = size(o.headDim, 'headDim', 1, MOST_HEAD_DIM);
  const qCols = heads * headDim;
  const kvCols = kvHeads * headDim;
  const tokens = rowsOf(typedArray(q, 'q', 'Float32Array'), 'q', qCols, 'tokens * heads * headDim');
  const keys = rowsOf(typedArray(k, 'k', 'Float32Array'), 'k', kvCols, 'keys * kvHeads * headDim');
  typedArrayOf(v, 'v', 'Float32Array', k.length, 'k.length');
  const firstPosition = firstPositionOf(o, tokens, keys);
  // In steps of f32, as a model computes it.
  const scale = finite(o.scale ?? 1 / Math.fround(Math.sqrt(headDim)), 'scale');
  const kv = oneOf(o.kv ?? 'f32', 'kv', KV_TYPES);
  const out = allocate(Float32Array, q.length);
  run((kernels) =>
    kernels.attention(
      q,
      k,
      v,
      tokens,
      keys,
      heads,
      kvHeads,
      headDim,
      Math.fround(scale),
      firstPosition,
      KV_TYPES.indexOf(kv),
      out,
    ),
  );
  return out;
}

function firstPositionOf(
  o: Partial<AttentionOptions>,
  tokens: number,
  keys: number,
): number | null {
  if (!boolean(o.causal ?? true, 'causal')) {
    if (o.firstPosition === undefined) return null;
    throw invalidArgument('every token sees every key', {
      subject: 'firstPosition',
      expected: 'nothing when causal is false',
      found: show(o.firstPosition),
    });
  }
  if (keys < tokens) {
    throw outOfRange('too few keys', {
      subject: 'k',
      expected: `a key for each of the ${tokens} tokens`,
      found: `${keys}`,
      hint: 'Set causal: false if every token may see every key',
    });
  }
  return size(o.firstPosition ?? keys - tokens, 'firstPosition', 0, keys - tokens);
}
