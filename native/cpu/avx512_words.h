// Vectors of 32-bit words of packed weights, beside the f32 lanes that they become: what the matrix
// kernels (x86_matmul.h, x86_formats.h) need of AVX-512. Internal linkage, see avx2.h.
#pragma once

#include "cpu/avx512_lanes.h"

namespace altiplano::cpu {
namespace {

struct Words : avx512::Lanes {
  static constexpr int kRegisters = 32;
  using F = Vector;   // f32 lanes
  using I = __m512i;  // int32 lanes, or bytes

  static F load_bf16(const uint8_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }

  static I set1_i8(char x) { return _mm512_set1_epi8(x); }
  static I set1_i32(int x) { return _mm512_set1_epi32(x); }
  static I load_i(const uint8_t* p) { return _mm512_loadu_si512(p); }
  // A signed, an unsigned byte to each lane.
  static I load_i8(const uint8_t* p) {
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I load_u8(const uint8_t* p) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
  static I sub_i8(I a, I b) { return _mm512_sub_epi8(a, b); }
  static I sub_i32(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I mul_i32(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static I shift_right_4(I a) { return _mm512_srli_epi16(a, 4); }
  static I sign_from_top(I a) { return _mm512_srai_epi32(a, 24); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  // Byte i of each 32-bit lane, moved to the lane's top.
  template <int i>
  static I byte_to_top(I words) {
    return _mm512_slli_epi32(_mm512_srli_epi32(words, i * 8), 24);
  }
};

}  // namespace
}  // namespace altiplano::cpu
