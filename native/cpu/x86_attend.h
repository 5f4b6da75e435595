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

// Queries of one register tile.
template <class L>
struct Tile {
  Query* queries;  // [n]
  const float* q;  // [head_dim][n]
  // In the current page: the scores, then the weights of the values.
  alignas(64) float scores[L::kQueries][kKvPageTokens];
};

// The scores of a page. Each of the n * vectors sums is one register.
template <class L, class Element, int n>
void score(const Element* k, const Element* next, int head_dim, Tile<L>& tile) {
  using Vector = typename L::Vector;
  constexpr int kAll = kKvPageTokens / L::kLanes;  // vectors of a page's scores
  constexpr int kVectors = n * kAll <= 2 * L::kQueries ? kAll : 2;
  for (int first = 0; first < kAll; first += kVectors) {
    Vector sums[n][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[i][v] = L::zero();
    }
    const Element* row = k + first * L::kLanes;
    const float* q = tile.q;
    for (int d = 0; d < head_dim; ++d, row += kKvPageTokens, q += n) {
      // A page lies anywhere: the processor's own prefetching does not know the next one.
      __builtin_prefetch(next + (row - k));
      Vector keys[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) keys[v] = L::load(row + v * L::kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        const Vector qd = L::broadcast(q + i);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sums[i][v] = L::fmadd(qd, keys[v], sums[i][v]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        L::store(tile.scores[i] + (first + v) * L::kLanes, sums[i][v]);
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
  const float shrink = L::exp_one(query.maximum - maximum);
  query.maximum = maximum;
  query.sum = query.sum * shrink + L::sum_lanes(sum);
  if (shrink == 1.f) return;
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
  constexpr int kLine = 64 / sizeof(Element);
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
#pragma GCC unroll 8
    for (int c = 0; c < vectors * L::kLanes; c += kLine) __builtin_prefetch(next + c);
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
void visit_page(const AttendArgs& a, const KvPage<Element>& page, const KvPage<Element>& next,
                Tile<L>& tile) {
  score<L, Element, n>(page.k, next.k, a.head_dim, tile);
  int common = kKvPageTokens;  // keys that all n see
  for (int i = 0; i < n; ++i) {
    Query& query = tile.queries[i];
    if (query.keys > 0) weigh<L>(query, tile.scores[i], page, a.scale, a.head_dim);
    if (query.keys < common) common = query.keys;
  }
  if (common > 0) {
    add_values<L, Element, n>(page.v, next.v, a.head_dim, 0, common, tile.queries, tile.scores);
  }
  for (int i = 0; i < n; ++i) {
    Query& query = tile.queries[i];
    if (query.keys == common) continue;
    add_values<L, Element, 1>(page.v, next.v, a.head_dim, common, query.keys, &query,
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

// The queries first .. first+n-1, counted through tokens and heads, in tiles of up to `most`.
template <class L, class Element>
void attend_queries(const AttendArgs& a, int64_t first, int n, int most) {
  Query queries[kMostQueries];
  alignas(64) float packed[kPackedFloats];
  const int tiles = (n + most - 1) / most;
  Tile<L> tile;
  int64_t most_visible = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t token = (first + i) / a.group, head = (first + i) % a.group;
    float* out = a.out + token * a.out_stride + head * a.head_dim;
    queries[i] = {out, a.visible[token], kNoScore, 0, 0};
    memset(out, 0, a.head_dim * sizeof(float));
    if (a.visible[token] > most_visible) most_visible = a.visible[token];
  }
  // Tiles of equal size, but for one query.
  const auto begin_of = [&](int t) { return t * n / tiles; };
  const auto q_of = [&](int i) {
    const int64_t token = (first + i) / a.group, head = (first + i) % a.group;
    return a.q + token * a.q_stride + head * a.head_dim;
  };
  for (int t = 0; most > 1 && t < tiles; ++t) {
    const int begin = begin_of(t), count = begin_of(t + 1) - begin;
    for (int i = 0; i < count; ++i) {
      const float* q = q_of(begin + i);
      for (int d = 0; d < a.head_dim; ++d) packed[begin * a.head_dim + d * count + i] = q[d];
    }
  }
  for (int64_t p = 0; p * kKvPageTokens < most_visible; ++p) {
    const bool is_last = (p + 1) * kKvPageTokens >= most_visible;
    const uint8_t* here = a.pages + a.block_table[p] * a.page_stride;
    const KvPage<Element> page(here, a.head_dim);
    const KvPage<Element> next(is_last ? here : a.pages + a.block_table[p + 1] * a.page_stride,
                               a.head_dim);
    for (int t = 0; t < tiles; ++t) {
      const int begin = begin_of(t), count = begin_of(t + 1) - begin;
      bool is_visible = false;
      for (int i = begin; i < begin + count; ++i) {
        const int64_t left = queries[i].visible - p * kKvPageTokens;
        queries[i].keys = static_cast<int>(left < 0               ? 0
                                           : left < kKvPageTokens ? left
                                                                  : kKvPageTokens);
        is_visible = is_visible || left > 0;
      }
      if (!is_visible) continue;
      tile.queries = queries + begin;
      tile.q = most > 1 ? packed + begin * a.head_dim : q_of(begin);
      visit<L, Element>(count, a, page, t == 0 ? next : page, tile);
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int d = 0; d < a.head_dim; d += L::kLanes) {
      const int lanes = a.head_dim - d;
      float* out = queries[i].out + d;
      L::store(out, L::div(L::load(out, lanes), L::set(queries[i].sum)), lanes);
    }
  }
}

template <class L, class Element>
void attend_all(const AttendArgs& a) {
  const int64_t all = a.tokens * a.group;
  // One query needs no packing; nor do queries too long to be packed, which go one by one.
  const int64_t fitting = all == 1 ? 1 : kPackedFloats / a.head_dim;
  const int at_once = static_cast<int>(fitting < 2              ? 1
                                       : fitting < kMostQueries ? fitting
                                                                : kMostQueries);
  const int most = at_once < L::kQueries ? at_once : L::kQueries;
  for (int64_t first = 0; first < all; first += at_once) {
    attend_queries<L, Element>(
        a, first, static_cast<int>(all - first < at_once ? all - first : at_once), most);
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
