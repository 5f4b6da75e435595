// The weight formats as the matmul for f32 activations reads them, for every width of vectors: the
// including file has chosen Words. Internal linkage, see avx2.h.
//
// A format reads a block of a tile. step(k) loads the 8 columns from k (a multiple of 8) on, and
// column<j>(step) gives one of them, a lane to a row; w = scale() * column.
//
// Quantized columns come as (q - zero) * 2^24, exact, since a byte reaches the top of a 32-bit lane
// by one shuffle, sign and all; scale() makes up for it. (So sums overflow at |x| of 1e28 or so.)
#pragma once

#include "cpu/layout.h"

// What must be inlined to keep vectors in registers. Not under sanitizers, whose checks in so much
// inlined code take compilers minutes and gigabytes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALWAYS_INLINE inline
#else
#define ALWAYS_INLINE inline __attribute__((always_inline))
#endif

namespace altiplano::cpu {
namespace {

using F = Words::F;
using I = Words::I;

constexpr int kRows = Words::kLanes;  // of a tile
constexpr int kStepBytes = kRows * 4;
constexpr int kPrefetchBytes = 2048;  // found by measurement

// Fetches a step that comes some steps later. (Fetching behind the end is harmless.)
template <int step_bytes>
ALWAYS_INLINE void prefetch_later(const uint8_t* step) {
  for (int at = 0; at < step_bytes; at += 64) {
    __builtin_prefetch(step + kPrefetchBytes + at);
  }
}

struct F32 {
  struct Step {
    const float* at;
  };
  const uint8_t* block;
  ALWAYS_INLINE F32(const uint8_t* block, const TileLayout&) : block(block) {}
  ALWAYS_INLINE F scale() const { return Words::set(1.f); }
  ALWAYS_INLINE void prefetch(int k) const { prefetch_later<8 * kRows * 4>(block + k * kRows * 4); }
  ALWAYS_INLINE Step step(int k) const {
    return {reinterpret_cast<const float*>(block) + k * kRows};
  }
  template <int j>
  ALWAYS_INLINE F column(const Step& step) const {
    return Words::load(step.at + j * kRows);
  }
};

template <bool bf16>
struct Float16Bits {
  struct Step {
    const uint8_t* at;
  };
  const uint8_t* block;
  ALWAYS_INLINE Float16Bits(const uint8_t* block, const TileLayout&) : block(block) {}
  ALWAYS_INLINE F scale() const { return Words::set(1.f); }
  ALWAYS_INLINE void prefetch(int k) const { prefetch_later<8 * kRows * 2>(block + k * kRows * 2); }
  ALWAYS_INLINE Step step(int k) const { return {block + k * kRows * 2}; }
  template <int j>
  ALWAYS_INLINE F column(const Step& step) const {
    const uint8_t* at = step.at + j * kRows * 2;
    return bf16 ? Words::load_bf16(at) : Words::load(reinterpret_cast<const uint16_t*>(at));
  }
};

ALWAYS_INLINE F quantized_scale(const uint8_t* block) {
  return Words::mul(Words::load(reinterpret_cast<const uint16_t*>(block)), Words::set(0x1p-24f));
}

template <bool zero_points>
struct Int8 {
  struct Step {
    I words[2];  // columns 0-3 and 4-7
  };
  const uint8_t* block;
  const uint8_t* data;
  I zero;  // as 32-bit numbers
  ALWAYS_INLINE Int8(const uint8_t* block, const TileLayout& layout)
      : block(block), data(block + layout.data_at), zero(Words::set1_i32(0)) {
    if (zero_points) zero = Words::load_i8(block + layout.zeros_at);
  }
  ALWAYS_INLINE F scale() const { return quantized_scale(block); }
  ALWAYS_INLINE void prefetch(int k) const {
    prefetch_later<2 * kStepBytes>(data + k / 4 * kStepBytes);
  }
  ALWAYS_INLINE Step step(int k) const {
    const uint8_t* p = data + k / 4 * kStepBytes;
    return {{Words::load_i(p), Words::load_i(p + kStepBytes)}};
  }
  template <int j>
  ALWAYS_INLINE F column(const Step& step) const {
    const I top = Words::byte_to_top<j % 4>(step.words[j / 4]);
    if (!zero_points) return Words::to_float(top);
    // q - zero has 9 bits and a sign: too many for the top byte.
    const I difference = Words::sub_i32(Words::sign_from_top(top), zero);
    return Words::mul(Words::to_float(difference), Words::set(0x1p24f));
  }
};

template <bool zero_points>
struct Int4 {
  struct Step {
    I low, high;  // columns 0 1 2 3 and 4 5 6 7 as signed bytes q - zero
  };
  const uint8_t* block;
  const uint8_t* data;
  I zero;  // in every byte of the row's lane
  ALWAYS_INLINE Int4(const uint8_t* block, const TileLayout& layout)
      : block(block), data(block + layout.data_at), zero(Words::set1_i8(kInt4DefaultZero)) {
    if (!zero_points) return;
    zero = Words::mul_i32(Words::load_u8(block + layout.zeros_at), Words::set1_i32(0x01010101));
  }
  ALWAYS_INLINE F scale() const { return quantized_scale(block); }
  ALWAYS_INLINE void prefetch(int k) const {
    prefetch_later<kStepBytes>(data + k / 8 * kStepBytes);
  }
  ALWAYS_INLINE Step step(int k) const {
    const I words = Words::load_i(data + k / 8 * kStepBytes);
    const I nibble = Words::set1_i8(15);
    return {Words::sub_i8(Words::bit_and(words, nibble), zero),
            Words::sub_i8(Words::bit_and(Words::shift_right_4(words), nibble), zero)};
  }
  template <int j>
  ALWAYS_INLINE F column(const Step& step) const {
    return Words::to_float(Words::byte_to_top<j % 4>(j < 4 ? step.low : step.high));
  }
};

}  // namespace
}  // namespace altiplano::cpu
