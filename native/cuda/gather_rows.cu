// The rows of h whose logits are wanted, one after the other: the output head is multiplied with
// these only.
#include <cstdint>

namespace altiplano::cuda {

// One block per wanted row.
// h [T][row_bytes], rows [wanted rows] tokens, out [wanted rows][row_bytes]; row_bytes is a
// multiple of 16. h_scales [T] and out_scales [wanted rows], or null for both.
extern "C" __global__ void gather_rows(const uint8_t* h, const float* h_scales, const int32_t* rows,
                                       int32_t row_bytes, uint8_t* out, float* out_scales) {
  const int64_t row = blockIdx.x, token = rows[row];
  const auto* from = reinterpret_cast<const uint4*>(h + token * row_bytes);
  auto* to = reinterpret_cast<uint4*>(out + row * row_bytes);
  for (int i = threadIdx.x; i < row_bytes / 16; i += blockDim.x) to[i] = from[i];
  if (h_scales != nullptr && threadIdx.x == 0) out_scales[row] = h_scales[token];
}

}  // namespace altiplano::cuda
