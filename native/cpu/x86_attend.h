// Attention over the paged KV cache, for vector registers of any width: the algorithm of
// avx2_attend.cc and avx512_attend.cc, which bring a struct Lanes (avx2_lanes.h). Internal linkage,
// see avx2.h.
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

constexpr int kMostQueries = 48;  // that go through the pages together, these staying in cache
constexpr int kPackedFloats = 48 * 128;  // of their q: 24 KiB of stack
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

// Turns the scores of a query in the page into weights, and rescales what came before.
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
    // Beyond the visible keys the scale of V may be anything too; no one reads these weights.
    if (kScaled) x[v] = L::mul(x[v], L::load(page.v_scales + v * L::kLanes));
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

// The same for a number of queries known at run time.
template <class L, class Element, int n = L::kQueries>
void visit(int count, const AttendArgs& a, const KvPage<Element>& page, const KvPage<Element>& next,
           Tile<L>& tile) {
  if constexpr (n > 0) {
    if (count == n) return visit_page<L, Element, n>(a, page, next, tile);
    visit<L, Element, n - 1>(count, a, page, next, tile);
  }
}

// What goes through the pages together: `heads` KV heads from `head` on, of each the n queries from
// `first` on, counted through tokens and query heads. The heads of a page lie one after the other
// and are read in that order, so that memory is read in stretches as long as possible.
struct Batch {
  int head;
  int heads;
  int64_t first;
  int n;
};

template <class L, class Element>
void attend_batch(const AttendArgs& a, const Batch& batch) {
  Query queries[kMostQueries];
  alignas(64) float packed[kPackedFloats];
  Tile<L> tile;
  const int n = batch.n;
  // Tiles of equal size. One query is not packed.
  const int tiles = (n + L::kQueries - 1) / L::kQueries;
  const auto begin_of = [&](int t) { return t * n / tiles; };
  const auto q_of = [&](int h, int i) {
    const int64_t token = (batch.first + i) / a.group;
    const int64_t head = (batch.head + h) * int64_t{a.group} + (batch.first + i) % a.group;
    return a.q + token * a.q_stride + head * a.head_dim;
  };
  const auto page_at = [&](int64_t p, int h) {
    return a.pages + a.block_table[p] * a.page_stride + (batch.head + h) * a.head_stride;
  };

  int64_t most_visible = 0;
  for (int h = 0; h < batch.heads; ++h) {
    for (int i = 0; i < n; ++i) {
      const int64_t token = (batch.first + i) / a.group;
      float* out = a.out + token * a.out_stride + (q_of(h, i) - a.q - token * a.q_stride);
      queries[h * n + i] = {out, a.visible[token], kNoScore, 0, 0};
      memset(out, 0, a.head_dim * sizeof(float));
      if (a.visible[token] > most_visible) most_visible = a.visible[token];
    }
    for (int t = 0; n > 1 && t < tiles; ++t) {
      const int begin = begin_of(t), count = begin_of(t + 1) - begin;
      float* into = packed + (h * n + begin) * a.head_dim;
      for (int i = 0; i < count; ++i) {
        const float* q = q_of(h, begin + i);
        for (int d = 0; d < a.head_dim; ++d) into[d * count + i] = q[d];
      }
    }
  }

  const int64_t pages = (most_visible + kKvPageTokens - 1) / kKvPageTokens;
  for (int64_t p = 0; p < pages; ++p) {
    for (int h = 0; h < batch.heads; ++h) {
      const uint8_t* here = page_at(p, h);
      const uint8_t* then = h + 1 < batch.heads ? page_at(p, h + 1)
                            : p + 1 < pages     ? page_at(p + 1, 0)
                                                : here;
      const KvPage<Element> page(here, a.head_dim), next(then, a.head_dim);
      for (int t = 0; t < tiles; ++t) {
        const int begin = begin_of(t), count = begin_of(t + 1) - begin;
        tile.queries = queries + h * n + begin;
        tile.q = n == 1 ? q_of(h, 0) : packed + (h * n + begin) * a.head_dim;
        bool is_visible = false;
        for (int i = 0; i < count; ++i) {
          const int64_t left = tile.queries[i].visible - p * kKvPageTokens;
          const int64_t keys = left < kKvPageTokens ? left : kKvPageTokens;
          tile.queries[i].keys = keys < 0 ? 0 : static_cast<int>(keys);
          is_visible = is_visible || keys > 0;
        }
        if (is_visible) visit<L, Element>(count, a, page, t == 0 ? next : page, tile);
      }
    }
  }

  for (int i = 0; i < batch.heads * n; ++i) {
    for (int d = 0; d < a.head_dim; d += L::kLanes) {
      const int lanes = a.head_dim - d;
      float* out = queries[i].out + d;
      L::store(out, L::div(L::load(out, lanes), L::set(queries[i].sum)), lanes);
    }
  }
}

template <class L, class Element>
void attend_all(const AttendArgs& a) {
  const int64_t all = a.tokens * a.group;  // queries of a KV head
  // Queries that are too long to be packed go one by one.
  int most = all == 1 ? kMostQueries : kPackedFloats / a.head_dim;
  most = most < 1 ? 1 : most < kMostQueries ? most : kMostQueries;
  const int heads_at_once = all > most ? 1 : static_cast<int>(most / all);
  for (int head = 0; head < a.heads; head += heads_at_once) {
    const int heads = a.heads - head < heads_at_once ? a.heads - head : heads_at_once;
    for (int64_t first = 0; first < all; first += most) {
      const int n = static_cast<int>(all - first < most ? all - first : most);
      attend_batch<L, Element>(a, {head, heads, first, n});
    }
  }
}

template <class L>
void attend_with(const AttendArgs& args) {
  switch (args.type) {
    case KvType::kF32:
      return attend_all<L, float>(args);
    case KvType::kF16:
      return attend_all<L, uint16_t>(args);
    case KvType::kInt8:
      return attend_all<L, int8_t>(args);
  }
}

}  // namespace
}  // namespace altiplano::cpu
