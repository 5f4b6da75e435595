// Matrix multiplication with int8 activations on 256-bit registers, over the layout of layout.h and
// by the chain of Kernels::matmul_int8; written once for the instructions of AVX2 (avx2_int8.cc)
// and of AVX-VNNI (avxvnni_int8.cc), which bring a Format each for int4 and int8. Internal linkage,
// see avx2.h.
//
// A register of weights is 8 rows (lanes) x 4 columns (bytes); the same 4 columns of a token are
// one 32-bit word, broadcast from memory. A register tile is 2 tiles (16 rows) x `kTokens` tokens;
// its sums live in registers for one group of 32 columns:
//
//              token 0    token 1   ...                 for each of 8 x 4 columns:
//   rows 0-7     sum        sum                           load and unpack the weights of 2 tiles
//   rows 8-15    sum        sum                           for each token: broadcast 4 codes,
//                                                           multiply and add them twice
// Then the sums become floats, with the activations' scale in them after one subtraction
// (ActivationGroup says how), and are added to the totals, which stay in the first-level cache,
// with that of the weights. For more than two parts of tokens, int4 is unpacked first, a panel of
// columns at a time.
//
// A lone token takes one tile after the other and fetches nothing ahead: the weights are one
// stream, which processors follow best by themselves. Four tiles at once, with prefetches, read
// int4 a third and int8 30 % slower on a core of Zen 4.
//
// `objdump -d` of both files (GCC 12, -O3) shows that sums live in registers: in the tiles of 2 x 6
// for panels and those of int8, no operand on the stack is read between the first and the last
// multiplication of a group; behind, those are two constants and up to four finished sums. The int4
// tiles of 2 x 5 and 2 x 6 that unpack on the way, for 5 to 12 tokens, read their mask from there
// and move one sum.
//
// What a Format says (`first` is the first addition of a group: there is no sum yet):
//   kTokens                      of a register tile with 2 tiles: as many as leave no sum in memory
//   kGroupBytes                  of 32 columns of a tile
//   kPrefetch                    whether tiles come from memory: several tokens fetch them ahead
//   kUnpack                      whether panels are unpacked for many tokens
//   I start(group)               bits of the origin - zero * sum of codes, without zero points
//   Weights weights<s>(data)     columns 4 s .. 4 s + 3
//   I add<first>(sum, w, codes)  sum + w . codes
//   I finish(sum)                as 32-bit lanes
//   I zeros(at)                  zero points, in the lower halves of 32-bit lanes; the upper are 0
#pragma once

#include <immintrin.h>
#include <string.h>

#include "cpu/ahead.h"
#include "cpu/kernels.h"
#include "cpu/layout.h"

namespace altiplano::cpu {
namespace {

using F = __m256;
using I = __m256i;

constexpr int kRows = kTileRows;
constexpr int kStepBytes = kRows * 4;
constexpr int kPrefetchBytes = 2048;

inline I words_at(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// Columns 4 s .. 4 s + 3 of int4 weights, as unsigned bytes.
template <int s>
inline I nibbles_at(const uint8_t* data) {
  const I words = words_at(data + s / 2 * kStepBytes);
  return _mm256_and_si256(s % 2 ? _mm256_srli_epi16(words, 4) : words, _mm256_set1_epi8(15));
}

inline __m128i eight_bytes_at(const uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}

inline I origin_bits(const ActivationGroup& x) {
  return _mm256_castps_si256(_mm256_broadcast_ss(&x.origin));
}

// The sum as a value that compilers know nothing of: they regroup integer additions, which put the
// products of a whole group in memory before it added them up.
inline I opaque(I sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

// sums (+)= weights of columns 4 s .. 4 s + 3 times the tokens' codes.
template <class Format, int tiles, int tokens, int s>
__attribute__((always_inline)) inline void add_columns(const uint8_t* data, size_t tile_bytes,
                                                       const ActivationGroup* x, int64_t ldx,
                                                       I (&sums)[tiles * tokens]) {
  typename Format::Weights w[tiles];
#pragma GCC unroll 2
  for (int i = 0; i < tiles; ++i) w[i] = Format::template weights<s>(data + i * tile_bytes);
#pragma GCC unroll 8
  for (int t = 0; t < tokens; ++t) {
    int32_t codes;
    memcpy(&codes, x[t * ldx].codes + s * 4, sizeof(codes));
    const I broadcast = _mm256_set1_epi32(codes);
#pragma GCC unroll 2
    for (int i = 0; i < tiles; ++i) {
      I& sum = sums[i * tokens + t];
      sum = opaque(Format::template add<s == 0>(sum, w[i], broadcast));
    }
  }
}

// `tiles` neighbouring tiles times `tokens` tokens: added to totals [tokens][tiles * 8]. With two
// tiles those `ahead` are fetched meanwhile.
template <class Format, bool zero_points, int tiles, int tokens>
__attribute__((noinline)) void multiply(const uint8_t* tile, size_t tile_bytes,
                                        const TileLayout& layout, int64_t groups,
                                        const ActivationGroup* x, int64_t ldx, float* totals,
                                        Ahead ahead) {
  const int groups_in_block = layout.block / kActivationGroup;
  const uint8_t* block = tile;
  int in_block = 0;
  for (int64_t g = 0; g < groups; ++g, ++x) {
    const uint8_t* data = block + layout.data_at + in_block * Format::kGroupBytes;
    if (Format::kPrefetch && tokens > 1) {
#pragma GCC unroll 2
      for (int i = 0; i < tiles; ++i) {
#pragma GCC unroll 5
        for (int at = 0; at <= Format::kGroupBytes; at += 64) {
          __builtin_prefetch(data + i * tile_bytes + kPrefetchBytes + at);
        }
      }
    }
    if constexpr (Format::kPrefetch && tiles == 2) ahead.fetch();
    I sums[tiles * tokens];
    add_columns<Format, tiles, tokens, 0>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 1>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 2>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 3>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 4>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 5>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 6>(data, tile_bytes, x, ldx, sums);
    add_columns<Format, tiles, tokens, 7>(data, tile_bytes, x, ldx, sums);
    F scales[tiles];
    I zeros[tiles];
#pragma GCC unroll 2
    for (int i = 0; i < tiles; ++i) {
      const uint8_t* head = block + i * tile_bytes;
      scales[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(head)));
      if (zero_points) zeros[i] = Format::zeros(head + layout.zeros_at);
    }
#pragma GCC unroll 8
    for (int t = 0; t < tokens; ++t) {
      const ActivationGroup& group = x[t * ldx];
      const I code_sum = _mm256_set1_epi32(group.sum);
      const I start = Format::start(group);
      const I origin = origin_bits(group);
#pragma GCC unroll 2
      for (int i = 0; i < tiles; ++i) {
        I sum = Format::finish(sums[i * tokens + t]);
        // Both factors fit 16 bits: a sum of codes is at most 32 * 127.
        if (zero_points) sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(zeros[i], code_sum));
        sum = _mm256_add_epi32(sum, zero_points ? origin : start);
        const F scaled = _mm256_sub_ps(_mm256_castsi256_ps(sum), _mm256_castsi256_ps(origin));
        float* total = totals + (t * tiles + i) * kRows;
        _mm256_store_ps(total, _mm256_fmadd_ps(scaled, scales[i], _mm256_load_ps(total)));
      }
    }
    // The totals stay in memory: compilers would otherwise spill sums for them.
    __asm__ volatile("" : : : "memory");
    if (++in_block == groups_in_block) {
      in_block = 0;
      block += layout.block_bytes;
    }
  }
}

// `count` (1 .. most) tokens, by the template for that number.
template <class Format, bool zero_points, int tiles, int most>
void multiply_tokens(int64_t count, const uint8_t* tile, size_t tile_bytes,
                     const TileLayout& layout, int64_t groups, const ActivationGroup* x,
                     int64_t ldx, float* totals, Ahead ahead) {
  if constexpr (most > 0) {
    if (count == most) {
      multiply<Format, zero_points, tiles, most>(tile, tile_bytes, layout, groups, x, ldx, totals,
                                                 ahead);
    } else {
      multiply_tokens<Format, zero_points, tiles, most - 1>(count, tile, tile_bytes, layout, groups,
                                                            x, ldx, totals, ahead);
    }
  }
}

// The parts that so many tokens are multiplied in.
template <class Format>
int64_t parts_of(int64_t tokens) {
  return (tokens + Format::kTokens - 1) / Format::kTokens;
}

// Any number of tokens, in parts of as equal size as can be: 7 tokens are 4 and 3, not 6 and 1.
template <class Format, bool zero_points, int tiles>
void multiply_parts(const uint8_t* tile, size_t tile_bytes, const TileLayout& layout,
                    int64_t groups, const ActivationGroup* x, int64_t ldx, int64_t tokens,
                    float* totals, Ahead ahead) {
  int64_t parts = parts_of<Format>(tokens);
  for (int64_t t = 0; t < tokens; --parts) {
    const int64_t n = (tokens - t + parts - 1) / parts;
    multiply_tokens<Format, zero_points, tiles, Format::kTokens>(
        n, tile, tile_bytes, layout, groups, x + t * ldx, ldx, totals + t * tiles * kRows, ahead);
    t += n;
    ahead.advance(groups);
  }
}

// A panel: some groups of two tiles of int4 weights, unpacked once for many tokens. It looks like
// a tile with blocks of one group whose steps are four bytes of a row.
constexpr int kPanelGroups = 16;
constexpr int kPanelZerosAt = kRows * sizeof(uint16_t);
constexpr int kPanelDataAt = 32;
constexpr int kPanelBlockBytes = kPanelDataAt + 8 * kStepBytes;
constexpr int kPanelTileBytes = kPanelGroups * kPanelBlockBytes;

template <class Int4>
struct Unpacked : Int4 {
  static constexpr int kGroupBytes = 8 * kStepBytes;
  static constexpr bool kPrefetch = false;
  template <int s>
  static I weights(const uint8_t* data) {
    return _mm256_load_si256(reinterpret_cast<const I*>(data + s * kStepBytes));
  }
};

template <bool zero_points>
void unpack_panel(const uint8_t* tile, const TileLayout& layout, int64_t first, int64_t groups,
                  uint8_t* panel) {
  const int groups_in_block = layout.block / kActivationGroup;
  for (int64_t g = first; g < first + groups; ++g, panel += kPanelBlockBytes) {
    const uint8_t* block = tile + g / groups_in_block * layout.block_bytes;
    const uint8_t* data = block + layout.data_at + g % groups_in_block * 4 * kStepBytes;
    memcpy(panel, block, kRows * sizeof(uint16_t));
    if (zero_points) memcpy(panel + kPanelZerosAt, block + layout.zeros_at, kRows);
    I* to = reinterpret_cast<I*>(panel + kPanelDataAt);
    _mm256_store_si256(to, nibbles_at<0>(data));
    _mm256_store_si256(to + 1, nibbles_at<1>(data));
    _mm256_store_si256(to + 2, nibbles_at<2>(data));
    _mm256_store_si256(to + 3, nibbles_at<3>(data));
    _mm256_store_si256(to + 4, nibbles_at<4>(data));
    _mm256_store_si256(to + 5, nibbles_at<5>(data));
    _mm256_store_si256(to + 6, nibbles_at<6>(data));
    _mm256_store_si256(to + 7, nibbles_at<7>(data));
    // The same part of the next panel, or the one after it.
    for (int at = 0; at < 3; ++at) {
      __builtin_prefetch(data + kPanelGroups * (kPanelZerosAt + 4 * kStepBytes) + at * 64);
    }
  }
}

// Two tiles of int4 times many tokens, panel by panel.
template <class Int4, bool zero_points>
void multiply_panels(const uint8_t* tile, size_t tile_bytes, const TileLayout& layout,
                     int64_t groups, const ActivationGroup* x, int64_t ldx, int64_t tokens,
                     float* totals) {
  alignas(64) uint8_t panel[2 * kPanelTileBytes];
  TileLayout panel_layout{};
  panel_layout.block = kActivationGroup;
  panel_layout.block_bytes = kPanelBlockBytes;
  panel_layout.zeros_at = kPanelZerosAt;
  panel_layout.data_at = kPanelDataAt;
  for (int64_t g = 0; g < groups; g += kPanelGroups) {
    const int64_t n = groups - g < kPanelGroups ? groups - g : kPanelGroups;
    for (int i = 0; i < 2; ++i) {
      unpack_panel<zero_points>(tile + i * tile_bytes, layout, g, n, panel + i * kPanelTileBytes);
    }
    multiply_parts<Unpacked<Int4>, zero_points, 2>(panel, kPanelTileBytes, panel_layout, n, x + g,
                                                   ldx, tokens, totals, Ahead());
  }
}

// Tokens whose totals are kept at once: their activations of a panel stay in the cache.
constexpr int kChunkTokens = 96;

template <class Format, bool zero_points, int tiles>
void multiply_and_store(const PackedMatrix& w, const TileLayout& layout, int64_t tile,
                        const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y,
                        int64_t ldy) {
  alignas(64) float totals[kChunkTokens * tiles * kRows];
  for (int64_t i = 0; i < tokens * tiles; ++i) {
    _mm256_store_ps(totals + i * kRows, _mm256_setzero_ps());
  }
  const uint8_t* data = w.data + tile * w.tile_bytes;
  const int64_t groups = activation_groups(w.cols);
  const Ahead ahead(w, kRows, tile + tiles, tiles, groups, parts_of<Format>(tokens));
  if constexpr (Format::kUnpack && tiles == 2) {
    if (tokens > 2 * Format::kTokens) {
      multiply_panels<Format, zero_points>(data, w.tile_bytes, layout, groups, x, ldx, tokens,
                                           totals);
    } else {
      multiply_parts<Format, zero_points, tiles>(data, w.tile_bytes, layout, groups, x, ldx, tokens,
                                                 totals, ahead);
    }
  } else {
    multiply_parts<Format, zero_points, tiles>(data, w.tile_bytes, layout, groups, x, ldx, tokens,
                                               totals, ahead);
  }
  const int64_t row = tile * kRows;
  const int64_t rows = w.rows - row;
  for (int64_t t = 0; t < tokens; ++t) {
    float* to = y + t * ldy + row;
    const float* from = totals + t * tiles * kRows;
    if (rows >= tiles * kRows) {
#pragma GCC unroll 2
      for (int i = 0; i < tiles; ++i)
        _mm256_storeu_ps(to + i * kRows, _mm256_load_ps(from + i * kRows));
    } else {
      memcpy(to, from, rows * sizeof(float));
    }
  }
}

template <class Format, bool zero_points>
void multiply_tiles(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                    const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  const TileLayout layout = tile_layout(w.format, w.cols, kRows);
  for (int64_t t = 0; t < tokens; t += kChunkTokens) {
    const int64_t n = tokens - t < kChunkTokens ? tokens - t : kChunkTokens;
    const ActivationGroup* from = x + t * ldx;
    float* to = y + t * ldy;
    for (int64_t tile = tile_begin; tile < tile_end;) {
      if (tile_end - tile >= 2 && tokens > 1) {
        multiply_and_store<Format, zero_points, 2>(w, layout, tile, from, ldx, n, to, ldy);
        tile += 2;
      } else {
        multiply_and_store<Format, zero_points, 1>(w, layout, tile, from, ldx, n, to, ldy);
        tile += 1;
      }
    }
  }
}

template <class Int4, class Int8>
void matmul_with_formats(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                         const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y,
                         int64_t ldy) {
  const auto run = [&]<class Format, bool zero_points>() {
    multiply_tiles<Format, zero_points>(w, tile_begin, tile_end, x, ldx, tokens, y, ldy);
  };
  if (w.format.type == WeightType::kInt4) {
    return w.format.zero_points ? run.template operator()<Int4, true>()
                                : run.template operator()<Int4, false>();
  }
  return w.format.zero_points ? run.template operator()<Int8, true>()
                              : run.template operator()<Int8, false>();
}

}  // namespace
}  // namespace altiplano::cpu
