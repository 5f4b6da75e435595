// The kernel table for AVX2 with FMA and F16C: starts from portable and overrides. The operations
// over vectors are here; avx2_*.cc have the rest.
#include "cpu/avx2.h"

#include <immintrin.h>

#include "cpu/avx2_math.h"

namespace altiplano::cpu {
namespace avx2 {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

void rmsnorm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  __m256d sums[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    const __m256d low = low_doubles(v), high = high_doubles(v);
    sums[0] = _mm256_fmadd_pd(low, low, sums[0]);
    sums[1] = _mm256_fmadd_pd(high, high, sums[1]);
  }
  double sum = sum_lanes(_mm256_add_pd(sums[0], sums[1]));
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double mean = sum / static_cast<double>(n);
  const float inverse = static_cast<float>(1.0 / __builtin_sqrt(mean + eps));
  for (i = 0; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse));
    _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(weight + i), v));
  }
  for (; i < n; ++i) out[i] = weight[i] * (x[i] * inverse);
}

void rope(float* head, const float* cos, const float* sin, int head_dim) {
  const int half = head_dim / 2;
  int i = 0;
  for (; i + 8 <= half; i += 8) {
    const __m256 a = _mm256_loadu_ps(head + i), b = _mm256_loadu_ps(head + i + half);
    const __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
    _mm256_storeu_ps(head + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
    _mm256_storeu_ps(head + i + half, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
  }
  for (; i < half; ++i) {
    const float a = head[i], b = head[i + half];
    head[i] = __builtin_fmaf(a, cos[i], -(b * sin[i]));
    head[i + half] = __builtin_fmaf(b, cos[i], a * sin[i]);
  }
}

inline __m256 silu_mul8(__m256 gate, __m256 up) {
  const __m256 e = exp8(_mm256_xor_ps(gate, _mm256_set1_ps(-0.f)));
  return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.f), e)), up);
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, silu_mul8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
  }
  for (; i < n; ++i) {
    out[i] = _mm256_cvtss_f32(silu_mul8(_mm256_set1_ps(gate[i]), _mm256_set1_ps(up[i])));
  }
}

// The greatest element, NaN apart.
float maximum_of(const float* x, int64_t n) {
  __m256 most = _mm256_set1_ps(kMinusInfinity);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) most = _mm256_max_ps(_mm256_loadu_ps(x + i), most);
  float maximum = max_lane(most);
  for (; i < n; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
}

void softmax(float* x, int64_t n) {
  const float maximum = maximum_of(x, n);
  __m256d sums[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 e = exp8(_mm256_sub_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(maximum)));
    _mm256_storeu_ps(x + i, e);
    sums[0] = _mm256_add_pd(sums[0], low_doubles(e));
    sums[1] = _mm256_add_pd(sums[1], high_doubles(e));
  }
  double sum = sum_lanes(_mm256_add_pd(sums[0], sums[1]));
  for (; i < n; ++i) {
    x[i] = exp1(x[i] - maximum);
    sum += x[i];
  }
  const float inverse = static_cast<float>(1.0 / sum);
  for (i = 0; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(inverse)));
  }
  for (; i < n; ++i) x[i] *= inverse;
}

// sum of exp((x - maximum) * factor), exponentials in f32, their sum in f64.
double sum_of_exp(const float* x, int64_t n, float maximum, float factor) {
  __m256d sums[2] = {_mm256_setzero_pd(), _mm256_setzero_pd()};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 below = _mm256_sub_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(maximum));
    const __m256 e = exp8(_mm256_mul_ps(below, _mm256_set1_ps(factor)));
    sums[0] = _mm256_add_pd(sums[0], low_doubles(e));
    sums[1] = _mm256_add_pd(sums[1], high_doubles(e));
  }
  double sum = sum_lanes(_mm256_add_pd(sums[0], sums[1]));
  for (; i < n; ++i) sum += exp1((x[i] - maximum) * factor);
  return sum;
}

LogSumExp log_sum_exp(const float* x, int64_t n, float inverse_temperature) {
  const float maximum = maximum_of(x, n);
  const double one = sum_of_exp(x, n, maximum, 1.f);
  // A NaN makes the sum NaN; so does a maximum that is infinite, by infinity - infinity.
  if (!__builtin_isfinite(one)) return {__builtin_nan(""), __builtin_nan(""), false};
  const double scaled =
      inverse_temperature == 1.f ? one : sum_of_exp(x, n, maximum, inverse_temperature);
  return {maximum + __builtin_log(one),
          static_cast<double>(maximum) * inverse_temperature + __builtin_log(scaled), true};
}

Kernels make_table() {
  Kernels table = portable_kernels();  // the packed layout is the same
  table.name = "avx2";
  table.pack_tile = pack_tile;
  table.matmul = matmul;
  table.quantize_activations = quantize_activations;
  table.matmul_int8 = matmul_int8;
  table.rmsnorm = rmsnorm;
  table.rope = rope;
  table.silu_mul = silu_mul;
  table.softmax = softmax;
  table.log_sum_exp = log_sum_exp;
  table.kv_store = kv_store;
  table.attend = attend;
  table.f16_to_f32 = f16_to_f32;
  table.bf16_to_f32 = bf16_to_f32;
  table.f32_to_f16 = f32_to_f16;
  table.f32_to_bf16 = f32_to_bf16;
  table.quantize = quantize;
  return table;
}

}  // namespace
}  // namespace avx2

const Kernels& avx2_kernels() {
  static const Kernels table = avx2::make_table();
  return table;
}

}  // namespace altiplano::cpu
