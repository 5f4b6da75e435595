// Attention over int8 pages with integers: converting every code to f32 would cost more than
// reading it from memory. Internal linkage, see avx2.h.
//
// q is rounded to int16 with one scale (its largest magnitude is 32767), so that a score is an
// exact sum of integers times three scales; so are the weights of a page, each times the scale of
// its value. Two rows of codes become pairs of int16, which one instruction multiplies with a pair
// of q (of d and d + 1) or of weights (of two keys), and adds to int32:
//
//   row d      k0  k1  k2  k3 ...                 (k0, l0)  (k1, l1) ...      low half of the lanes
//   row d + 1  l0  l1  l2  l3 ...     becomes       x          x              and high half
//                                                 (q, q')   (q, q')  ...
//
// The error: q and weights are off by at most 2^-16 of the largest (of the page), against 2^-8 of
// the largest for the codes themselves.
#pragma once

#include "cpu/x86_attend_tile.h"

namespace altiplano::cpu {
namespace {

// A score adds up products of at most 32767 * 127: so many fit into int32.
constexpr int kMostIntegerDim = 512;
constexpr float kMostWord = 32767;
// What is not larger becomes 0: f32 has no 32767 / x for it.
constexpr float kNegligible = 0x1p-110f;

// Rounds q [head_dim] to int16; pair p goes to into[p * step]. The scale, NaN if q is not finite.
template <class L>
float pack_query(const float* q, int head_dim, int32_t* into, int step) {
  using Vector = typename L::Vector;
  Vector most = L::zero(), nothing = L::zero();
  for (int d = 0; d < head_dim; d += L::kLanes) {
    const Vector x = L::load(q + d, head_dim - d);
    most = L::max(most, L::max(x, L::sub(L::zero(), x)));
    nothing = L::fmadd(x, L::zero(), nothing);  // 0, or NaN
  }
  const float largest = L::max_lane(most);
  const Vector inverse = L::set(largest > kNegligible ? kMostWord / largest : 0);
  alignas(64) int16_t words[kMostIntegerDim];
  for (int d = 0; d < head_dim; d += L::kLanes) {
    L::store_words(words + d, L::mul(L::load(q + d, head_dim - d), inverse));
  }
  if (head_dim % 2 != 0) words[head_dim] = 0;
  for (int p = 0; p < (head_dim + 1) / 2; ++p) memcpy(into + p * step, words + 2 * p, 4);
  return largest / kMostWord + L::sum_lanes(nothing);
}

// The scores of a page, without scales. Integers may be added in any order: few queries have two
// sums each.
template <class L, int n>
void score_int8(const int8_t* k, const int8_t* next, int head_dim, Tile<L>& tile) {
  using Ints = typename L::Ints;
  constexpr int kWords = 2 * L::kLanes;
  constexpr int kChains = 2 * n <= L::kQueries ? 2 : 1;
  for (int first = 0; first < kKvPageTokens; first += kWords) {
    Ints low[kChains][n], high[kChains][n];
#pragma GCC unroll 2
    for (int c = 0; c < kChains; ++c) {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) low[c][i] = high[c][i] = L::no_ints();
    }
    const int8_t* row = k + first;
    const int32_t* q = tile.q_pairs;
    // With an odd head_dim, the last row is followed by V, which the missing q turns to 0.
    const int pairs = (head_dim + 1) / 2;
    int p = 0;
    for (; p + kChains <= pairs; p += kChains) {
#pragma GCC unroll 2
      for (int c = 0; c < kChains; ++c, row += 2 * kKvPageTokens, q += n) {
        __builtin_prefetch(next + (row - k));
        const Ints a = L::load_words(row), b = L::load_words(row + kKvPageTokens);
        const Ints x = L::pair_low(a, b), y = L::pair_high(a, b);
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) {
          const Ints pair = L::broadcast_pair(q + i);
          low[c][i] = L::dot(low[c][i], x, pair);
          high[c][i] = L::dot(high[c][i], y, pair);
        }
      }
    }
    if (p < pairs) {
      const Ints a = L::load_words(row), b = L::load_words(row + kKvPageTokens);
      const Ints x = L::pair_low(a, b), y = L::pair_high(a, b);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        const Ints pair = L::broadcast_pair(q + i);
        low[0][i] = L::dot(low[0][i], x, pair);
        high[0][i] = L::dot(high[0][i], y, pair);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      if (kChains == 2) {
        low[0][i] = L::add_ints(low[0][i], low[1][i]);
        high[0][i] = L::add_ints(high[0][i], high[1][i]);
      }
      L::store(tile.scores[i] + first, L::unpaired_first(low[0][i], high[0][i]));
      L::store(tile.scores[i] + first + L::kLanes, L::unpaired_second(low[0][i], high[0][i]));
    }
  }
}

// The weights of a query in a page as int16. Their scale is NaN if one of them is.
template <class L>
void round_weights(const float* weights, int16_t* words, float* scale) {
  using Vector = typename L::Vector;
  Vector most = L::zero(), nothing = L::zero();
#pragma GCC unroll 4
  for (int j = 0; j < kKvPageTokens; j += L::kLanes) {
    const Vector x = L::load(weights + j);  // not negative
    most = L::max(most, x);
    nothing = L::fmadd(x, L::zero(), nothing);
  }
  const float largest = L::max_lane(most);
  const Vector inverse = L::set(largest > kNegligible ? kMostWord / largest : 0);
#pragma GCC unroll 4
  for (int j = 0; j < kKvPageTokens; j += L::kLanes) {
    L::store_words(words + j, L::mul(L::load(weights + j), inverse));
  }
  *scale = largest / kMostWord + L::sum_lanes(nothing);
}

// out[d ..] += the weighted values of a page, `blocks` blocks of 2 * lanes columns, or as many
// columns of one block as are `left`. v from column d on.
template <class L, int n, int blocks, bool whole>
void add_columns_int8(const int8_t* v, const int8_t* next, int head_dim, int d, int left,
                      Tile<L>& tile, int keys) {
  using Ints = typename L::Ints;
  constexpr int kWords = 2 * L::kLanes;
  Ints low[n][blocks], high[n][blocks];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) low[i][b] = high[i][b] = L::no_ints();
  }
  const int16_t* weights = tile.weights[0];
  for (int j = 0; j < keys; j += 2, v += 2 * head_dim, next += 2 * head_dim, weights += 2) {
    prefetch<blocks * kWords>(next);
    prefetch<blocks * kWords>(next + head_dim);
    Ints x[blocks], y[blocks];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      const int8_t* at = v + b * kWords;
      const Ints one = whole ? L::load_words(at) : L::load_words(at, left);
      const Ints two = whole ? L::load_words(at + head_dim) : L::load_words(at + head_dim, left);
      x[b] = L::pair_low(one, two);
      y[b] = L::pair_high(one, two);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      const Ints pair = L::broadcast_pair(weights + i * kKvPageTokens);
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) {
        low[i][b] = L::dot(low[i][b], x[b], pair);
        high[i][b] = L::dot(high[i][b], y[b], pair);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) {
    // Adding 0 would turn -0 to 0: what a query gets must not depend on those beside it.
    if (tile.queries[i].keys == 0) continue;
    const typename L::Vector scale = L::set(tile.weight_scales[i]);
#pragma GCC unroll 4
    for (int b = 0; b < blocks; ++b) {
      float* out = tile.queries[i].out + d + b * kWords;
      const int lanes = whole ? kWords : left;
      const auto sum = L::unpaired_first(low[i][b], high[i][b]);
      L::store(out, L::fmadd(sum, scale, L::load(out, lanes)), lanes);
      if (lanes <= L::kLanes) continue;
      const auto rest = L::unpaired_second(low[i][b], high[i][b]);
      out += L::kLanes;
      L::store(out, L::fmadd(rest, scale, L::load(out, lanes - L::kLanes)), lanes - L::kLanes);
    }
  }
}

// The n queries of a tile over one page; `next` is read soon.
template <class L, int n>
__attribute__((noinline)) void visit_page_int8(const AttendArgs& a, const KvPage<int8_t>& page,
                                               const KvPage<int8_t>& next, Tile<L>& tile) {
  score_int8<L, n>(page.k, next.k, a.head_dim, tile);
  int keys = 0;  // that any of the n sees
  for (int i = 0; i < n; ++i) {
    Query& query = tile.queries[i];
    if (query.keys > keys) keys = query.keys;
    if (query.keys > 0) {
      weigh<L>(query, tile.scores[i], page, a.scale * tile.q_scales[i], a.head_dim);
      // Weights of keys that are not visible are 0, and so is what they multiply, whatever it is.
      round_weights<L>(tile.scores[i], tile.weights[i], tile.weight_scales + i);
    } else {
      memset(tile.weights[i], 0, sizeof(tile.weights[i]));
    }
  }
  constexpr int kWords = 2 * L::kLanes;
  // One query goes through V in strips of half a cache line. Each line is asked for twice then, and
  // reading a large cache is faster by a fifth than in whole rows, although those take fewer
  // instructions: measured, 29 instead of 24 GB/s.
  constexpr int kBlocks = n == 1 ? 32 / kWords : n <= L::kQueries / 2 ? 2 : 1;
  int d = 0;
  for (; d + kBlocks * kWords <= a.head_dim; d += kBlocks * kWords) {
    add_columns_int8<L, n, kBlocks, true>(page.v + d, next.v + d, a.head_dim, d, 0, tile, keys);
  }
  for (; d + kWords <= a.head_dim; d += kWords) {
    add_columns_int8<L, n, 1, true>(page.v + d, next.v + d, a.head_dim, d, 0, tile, keys);
  }
  if (d < a.head_dim) {
    add_columns_int8<L, n, 1, false>(page.v + d, next.v + d, a.head_dim, d, a.head_dim - d, tile,
                                     keys);
  }
}

}  // namespace
}  // namespace altiplano::cpu
