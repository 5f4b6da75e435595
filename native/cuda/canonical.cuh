// Weights of each canonical format as floats, one by one: for kernels that are right for every
// shape rather than fast. Every weight of every format is exact in f32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/canonical.h"

namespace altiplano::cuda {

struct F32Weights {
  __device__ static float at(const CanonicalView& w, int64_t row, int64_t col) {
    return static_cast<const float*>(w.values)[row * w.cols + col];
  }
};

struct F16Weights {
  __device__ static float at(const CanonicalView& w, int64_t row, int64_t col) {
    return __half2float(static_cast<const __half*>(w.values)[row * w.cols + col]);
  }
};

struct BF16Weights {
  __device__ static float at(const CanonicalView& w, int64_t row, int64_t col) {
    return __bfloat162float(static_cast<const __nv_bfloat16*>(w.values)[row * w.cols + col]);
  }
};

// (q - zero) * scale of a group.
__device__ inline float dequantized(const CanonicalView& w, int64_t row, int64_t col, int q,
                                    int default_zero, bool signed_zeros) {
  const auto cols = static_cast<int32_t>(w.cols);
  const int64_t index =
      row * ((cols + w.group - 1) / w.group) + static_cast<int32_t>(col) / w.group;
  int zero = default_zero;
  if (w.zeros != nullptr)
    zero = signed_zeros ? static_cast<int8_t>(w.zeros[index]) : w.zeros[index];
  return static_cast<float>(q - zero) * __half2float(__ushort_as_half(w.scales[index]));
}

struct Int8Weights {
  __device__ static float at(const CanonicalView& w, int64_t row, int64_t col) {
    const int q = static_cast<const int8_t*>(w.values)[row * w.cols + col];
    return dequantized(w, row, col, q, 0, true);
  }
};

struct Int4Weights {
  __device__ static float at(const CanonicalView& w, int64_t row, int64_t col) {
    const int byte = static_cast<const uint8_t*>(w.values)[row * ((w.cols + 1) / 2) + col / 2];
    return dequantized(w, row, col, col % 2 == 0 ? byte & 15 : byte >> 4, 8, false);
  }
};

}  // namespace altiplano::cuda
