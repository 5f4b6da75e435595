// Attention over the paged KV cache; portable.
//
// For a token and a head: one pass over the pages in order, with an online softmax (Milakov and
// Gimelshein, "Online normalizer calculation for softmax", 2018): the running maximum m, the sum l
// of exp(score - m), and the sum of exp(score - m) * v, rescaled whenever m grows. Everything is
// fixed by the sequence and the token, so that chunks and batches do not change the result.
#include <cmath>

#include "cpu/portable.h"
#include "cpu/scalar.h"

namespace altiplano::cpu::portable {
namespace {

inline float element(const float* p) { return *p; }
inline float element(const uint16_t* p) { return f16_to_f32_one(*p); }

// q [head_dim] over `visible` keys; out [head_dim] holds the running sum of values.
template <class Element>
void attend_one(const AttendArgs& a, const float* q, int64_t visible, float* out) {
  const int head_dim = a.head_dim;
  float maximum = -INFINITY, sum = 0;
  for (int d = 0; d < head_dim; ++d) out[d] = 0;
  for (int64_t p = 0; p * kKvPageTokens < visible; ++p) {
    const uint8_t* page = a.pages + a.block_table[p] * a.page_stride;
    const Element* k = reinterpret_cast<const Element*>(page);
    const Element* v = k + head_dim * kKvPageTokens;
    const int64_t left = visible - p * kKvPageTokens;
    const int keys = static_cast<int>(left < kKvPageTokens ? left : kKvPageTokens);

    float scores[kKvPageTokens] = {};
    for (int d = 0; d < head_dim; ++d) {
      for (int j = 0; j < kKvPageTokens; ++j)
        scores[j] += q[d] * element(k + d * kKvPageTokens + j);
    }
    // Keys behind `keys` may be anything, NaN included: they are read above and dropped here.
    float page_maximum = maximum;
    for (int j = 0; j < keys; ++j) {
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
      for (int d = 0; d < head_dim; ++d) out[d] += scores[j] * element(v + j * head_dim + d);
    }
  }
  for (int d = 0; d < head_dim; ++d) out[d] /= sum;
}

template <class Element>
void attend_all(const AttendArgs& a) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int g = 0; g < a.group; ++g) {
      attend_one<Element>(a, a.q + t * a.q_stride + g * a.head_dim, a.visible[t],
                          a.out + t * a.out_stride + g * a.head_dim);
    }
  }
}

}  // namespace

size_t kv_page_bytes(KvType type, int head_dim) {
  // 2 * 32 elements of at least 2 bytes: always a multiple of 64.
  return size_t{2} * kKvPageTokens * head_dim * (type == KvType::kF32 ? 4 : 2);
}

void kv_store(KvType type, uint8_t* page, int offset, int head_dim, const float* k,
              const float* v) {
  const size_t v_at = static_cast<size_t>(head_dim) * kKvPageTokens;
  const size_t row_at = v_at + static_cast<size_t>(offset) * head_dim;
  if (type == KvType::kF32) {
    float* out = reinterpret_cast<float*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = k[d];
    memcpy(out + row_at, v, head_dim * sizeof(float));
  } else {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    for (int d = 0; d < head_dim; ++d) out[d * kKvPageTokens + offset] = f32_to_f16_one(k[d]);
    for (int d = 0; d < head_dim; ++d) out[row_at + d] = f32_to_f16_one(v[d]);
  }
}

void attend(const AttendArgs& args) {
  if (args.type == KvType::kF32) {
    attend_all<float>(args);
  } else {
    attend_all<uint16_t>(args);
  }
}

}  // namespace altiplano::cpu::portable
