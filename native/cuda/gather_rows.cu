// The rows of h whose logits are wanted, one after the other: the output head is multiplied with
// these only.
#include <cuda_fp16.h>

#include <cstdint>

namespace altiplano::cuda {

// One block per wanted row.
// h [T][stride], rows [wanted rows] tokens, out [wanted rows][stride]; stride is a multiple of 8
extern "C" __global__ void gather_rows(const __half* h, const int32_t* rows, int32_t stride,
                                       __half* out) {
  const auto* from =
      reinterpret_cast<const uint4*>(h + static_cast<int64_t>(rows[blockIdx.x]) * stride);
  auto* to = reinterpret_cast<uint4*>(out + static_cast<int64_t>(blockIdx.x) * stride);
  for (int i = threadIdx.x; i < stride / 8; i += blockDim.x) to[i] = from[i];
}

}  // namespace altiplano::cuda
