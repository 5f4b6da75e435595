// Sixteen lanes of f32, for the algorithms that are written once for all widths (x86_attend.h).
// Internal linkage, see avx2.h.
#pragma once

#include <immintrin.h>

#include "cpu/avx2_math.h"
#include "cpu/scalar.h"

namespace altiplano::cpu::avx512 {
namespace {

// exp(x) within 2 ulp over the whole range, denormal results included; -infinity gives 0 and NaN
// stays NaN. The steps are those of avx2_math.h.
inline __m512 exp16(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-110.f), x);
  x = _mm512_min_ps(_mm512_set1_ps(90.f), x);
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p0f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e43p-1f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-0x1.05c61p-29f), r);
  __m512 p = _mm512_set1_ps(1.f / 5040);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 720));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(p, n);  // p * 2^n, rounded once
}

struct Lanes {
  using Vector = __m512;
  static constexpr int kLanes = 16;
  // Queries of a register tile, each with two vectors: 24 of the 32 registers are sums.
  static constexpr int kQueries = 12;

  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector set(float x) { return _mm512_set1_ps(x); }
  static Vector broadcast(const float* p) { return _mm512_set1_ps(*p); }

  // Sixteen elements: f32, f16, bf16 or int8.
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector load(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vector load(const Bf16* p) {
    return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Vector load(const int8_t* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  // The first n elements (all sixteen if n is larger), and 0.
  static Vector load(const float* p, int n) { return _mm512_maskz_loadu_ps(mask(n), p); }
  static Vector load(const uint16_t* p, int n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static Vector load(const Bf16* p, int n) {
    return from_bf16(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static Vector load(const int8_t* p, int n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask(n), p)));
  }
  static void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, Vector x, int n) { _mm512_mask_storeu_ps(p, mask(n), x); }

  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector fmadd(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector exp(Vector x) { return exp16(x); }
  static float exp_one(float x) { return _mm512_cvtss_f32(exp16(_mm512_set1_ps(x))); }
  // The first n lanes of a (n may be negative, or more than there are), the others of b.
  static Vector first(int n, Vector a, Vector b) {
    return _mm512_mask_blend_ps(n < 0 ? 0 : mask(n), b, a);
  }

  // Integers: lanes of int32, or of pairs of int16.
  using Ints = __m512i;
  static Ints no_ints() { return _mm512_setzero_si512(); }
  static Ints add_ints(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  // 32 codes as int16; with n, the first n (at most 32) and 0.
  static Ints load_words(const int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Ints load_words(const int8_t* p, int n) {
    const auto some = static_cast<__mmask32>(n < 32 ? (1u << n) - 1 : 0xffffffffu);
    return _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(some, p));
  }
  // Pairs of the elements of a and b, of half of them: the unpaired_... of two sums over such pairs
  // are in the order of a and b, as f32.
  static Ints pair_low(Ints a, Ints b) { return _mm512_unpacklo_epi16(a, b); }
  static Ints pair_high(Ints a, Ints b) { return _mm512_unpackhi_epi16(a, b); }
  static Vector unpaired_first(Ints low, Ints high) {
    const __m512i quarters = _mm512_shuffle_i32x4(low, high, 0x44);  // low 0, 1, high 0, 1
    return _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(quarters, quarters, 0xd8));
  }
  static Vector unpaired_second(Ints low, Ints high) {
    const __m512i quarters = _mm512_shuffle_i32x4(low, high, 0xee);
    return _mm512_cvtepi32_ps(_mm512_shuffle_i32x4(quarters, quarters, 0xd8));
  }
  // The pair of int16 at p in all lanes.
  static Ints broadcast_pair(const void* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
  }
  // sum + the product of the pairs, of both of their elements.
  // Written out, because GCC 12 copies the sum before the intrinsic, and then keeps it in memory.
  static Ints dot(Ints sum, Ints a, Ints b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
  // Rounds to sixteen int16, ties to even.
  static void store_words(int16_t* p, Vector x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(x)));
  }

  static float max_lane(Vector x) {
    return avx2::max_lane(_mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
  }
  static float sum_lanes(Vector x) {
    return avx2::sum_lanes(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)));
  }

 private:
  static Vector from_bf16(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
  }
  static __mmask16 mask(int n) {
    return static_cast<__mmask16>(n < kLanes ? (1u << n) - 1 : 0xffffu);
  }
};

}  // namespace
}  // namespace altiplano::cpu::avx512
