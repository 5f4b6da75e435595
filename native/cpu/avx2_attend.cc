// Attention over the paged KV cache with AVX2, FMA and F16C. The chain of a token and a head is the
// online softmax over pages that portable_attend.cc describes: within a page a score is a chain
// over d, one lane to a key; the weighted values are a chain over keys, one lane to d. Queries
// (tokens and heads) that see the same page are computed up to six at a time, to load and convert
// its elements once; no chain depends on it.
#include <immintrin.h>

#include "cpu/avx2.h"
#include "cpu/avx2_math.h"
#include "cpu/scalar.h"

namespace altiplano::cpu::avx2 {
namespace {

constexpr int kQueries = 48;  // that go through the pages together, the pages staying in cache
constexpr int kTogether = 6;  // in one register tile
constexpr float kMinusInfinity = -__builtin_inff();

inline __m256 load8(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load8(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline float load1(const float* p) { return *p; }
inline float load1(const uint16_t* p) { return _cvtsh_ss(*p); }

struct Query {
  const float* q;                           // [head_dim]
  float* out;                               // [head_dim] the weighted values so far
  int64_t visible;                          // keys
  float maximum;                            // of the scores so far
  float sum;                                // of exp(score - maximum)
  int keys;                                 // visible in the current page
  alignas(32) float scores[kKvPageTokens];  // in the current page, then the weights
};

// The scores of `vectors` * 8 keys for n queries. k [head_dim][kKvPageTokens] from the first key
// on.
template <class Element, int n, int vectors>
void score(const Element* k, int head_dim, int first_key, Query* const* queries) {
  __m256 sums[n][vectors];
  const float* q[n];
  for (int i = 0; i < n; ++i) {
    q[i] = queries[i]->q;
    for (int v = 0; v < vectors; ++v) sums[i][v] = _mm256_setzero_ps();
  }
  k += first_key;
  for (int d = 0; d < head_dim; ++d, k += kKvPageTokens) {
    __m256 keys[vectors];
    for (int v = 0; v < vectors; ++v) keys[v] = load8(k + v * 8);
    for (int i = 0; i < n; ++i) {
      const __m256 qd = _mm256_broadcast_ss(q[i] + d);
      for (int v = 0; v < vectors; ++v) sums[i][v] = _mm256_fmadd_ps(qd, keys[v], sums[i][v]);
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int v = 0; v < vectors; ++v) {
      _mm256_store_ps(queries[i]->scores + first_key + v * 8, sums[i][v]);
    }
  }
}

// Turns the scores of the page into weights, and rescales what came before.
void weigh(Query* query, float scale, int head_dim) {
  __m256 scores[4];
  __m256 most = _mm256_set1_ps(kMinusInfinity);
  for (int v = 0; v < 4; ++v) {
    scores[v] = _mm256_mul_ps(_mm256_load_ps(query->scores + v * 8), _mm256_set1_ps(scale));
    // Keys that are not visible may be anything, NaN included: their scores are replaced.
    scores[v] = _mm256_blendv_ps(_mm256_set1_ps(kMinusInfinity), scores[v],
                                 _mm256_castsi256_ps(first_lanes(query->keys - v * 8)));
    most = _mm256_max_ps(most, scores[v]);
  }
  const float page_maximum = max_lane(most);
  const float maximum = query->maximum > page_maximum ? query->maximum : page_maximum;
  __m256 weights[4];
  for (int v = 0; v < 4; ++v) {
    weights[v] = exp8(_mm256_sub_ps(scores[v], _mm256_set1_ps(maximum)));
    _mm256_store_ps(query->scores + v * 8, weights[v]);
  }
  const float page_sum = sum_lanes(
      _mm256_add_ps(_mm256_add_ps(weights[0], weights[1]), _mm256_add_ps(weights[2], weights[3])));
  const float shrink = exp1(query->maximum - maximum);
  query->maximum = maximum;
  query->sum = query->sum * shrink + page_sum;
  if (shrink == 1.f) return;
  float* out = query->out;
  int d = 0;
  for (; d + 8 <= head_dim; d += 8) {
    _mm256_storeu_ps(out + d, _mm256_mul_ps(_mm256_loadu_ps(out + d), _mm256_set1_ps(shrink)));
  }
  for (; d < head_dim; ++d) out[d] *= shrink;
}

// out[d ..] += weights of the keys begin .. end-1 times their values, `vectors` * 8 columns, n
// queries. v [kKvPageTokens][head_dim] from column d on.
template <class Element, int n, int vectors>
void add_values_at(const Element* v, int head_dim, int d, int begin, int end,
                   Query* const* queries) {
  __m256 sums[n][vectors];
  const float* weights[n];
  for (int i = 0; i < n; ++i) {
    weights[i] = queries[i]->scores;
    for (int c = 0; c < vectors; ++c) sums[i][c] = _mm256_loadu_ps(queries[i]->out + d + c * 8);
  }
  v += begin * head_dim + d;
  for (int j = begin; j < end; ++j, v += head_dim) {
    __m256 values[vectors];
    for (int c = 0; c < vectors; ++c) values[c] = load8(v + c * 8);
    for (int i = 0; i < n; ++i) {
      const __m256 weight = _mm256_broadcast_ss(weights[i] + j);
      for (int c = 0; c < vectors; ++c) sums[i][c] = _mm256_fmadd_ps(weight, values[c], sums[i][c]);
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int c = 0; c < vectors; ++c) _mm256_storeu_ps(queries[i]->out + d + c * 8, sums[i][c]);
  }
}

template <class Element, int n, int vectors>
void add_values(const Element* v, int head_dim, int begin, int end, Query* const* queries) {
  int d = 0;
  for (; d + vectors * 8 <= head_dim; d += vectors * 8) {
    add_values_at<Element, n, vectors>(v, head_dim, d, begin, end, queries);
  }
  for (; d + 8 <= head_dim; d += 8) {
    add_values_at<Element, n, 1>(v, head_dim, d, begin, end, queries);
  }
  for (; d < head_dim; ++d) {
    for (int i = 0; i < n; ++i) {
      float sum = queries[i]->out[d];
      for (int j = begin; j < end; ++j) {
        sum = __builtin_fmaf(queries[i]->scores[j], load1(v + j * head_dim + d), sum);
      }
      queries[i]->out[d] = sum;
    }
  }
}

// n queries over one page.
template <class Element, int n>
void visit_page(const AttendArgs& a, const uint8_t* page, Query* const* queries) {
  const Element* k = reinterpret_cast<const Element*>(page);
  const Element* v = k + a.head_dim * kKvPageTokens;
  constexpr int kVectors = n > 2 ? 2 : 4;  // n * vectors accumulators, at most 12
  for (int key = 0; key < kKvPageTokens; key += kVectors * 8) {
    score<Element, n, kVectors>(k, a.head_dim, key, queries);
  }
  int common = kKvPageTokens;  // keys that all n see
  for (int i = 0; i < n; ++i) {
    weigh(queries[i], a.scale, a.head_dim);
    if (queries[i]->keys < common) common = queries[i]->keys;
  }
  add_values<Element, n, kVectors>(v, a.head_dim, 0, common, queries);
  for (int i = 0; i < n; ++i) {
    if (queries[i]->keys == common) continue;
    add_values<Element, 1, 4>(v, a.head_dim, common, queries[i]->keys, queries + i);
  }
}

template <class Element>
void visit_page(const AttendArgs& a, const uint8_t* page, Query* const* queries, int n) {
  switch (n) {
    case 1:
      return visit_page<Element, 1>(a, page, queries);
    case 2:
      return visit_page<Element, 2>(a, page, queries);
    case 3:
      return visit_page<Element, 3>(a, page, queries);
    case 4:
      return visit_page<Element, 4>(a, page, queries);
    case 5:
      return visit_page<Element, 5>(a, page, queries);
    default:
      return visit_page<Element, kTogether>(a, page, queries);
  }
}

// The queries first .. first+n-1, counted through tokens and heads.
template <class Element>
void attend_queries(const AttendArgs& a, int64_t first, int n) {
  Query queries[kQueries];
  int64_t most_visible = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t token = (first + i) / a.group;
    const int64_t head = (first + i) % a.group;
    Query& query = queries[i];
    query.q = a.q + token * a.q_stride + head * a.head_dim;
    query.out = a.out + token * a.out_stride + head * a.head_dim;
    query.visible = a.visible[token];
    query.maximum = kMinusInfinity;
    query.sum = 0;
    memset(query.out, 0, a.head_dim * sizeof(float));
    if (query.visible > most_visible) most_visible = query.visible;
  }
  for (int64_t p = 0; p * kKvPageTokens < most_visible; ++p) {
    const uint8_t* page = a.pages + a.block_table[p] * a.page_stride;
    Query* together[kTogether];
    int count = 0;
    for (int i = 0; i < n; ++i) {
      const int64_t left = queries[i].visible - p * kKvPageTokens;
      if (left <= 0) continue;
      queries[i].keys = static_cast<int>(left < kKvPageTokens ? left : kKvPageTokens);
      together[count++] = &queries[i];
      if (count == kTogether) {
        visit_page<Element>(a, page, together, count);
        count = 0;
      }
    }
    if (count > 0) visit_page<Element>(a, page, together, count);
  }
  for (int i = 0; i < n; ++i) {
    const float sum = queries[i].sum;
    float* out = queries[i].out;
    int d = 0;
    for (; d + 8 <= a.head_dim; d += 8) {
      _mm256_storeu_ps(out + d, _mm256_div_ps(_mm256_loadu_ps(out + d), _mm256_set1_ps(sum)));
    }
    for (; d < a.head_dim; ++d) out[d] /= sum;
  }
}

template <class Element>
void attend_all(const AttendArgs& a) {
  const int64_t all = a.tokens * a.group;
  for (int64_t first = 0; first < all; first += kQueries) {
    attend_queries<Element>(a, first,
                            static_cast<int>(all - first < kQueries ? all - first : kQueries));
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
  } else {
    uint16_t* out = reinterpret_cast<uint16_t*>(page);
    for (int d = 0; d < head_dim; ++d) {
      out[d * kKvPageTokens + offset] = _cvtss_sh(k[d], _MM_FROUND_TO_NEAREST_INT);
    }
    f32_to_f16(v, head_dim, out + row_at);
  }
}

void attend(const AttendArgs& args) {
  if (args.type == KvType::kF32) {
    attend_all<float>(args);
  } else {
    attend_all<uint16_t>(args);
  }
}

}  // namespace altiplano::cpu::avx2
