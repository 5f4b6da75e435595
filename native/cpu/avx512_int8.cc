// Matrix multiplication with int8 activations: AVX-512 with VNNI, over the layout of layout.h.
//
// vpdpbusd multiplies four unsigned bytes of a lane (weights: a lane is a row) with four signed
// bytes (activations: the same for all lanes, broadcast from memory) and adds the sum to the lane.
// A register tile has up to 16 integer sums, which live for one group of 32 columns, and as many
// floats, the totals:
//
//              token 0    token 1  ..  token 5         for each of 8 x 4 columns:
//   rows 0-15    sum        sum          sum             load and unpack the weights of 2 tiles
//   rows 16-31   sum        sum          sum             for each token: broadcast 4 codes,
//                                                          2 x vpdpbusd
// Then the sums become floats, with the activations' scale in them after one subtraction
// (ActivationGroup says how), and are added to the totals with that of the weights. 8 vpdpbusd and
// a fused multiplication compete for two execution units, so 89 % of the vpdpbusd peak is the most
// that groups of 32 allow. With 24 sums and the totals in memory less was reached. int4 words are
// unpacked on the way: a copy of unpacked weights would gain nothing. Without zero points no sum is
// spilled, as objdump -d shows: up to 6 tokens have no zmm register beside (%rsp), 8 tokens only 6
// totals, each read and written once a group. That is still faster than two parts of 4 tokens, each
// of which unpacks the weights.
//
// Weights are unsigned here: int4 as it is, int8 with 128 added. Where a sum starts takes off what
// that and the zero point add to it: (zero + 128) * sum of the codes.
#include <immintrin.h>

#include "cpu/activations.h"
#include "cpu/ahead.h"
#include "cpu/avx512.h"
#include "cpu/layout.h"

namespace altiplano::cpu::avx512 {
namespace {

using F = __m512;
using I = __m512i;

constexpr int kRows = kWideTileRows;
constexpr int kStepBytes = kRows * 4;
constexpr int kPrefetchBytes = 4096;
// Of a lone token.
constexpr int kLonePrefetchBytes = 3072;

inline I origin_bits(const ActivationGroup& x) {
  return _mm512_castps_si512(_mm512_set1_ps(x.origin));
}

inline I words_at(const uint8_t* p) { return _mm512_loadu_si512(p); }

// Columns 4 s .. 4 s + 3 of a token.
inline I codes_at(const ActivationGroup& x, int s) {
  int32_t codes;
  memcpy(&codes, x.codes + s * 4, sizeof(codes));
  return _mm512_set1_epi32(codes);
}

// A format reads a group of 32 columns of a tile: weights<s>(data) are columns 4 s .. 4 s + 3 as
// unsigned bytes; start() what a sum starts at, but for zero points. prefetches() says whether
// multiply() fetches what several tokens will read soon into the first-level cache: processors
// follow a stream best by themselves (on Zen 4 a core reads int8 a fifth slower with such
// prefetches) until so much is computed between two lines that they lose it.
template <bool zero_points>
struct Int4 {
  static constexpr bool kNibbles = true;
  static constexpr int kGroupBytes = 4 * kStepBytes;
  static constexpr bool prefetches(int tokens) { return tokens > 1; }
  template <int s>
  static I weights(const uint8_t* data) {
    const I words = words_at(data + s / 2 * kStepBytes);
    return _mm512_and_si512(s % 2 ? _mm512_srli_epi16(words, 4) : words, _mm512_set1_epi8(15));
  }
  static I zeros(const uint8_t* at) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  static I start(const ActivationGroup& x) {
    return zero_points ? origin_bits(x) : _mm512_set1_epi32(x.int4_start);
  }
  // A lone token's sum. High nibbles stay where they are: their sum is 16 times as large, and
  // shifted once instead of every word.
  static I add_group(const uint8_t* data, const ActivationGroup& x, I sum) {
    I high = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int s = 0; s < 8; s += 2) {
      const I words = words_at(data + s / 2 * kStepBytes);
      sum = _mm512_dpbusd_epi32(sum, _mm512_and_si512(words, _mm512_set1_epi8(15)), codes_at(x, s));
      high = _mm512_dpbusd_epi32(high, _mm512_and_si512(words, _mm512_set1_epi8(-16)),
                                 codes_at(x, s + 1));
    }
    return _mm512_add_epi32(sum, _mm512_srai_epi32(high, 4));
  }
};

template <bool zero_points>
struct Int8 {
  static constexpr bool kNibbles = false;
  static constexpr int kGroupBytes = 8 * kStepBytes;
  static constexpr bool prefetches(int) { return false; }
  template <int s>
  static I weights(const uint8_t* data) {
    return _mm512_xor_si512(words_at(data + s * kStepBytes), _mm512_set1_epi8(-128));
  }
  static I zeros(const uint8_t* at) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  }
  static I start(const ActivationGroup& x) { return _mm512_set1_epi32(x.int8_start); }
};

// sums += weights of columns 4 s .. 4 s + 3 times the tokens' codes.
template <class Format, int tiles, int tokens, int s>
__attribute__((always_inline)) inline void add_columns(const uint8_t* data, size_t tile_bytes,
                                                       const ActivationGroup* x, int64_t ldx,
                                                       I (&sums)[tiles * tokens]) {
  I w[tiles];
#pragma GCC unroll 2
  for (int i = 0; i < tiles; ++i) w[i] = Format::template weights<s>(data + i * tile_bytes);
#pragma GCC unroll 12
  for (int t = 0; t < tokens; ++t) {
    const I broadcast = codes_at(x[t * ldx], s);
#pragma GCC unroll 2
    for (int i = 0; i < tiles; ++i) {
      sums[i * tokens + t] = _mm512_dpbusd_epi32(sums[i * tokens + t], w[i], broadcast);
    }
  }
}

// `tiles` neighbouring tiles times `tokens` tokens. With two tiles those `ahead` are fetched
// meanwhile.
template <class Format, bool zero_points, int tiles, int tokens>
__attribute__((noinline)) void multiply(const PackedMatrix& w, const TileLayout& layout,
                                        int64_t tile, const ActivationGroup* x, int64_t ldx,
                                        float* y, int64_t ldy, Ahead ahead) {
  const size_t tile_bytes = w.tile_bytes;
  F totals[tiles * tokens] = {};
  const int64_t groups = activation_groups(w.cols);
  const int groups_in_block = layout.block / kActivationGroup;
  const uint8_t* block = w.data + tile * tile_bytes;
  int in_block = 0;
  for (int64_t g = 0; g < groups; ++g, ++x) {
    const uint8_t* data = block + layout.data_at + in_block * Format::kGroupBytes;
    if constexpr (Format::prefetches(tokens)) {
#pragma GCC unroll 2
      for (int i = 0; i < tiles; ++i) {
#pragma GCC unroll 8
        for (int at = 0; at < Format::kGroupBytes; at += 64) {
          __builtin_prefetch(data + i * tile_bytes + kPrefetchBytes + at);
        }
      }
    }
    // A lone token does no more than read. Every second line into the second-level cache, where it
    // brings its neighbour along and takes no place from the loads: up to 3 % faster on Zen 4.
    if constexpr (tiles * tokens == 1) {
#pragma GCC unroll 4
      for (int at = 0; at < Format::kGroupBytes; at += 128) {
        __builtin_prefetch(data + kLonePrefetchBytes + at, 0, 1);
      }
    }
    if constexpr (tiles == 2) ahead.fetch();
    I sums[tiles * tokens];
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
      const I start = Format::start(x[t * ldx]);
#pragma GCC unroll 2
      for (int i = 0; i < tiles; ++i) {
        I& sum = sums[i * tokens + t];
        sum = start;
        if constexpr (zero_points) {
          const I zeros = Format::zeros(block + i * tile_bytes + layout.zeros_at);
          sum = _mm512_sub_epi32(sum, _mm512_mullo_epi32(zeros, _mm512_set1_epi32(x[t * ldx].sum)));
        }
      }
    }
    if constexpr (tiles * tokens == 1 && Format::kNibbles) {
      sums[0] = Format::add_group(data, *x, sums[0]);
    } else {
      add_columns<Format, tiles, tokens, 0>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 1>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 2>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 3>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 4>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 5>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 6>(data, tile_bytes, x, ldx, sums);
      add_columns<Format, tiles, tokens, 7>(data, tile_bytes, x, ldx, sums);
    }
    F scales[tiles];
#pragma GCC unroll 2
    for (int i = 0; i < tiles; ++i) {
      scales[i] = _mm512_cvtph_ps(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + i * tile_bytes)));
    }
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
      const F origin = _mm512_set1_ps(x[t * ldx].origin);
#pragma GCC unroll 2
      for (int i = 0; i < tiles; ++i) {
        const int at = i * tokens + t;
        const F scaled = _mm512_sub_ps(_mm512_castsi512_ps(sums[at]), origin);
        totals[at] = _mm512_fmadd_ps(scaled, scales[i], totals[at]);
      }
    }
    if (++in_block == groups_in_block) {
      in_block = 0;
      block += layout.block_bytes;
    }
  }
  // Of the last tile some rows may be missing.
#pragma GCC unroll 2
  for (int i = 0; i < tiles; ++i) {
    const int64_t row = (tile + i) * kRows, rows = w.rows - row;
    const auto exist = static_cast<__mmask16>(rows < kRows ? (1u << rows) - 1 : 0xffffu);
#pragma GCC unroll 12
    for (int t = 0; t < tokens; ++t) {
      _mm512_mask_storeu_ps(y + t * ldy + row, exist, totals[i * tokens + t]);
    }
  }
}

// `count` (1 .. most) tokens, by the template for that number.
template <class Format, bool zero_points, int tiles, int most>
void multiply_tokens(int64_t count, const PackedMatrix& w, const TileLayout& layout, int64_t tile,
                     const ActivationGroup* x, int64_t ldx, float* y, int64_t ldy, Ahead ahead) {
  if constexpr (most > 0) {
    if (count == most) {
      multiply<Format, zero_points, tiles, most>(w, layout, tile, x, ldx, y, ldy, ahead);
    } else {
      multiply_tokens<Format, zero_points, tiles, most - 1>(count, w, layout, tile, x, ldx, y, ldy,
                                                            ahead);
    }
  }
}

// Up to 3 tokens are multiplied with one tile after the other: the weights are then one stream,
// which the processor or the prefetches of multiply() follow from tile to tile. More take two
// tiles, for half the broadcasts, in parts of about 6.
template <class Format, bool zero_points>
void multiply_tiles(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                    const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  const TileLayout layout = tile_layout(w.format, w.cols, kRows);
  const int together = tokens > 3 ? 2 : 1;
  for (int64_t tile = tile_begin; tile < tile_end;) {
    const int tiles = tile_end - tile >= together ? together : 1;
    // In parts of as equal size as can be: 9 tokens are 5 and 4, not 6 and 3.
    int64_t parts = tiles == 2 ? (tokens + 3) / 6 : (tokens + 11) / 12;
    const int64_t groups = activation_groups(w.cols);
    Ahead ahead(w, kRows, tile + tiles, tiles, groups, parts);
    for (int64_t t = 0; t < tokens; --parts) {
      const int64_t n = (tokens - t + parts - 1) / parts;
      const ActivationGroup* xt = x + t * ldx;
      float* yt = y + t * ldy;
      if (tiles == 2) {
        multiply_tokens<Format, zero_points, 2, 8>(n, w, layout, tile, xt, ldx, yt, ldy, ahead);
      } else {
        multiply_tokens<Format, zero_points, 1, 12>(n, w, layout, tile, xt, ldx, yt, ldy, ahead);
      }
      t += n;
      ahead.advance(groups);
    }
    tile += tiles;
  }
}

}  // namespace

void quantize_activations(const float* x, int64_t n, ActivationGroup* out) {
  const I magnitude = _mm512_set1_epi32(0x7fffffff);
  ActivationGroup* const first = out;
  bool all_finite = true;
  for (int64_t begin = 0; begin < n; begin += kActivationGroup, ++out) {
    const int64_t count = n - begin < kActivationGroup ? n - begin : kActivationGroup;
    const uint32_t mask = count == kActivationGroup ? ~0u : (1u << count) - 1;
    const F low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x + begin);
    const F high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + begin + 16);
    // Bits of magnitudes are in the order of the numbers, and NaN comes after infinity.
    const I sizes = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                                     _mm512_and_si512(_mm512_castps_si512(high), magnitude));
    const uint32_t bits = _mm512_reduce_max_epu32(sizes);
    float most;
    memcpy(&most, &bits, sizeof(most));
    const bool finite = most <= kMostActivation;
    all_finite = all_finite && finite;
    const float scale = activation_scale(most, finite);
    const F inverse = _mm512_set1_ps(finite ? 1.f / scale : 0.f);
    // Where the scale is NaN, x * 0 may be NaN: its integer is cut off by the mask.
    const __mmask16 keep = finite ? 0xffff : 0;
    const I a = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(low, inverse));
    const I b = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(high, inverse));
    finish_group(out, scale, _mm512_reduce_add_epi32(_mm512_add_epi32(a, b)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes), _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out->codes + 16), _mm512_cvtepi32_epi8(b));
  }
  if (!all_finite) make_nan(first);
}

void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  const auto run = [&]<class Format, bool zero_points>() {
    multiply_tiles<Format, zero_points>(w, tile_begin, tile_end, x, ldx, tokens, y, ldy);
  };
  if (w.format.type == WeightType::kInt4) {
    return w.format.zero_points ? run.template operator()<Int4<true>, true>()
                                : run.template operator()<Int4<false>, false>();
  }
  return w.format.zero_points ? run.template operator()<Int8<true>, true>()
                              : run.template operator()<Int8<false>, false>();
}

}  // namespace altiplano::cpu::avx512
