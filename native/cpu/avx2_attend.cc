// Attention with AVX2, FMA and F16C (the algorithm is x86_attend.h), and what goes into the pages.
#include <immintrin.h>

#include "cpu/avx2.h"
#include "cpu/avx2_lanes.h"
#include "cpu/x86_attend.h"

namespace altiplano::cpu::avx2 {
namespace {

// The scale of x [n] as int8 codes; kv_page.h.
float int8_scale(const float* x, int n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (int i = 0; i < n; i += 8) {
    const __m256i bits = _mm256_castps_si256(Lanes::load(x + i, n - i));
    most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
  }
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return kv_scale(static_cast<uint32_t>(_mm_cvtsi128_si32(m)));
}

// The codes of eight numbers, a byte each; kv_page.h.
inline int64_t int8_codes(__m256 x, float scale) {
  if (!(scale > 0)) return 0;
  // Conversion rounds to nearest even. The quotient is at most 190: packing to 16 bits does not
  // saturate, packing to 8 does, at -128: that is cut off before.
  const __m256i codes = _mm256_cvtps_epi32(_mm256_div_ps(x, _mm256_set1_ps(scale)));
  const __m128i words =
      _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
  return _mm_cvtsi128_si64(_mm_packs_epi16(_mm_max_epi16(words, _mm_set1_epi16(-127)), words));
}

void store_int8(uint8_t* page, int offset, int head_dim, const float* k, const float* v) {
  int8_t* key = reinterpret_cast<int8_t*>(page) + offset;
  int8_t* value = reinterpret_cast<int8_t*>(page) + head_dim * (kKvPageTokens + offset);
  float* scales = reinterpret_cast<float*>(page + kv_elements_bytes(KvType::kInt8, head_dim));
  const float k_scale = int8_scale(k, head_dim), v_scale = int8_scale(v, head_dim);
  scales[offset] = k_scale;
  scales[kKvPageTokens + offset] = v_scale;
  for (int d = 0; d < head_dim; d += 8) {
    const int n = head_dim - d < 8 ? head_dim - d : 8;
    int64_t codes = int8_codes(Lanes::load(v + d, n), v_scale);
    memcpy(value + d, &codes, n);
    codes = int8_codes(Lanes::load(k + d, n), k_scale);
    for (int i = 0; i < n; ++i) {
      key[(d + i) * kKvPageTokens] = static_cast<int8_t>(codes >> (8 * i));
    }
  }
}

}  // namespace

void kv_store(KvType type, uint8_t* page, int offset, int head_dim, const float* k,
              const float* v) {
  const size_t row_at = static_cast<size_t>(head_dim) * (kKvPageTokens + offset);
  if (type == KvType::kF32) {
    float* out = reinterpret_cast<float*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = k[d];
    memcpy(out + row_at, v, head_dim * sizeof(float));
  } else if (type == KvType::kF16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    for (int d = 0; d < head_dim; d += 8) {
      const int n = head_dim - d < 8 ? head_dim - d : 8;
      uint16_t key[8];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(key),
                       _mm256_cvtps_ph(Lanes::load(k + d, n), _MM_FROUND_TO_NEAREST_INT));
      for (int i = 0; i < n; ++i) out[(d + i) * kKvPageTokens + offset] = key[i];
    }
    f32_to_f16(v, head_dim, out + row_at);
  } else if (type == KvType::kBF16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = f32_to_bf16_one(k[d]);
    f32_to_bf16(v, head_dim, out + row_at);
  } else {
    store_int8(page, offset, head_dim, k, v);
  }
}

void attend(const AttendArgs& args) { attend_with<Lanes>(args); }

}  // namespace altiplano::cpu::avx2
