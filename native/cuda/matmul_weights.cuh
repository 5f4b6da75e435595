// From packed weights in shared memory to `mma` fragments: one class per format, the only part of
// matrix multiplication that knows it. A warp takes kStrips strips of 16 rows; a slice of the
// columns is four steps of an `mma`, in two halves (of 32 columns, the smallest group).
//
// Integers become f16 without a conversion: the bits 0x6400 | q are 1024 + q, for q up to 1023. So
// (1024 + q) - (1024 + zero) = q - zero, exact, and the product with the scale is the one rounding.
#pragma once

#include <cuda_fp16.h>

#include "cuda/matmul_parameters.h"
#include "cuda/ptx.cuh"

namespace altiplano::cuda {

// Where a warp finds its part of a slice: addresses in shared memory.
struct WarpSlice {
  uint32_t weights;    // of its first strip, with the lane's 16 bytes
  uint32_t scales[2];  // of its first row, for each half: f16, rows 4 g .. 4 g + 3 of the lane
  uint32_t zeros[2];   // the same in bytes
  bool has_zeros;
};

__device__ inline half2 as_half2(uint32_t bits) { return *reinterpret_cast<half2*>(&bits); }
__device__ inline uint32_t as_bits(half2 value) { return *reinterpret_cast<uint32_t*>(&value); }

template <MatmulKind kKind, int kStrips>
class Weights;

// Numbers that `mma` takes as they are: 16 bytes of a lane are the fragment of a strip and a step.
template <int kStrips>
class RawWeights {
 public:
  __device__ void begin_half(const WarpSlice&, int) {}
  __device__ void fragment(const WarpSlice& slice, int step, int strip, uint32_t (&a)[4]) const {
    const uint4 v = load_shared_16(slice.weights + (strip * 4 + step) * 512);
    a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
  }
};
template <int kStrips>
class Weights<MatmulKind::kF16, kStrips> : public RawWeights<kStrips> {};
template <int kStrips>
class Weights<MatmulKind::kBF16, kStrips> : public RawWeights<kStrips> {};
template <int kStrips>
class Weights<MatmulKind::kW8A8, kStrips> : public RawWeights<kStrips> {};

// Scales of the rows g (even index) and g + 8 (odd) of each strip, twice in a register. The four
// rows of a lane in 32 rows of the matrix are 4 g .. 4 g + 3: g and g + 8 of one strip, then of the
// next. Two loads of 4 bytes: one of 8 would be no faster, as each half of a warp asks for all
// rows.
template <int kStrips>
__device__ inline void load_scales(uint32_t address, half2 (&scales)[2 * kStrips]) {
#pragma unroll
  for (int pair = 0; pair < kStrips / 2; ++pair) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const half2 v = as_half2(load_shared_4(address + pair * 64 + i * 4));
      scales[4 * pair + 2 * i] = __low2half2(v);
      scales[4 * pair + 2 * i + 1] = __high2half2(v);
    }
  }
}

// Four bytes of a lane are two columns of rows g and g + 8; they are stored with 128 added.
template <int kStrips>
class Weights<MatmulKind::kInt8, kStrips> {
 public:
  __device__ void begin_half(const WarpSlice& slice, int half) {
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
      words_[strip] = load_shared_16(slice.weights + (strip * 2 + half) * 512);
    }
    load_scales<kStrips>(slice.scales[half], scales_);
    if (slice.has_zeros) {
#pragma unroll
      for (int pair = 0; pair < kStrips / 2; ++pair) {
        const uint32_t z = load_shared_4(slice.zeros[half] + pair * 32);
        zeros_[4 * pair] = as_half2(pick_bytes<0x4040>(z, kOffset));
        zeros_[4 * pair + 1] = as_half2(pick_bytes<0x4141>(z, kOffset));
        zeros_[4 * pair + 2] = as_half2(pick_bytes<0x4242>(z, kOffset));
        zeros_[4 * pair + 3] = as_half2(pick_bytes<0x4343>(z, kOffset));
      }
    } else {
#pragma unroll
      for (half2& zero : zeros_) zero = as_half2(0x64806480);  // 1024 + 128
    }
  }

  __device__ void fragment(const WarpSlice&, int step, int strip, uint32_t (&a)[4]) const {
    const uint4& v = words_[strip];
    const uint32_t near = step % 2 == 0 ? v.x : v.z, far = step % 2 == 0 ? v.y : v.w;
    a[0] = value(pick_bytes<0x4140>(near, kOffset), 2 * strip);
    a[1] = value(pick_bytes<0x4342>(near, kOffset), 2 * strip + 1);
    a[2] = value(pick_bytes<0x4140>(far, kOffset), 2 * strip);
    a[3] = value(pick_bytes<0x4342>(far, kOffset), 2 * strip + 1);
  }

 private:
  static constexpr uint32_t kOffset = 0x64646464;  // upper bytes of 1024 + q

  __device__ uint32_t value(uint32_t bits, int row) const {
    return as_bits(__hmul2(__hsub2(as_half2(bits), zeros_[row]), scales_[row]));
  }

  uint4 words_[kStrips];
  half2 scales_[2 * kStrips];
  half2 zeros_[2 * kStrips];  // 1024 + zero
};

// A word of a lane is the fragment of a step; nibbles 0 and 4 are the columns of row g, 1 and 5 of
// row g + 8, 2 and 6, 3 and 7 the same 8 columns further. Row g + 8 is taken out 4 bits higher, as
// 1024 + 16 q; a multiply-add by 1/16 makes (64 + q) - (64 + zero) of that, as exact.
template <int kStrips>
class Weights<MatmulKind::kInt4, kStrips> {
 public:
  __device__ void begin_half(const WarpSlice& slice, int half) {
    if (half == 0) {
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
        const uint4 v = load_shared_16(slice.weights + strip * 512);
        words_[strip][0] = v.x, words_[strip][1] = v.y;
        words_[strip][2] = v.z, words_[strip][3] = v.w;
      }
    }
    load_scales<kStrips>(slice.scales[half], scales_);
    if (slice.has_zeros) {
#pragma unroll
      for (int pair = 0; pair < kStrips / 2; ++pair) {
        const uint32_t z = load_shared_4(slice.zeros[half] + pair * 32);
        zeros_[4 * pair] = as_half2(pick_bytes<0x4040>(z, 0x64646464));
        zeros_[4 * pair + 1] = as_half2(minus_64_plus(pick_bytes<0x4141>(z, 0)));
        zeros_[4 * pair + 2] = as_half2(pick_bytes<0x4242>(z, 0x64646464));
        zeros_[4 * pair + 3] = as_half2(minus_64_plus(pick_bytes<0x4343>(z, 0)));
      }
    } else {
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
        zeros_[2 * strip] = as_half2(0x64086408);      // 1024 + 8
        zeros_[2 * strip + 1] = as_half2(0xd480d480);  // -(64 + 8)
      }
    }
  }

  __device__ void fragment(const WarpSlice&, int step, int strip, uint32_t (&a)[4]) const {
    const uint32_t word = words_[strip][step];
    a[0] = near_row(word, strip);
    a[1] = far_row(word, strip);
    a[2] = near_row(word >> 8, strip);
    a[3] = far_row(word >> 8, strip);
  }

 private:
  // -(64 + z) for z in 0 .. 15, in each half: from 64 on, f16 counts in steps of 1/16.
  static __device__ uint32_t minus_64_plus(uint32_t z) { return (z << 4) | 0xd400d400; }

  __device__ uint32_t near_row(uint32_t word, int strip) const {
    const half2 q = as_half2(and_or(word, 0x000f000f, 0x64006400));
    return as_bits(__hmul2(__hsub2(q, zeros_[2 * strip]), scales_[2 * strip]));
  }
  __device__ uint32_t far_row(uint32_t word, int strip) const {
    const half2 q = as_half2(and_or(word, 0x00f000f0, 0x64006400));
    const half2 sixteenth = as_half2(0x2c002c00);
    return as_bits(__hmul2(__hfma2(q, sixteenth, zeros_[2 * strip + 1]), scales_[2 * strip + 1]));
  }

  uint32_t words_[kStrips][4];
  half2 scales_[2 * kStrips];
  half2 zeros_[2 * kStrips];  // even index: 1024 + zero; odd: -(64 + zero)
};

}  // namespace altiplano::cuda
