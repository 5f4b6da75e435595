// The tile machine of attention on tensor cores: 16 or 32 query rows of a warp times a tile of keys
// in shared memory, with online softmax (Dao, "FlashAttention-2", 2023).
//
// Scores S = Q K^T are `mma` accumulators. Their places in a lane are those of the A operand of the
// next mma, P V, so that probabilities stay where they are, in 16 bits. Tiles of K and V lie in
// shared memory as they do in the cache, in rows of 16-byte chunks whose order is XORed with the
// row, so that the eight rows that `ldmatrix` reads at once lie in different banks.
//
// Activation is the type of q, of the probabilities and of the results, __half or __nv_bfloat16;
// Element, that of the cache, is the same or int8_t. In 16 bits a chunk is 8 dimensions. K is read
// as it lies, V transposed. In int8 it is 16, and `ldmatrix` moves pairs of codes: a lane gets four
// codes of a key, which become two registers of 16 bits. The dimensions then stand in another
// order: for K, where any order will do, q is read in the same one; for V it is the order of the
// results (dimension()).
#pragma once

#include <cstdint>

#include "cuda/activation_element.cuh"
#include "cuda/attention_parameters.h"
#include "cuda/kv_page.h"
#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

// Probabilities times the scales of V become f16: with this factor they stay away from its smallest
// numbers. It is a power of two, so exact, and V's scales are at most 65504 / 127: no overflow.
// bf16 has the range of the scales.
template <class Activation>
inline constexpr float kValueFactor = kIsBf16<Activation> ? 1.0f : 64.0f;

// Keys or values of consecutive tokens in shared memory: [rows][kDim]; then, in int8, behind keys
// the scales of keys [rows] and of values [rows].
template <class Element, int kDim>
struct KvTile {
  static constexpr bool kInt8 = sizeof(Element) == 1;
  static constexpr int kRowBytes = kDim * static_cast<int>(sizeof(Element));
  static constexpr int kChunks = kRowBytes / 16;  // of a row: 4, 8 or 16
  static constexpr int bytes(int rows) { return kv_tile_bytes(sizeof(Element), kDim, rows); }

  // Bytes from the beginning of the tile to a chunk of a row. Eight rows, or 128 bytes of one row,
  // never share a bank.
  __device__ static uint32_t offset(int row, int chunk) {
    if constexpr (kChunks >= 8) return row * kRowBytes + ((chunk ^ (row & 7)) << 4);
    const int line = row >> 1;  // two rows of 64 bytes are 128
    return line * 128 + (((((row & 1) << 2) + chunk) ^ (line & 7)) << 4);
  }
};

// Starts the copy of kRows keys (or values) of a page to rows first_row .. of a tile of kTileRows,
// spread over kThreads threads. `scales`: those of the keys, in the page, with those of the values
// behind them; null for a tile of values. Keys from `visible` on do not exist: they become 0, since
// what lies in their places may be NaN.
template <class Element, int kDim, int kTileRows, int kRows, int kThreads>
__device__ void copy_tile(uint32_t tile, int first_row, const Element* from, const float* scales,
                          int visible, int thread) {
  using Tile = KvTile<Element, kDim>;
  constexpr int kAll = kRows * Tile::kChunks;
  static_assert(kAll % kThreads == 0);
#pragma unroll
  for (int i = 0; i < kAll / kThreads; ++i) {
    const int at = i * kThreads + thread;
    const int row = at / Tile::kChunks, chunk = at % Tile::kChunks;
    copy_async_16(tile + Tile::offset(first_row + row, chunk),
                  reinterpret_cast<const uint8_t*>(from) + row * Tile::kRowBytes + chunk * 16,
                  row < visible ? 16u : 0u);
  }
  if constexpr (Tile::kInt8) {
    constexpr int kScaleThreads = kRows / 4;
    static_assert(2 * kScaleThreads <= kThreads);
    if (scales != nullptr && thread < 2 * kScaleThreads) {
      const int of_values = thread / kScaleThreads, row = thread % kScaleThreads * 4;
      const int exist = min(max(visible - row, 0), 4);
      copy_async_16(tile + kTileRows * (Tile::kRowBytes + 4 * of_values) + (first_row + row) * 4,
                    scales + of_values * kKvPageTokens + row, static_cast<uint32_t>(exist) * 4);
    }
  }
}

// Four codes to f16, exactly: 0 and 1 to `low`, 2 and 3 to `high`; or, without kNeighbours, 0 and
// 2, 1 and 3. A byte under 0x64 is the f16 number 1024 + byte; with the sign bit flipped, 1152 +
// code.
template <bool kNeighbours>
__device__ inline void codes_to_f16(uint32_t codes, uint32_t& low, uint32_t& high) {
  const uint32_t bytes = codes ^ 0x80808080u;
  uint32_t a = pick_bytes < kNeighbours ? 0x4140 : 0x4240 > (bytes, 0x64646464u);
  uint32_t b = pick_bytes < kNeighbours ? 0x4342 : 0x4341 > (bytes, 0x64646464u);
  const uint32_t offset = 0x64806480u;  // 1152, 1152
  const __half2 o = reinterpret_cast<const __half2&>(offset);
  const __half2 x = __hsub2(reinterpret_cast<__half2&>(a), o);
  const __half2 y = __hsub2(reinterpret_cast<__half2&>(b), o);
  low = reinterpret_cast<const uint32_t&>(x);
  high = reinterpret_cast<const uint32_t&>(y);
}

// The same to bf16. A byte of seven bits under 0x43 is the bf16 number 128 + byte. The eighth bit,
// the sign, makes 256 of 128 there: (128 + low bits) - (128 or 256) is the code.
template <bool kNeighbours>
__device__ inline void codes_to_bf16(uint32_t codes, uint32_t& low, uint32_t& high) {
  const auto convert = [](uint32_t pair) {
    const uint32_t bits = pair & 0xff7fff7fu, signs = pair & 0xff80ff80u;
    const uint32_t minus_one = 0xbf80bf80u;
    const __nv_bfloat162 d = __hfma2(reinterpret_cast<const __nv_bfloat162&>(signs),
                                     reinterpret_cast<const __nv_bfloat162&>(minus_one),
                                     reinterpret_cast<const __nv_bfloat162&>(bits));
    return reinterpret_cast<const uint32_t&>(d);
  };
  low = convert(pick_bytes < kNeighbours ? 0x4140 : 0x4240 > (codes, 0x43434343u));
  high = convert(pick_bytes < kNeighbours ? 0x4342 : 0x4341 > (codes, 0x43434343u));
}

template <class Activation, bool kNeighbours>
__device__ inline void codes_to(uint32_t codes, uint32_t& low, uint32_t& high) {
  if constexpr (kIsBf16<Activation>) {
    codes_to_bf16<kNeighbours>(codes, low, high);
  } else {
    codes_to_f16<kNeighbours>(codes, low, high);
  }
}

// Query row `row` of an item; rows behind the last one stand for the last one.
__device__ inline int token_of(const AttentionParameters& p, const AttentionItem& item, int row) {
  return item.first_token + min(row, item.tokens * p.group - 1) / p.group;
}
__device__ inline int head_of(const AttentionParameters& p, const AttentionItem& item, int kv_head,
                              int row) {
  return kv_head * p.group + min(row, item.tokens * p.group - 1) % p.group;
}
template <class Activation>
__device__ Activation* output(const AttentionParameters& p, const AttentionItem& item, int kv_head,
                              int row, int head_dim) {
  return static_cast<Activation*>(p.out) +
         static_cast<int64_t>(token_of(p, item, row)) * p.out_stride +
         head_of(p, item, kv_head, row) * head_dim;
}

// q of kRows rows to shared memory, as a tile of them; 0 behind the last row. For int8 the
// dimensions are put in the order in which lanes hold the codes of K: of 16, operands of lane t are
// dimensions 4 t, 4 t + 1 and 4 t + 2, 4 t + 3. Readable after a barrier.
template <class Activation, class Element, int kDim, int kRows, int kThreads>
__device__ void stage_queries(const AttentionParameters& p, const AttentionItem& item, int kv_head,
                              uint32_t tile) {
  using Tile = KvTile<Activation, kDim>;
  constexpr int kAll = kRows * Tile::kChunks;
  static_assert(kAll % kThreads == 0);
#pragma unroll 4
  for (int i = 0; i < kAll / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x;
    const int row = at / Tile::kChunks, chunk = at % Tile::kChunks;
    uint4 v = {};
    if (row < item.tokens * p.group) {
      v = *reinterpret_cast<const uint4*>(static_cast<const Activation*>(p.qkv) +
                                          static_cast<int64_t>(token_of(p, item, row)) * p.stride +
                                          head_of(p, item, kv_head, row) * kDim + chunk * 8);
    }
    if constexpr (sizeof(Element) == 1) {
      // Neighbouring lanes have the two halves of 16 dimensions; one collects the even pairs of
      // them, the other the odd ones.
      const bool odd = chunk % 2;
      const uint32_t a = __shfl_xor_sync(kAllLanes, odd ? v.x : v.y, 1);
      const uint32_t b = __shfl_xor_sync(kAllLanes, odd ? v.z : v.w, 1);
      v = odd ? uint4{a, b, v.y, v.w} : uint4{v.x, v.z, a, b};
    }
    store_shared_16(tile + Tile::offset(row, chunk), v);
  }
}

// The mma operand of 16 rows of such a tile, from `row` on, and of 16 dimensions, the k-th.
template <class Activation, int kDim>
__device__ void load_queries(uint32_t tile, int row, int k, uint32_t (&a)[4]) {
  const int lane = hide(threadIdx.x % 32);
  load_matrices(tile + KvTile<Activation, kDim>::offset(row + lane % 16, 2 * k + lane / 16), a[0],
                a[1], a[2], a[3]);
}

// Which of the dimensions that a lane holds in accumulator `i` of results' mma `n`: 8 n + 2 t and
// the next in 16 bits; in int8 two mma share 16 dimensions, four of a lane stand together.
template <class Element>
__device__ inline int dimension(int n, int i, int t) {
  if constexpr (sizeof(Element) == 1) return n / 2 * 16 + 4 * t + 2 * (i & 1) + n % 2;
  return 8 * n + 2 * t + (i & 1);
}

// The query rows of a warp: kMs mma tiles of 16 rows, with what their softmax has come to.
// Lane 4 g + t holds rows g and g + 8 of each.
template <class Activation, class Element, int kDim, int kMs>
struct QueryRows {
  using Tile = KvTile<Element, kDim>;
  float out[kMs][kDim / 8][4];
  float maximum[kMs][2];
  float sum[kMs][2];    // of this lane's keys
  int visible[kMs][2];  // keys that a row sees

  __device__ QueryRows() {
#pragma unroll
    for (int m = 0; m < kMs; ++m) {
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[m][n][i] = 0.0f;
      }
      maximum[m][0] = maximum[m][1] = -INFINITY;
      sum[m][0] = sum[m][1] = 0.0f;
    }
  }

  // scores = Q K^T for the keys of a tile. q(m, k, a) gives the A operand of 16 dimensions.
  template <int kNs, class Q>
  __device__ void score(uint32_t keys, const Q& q, float (&scores)[kMs][kNs][4]) const {
    // Hidden: addresses computed ahead of the loop over tiles would stay in registers, which spill.
    const int lane = hide(threadIdx.x % 32);
    const int row = lane / 16 * 8 + lane % 8, chunk = lane / 8 % 2;
#pragma unroll
    for (int m = 0; m < kMs; ++m) {
#pragma unroll
      for (int n = 0; n < kNs; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[m][n][i] = 0.0f;
      }
    }
    constexpr int kHalves = Tile::kInt8 ? 2 : 1;  // a matrix of K is 16 dimensions in int8, else 8
#pragma unroll
    for (int k = 0; k < kDim / 16; k += kHalves) {
      uint32_t a[kHalves][kMs][4];
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
#pragma unroll
        for (int m = 0; m < kMs; ++m) q(m, k + half, a[half][m]);
      }
#pragma unroll
      for (int n = 0; n < kNs; n += 2) {
        uint32_t c[4];
        load_matrices(keys + Tile::offset(n * 8 + row, (Tile::kInt8 ? k : 2 * k) + chunk), c[0],
                      c[1], c[2], c[3]);
#pragma unroll
        for (int half = 0; half < kHalves; ++half) {
          uint32_t b[2][2] = {{c[0], c[1]}, {c[2], c[3]}};  // [mma][operand]
          if constexpr (Tile::kInt8) {
            codes_to<Activation, true>(c[half], b[0][0], b[0][1]);
            codes_to<Activation, true>(c[2 + half], b[1][0], b[1][1]);
          }
#pragma unroll
          for (int m = 0; m < kMs; ++m) {
            mma_16<Activation>(scores[m][n], a[half][m], b[0][0], b[0][1]);
            mma_16<Activation>(scores[m][n + 1], a[half][m], b[1][0], b[1][1]);
          }
        }
      }
    }
  }

  // Scores to probabilities, relative to the greatest score so far; what was added up before is
  // scaled down where that has grown. They come out in 16 bits, as A operands of 16 keys each, in
  // int8 times the scales of the values. The first key of the tile is `first_key`. With kMasked,
  // keys that a row does not see have no probability.
  template <bool kMasked, int kNs>
  __device__ void softmax(float scale, int first_key, uint32_t keys, float (&scores)[kMs][kNs][4],
                          uint32_t (&probabilities)[kMs][kNs / 2][4]) {
    const int t = hide(threadIdx.x % 4);
    const uint32_t scales = keys + kNs * 8 * Tile::kRowBytes;
#pragma unroll
    for (int n = 0; n < kNs; ++n) {
      float2 factor = {scale, scale};
      if constexpr (Tile::kInt8) {
        const float2 s = load_shared_f32_pair(scales + (n * 8 + 2 * t) * 4);
        factor = {scale * s.x, scale * s.y};
      }
#pragma unroll
      for (int m = 0; m < kMs; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const bool seen = !kMasked || first_key + n * 8 + 2 * t + (i & 1) < visible[m][i / 2];
          scores[m][n][i] = seen ? scores[m][n][i] * (i & 1 ? factor.y : factor.x) : -INFINITY;
        }
      }
    }
#pragma unroll
    for (int m = 0; m < kMs; ++m) {
      float most[2] = {maximum[m][0], maximum[m][1]};
#pragma unroll
      for (int n = 0; n < kNs; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) most[i / 2] = fmaxf(most[i / 2], scores[m][n][i]);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {  // over the four lanes of a row
        most[r] = fmaxf(most[r], __shfl_xor_sync(kAllLanes, most[r], 1));
        most[r] = fmaxf(most[r], __shfl_xor_sync(kAllLanes, most[r], 2));
      }
      // Most tiles bring no greater score: then there is nothing to scale.
      if (__any_sync(kAllLanes, most[0] != maximum[m][0] || most[1] != maximum[m][1])) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float keep = maximum[m][r] == -INFINITY ? 0.0f : exp2f(maximum[m][r] - most[r]);
          sum[m][r] *= keep;
#pragma unroll
          for (int n = 0; n < kDim / 8; ++n) {
            out[m][n][2 * r] *= keep;
            out[m][n][2 * r + 1] *= keep;
          }
          maximum[m][r] = most[r];
        }
      }
      // A row that has seen no key yet has nothing to compare with.
      const float base[2] = {maximum[m][0] == -INFINITY ? 0.0f : maximum[m][0],
                             maximum[m][1] == -INFINITY ? 0.0f : maximum[m][1]};
#pragma unroll
      for (int n = 0; n < kNs; ++n) {
        float2 factor = {1.0f, 1.0f};
        if constexpr (Tile::kInt8) {
          const float2 s = load_shared_f32_pair(scales + (kNs * 8 + n * 8 + 2 * t) * 4);
          factor = {s.x * kValueFactor<Activation>, s.y * kValueFactor<Activation>};
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const float low = exp2f(scores[m][n][2 * r] - base[r]);
          const float high = exp2f(scores[m][n][2 * r + 1] - base[r]);
          sum[m][r] += low + high;
          probabilities[m][n / 2][n % 2 * 2 + r] =
              Tile::kInt8 ? pack_pair<Activation>(low * factor.x, high * factor.y)
                          : pack_pair<Activation>(low, high);
        }
      }
    }
  }

  // out += P V for the values of a tile.
  template <int kKeys16>
  __device__ void add_values(uint32_t values, const uint32_t (&probabilities)[kMs][kKeys16][4]) {
    const int lane = hide(threadIdx.x % 32);
    constexpr int kMmas = Tile::kInt8 ? 4 : 2;  // of two chunks
#pragma unroll
    for (int k = 0; k < kKeys16; ++k) {
#pragma unroll
      for (int n = 0; n < kDim / 8; n += kMmas) {
        const int chunk = (Tile::kInt8 ? n / 2 : n) + lane / 16;
        uint32_t c[4];
        load_matrices_transposed(values + Tile::offset(k * 16 + lane % 16, chunk), c[0], c[1], c[2],
                                 c[3]);
        uint32_t b[kMmas][2];
        if constexpr (Tile::kInt8) {
          codes_to<Activation, false>(c[0], b[0][0], b[1][0]);
          codes_to<Activation, false>(c[1], b[0][1], b[1][1]);
          codes_to<Activation, false>(c[2], b[2][0], b[3][0]);
          codes_to<Activation, false>(c[3], b[2][1], b[3][1]);
        } else {
          b[0][0] = c[0];
          b[0][1] = c[1];
          b[1][0] = c[2];
          b[1][1] = c[3];
        }
#pragma unroll
        for (int m = 0; m < kMs; ++m) {
#pragma unroll
          for (int j = 0; j < kMmas; ++j)
            mma_16<Activation>(out[m][n + j], probabilities[m][k], b[j][0], b[j][1]);
        }
      }
    }
  }

  // The sums of whole rows, in all four lanes of each.
  __device__ void finish_sums() {
#pragma unroll
    for (int m = 0; m < kMs; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        sum[m][r] += __shfl_xor_sync(kAllLanes, sum[m][r], 1);
        sum[m][r] += __shfl_xor_sync(kAllLanes, sum[m][r], 2);
      }
    }
  }
};

}  // namespace altiplano::cuda
