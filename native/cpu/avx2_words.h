// Vectors of 32-bit words of packed weights, beside the f32 lanes that they become: what the matrix
// kernels (x86_matmul.h, x86_formats.h) need of AVX2. Internal linkage, see avx2.h.
#pragma once

#include "cpu/avx2_lanes.h"

namespace altiplano::cpu {
namespace {

struct Words : avx2::Lanes {
  static constexpr int kRegisters = 16;
  using F = Vector;   // f32 lanes
  using I = __m256i;  // int32 lanes, or bytes

  static F load_bf16(const uint8_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }

  static I set1_i8(char x) { return _mm256_set1_epi8(x); }
  static I set1_i32(int x) { return _mm256_set1_epi32(x); }
  static I load_i(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  // A signed, an unsigned byte to each lane.
  static I load_i8(const uint8_t* p) {
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static I load_u8(const uint8_t* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  static I bit_and(I a, I b) { return _mm256_and_si256(a, b); }
  static I sub_i8(I a, I b) { return _mm256_sub_epi8(a, b); }
  static I sub_i32(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I mul_i32(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static I shift_right_4(I a) { return _mm256_srli_epi16(a, 4); }
  static I sign_from_top(I a) { return _mm256_srai_epi32(a, 24); }
  static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  // Byte i of each 32-bit lane, moved to the lane's top.
  template <int i>
  static I byte_to_top(I words) {
    constexpr int kZero = 0x80;
    const auto lane = [](int r) { return (r * 4 + i) << 24 | kZero << 16 | kZero << 8 | kZero; };
    return _mm256_shuffle_epi8(words, _mm256_setr_epi32(lane(0), lane(1), lane(2), lane(3), lane(0),
                                                        lane(1), lane(2), lane(3)));
  }
};

}  // namespace
}  // namespace altiplano::cpu
