// Matrix multiplication with int8 activations, AVX2. The loops are in avx2_int8.h.
//
// vpmaddubsw multiplies 32 unsigned with 32 signed bytes and adds up neighbours in 16 bits.
#include "cpu/avx2_int8.h"

#include "cpu/activations.h"
#include "cpu/avx2.h"
#include "cpu/avx2_math.h"

namespace altiplano::cpu::avx2 {
namespace {

// Two products are at most 2 * 15 * 127: the eight additions of a group fit 16 bits.
static_assert(8 * 2 * 15 * 127 < 32768);
struct Int4 {
  using Weights = I;
  static constexpr int kTokens = 6;
  static constexpr bool kPrefetch = true, kUnpack = true;
  static constexpr int kGroupBytes = 4 * kStepBytes;
  template <int s>
  static I weights(const uint8_t* data) {
    return nibbles_at<s>(data);
  }
  template <bool first>
  static I add(I sum, I w, I codes) {
    const I products = _mm256_maddubs_epi16(w, codes);
    return first ? products : _mm256_add_epi16(sum, products);
  }
  static I finish(I sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
  static I start(const ActivationGroup& x) { return _mm256_set1_epi32(x.int4_start); }
  static I zeros(const uint8_t* at) { return _mm256_cvtepu8_epi32(eight_bytes_at(at)); }
};

// |w| times codes with the sign of w: two products are at most 2 * 128 * 127, which fits 16 bits
// once; so every one is widened.
static_assert(2 * 128 * 127 < 32768);
struct Int8 {
  struct Weights {
    I signs, sizes;
  };
  static constexpr int kTokens = 4;
  static constexpr bool kPrefetch = true, kUnpack = false;
  static constexpr int kGroupBytes = 8 * kStepBytes;
  template <int s>
  static Weights weights(const uint8_t* data) {
    const I words = words_at(data + s * kStepBytes);
    return {words, _mm256_abs_epi8(words)};
  }
  template <bool first>
  static I add(I sum, Weights w, I codes) {
    const I products = _mm256_maddubs_epi16(w.sizes, _mm256_sign_epi8(codes, w.signs));
    const I wide = _mm256_madd_epi16(products, _mm256_set1_epi16(1));
    return first ? wide : _mm256_add_epi32(sum, wide);
  }
  static I finish(I sum) { return sum; }
  static I start(const ActivationGroup& x) { return origin_bits(x); }
  static I zeros(const uint8_t* at) {
    return _mm256_and_si256(_mm256_cvtepi8_epi32(eight_bytes_at(at)), _mm256_set1_epi32(0xffff));
  }
};

// The first `count` (0 .. 8) of x, and 0.
inline F load_first(const float* x, int64_t count) {
  if (count >= 8) return _mm256_loadu_ps(x);
  return _mm256_maskload_ps(x, first_lanes(static_cast<int>(count < 0 ? 0 : count)));
}

}  // namespace

void quantize_activations(const float* x, int64_t n, ActivationGroup* out) {
  const I magnitude = _mm256_set1_epi32(0x7fffffff);
  ActivationGroup* const first = out;
  bool all_finite = true;
  for (int64_t begin = 0; begin < n; begin += kActivationGroup, ++out) {
    const int64_t left = n - begin;
    F v[4];
    I sizes = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[i] = load_first(x + begin + 8 * i, left - 8 * i);
      // Bits of magnitudes are in the order of the numbers, and NaN comes after infinity.
      sizes = _mm256_max_epi32(sizes, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    }
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(sizes), _mm256_extracti128_si256(sizes, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    const int32_t bits = _mm_cvtsi128_si32(four);
    float most;
    memcpy(&most, &bits, sizeof(most));
    const bool finite = most <= kMostActivation;
    all_finite = all_finite && finite;
    const float scale = activation_scale(most, finite);
    const F inverse = _mm256_set1_ps(finite ? 1.f / scale : 0.f);
    // Where the scale is NaN, x * 0 may be NaN: its integer is cut off.
    const I keep = _mm256_set1_epi32(finite ? -1 : 0);
    I codes[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      codes[i] = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse)), keep);
    }
    const I sum = _mm256_add_epi32(_mm256_add_epi32(codes[0], codes[1]),
                                   _mm256_add_epi32(codes[2], codes[3]));
    four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    finish_group(out, scale, _mm_cvtsi128_si32(four));
    // Packing goes by halves of registers; the permutation puts the 4-byte parts back in order.
    const I bytes = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]),
                                       _mm256_packs_epi32(codes[2], codes[3]));
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(out->codes),
        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
  if (!all_finite) make_nan(first);
}

void matmul_int8(const PackedMatrix& w, int64_t tile_begin, int64_t tile_end,
                 const ActivationGroup* x, int64_t ldx, int64_t tokens, float* y, int64_t ldy) {
  matmul_with_formats<Int4, Int8>(w, tile_begin, tile_end, x, ldx, tokens, y, ldy);
}

}  // namespace altiplano::cpu::avx2
