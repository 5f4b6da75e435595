// Attention over the paged KV cache; portable.
//
// For a token and a head: one pass over the pages in order, with an online softmax (Milakov and
// Gimelshein, "Online normalizer calculation for softmax", 2018): the running maximum m, the sum l
// of exp(score - m), and the sum of exp(score - m) * v, rescaled whenever m grows. Everything is
// fixed by the sequence and the token, so that chunks and batches do not change the result.
#include <cmath>

#include "cpu/kv_page.h"
#include "cpu/portable.h"
#include "cpu/scalar.h"

namespace altiplano::cpu::portable {
namespace {

inline float element(const float* p) { return *p; }
inline float element(const uint16_t* p) { return f16_to_f32_one(*p); }
inline float element(const Bf16* p) { return bf16_to_f32_one(p->bits); }
inline float element(const int8_t* p) { return *p; }

// q [head_dim] over `visible` keys in the pages of a KV head; out [head_dim] holds the running sum
// of values.
template <class Element>
void attend_one(const AttendArgs& a, const uint8_t* pages, const float* q, int64_t visible,
                float* out) {
  const int head_dim = a.head_dim;
  float maximum = -INFINITY, sum = 0;
  for (int d = 0; d < head_dim; ++d) out[d] = 0;
  for (int64_t p = 0; p * kKvPageTokens < visible; ++p) {
    const KvPage<Element> page(pages + a.block_table[p] * a.page_stride, head_dim);
    const int64_t left = visible - p * kKvPageTokens;
    const int keys = static_cast<int>(left < kKvPageTokens ? left : kKvPageTokens);

    float scores[kKvPageTokens] = {};
    for (int d = 0; d < head_dim; ++d) {
      for (int j = 0; j < kKvPageTokens; ++j)
        scores[j] += q[d] * element(page.k + d * kKvPageTokens + j);
    }
    // Keys behind `keys` may be anything, NaN included: they are read above and dropped here.
    float page_maximum = maximum;
    for (int j = 0; j < keys; ++j) {
      if (page.k_scales != nullptr) scores[j] *= page.k_scales[j];
      scores[j] *= a.scale;
      page_maximum = scores[j] > page_maximum ? scores[j] : page_maximum;
    }
    const float shrink = std::exp(maximum - page_maximum);
    maximum = page_maximum;
    sum *= shrink;
    for (int j = 0; j < keys; ++j) {
      scores[j] = std::exp(scores[j] - maximum);
      sum += scores[j];
    }
    for (int d = 0; d < head_dim; ++d) out[d] *= shrink;
    for (int j = 0; j < keys; ++j) {
      const float weight = page.v_scales == nullptr ? scores[j] : scores[j] * page.v_scales[j];
      for (int d = 0; d < head_dim; ++d) out[d] += weight * element(page.v + j * head_dim + d);
    }
  }
  for (int d = 0; d < head_dim; ++d) out[d] /= sum;
}

template <class Element>
void attend_all(const AttendArgs& a) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int i = 0; i < a.heads * a.group; ++i) {
      attend_one<Element>(a, a.pages + i / a.group * a.head_stride,
                          a.q + t * a.q_stride + i * a.head_dim, a.visible[t],
                          a.out + t * a.out_stride + i * a.head_dim);
    }
  }
}

}  // namespace

size_t kv_page_bytes(KvType type, int head_dim) {
  // 2 * 32 elements, and 2 * 32 f32 scales: always a multiple of 64.
  const size_t scales = type == KvType::kInt8 ? 2 * kKvPageTokens * sizeof(float) : 0;
  return kv_elements_bytes(type, head_dim) + scales;
}

namespace {

// Stores n numbers as int8 codes, `step` bytes apart; the scale.
float store_codes(const float* x, int n, int8_t* codes, int64_t step) {
  uint32_t largest = 0;
  for (int i = 0; i < n; ++i) {
    const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  const float scale = kv_scale(largest);
  for (int i = 0; i < n; ++i) codes[i * step] = kv_code(x[i], scale);
  return scale;
}

}  // namespace

void kv_store(KvType type, uint8_t* page, int offset, int head_dim, const float* k,
              const float* v) {
  const size_t v_at = static_cast<size_t>(head_dim) * kKvPageTokens;
  const size_t row_at = v_at + static_cast<size_t>(offset) * head_dim;
  if (type == KvType::kF32) {
    float* out = reinterpret_cast<float*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = k[d];
    memcpy(out + row_at, v, head_dim * sizeof(float));
  } else if (type == KvType::kF16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = f32_to_f16_one(k[d]);
    for (int d = 0; d < head_dim; ++d) out[row_at + d] = f32_to_f16_one(v[d]);
  } else if (type == KvType::kBF16) {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = f32_to_bf16_one(k[d]);
    for (int d = 0; d < head_dim; ++d) out[row_at + d] = f32_to_bf16_one(v[d]);
  } else {
    int8_t* out = reinterpret_cast<int8_t*>(page);
    float* scales = reinterpret_cast<float*>(page + kv_elements_bytes(type, head_dim));
    scales[offset] = store_codes(k, head_dim, out + offset, kKvPageTokens);
    scales[kKvPageTokens + offset] = store_codes(v, head_dim, out + row_at, 1);
  }
}

void attend(const AttendArgs& args) {
  switch (args.type) {
    case KvType::kF32:
      return attend_all<float>(args);
    case KvType::kF16:
      return attend_all<uint16_t>(args);
    case KvType::kBF16:
      return attend_all<Bf16>(args);
    case KvType::kInt8:
      return attend_all<int8_t>(args);
  }
}

}  // namespace altiplano::cpu::portable
