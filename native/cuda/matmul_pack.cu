// Packing: canonical rows in device memory become the layout that the matmul kernels read, panel by
// panel, slice by slice (matmul_parameters.h). It is done here because the device permutes bytes
// faster than the bus brings them: loading costs the host no time beyond reading the file.
//
// A thread makes one 16-byte piece: of rows 2 i and 2 i + 1 the columns that one lane of a warp
// multiplies in some steps. Neighbouring threads take neighbouring columns, so that canonical rows
// are read in whole sectors.
#include <cuda_fp16.h>

#include "cuda/activation_element.cuh"
#include "cuda/matmul_parameters.h"
#include "cuda/pack_parameters.h"

namespace altiplano::cuda {
namespace {

constexpr int kThreads = 128;

// The place of a pair of rows in the packed matrix.
struct PairPlace {
  int64_t panel;
  int strip;
  int lane;  // 4 g

  __device__ PairPlace(const PackParameters& p, int64_t pair) {
    const int64_t row = 2 * (pair * p.pair_step + p.pair_offset);
    const int within = static_cast<int>(row % kPanelRows);
    panel = row / kPanelRows;
    strip = within / 32 * 2 + within % 4 / 2;
    lane = within % 32 / 4 * 4;
  }
};

// The 16 bytes of `block` of a slice, for lane `place.lane + t`.
template <int kBlocks>
__device__ uint4* piece(const PackParameters& p, const PairPlace& place, int64_t slice, int block,
                        int t) {
  const int64_t strip = (place.panel * p.slices + slice) * 4 + place.strip;
  return reinterpret_cast<uint4*>(p.packed_values) + (strip * kBlocks + block) * 32 + place.lane +
         t;
}

// --- sources: elements of canonical rows, zero outside ---

struct FromF32 {
  static __device__ float at(const PackParameters& p, int64_t row, int64_t col) {
    return reinterpret_cast<const float*>(p.values)[row * p.cols + col];
  }
};
struct FromF16 {
  static __device__ float at(const PackParameters& p, int64_t row, int64_t col) {
    return __half2float(reinterpret_cast<const half*>(p.values)[row * p.cols + col]);
  }
};
struct FromBf16 {
  static __device__ float at(const PackParameters& p, int64_t row, int64_t col) {
    const uint32_t bits = reinterpret_cast<const uint16_t*>(p.values)[row * p.cols + col];
    return __uint_as_float(bits << 16);
  }
};
__device__ uint8_t int8_code(const PackParameters& p, int64_t row, int64_t col) {
  return p.values[row * p.cols + col];
}
__device__ uint8_t int4_code(const PackParameters& p, int64_t row, int64_t col) {
  const uint8_t two = p.values[row * ((p.cols + 1) / 2) + col / 2];
  return col % 2 == 0 ? two & 15 : two >> 4;
}
__device__ float scale_of(const PackParameters& p, int64_t row, int64_t col) {
  return __half2float(
      reinterpret_cast<const half*>(p.scales)[row * p.groups + (col >> p.group_shift)]);
}
struct FromInt8 {
  static __device__ float at(const PackParameters& p, int64_t row, int64_t col) {
    const int zero = p.zeros == nullptr
                         ? 0
                         : static_cast<int8_t>(p.zeros[row * p.groups + (col >> p.group_shift)]);
    return static_cast<float>(static_cast<int8_t>(int8_code(p, row, col)) - zero) *
           scale_of(p, row, col);
  }
};
struct FromInt4 {
  static __device__ float at(const PackParameters& p, int64_t row, int64_t col) {
    const int zero = p.zeros == nullptr ? 8 : p.zeros[row * p.groups + (col >> p.group_shift)];
    return static_cast<float>(int4_code(p, row, col) - zero) * scale_of(p, row, col);
  }
};

// --- kernels: grid (pairs of rows), or (pairs, columns) ---

// A piece: the fragment of one step, 8 numbers of 16 bits.
template <class Element, class Source>
__device__ void pack_16(const PackParameters& p) {
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const int t = static_cast<int>(index % 4), step = static_cast<int>(index / 4 % 4);
  const int64_t slice = index / 16, pair = blockIdx.x;
  if (slice >= p.slices) return;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = 2 * pair + i % 2;
    const int64_t col = slice * 64 + step * 16 + i / 2 * 8 + t * 2;
    float v[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      v[e] = row < p.rows && col + e < p.cols ? Source::at(p, row, col + e) : 0.f;
    }
    words[i] = pack_pair<Element>(v[0], v[1]);
  }
  *piece<4>(p, PairPlace(p, p.pair_begin + pair), slice, step, t) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    pack_f16_from_f32(const __grid_constant__ PackParameters p) {
  pack_16<__half, FromF32>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_f16_from_f16(const __grid_constant__ PackParameters p) {
  pack_16<__half, FromF16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_f16_from_bf16(const __grid_constant__ PackParameters p) {
  pack_16<__half, FromBf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_bf16_from_f32(const __grid_constant__ PackParameters p) {
  pack_16<__nv_bfloat16, FromF32>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_bf16_from_f16(const __grid_constant__ PackParameters p) {
  pack_16<__nv_bfloat16, FromF16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_bf16_from_bf16(const __grid_constant__ PackParameters p) {
  pack_16<__nv_bfloat16, FromBf16>(p);
}

// A piece: the fragments of two steps, 16 codes with 128 added.
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_int8(const __grid_constant__ PackParameters p) {
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const int t = static_cast<int>(index % 4), block = static_cast<int>(index / 4 % 2);
  const int64_t slice = index / 8, pair = blockIdx.x;
  if (slice >= p.slices) return;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t col = slice * 64 + block * 32 + i * 8 + t * 2;
    words[i] = 0;
#pragma unroll
    for (int byte = 0; byte < 4; ++byte) {
      const int64_t row = 2 * pair + byte / 2;
      const bool exists = row < p.rows && col + byte % 2 < p.cols;
      const uint32_t code = exists ? int8_code(p, row, col + byte % 2) ^ 0x80u : 0x80u;
      words[i] |= code << (8 * byte);
    }
  }
  *piece<2>(p, PairPlace(p, p.pair_begin + pair), slice, block, t) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

// A piece: the fragments of the four steps of a slice, 32 codes. Of a word, the first column of the
// rows 2 i and 2 i + 1, then the same 8 columns further; the second column of those 16 bits higher.
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_int4(const __grid_constant__ PackParameters p) {
  const int64_t index = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const int t = static_cast<int>(index % 4);
  const int64_t slice = index / 4, pair = blockIdx.x;
  if (slice >= p.slices) return;
  uint32_t words[4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    words[step] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {  // row, and 8 columns further
      const int64_t row = 2 * pair + i % 2;
      const int64_t col = slice * 64 + step * 16 + i / 2 * 8 + t * 2;  // even: a byte has both
      uint32_t two = 0x88;
      if (row < p.rows && col < p.cols) {
        two = p.values[row * ((p.cols + 1) / 2) + col / 2];
      }
      words[step] |= (two & 15) << (4 * i) | (two >> 4) << (4 * i + 16);
    }
  }
  *piece<1>(p, PairPlace(p, p.pair_begin + pair), slice, 0, t) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

// Scales and zero points of int8 (zero_offset 128) and int4, a thread for each group and pair.
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_groups(const __grid_constant__ PackParameters p, uint32_t zero_offset) {
  const int64_t group = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const int64_t pair = blockIdx.x;
  if (group >= p.packed_groups) return;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = 2 * pair + i;
    const int64_t packed = 2 * ((p.pair_begin + pair) * p.pair_step + p.pair_offset) + i;
    const int64_t to =
        (packed / kPanelRows * p.packed_groups + group) * kPanelRows + packed % kPanelRows;
    const bool exists = row < p.rows && group < p.groups;
    const int64_t from = row * p.groups + group;
    static_cast<uint16_t*>(p.packed_scales)[to] = exists ? p.scales[from] : 0;
    if (p.packed_zeros != nullptr) {
      p.packed_zeros[to] = static_cast<uint8_t>(exists ? p.zeros[from] + zero_offset : zero_offset);
    }
  }
}

namespace {

// A block for each pair of rows: their largest magnitudes, then codes of 8 bits. A piece is the
// fragment of one step, 16 codes.
template <class Source>
__device__ void pack_w8a8(const PackParameters& p) {
  __shared__ float largest_of_warp[2][kThreads / 32];
  const int64_t pair = blockIdx.x;
  const PairPlace place(p, p.pair_begin + pair);
  const int thread = static_cast<int>(threadIdx.x);

  float inverse[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int64_t row = 2 * pair + i;
    // As integers, so that NaN is larger than infinity, and infinity than numbers.
    uint32_t largest = 0;
    if (row < p.rows) {
      for (int64_t col = thread; col < p.cols; col += kThreads) {
        largest = max(largest, __float_as_uint(Source::at(p, row, col)) & 0x7fffffffu);
      }
    }
    largest = __reduce_max_sync(0xffffffffu, largest);
    if (thread % 32 == 0) largest_of_warp[i][thread / 32] = __uint_as_float(largest);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    uint32_t bits = 0;
#pragma unroll
    for (int warp = 0; warp < kThreads / 32; ++warp) {
      bits = max(bits, __float_as_uint(largest_of_warp[i][warp]));
    }
    const float largest = __uint_as_float(bits);
    const bool counts = !(largest < 0x1p-100f);
    inverse[i] = counts ? 127.f / largest : 0.f;
    if (thread == 0) {
      const int64_t row = 2 * ((p.pair_begin + pair) * p.pair_step + p.pair_offset) + i;
      static_cast<float*>(p.packed_scales)[row] = counts ? largest / 127.f : 0.f;
    }
  }

  for (int64_t index = thread; index < p.slices * 16; index += kThreads) {
    const int t = static_cast<int>(index % 4), step = static_cast<int>(index / 4 % 4);
    const int64_t slice = index / 16;
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t row = 2 * pair + i % 2;
      const int64_t col = slice * 128 + step * 32 + i / 2 * 16 + t * 4;
      words[i] = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (row < p.rows && col + e < p.cols) {
          const int code = __float2int_rn(Source::at(p, row, col + e) * inverse[i % 2]);
          words[i] |= (static_cast<uint32_t>(min(max(code, -127), 127)) & 0xff) << (8 * e);
        }
      }
    }
    *piece<4>(p, place, slice, step, t) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(kThreads)
    pack_w8a8_from_f32(const __grid_constant__ PackParameters p) {
  pack_w8a8<FromF32>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_w8a8_from_f16(const __grid_constant__ PackParameters p) {
  pack_w8a8<FromF16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_w8a8_from_bf16(const __grid_constant__ PackParameters p) {
  pack_w8a8<FromBf16>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_w8a8_from_int8(const __grid_constant__ PackParameters p) {
  pack_w8a8<FromInt8>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads)
    pack_w8a8_from_int4(const __grid_constant__ PackParameters p) {
  pack_w8a8<FromInt4>(p);
}

}  // namespace altiplano::cuda
