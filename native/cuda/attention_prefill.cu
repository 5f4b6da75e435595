// Attention of sequences with many tokens in a step, in the manner of FlashAttention-2 (Dao, 2023):
// limited by arithmetic. softmax(q K^T / sqrt(d)) V, head dimensions 64 and 128, cache in
// the type of activations (f16 or bf16) or in int8.
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

// Dynamic shared memory: q [kPrefillRows][kDim], then the ring: prefill_shared_bytes().
template <class Activation, class Element, int kDim>
__device__ void prefill(const AttentionParameters& p) {
  using Tile = KvTile<Element, kDim>;
  using QueryTile = KvTile<Activation, kDim>;
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

  // Slot i: keys (even) or values (odd) of tile i / 2.
  const int slots = (item.visible + kTileKeys - 1) / kTileKeys * 2;
  int32_t pages[kTileKeys / kKvPageTokens];  // of the slot that is copied: two share them
  const auto copy_slot = [&](int i) {
    if (i < slots) {
#pragma unroll
      for (int row = 0; row < kTileKeys; row += kKvPageTokens) {
        const int key = i / 2 * kTileKeys + row;
        int32_t& page = pages[row / kKvPageTokens];
        // Behind the last page nothing is read, whatever the pointer.
        if (i % 2 == 0) {
          page = key < item.visible ? p.words[item.block_begin + key / kKvPageTokens] : 0;
        }
        const KvHead<const Element> head(
            p.pages + (int64_t{page} * p.kv_heads + kv_head) * p.head_bytes, kDim);
        copy_tile<Element, kDim, kTileKeys, kKvPageTokens, kThreads>(
            ring + i % kSlots * kSlotBytes, row, i % 2 ? head.v : head.k,
            i % 2 ? nullptr : head.k_scales, item.visible - key, hide(threadIdx.x));
      }
    }
    commit_copies();  // empty ones too: groups are counted
  };

  stage_queries<Activation, Element, kDim, kPrefillRows, kThreads>(p, item, kv_head, queries);
#pragma unroll
  for (int i = 0; i < kSlots - 1; ++i) copy_slot(i);

  QueryRows<Activation, Element, kDim, kMs> state;
  int least = INT32_MAX, most = 0;  // keys that rows of this warp see
#pragma unroll
  for (int m = 0; m < kMs; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = warp * kMs * 16 + m * 16 + r * 8 + g;
      state.visible[m][r] = p.positions[token_of(p, item, row)] + 1;
      least = min(least, state.visible[m][r]);
      most = max(most, state.visible[m][r]);
    }
  }
  least = reduce_warp(least, [](int a, int b) { return min(a, b); });
  most = reduce_warp(most, [](int a, int b) { return max(a, b); });
  if (warp * kMs * 16 >= rows) most = 0;  // none of this warp's rows exists

  const auto operand = [&](int m, int k, uint32_t(&a)[4]) {
    load_queries<Activation, kDim>(queries, warp * kMs * 16 + m * 16, k, a);
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

  // The results of a warp's rows go out by way of its rows of q, which nobody else reads, so that
  // what a warp writes at once are whole rows.
  state.finish_sums();
  __syncwarp();  // its last reads of q are done
#pragma unroll
  for (int m = 0; m < kMs; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = (warp * kMs + m) * 16 + r * 8 + g;
      const float factor = (Tile::kInt8 ? 1.0f / kValueFactor<Activation> : 1.0f) / state.sum[m][r];
      const float(&out)[kDim / 8][4] = state.out[m];
#pragma unroll
      for (int n = 0; n < kDim / 8; n += Tile::kInt8 ? 2 : 1) {
        const int first = dimension<Element>(n, 0, t);
        const uint32_t to = queries + QueryTile::offset(row, first / 8) + first % 8 * 2;
        if constexpr (Tile::kInt8) {  // two mma hold four neighbours
          store_shared_8(
              to, pack_pair<Activation>(out[n][2 * r] * factor, out[n + 1][2 * r] * factor),
              pack_pair<Activation>(out[n][2 * r + 1] * factor, out[n + 1][2 * r + 1] * factor));
        } else {
          store_shared_4(to,
                         pack_pair<Activation>(out[n][2 * r] * factor, out[n][2 * r + 1] * factor));
        }
      }
    }
  }
  __syncwarp();  // the rows are there
  for (int at = lane; at < kMs * 16 * QueryTile::kChunks; at += 32) {
    const int row = warp * kMs * 16 + at / QueryTile::kChunks, chunk = at % QueryTile::kChunks;
    if (row >= rows) break;
    *reinterpret_cast<uint4*>(output<Activation>(p, item, kv_head, row, kDim) + chunk * 8) =
        load_shared_16(queries + QueryTile::offset(row, chunk));
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_f16_64(const __grid_constant__ AttentionParameters p) {
  prefill<__half, __half, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_f16_128(const __grid_constant__ AttentionParameters p) {
  prefill<__half, __half, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_int8_64(const __grid_constant__ AttentionParameters p) {
  prefill<__half, int8_t, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_int8_128(const __grid_constant__ AttentionParameters p) {
  prefill<__half, int8_t, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_bf16_64(const __grid_constant__ AttentionParameters p) {
  prefill<__nv_bfloat16, __nv_bfloat16, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_bf16_128(const __grid_constant__ AttentionParameters p) {
  prefill<__nv_bfloat16, __nv_bfloat16, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_bf16_int8_64(const __grid_constant__ AttentionParameters p) {
  prefill<__nv_bfloat16, int8_t, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_prefill_bf16_int8_128(const __grid_constant__ AttentionParameters p) {
  prefill<__nv_bfloat16, int8_t, 128>(p);
}

}  // namespace altiplano::cuda
