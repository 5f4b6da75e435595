// The weight formats as the AVX2 matmul reads them; internal linkage, see avx2.h.
//
// A format reads a block of a tile. step(k) loads the 8 columns from k (a multiple of 8) on, and
// column<j>(step) gives one of them, 8 rows; w = scale() * column.
//
// Quantized columns come as (q - zero) * 2^24, exact, since a byte reaches the top of a 32-bit lane
// by one shuffle, sign and all; scale() makes up for it. (So sums overflow at |x| of 1e28 or so.)
#pragma once

#include <immintrin.h>

#include "cpu/layout.h"

// What must be inlined to keep vectors in registers. Not under sanitizers, whose checks in so much
// inlined code take compilers minutes and gigabytes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALWAYS_INLINE inline
#else
#define ALWAYS_INLINE inline __attribute__((always_inline))
#endif

namespace altiplano::cpu::avx2 {
namespace {

constexpr int kPrefetchBytes = 2048;  // found by measurement

// Fetches a step that comes some steps later. (Fetching behind the end is harmless.)
template <int step_bytes>
ALWAYS_INLINE void prefetch_later(const uint8_t* step) {
  for (int at = 0; at < step_bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(step + kPrefetchBytes + at), _MM_HINT_T0);
  }
}

struct F32 {
  struct Step {
    const float* at;
  };
  const uint8_t* block;
  ALWAYS_INLINE F32(const uint8_t* block, const TileLayout&) : block(block) {}
  ALWAYS_INLINE __m256 scale() const { return _mm256_set1_ps(1.f); }
  ALWAYS_INLINE void prefetch(int k) const { prefetch_later<256>(block + k * 32); }
  ALWAYS_INLINE Step step(int k) const {
    return {reinterpret_cast<const float*>(block) + k * kTileRows};
  }
  template <int j>
  ALWAYS_INLINE __m256 column(const Step& step) const {
    return _mm256_loadu_ps(step.at + j * kTileRows);
  }
};

template <bool bf16>
struct Float16Bits {
  struct Step {
    const __m128i* at;
  };
  const uint8_t* block;
  ALWAYS_INLINE Float16Bits(const uint8_t* block, const TileLayout&) : block(block) {}
  ALWAYS_INLINE __m256 scale() const { return _mm256_set1_ps(1.f); }
  ALWAYS_INLINE void prefetch(int k) const { prefetch_later<128>(block + k * 16); }
  ALWAYS_INLINE Step step(int k) const { return {reinterpret_cast<const __m128i*>(block) + k}; }
  template <int j>
  ALWAYS_INLINE __m256 column(const Step& step) const {
    const __m128i bits = _mm_loadu_si128(step.at + j);
    if (!bf16) return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
};

ALWAYS_INLINE __m256i load(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

// Byte i of each 32-bit lane, moved to the lane's top.
template <int i>
ALWAYS_INLINE __m256i byte_to_top(__m256i words) {
  constexpr int kZero = 0x80;
  const auto lane = [](int r) { return (r * 4 + i) << 24 | kZero << 16 | kZero << 8 | kZero; };
  return _mm256_shuffle_epi8(words, _mm256_setr_epi32(lane(0), lane(1), lane(2), lane(3), lane(0),
                                                      lane(1), lane(2), lane(3)));
}

ALWAYS_INLINE __m256 quantized_scale(const uint8_t* block) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block));
  return _mm256_mul_ps(_mm256_cvtph_ps(bits), _mm256_set1_ps(0x1p-24f));
}

template <bool zero_points>
struct Int8 {
  struct Step {
    __m256i words[2];  // columns 0-3 and 4-7
  };
  const uint8_t* block;
  const uint8_t* data;
  __m256i zero;  // as 32-bit numbers
  ALWAYS_INLINE Int8(const uint8_t* block, const TileLayout& layout)
      : block(block), data(block + layout.data_at), zero(_mm256_setzero_si256()) {
    if (!zero_points) return;
    const __m128i bytes =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + layout.zeros_at));
    zero = _mm256_cvtepi8_epi32(bytes);
  }
  ALWAYS_INLINE __m256 scale() const { return quantized_scale(block); }
  ALWAYS_INLINE void prefetch(int k) const { prefetch_later<64>(data + k / 4 * kStepBytes); }
  ALWAYS_INLINE Step step(int k) const {
    const uint8_t* p = data + k / 4 * kStepBytes;
    return {{load(p), load(p + kStepBytes)}};
  }
  template <int j>
  ALWAYS_INLINE __m256 column(const Step& step) const {
    const __m256i top = byte_to_top<j % 4>(step.words[j / 4]);
    if (!zero_points) return _mm256_cvtepi32_ps(top);
    // q - zero has 9 bits and a sign: too many for the top byte.
    const __m256i difference = _mm256_sub_epi32(_mm256_srai_epi32(top, 24), zero);
    return _mm256_mul_ps(_mm256_cvtepi32_ps(difference), _mm256_set1_ps(0x1p24f));
  }
};

template <bool zero_points>
struct Int4 {
  struct Step {
    __m256i even, odd;  // columns 0 2 4 6 and 1 3 5 7 as signed bytes q - zero
  };
  const uint8_t* block;
  const uint8_t* data;
  __m256i zero;  // in every byte of the row's lane
  ALWAYS_INLINE Int4(const uint8_t* block, const TileLayout& layout)
      : block(block), data(block + layout.data_at), zero(_mm256_set1_epi8(kInt4DefaultZero)) {
    if (!zero_points) return;
    const __m128i bytes =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + layout.zeros_at));
    zero = _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(0x01010101));
  }
  ALWAYS_INLINE __m256 scale() const { return quantized_scale(block); }
  ALWAYS_INLINE void prefetch(int k) const { prefetch_later<32>(data + k / 8 * kStepBytes); }
  ALWAYS_INLINE Step step(int k) const {
    const __m256i words = load(data + k / 8 * kStepBytes);
    const __m256i low = _mm256_set1_epi8(15);
    return {_mm256_sub_epi8(_mm256_and_si256(words, low), zero),
            _mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(words, 4), low), zero)};
  }
  template <int j>
  ALWAYS_INLINE __m256 column(const Step& step) const {
    return _mm256_cvtepi32_ps(byte_to_top<j / 2>(j % 2 ? step.odd : step.even));
  }
};

}  // namespace
}  // namespace altiplano::cpu::avx2
