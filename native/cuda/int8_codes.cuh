// Activations in int8 with a scale per token, for matrices that are multiplied in int8:
// scale = largest magnitude / 127, code = round(x / scale), ties to even. A NaN or an infinity
// makes the scale one of these, so that it shows in the products.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

// 1 / scale. A row whose numbers are all below 2^-100 becomes zeros: the quotient would leave the
// range of f32.
__device__ inline float inverse_scale(float largest) {
  return largest < 0x1p-100f ? 0.f : 127.f / largest;
}

// Four neighbouring codes of x / scale, which is at most 127 but for rounding; the conversion makes
// 0 of NaN.
__device__ inline uint32_t four_codes(float4 x) {
  const auto code = [](float v) { return static_cast<uint32_t>(__float2int_rn(v)); };
  const uint32_t low = __byte_perm(code(x.x), code(x.y), 0x0040);
  const uint32_t high = __byte_perm(code(x.z), code(x.w), 0x0040);
  return __byte_perm(low, high, 0x5410);
}

}  // namespace altiplano::cuda
