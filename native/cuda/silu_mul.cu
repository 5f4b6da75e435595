// out = silu(gate) * up, with silu(g) = g / (1 + exp(-g)): the middle of the feed-forward block,
// where matmul does not do it (gate and up in different formats, so activations are f16).
#include <cuda_fp16.h>

#include <cstdint>

namespace altiplano::cuda {

// blockIdx.x is the token, the other threads are columns.
// gate_up [T][2 cols]: gate, then up; out [T][out_stride]
extern "C" __global__ void silu_mul(const __half* gate_up, int32_t cols, __half* out,
                                    int32_t out_stride) {
  const int32_t col = blockIdx.y * blockDim.x + threadIdx.x;
  if (col >= cols) return;
  const __half* row = gate_up + static_cast<int64_t>(blockIdx.x) * 2 * cols;
  const float gate = __half2float(row[col]);
  const float up = __half2float(row[cols + col]);
  // exp(-gate) may be infinite: the quotient is then a zero, as it should be.
  out[static_cast<int64_t>(blockIdx.x) * out_stride + col] =
      __float2half_rn(gate / (1.0f + expf(-gate)) * up);
}

}  // namespace altiplano::cuda
