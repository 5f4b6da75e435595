// Eight lanes of f32, for the algorithms that are written once for all widths (x86_attend.h).
// Internal linkage, see avx2.h.
#pragma once

#include <string.h>

#include "cpu/avx2_math.h"

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

  // Eight elements: f32, f16 or int8.
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector load(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
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
  static float max_lane(Vector x) { return avx2::max_lane(x); }
  static float sum_lanes(Vector x) { return avx2::sum_lanes(x); }
};

}  // namespace
}  // namespace altiplano::cpu::avx2
