// Conversions between number formats, and quantization, with AVX2 and F16C: the same bits as the
// portable ones.
#include <immintrin.h>

#include "cpu/avx2.h"
#include "cpu/avx2_math.h"
#include "cpu/int4_search.h"

namespace altiplano::cpu::avx2 {
namespace {

inline __m128i load128(const uint16_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

// The least and the greatest of x and 0, NaN apart.
inline void find_range(const float* x, int64_t n, float* low, float* high) {
  __m256 lows = _mm256_setzero_ps(), highs = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    lows = _mm256_min_ps(v, lows);  // the second operand if one is NaN
    highs = _mm256_max_ps(v, highs);
  }
  *low = -max_lane(_mm256_xor_ps(lows, _mm256_set1_ps(-0.f)));
  *high = max_lane(highs);
  for (; i < n; ++i) {
    *low = x[i] < *low ? x[i] : *low;
    *high = x[i] > *high ? x[i] : *high;
  }
}

// The two looks of int4_search.h: a vector holds the 8 candidates, and weights are broadcast.
inline __m256 clamp(__m256 v, __m256 low, __m256 high) {
  return _mm256_min_ps(_mm256_max_ps(v, low), high);
}

inline __m256 rounded(__m256 v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

inline Int4Fit best_fit(const Int4Grid& grid, const float* x, int64_t n) {
  const __m256 inverse = _mm256_loadu_ps(grid.inverse);
  const __m256 low0 = _mm256_loadu_ps(grid.low[0]), high0 = _mm256_loadu_ps(grid.high[0]);
  const __m256 low1 = _mm256_loadu_ps(grid.low[1]), high1 = _mm256_loadu_ps(grid.high[1]);
  __m256 xq0 = _mm256_setzero_ps(), xq1 = xq0, qq0 = xq0, qq1 = xq0;
  for (int64_t k = 0; k < n; ++k) {
    const __m256 v = _mm256_broadcast_ss(x + k);
    const __m256 code = rounded(_mm256_mul_ps(v, inverse));
    const __m256 q0 = clamp(code, low0, high0), q1 = clamp(code, low1, high1);
    xq0 = _mm256_add_ps(xq0, _mm256_mul_ps(v, q0));
    xq1 = _mm256_add_ps(xq1, _mm256_mul_ps(v, q1));
    qq0 = _mm256_fmadd_ps(q0, q0, qq0);  // small integers: exact, fused or not
    qq1 = _mm256_fmadd_ps(q1, q1, qq1);
  }
  const __m256 gain0 = _mm256_div_ps(_mm256_mul_ps(xq0, xq0), qq0);
  const __m256 gain1 = _mm256_div_ps(_mm256_mul_ps(xq1, xq1), qq1);
  // max gives its second operand if one is NaN.
  const float most = max_lane(_mm256_max_ps(gain1, _mm256_max_ps(gain0, _mm256_setzero_ps())));
  if (!(most > 0.f)) return {-1, 0.f};
  const __m256 all_most = _mm256_set1_ps(most);
  const int mask = _mm256_movemask_ps(_mm256_cmp_ps(gain0, all_most, _CMP_EQ_OQ)) |
                   _mm256_movemask_ps(_mm256_cmp_ps(gain1, all_most, _CMP_EQ_OQ)) << kLanes;
  float scales[2 * kLanes];
  _mm256_storeu_ps(scales, _mm256_div_ps(xq0, qq0));
  _mm256_storeu_ps(scales + kLanes, _mm256_div_ps(xq1, qq1));
  const int best = __builtin_ctz(mask);
  return {best, scales[best]};
}

// Of equals the first.
inline int least_error(const Int4Trials& trials, const float* x, int64_t n) {
  const __m256 scale = _mm256_loadu_ps(trials.scale), inverse = _mm256_loadu_ps(trials.inverse);
  const __m256 low = _mm256_loadu_ps(trials.low), high = _mm256_loadu_ps(trials.high);
  __m256 errors = _mm256_setzero_ps();
  for (int64_t k = 0; k < n; ++k) {
    const __m256 v = _mm256_broadcast_ss(x + k);
    const __m256 q = clamp(rounded(_mm256_mul_ps(v, inverse)), low, high);
    const __m256 error = _mm256_sub_ps(v, _mm256_mul_ps(q, scale));
    errors = _mm256_add_ps(errors, _mm256_mul_ps(error, error));
  }
  const __m256 minus = _mm256_set1_ps(-0.f);
  const __m256 least = _mm256_set1_ps(-max_lane(_mm256_xor_ps(errors, minus)));
  return __builtin_ctz(_mm256_movemask_ps(_mm256_cmp_ps(errors, least, _CMP_EQ_OQ)));
}

// 32 codes, in order.
inline __m256i codes_of_32(const float* x, const GroupCodes& codes) {
  const __m256 inverse = _mm256_set1_ps(codes.inverse);
  const __m256 low = _mm256_set1_ps(codes.low), high = _mm256_set1_ps(codes.high);
  __m256i parts[4];
  for (int i = 0; i < 4; ++i) {
    __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i * 8), inverse);
    v = _mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q));  // NaN becomes 0
    v = _mm256_min_ps(_mm256_max_ps(v, low), high);
    parts[i] = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(codes.zero));
  }
  // The packs work within 128-bit halves: the permutation puts their groups of four in order.
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(parts[0], parts[1]),
                                            _mm256_packs_epi32(parts[2], parts[3]));
  return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

}  // namespace

void f16_to_f32(const uint16_t* x, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_cvtph_ps(load128(x + i)));
  for (; i < n; ++i) out[i] = _cvtsh_ss(x[i]);
}

void bf16_to_f32(const uint16_t* x, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i bits = _mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(x + i)), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), bits);
  }
  for (; i < n; ++i) out[i] = bf16_to_f32_one(x[i]);
}

void f32_to_f16(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; ++i) out[i] = _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT);
}

void f32_to_bf16(const float* x, int64_t n, uint16_t* out) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i bias = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i result = _mm256_blendv_epi8(rounded, quiet, nan);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + i),
        _mm_packus_epi32(_mm256_castsi256_si128(result), _mm256_extracti128_si256(result, 1)));
  }
  for (; i < n; ++i) out[i] = f32_to_bf16_one(x[i]);
}

void quantize(WeightFormat format, const float* x, int64_t rows, int64_t cols, void* values,
              uint16_t* scales, uint8_t* zeros) {
  const bool int4 = format.type == WeightType::kInt4;
  const int64_t row_bytes = int4 ? (cols + 1) / 2 : cols;
  for (int64_t row = 0; row < rows; ++row) {
    const float* in = x + row * cols;
    uint8_t* out = static_cast<uint8_t*>(values) + row * row_bytes;
    for (int64_t begin = 0; begin < cols; begin += format.group) {
      const int64_t end = begin + format.group < cols ? begin + format.group : cols;
      float low, high;
      find_range(in + begin, end - begin, &low, &high);
      const GroupCodes codes =
          int4 ? search_int4<best_fit, least_error>(format, in + begin, end - begin, low, high)
               : choose_codes(format, low, high);
      *scales++ = codes.scale;
      if (format.zero_points) *zeros++ = static_cast<uint8_t>(codes.zero);
      int64_t k = begin;
      for (; k + 32 <= end; k += 32) {
        const __m256i bytes = codes_of_32(in + k, codes);
        if (!int4) {
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + k), bytes);
          continue;
        }
        // even + 16 * odd, as 16-bit numbers below 256.
        const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x1001));
        _mm_storeu_si128(
            reinterpret_cast<__m128i*>(out + k / 2),
            _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
      }
      for (; k < end; k += int4 ? 2 : 1) {
        const int code = code_of(in[k], codes);
        if (int4) {
          const int odd = k + 1 < end ? code_of(in[k + 1], codes) : 0;
          out[k / 2] = static_cast<uint8_t>(code | odd << 4);
        } else {
          out[k] = static_cast<uint8_t>(code);
        }
      }
    }
  }
}

}  // namespace altiplano::cpu::avx2
