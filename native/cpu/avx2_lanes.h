// Eight lanes of f32, for the algorithms that are written once for all widths (x86_attend.h).
// Internal linkage, see avx2.h.
#pragma once

#include <string.h>

#include "cpu/avx2_math.h"
#include "cpu/scalar.h"

namespace altiplano::cpu::avx2 {
namespace {

struct Lanes {
  using Vector = __m256;
  static constexpr int kLanes = 8;
  // Queries of a register tile, each with two vectors: 12 of the 16 registers are sums.
  static constexpr int kQueries = 6;

  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector set(float x) { return _mm256_set1_ps(x); }
  static Vector broadcast(const float* p) { return _mm256_broadcast_ss(p); }

  // Eight elements: f32, f16, bf16 or int8.
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector load(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Vector load(const Bf16* p) {
    const __m256i bits =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  }
  static Vector load(const int8_t* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  // The first n elements (all eight if n is larger), and 0.
  template <class Element>
  static Vector load(const Element* p, int n) {
    if (n >= kLanes) return load(p);
    Element elements[kLanes] = {};
    memcpy(elements, p, n * sizeof(Element));
    return load(elements);
  }
  static void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, Vector x, int n) { _mm256_maskstore_ps(p, first_lanes(n), x); }

  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
  static Vector fmadd(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector exp(Vector x) { return exp8(x); }
  static float exp_one(float x) { return exp1(x); }
  // The first n lanes of a (n may be negative, or more than there are), the others of b.
  static Vector first(int n, Vector a, Vector b) {
    return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first_lanes(n)));
  }

  // Integers: lanes of int32, or of pairs of int16.
  using Ints = __m256i;
  static Ints no_ints() { return _mm256_setzero_si256(); }
  static Ints add_ints(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
  // 16 codes as int16; with n, the first n (at most 16) and 0.
  static Ints load_words(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Ints load_words(const int8_t* p, int n) {
    int8_t codes[2 * kLanes] = {};
    memcpy(codes, p, n);
    return load_words(codes);
  }
  // Pairs of the elements of a and b, of half of them: the unpaired_... of two sums over such pairs
  // are in the order of a and b, as f32.
  static Ints pair_low(Ints a, Ints b) { return _mm256_unpacklo_epi16(a, b); }
  static Ints pair_high(Ints a, Ints b) { return _mm256_unpackhi_epi16(a, b); }
  static Vector unpaired_first(Ints low, Ints high) {
    return _mm256_cvtepi32_ps(_mm256_permute2x128_si256(low, high, 0x20));
  }
  static Vector unpaired_second(Ints low, Ints high) {
    return _mm256_cvtepi32_ps(_mm256_permute2x128_si256(low, high, 0x31));
  }
  // The pair of int16 at p in all lanes.
  static Ints broadcast_pair(const void* p) {
    int32_t pair;
    memcpy(&pair, p, sizeof(pair));
    return _mm256_set1_epi32(pair);
  }
  // sum + the product of the pairs, of both of their elements.
  static Ints dot(Ints sum, Ints a, Ints b) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  }
  // Rounds to eight int16, ties to even.
  static void store_words(int16_t* p, Vector x) {
    const __m256i words = _mm256_cvtps_epi32(x);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }

  static float max_lane(Vector x) { return avx2::max_lane(x); }
  static float sum_lanes(Vector x) { return avx2::sum_lanes(x); }
};

}  // namespace
}  // namespace altiplano::cpu::avx2
