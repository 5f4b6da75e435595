// Attention over the paged KV cache, for vector registers of any width: how queries go through the
// pages. What happens in a page is in x86_attend_tile.h, and in x86_attend_int8.h for int8.
// Internal linkage, see avx2.h.
#pragma once

#include "cpu/x86_attend_int8.h"
#include "cpu/x86_attend_tile.h"

namespace altiplano::cpu {
namespace {

constexpr int kMostQueries = 48;  // that go through the pages together, these staying in cache
constexpr int kPackedFloats = 48 * 128;  // of their q: 24 KiB of stack

// The same for a number of queries known at run time.
template <class L, class Element, bool integer, int n = L::kQueries>
void visit(int count, const AttendArgs& a, const KvPage<Element>& page, const KvPage<Element>& next,
           Tile<L>& tile) {
  if constexpr (n > 0) {
    if (count != n) return visit<L, Element, integer, n - 1>(count, a, page, next, tile);
    if constexpr (integer) {
      visit_page_int8<L, n>(a, page, next, tile);
    } else {
      visit_page<L, Element, n>(a, page, next, tile);
    }
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

template <class L, class Element, bool integer>
void attend_batch(const AttendArgs& a, const Batch& batch) {
  Query queries[kMostQueries];
  // The q of a tile, [head_dim][count], or of integers [pairs][count].
  const int pairs = (a.head_dim + 1) / 2;
  alignas(64) float packed[integer ? 1 : kPackedFloats];
  alignas(64) int32_t packed_pairs[integer ? (kPackedFloats + kMostQueries) / 2 : 1];
  float q_scales[kMostQueries];
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
    for (int t = 0; t < tiles; ++t) {
      const int begin = begin_of(t), count = begin_of(t + 1) - begin;
      for (int i = 0; i < count; ++i) {
        const float* q = q_of(h, begin + i);
        if constexpr (integer) {
          int32_t* into = packed_pairs + (h * n + begin) * pairs + i;
          q_scales[h * n + begin + i] = pack_query<L>(q, a.head_dim, into, count);
        } else if (n > 1) {
          float* into = packed + (h * n + begin) * a.head_dim + i;
          for (int d = 0; d < a.head_dim; ++d) into[d * count] = q[d];
        }
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
        if constexpr (integer) {
          tile.q_pairs = packed_pairs + (h * n + begin) * pairs;
          memcpy(tile.q_scales, q_scales + h * n + begin, count * sizeof(float));
        } else {
          tile.q = n == 1 ? q_of(h, 0) : packed + (h * n + begin) * a.head_dim;
        }
        bool is_visible = false;
        for (int i = 0; i < count; ++i) {
          const int64_t left = tile.queries[i].visible - p * kKvPageTokens;
          const int64_t keys = left < kKvPageTokens ? left : kKvPageTokens;
          tile.queries[i].keys = keys < 0 ? 0 : static_cast<int>(keys);
          is_visible = is_visible || keys > 0;
        }
        if (is_visible) visit<L, Element, integer>(count, a, page, t == 0 ? next : page, tile);
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

template <class L, class Element, bool integer = false>
void attend_all(const AttendArgs& a) {
  const int64_t all = a.tokens * a.group;  // queries of a KV head
  // Queries that are too long to be packed go one by one.
  int most = all == 1 && !integer ? kMostQueries : kPackedFloats / a.head_dim;
  most = most < 1 ? 1 : most < kMostQueries ? most : kMostQueries;
  const int heads_at_once = all > most ? 1 : static_cast<int>(most / all);
  for (int head = 0; head < a.heads; head += heads_at_once) {
    const int heads = a.heads - head < heads_at_once ? a.heads - head : heads_at_once;
    for (int64_t first = 0; first < all; first += most) {
      const int n = static_cast<int>(all - first < most ? all - first : most);
      attend_batch<L, Element, integer>(a, {head, heads, first, n});
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
    case KvType::kBF16:
      return attend_all<L, Bf16>(args);
    case KvType::kInt8:
      return args.head_dim <= kMostIntegerDim ? attend_all<L, int8_t, true>(args)
                                              : attend_all<L, int8_t>(args);
  }
}

}  // namespace
}  // namespace altiplano::cpu
