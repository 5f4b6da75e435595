// Attention of sequences with many tokens in a step, in the manner of FlashAttention-2 (Dao, 2023):
// limited by arithmetic. softmax(q K^T / sqrt(d)) V, head dimensions 64 and 128, cache in f16 or
// int8.
//
// A block takes 128 query rows of one KV head, 32 to each of its four warps, and walks over the
// keys that they see, 64 at a time (32 where registers are short). Keys and values pass through one
// ring in shared memory that all warps read, all slots but one in flight, and a barrier a slot.
// Only tiles at the edge of what a row sees are masked; tiles behind it are not computed.
#include "cuda/attention_parameters.h"
#include "cuda/attention_tile.cuh"
#include "cuda/kv_element.cuh"

namespace altiplano::cuda {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kMs = kPrefillRows / kWarps / 16;

// Dynamic shared memory: q [kPrefillRows][kDim] f16, then the ring: prefill_shared_bytes().
template <class Element, int kDim>
__device__ void prefill(const AttentionParameters& p) {
  using Tile = KvTile<Element, kDim>;
  using QueryTile = KvTile<__half, kDim>;
  constexpr int kTileKeys = prefill_tile_keys(sizeof(Element), kDim);
  constexpr int kSlots = prefill_slots(sizeof(Element));
  constexpr int kSlotBytes = Tile::bytes(kTileKeys);
  static_assert(kTileKeys % kKvPageTokens == 0);
  extern __shared__ __align__(128) uint8_t shared[];
  const AttentionItem item = p.items[blockIdx.x];
  if (item.tokens == 0) return;
  const int kv_head = blockIdx.y;
  const int rows = item.tokens * p.group;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const uint32_t queries = shared_address(shared);
  const uint32_t ring = queries + QueryTile::bytes(kPrefillRows);
  const auto token_of = [&](int row) { return item.first_token + min(row, rows - 1) / p.group; };
  const auto head_of = [&](int row) { return kv_head * p.group + min(row, rows - 1) % p.group; };

  // Slot i: keys (even) or values (odd) of tile i / 2.
  const int slots = (item.visible + kTileKeys - 1) / kTileKeys * 2;
  const auto copy_slot = [&](int i) {
    if (i < slots) {
#pragma unroll
      for (int row = 0; row < kTileKeys; row += kKvPageTokens) {
        const int key = i / 2 * kTileKeys + row;
        // Behind the last page nothing is read, whatever the pointer.
        const int64_t page =
            key < item.visible ? p.words[item.block_begin + key / kKvPageTokens] : 0;
        const KvHead<const Element> head(p.pages + (page * p.kv_heads + kv_head) * p.head_bytes,
                                         kDim);
        copy_tile<Element, kDim, kTileKeys, kKvPageTokens, kThreads>(
            ring + i % kSlots * kSlotBytes, row, i % 2 ? head.v : head.k,
            i % 2 ? nullptr : head.k_scales, item.visible - key, hide(threadIdx.x));
      }
    }
    commit_copies();  // empty ones too: groups are counted
  };

  // q, 16 dimensions at a time; for int8 in the order in which lanes hold the codes of K: the mma
  // operands of lane t are its dimensions 4 t, 4 t + 1 and 4 t + 2, 4 t + 3.
#pragma unroll 4
  for (int i = 0; i < kPrefillRows * kDim / 16 / kThreads; ++i) {
    const int at = i * kThreads + threadIdx.x;
    const int row = at / (kDim / 16), k = at % (kDim / 16);
    const auto* from = reinterpret_cast<const uint4*>(
        static_cast<const __half*>(p.qkv) + static_cast<int64_t>(token_of(row)) * p.stride +
        head_of(row) * kDim + k * 16);
    uint4 low = {}, high = {};
    if (row < rows) {
      low = from[0];
      high = from[1];
    }
    if constexpr (Tile::kInt8) {
      const uint4 first = {low.x, low.z, high.x, high.z};
      high = {low.y, low.w, high.y, high.w};
      low = first;
    }
    store_shared_16(queries + QueryTile::offset(row, 2 * k), low);
    store_shared_16(queries + QueryTile::offset(row, 2 * k + 1), high);
  }
#pragma unroll
  for (int i = 0; i < kSlots - 1; ++i) copy_slot(i);

  QueryRows<Element, kDim, kMs> state;
  int least = INT32_MAX, most = 0;  // keys that rows of this warp see
#pragma unroll
  for (int m = 0; m < kMs; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * kMs * 16 + m * 16 + r * 8 + g;
      state.visible[m][r] = p.positions[token_of(row)] + 1;
      least = min(least, state.visible[m][r]);
      most = max(most, state.visible[m][r]);
    }
  }
  least = reduce_warp(least, [](int a, int b) { return min(a, b); });
  most = reduce_warp(most, [](int a, int b) { return max(a, b); });
  if (warp * kMs * 16 >= rows) most = 0;  // none of this warp's rows exists

  const auto operand = [&](int m, int k, uint32_t(&a)[4]) {
    const int lane = hide(threadIdx.x % 32), row = warp * kMs * 16 + m * 16 + lane % 16;
    load_matrices(queries + QueryTile::offset(row, 2 * k + lane / 16), a[0], a[1], a[2], a[3]);
  };

  uint32_t probabilities[kMs][kTileKeys / 16][4];
  for (int i = 0; i < slots; ++i) {
    wait_copies<kSlots - 2>();
    __syncthreads();  // all threads' copies of this slot are there, and slot i - 1 has been read
    copy_slot(i + kSlots - 1);
    const int key = i / 2 * kTileKeys;
    if (key >= most) continue;  // none of this warp's rows sees the tile
    const uint32_t tile = ring + i % kSlots * kSlotBytes;
    if (i % 2 == 0) {
      float scores[kMs][kTileKeys / 8][4];
      state.score(tile, operand, scores);
      if (key + kTileKeys > least) {
        state.template softmax<true>(p.scale, key, tile, scores, probabilities);
      } else {
        state.template softmax<false>(p.scale, key, tile, scores, probabilities);
      }
    } else {
      state.add_values(tile, probabilities);
    }
  }
  wait_copies<0>();

  state.finish_sums();
#pragma unroll
  for (int m = 0; m < kMs; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * kMs * 16 + m * 16 + r * 8 + g;
      if (row >= rows) continue;
      const float factor = (Tile::kInt8 ? 1.0f / kValueFactor : 1.0f) / state.sum[m][r];
      __half* const to = static_cast<__half*>(p.out) +
                         static_cast<int64_t>(token_of(row)) * p.out_stride + head_of(row) * kDim;
      const float(&out)[kDim / 8][4] = state.out[m];
      if constexpr (Tile::kInt8) {
#pragma unroll
        for (int n = 0; n < kDim / 8; n += 2) {  // two mma hold four neighbours
          auto* const four = reinterpret_cast<uint2*>(to + dimension<Element>(n, 0, t));
          *four = {pack_f16(out[n][2 * r] * factor, out[n + 1][2 * r] * factor),
                   pack_f16(out[n][2 * r + 1] * factor, out[n + 1][2 * r + 1] * factor)};
        }
      } else {
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          auto* const two = reinterpret_cast<uint32_t*>(to + dimension<Element>(n, 0, t));
          *two = pack_f16(out[n][2 * r] * factor, out[n][2 * r + 1] * factor);
        }
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_f16_64(const __grid_constant__ AttentionParameters p) {
  prefill<__half, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_f16_128(const __grid_constant__ AttentionParameters p) {
  prefill<__half, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_int8_64(const __grid_constant__ AttentionParameters p) {
  prefill<int8_t, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_int8_128(const __grid_constant__ AttentionParameters p) {
  prefill<int8_t, 128>(p);
}

}  // namespace altiplano::cuda
