// Attention of the queries of one register tile over one page of the KV cache, for vector registers
// of any width: avx2_attend.cc and avx512_attend.cc bring a struct Lanes (avx2_lanes.h).
// x86_attend.h goes through queries and pages with it. Internal linkage, see avx2.h.
//
// The chain of a token and a head is the online softmax over pages that portable_attend.cc
// describes: within a page a score is a chain over d, one lane to a key; the weighted values are a
// chain over keys, one lane to d. Queries (tokens and heads) that see the same page are computed
// side by side in a register tile, to load and convert its elements once; no chain depends on it.
//
//            keys 0..lanes  lanes..2 lanes                    d 0..lanes  lanes..2 lanes
//   query 0     sums            sums       q[d] broadcast        sums         sums       weight
//   query 1     sums            sums       to all lanes          sums         sums       broadcast
//   ...                                    K[d][keys] loaded                             V[key][d]
#pragma once

#include "cpu/kv_page.h"

namespace altiplano::cpu {
namespace {

constexpr float kNoScore = -__builtin_inff();

struct Query {
  float* out;       // [head_dim] the weighted values so far
  int64_t visible;  // keys
  float maximum;    // of the scores so far
  float sum;        // of exp(score - maximum)
  int keys;         // visible in the current page
};

// Queries of one register tile, all of one KV head.
template <class L>
struct Tile {
  Query* queries;  // [n]
  const float* q;  // [head_dim][n]
  // In the current page: the scores, then the weights of the values.
  alignas(64) float scores[L::kQueries][kKvPageTokens];

  // Of integers (x86_attend_int8.h) instead of q: pairs of int16 [head_dim / 2][n] and their scale;
  // and of the weights, in the current page, int16 and their scale.
  const int32_t* q_pairs;
  float q_scales[L::kQueries];
  alignas(64) int16_t weights[L::kQueries][kKvPageTokens];
  float weight_scales[L::kQueries];
};

// Asks for `count` elements that are needed a page later. A page lies anywhere: the processor's own
// prefetching does not know the next one.
template <int count, class Element>
inline __attribute__((always_inline)) void prefetch(const Element* p) {
  constexpr int kLine = 64 / sizeof(Element);
#pragma GCC unroll 8
  for (int i = 0; i < count; i += kLine) __builtin_prefetch(p + i);
}

// sums[i] += q[i] * keys, for one d: a row of K, and the q of the n queries.
template <class L, class Element, int n, int vectors>
inline __attribute__((always_inline)) void add_row(typename L::Vector (&sums)[n][vectors],
                                                   const Element* row, const float* q) {
  typename L::Vector keys[vectors];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) keys[v] = L::load(row + v * L::kLanes);
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    const typename L::Vector qd = L::broadcast(q + i);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[i][v] = L::fmadd(qd, keys[v], sums[i][v]);
  }
}

// The scores of a page: the sum over even d, plus the sum over odd d. Of one query there are too
// few sums to hide the latency of one addition behind the others, so it has both at once; where
// they would not fit into the registers, the sum over odd d comes second.
template <class L, class Element, int n>
void score(const Element* k, const Element* next, int head_dim, Tile<L>& tile) {
  using Vector = typename L::Vector;
  constexpr int kSums = 2 * L::kQueries;           // registers
  constexpr int kAll = kKvPageTokens / L::kLanes;  // vectors of a page's scores
  constexpr int kVectors = n * kAll <= kSums ? kAll : 2;
  constexpr bool kBoth = 2 * n * kVectors <= kSums;
  for (int first = 0; first < kAll; first += kVectors) {
    for (int odd = 0; odd < (kBoth ? 1 : 2); ++odd) {
      Vector sums[n][kVectors], others[n][kVectors];
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          sums[i][v] = L::zero();
          if (kBoth) others[i][v] = L::zero();
        }
      }
      const Element* row = k + odd * kKvPageTokens + first * L::kLanes;
      const Element* ahead = next + odd * kKvPageTokens;
      const float* q = tile.q + odd * n;
      int d = odd;
      for (; d + 1 < head_dim; d += 2) {
        prefetch<(kBoth ? 2 : 1) * kKvPageTokens>(ahead);
        add_row<L>(sums, row, q);
        if constexpr (kBoth) add_row<L>(others, row + kKvPageTokens, q + n);
        row += 2 * kKvPageTokens;
        ahead += 2 * kKvPageTokens;
        q += 2 * n;
      }
      if (d < head_dim) add_row<L>(sums, row, q);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          float* at = tile.scores[i] + (first + v) * L::kLanes;
          if (kBoth) {
            sums[i][v] = L::add(sums[i][v], others[i][v]);
          } else if (odd) {
            sums[i][v] = L::add(L::load(at), sums[i][v]);
          }
          L::store(at, sums[i][v]);
        }
      }
    }
  }
}

// Turns the scores of a query in the page into weights, and rescales what came before. In int8 the
// scale of a key multiplies its score, that of a value its weight.
template <class L, class Element>
void weigh(Query& query, float* scores, const KvPage<Element>& page, float scale, int head_dim) {
  using Vector = typename L::Vector;
  constexpr int kVectors = kKvPageTokens / L::kLanes;
  constexpr bool kScaled = sizeof(Element) == 1;
  Vector x[kVectors];
  Vector most = L::set(kNoScore);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    x[v] = L::load(scores + v * L::kLanes);
    if (kScaled) x[v] = L::mul(x[v], L::load(page.k_scales + v * L::kLanes));
    x[v] = L::mul(x[v], L::set(scale));
    // Keys that are not visible may be anything, NaN included: their scores are replaced.
    x[v] = L::first(query.keys - v * L::kLanes, x[v], L::set(kNoScore));
    most = L::max(most, x[v]);
  }
  const float page_maximum = L::max_lane(most);
  const float maximum = query.maximum > page_maximum ? query.maximum : page_maximum;
  Vector sum = L::zero();
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    x[v] = L::exp(L::sub(x[v], L::set(maximum)));
    sum = L::add(sum, x[v]);
    if (kScaled) {
      x[v] = L::mul(x[v], L::load(page.v_scales + v * L::kLanes));
      x[v] = L::first(query.keys - v * L::kLanes, x[v], L::zero());
    }
    L::store(scores + v * L::kLanes, x[v]);
  }
  if (maximum == query.maximum) {
    query.sum += L::sum_lanes(sum);
    return;
  }
  const float shrink = L::exp_one(query.maximum - maximum);
  query.maximum = maximum;
  query.sum = query.sum * shrink + L::sum_lanes(sum);
  for (int d = 0; d < head_dim; d += L::kLanes) {
    const int lanes = head_dim - d;
    L::store(query.out + d, L::mul(L::load(query.out + d, lanes), L::set(shrink)), lanes);
  }
}

// out[d ..] += weights of the keys begin .. end-1 times their values, `vectors` vectors of columns,
// of which the last has `last` columns. v from column d on.
template <class L, class Element, int n, int vectors, bool whole>
void add_columns(const Element* v, const Element* next, int head_dim, int d, int last, int begin,
                 int end, Query* queries, const float (*weights)[kKvPageTokens]) {
  using Vector = typename L::Vector;
  Vector sums[n][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) {
      const float* at = queries[i].out + d + c * L::kLanes;
      sums[i][c] = whole ? L::load(at) : L::load(at, last);
    }
  }
  v += begin * head_dim;
  next += begin * head_dim;
  for (int j = begin; j < end; ++j, v += head_dim, next += head_dim) {
    prefetch<vectors * L::kLanes>(next);
    Vector values[vectors];
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) {
      values[c] = whole ? L::load(v + c * L::kLanes) : L::load(v + c * L::kLanes, last);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      const Vector weight = L::broadcast(weights[i] + j);
#pragma GCC unroll 8
      for (int c = 0; c < vectors; ++c) sums[i][c] = L::fmadd(weight, values[c], sums[i][c]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 8
    for (int c = 0; c < vectors; ++c) {
      float* at = queries[i].out + d + c * L::kLanes;
      if (whole) {
        L::store(at, sums[i][c]);
      } else {
        L::store(at, sums[i][c], last);
      }
    }
  }
}

template <class L, class Element, int n>
void add_values(const Element* v, const Element* next, int head_dim, int begin, int end,
                Query* queries, const float (*weights)[kKvPageTokens]) {
  constexpr int kVectors = n == 1 ? 8 : n <= L::kQueries / 2 ? 4 : 2;
  int d = 0;
  for (; d + kVectors * L::kLanes <= head_dim; d += kVectors * L::kLanes) {
    add_columns<L, Element, n, kVectors, true>(v + d, next + d, head_dim, d, 0, begin, end, queries,
                                               weights);
  }
  for (; d + L::kLanes <= head_dim; d += L::kLanes) {
    add_columns<L, Element, n, 1, true>(v + d, next + d, head_dim, d, 0, begin, end, queries,
                                        weights);
  }
  if (d < head_dim) {
    add_columns<L, Element, n, 1, false>(v + d, next + d, head_dim, d, head_dim - d, begin, end,
                                         queries, weights);
  }
}

// The n queries of a tile over one page; `next` is read soon.
template <class L, class Element, int n>
__attribute__((noinline)) void visit_page(const AttendArgs& a, const KvPage<Element>& page,
                                          const KvPage<Element>& next, Tile<L>& tile) {
  // Prefetching 8 KiB ahead is best: V while reading K and the next K while reading V, or else the
  // same part of the next page.
  const bool far = a.head_dim * kKvPageTokens * sizeof(Element) >= 8192;
  const Element* after_k = far ? page.v : next.k;
  const Element* after_v = far ? next.k : next.v;
  score<L, Element, n>(page.k, after_k, a.head_dim, tile);
  int common = kKvPageTokens;  // keys that all n see
  for (int i = 0; i < n; ++i) {
    Query& query = tile.queries[i];
    if (query.keys > 0) weigh<L>(query, tile.scores[i], page, a.scale, a.head_dim);
    if (query.keys < common) common = query.keys;
  }
  if (common > 0) {
    add_values<L, Element, n>(page.v, after_v, a.head_dim, 0, common, tile.queries, tile.scores);
  }
  for (int i = 0; i < n; ++i) {
    Query& query = tile.queries[i];
    if (query.keys == common) continue;
    add_values<L, Element, 1>(page.v, after_v, a.head_dim, common, query.keys, &query,
                              tile.scores + i);
  }
}

}  // namespace
}  // namespace altiplano::cpu
