// The portable kernel table: plain C++ for any processor, and the reference of all other tables.
// The operations over vectors are here; portable_*.cc have the rest.
#include "cpu/portable.h"

#include <cmath>

#include "cpu/layout.h"

namespace altiplano::cpu {
namespace portable {
namespace {

void rmsnorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const float inverse = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(n) + eps));
  for (int64_t i = 0; i < n; ++i) out[i] = weight[i] * (x[i] * inverse);
}

void rope(float* head, const float* cos, const float* sin, int head_dim) {
  const int half = head_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = a * cos[i] - b * sin[i];
    head[i + half] = b * cos[i] + a * sin[i];
  }
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.f + std::exp(-gate[i])) * up[i];
}

// The greatest element, NaN apart.
float maximum_of(const float* x, int64_t n) {
  float maximum = -INFINITY;
  for (int64_t i = 0; i < n; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
}

void softmax(float* x, int64_t n) {
  const float maximum = maximum_of(x, n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = std::exp(x[i] - maximum);
    sum += x[i];
  }
  const float inverse = static_cast<float>(1.0 / sum);
  for (int64_t i = 0; i < n; ++i) x[i] *= inverse;
}

LogSumExp log_sum_exp(const float* x, int64_t n, float inverse_temperature) {
  const double maximum = maximum_of(x, n);
  double one = 0, scaled = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double below = x[i] - maximum;
    one += std::exp(below);
    scaled += std::exp(below * inverse_temperature);
  }
  // A NaN makes the sum NaN; so does a maximum that is infinite, by infinity - infinity.
  if (!std::isfinite(one)) return {NAN, NAN, false};
  return {maximum + std::log(one), maximum * inverse_temperature + std::log(scaled), true};
}

}  // namespace
}  // namespace portable

const Kernels& portable_kernels() {
  static const Kernels table = {
      .name = "portable",
      .tile_rows = kTileRows,
      .packed_tile_bytes = portable::packed_tile_bytes<kTileRows>,
      .pack_tile = portable::pack_tile,
      .unpack_row = portable::unpack_row<kTileRows>,
      .matmul = portable::matmul,
      .quantize_activations = portable::quantize_activations,
      .matmul_int8 = portable::matmul_int8,
      .rmsnorm = portable::rmsnorm,
      .rope = portable::rope,
      .silu_mul = portable::silu_mul,
      .softmax = portable::softmax,
      .log_sum_exp = portable::log_sum_exp,
      .kv_page_bytes = portable::kv_page_bytes,
      .kv_store = portable::kv_store,
      .attend = portable::attend,
      .f16_to_f32 = portable::f16_to_f32,
      .bf16_to_f32 = portable::bf16_to_f32,
      .f32_to_f16 = portable::f32_to_f16,
      .f32_to_bf16 = portable::f32_to_bf16,
      .quantize = portable::quantize,
      .dequantize = portable::dequantize,
  };
  return table;
}

}  // namespace altiplano::cpu
