// Attention of sequences with at most 16 query rows in a step (a token of a model with up to 16
// query heads per KV head, or some tokens of one with fewer): limited by how fast keys and values
// come from memory. softmax(q K^T / sqrt(d)) V, head dimensions 64 and 128, cache in
// the type of activations (f16 or bf16) or in int8.
//
// The query heads of a KV head are the rows of one mma, so that GQA reads each key once. Keys are
// split over the grid by whole pages (blockIdx.x) and, within a block, page by page over its warps.
// Each warp streams its pages through a ring of its own in shared memory, 16 keys or values at a
// time, four of five slots in flight; nothing but its own lanes wait for it. Partial results are
// merged by their maxima: those of the warps in shared memory, those of the blocks by whichever
// comes last, always in the same order: the same launch gives the same bits.
#include "cuda/attention_parameters.h"
#include "cuda/attention_tile.cuh"
#include "cuda/kv_element.cuh"

namespace altiplano::cuda {

constexpr int kUnitKeys = 16;
// Two blocks of a multiprocessor hold 160 KiB in 16 bits with 128 dimensions.
constexpr int kSlots = kDecodeSlots;
constexpr int kThreads = kDecodeWarps * 32;

// A row of partial results in shared memory: padded so that rows begin in different banks.
template <int kDim>
constexpr int kPartStride = kDim + 8;

// Dynamic shared memory: a ring of slots per warp; at the end partial results, which are smaller.
template <class Activation, class Element, int kDim>
__device__ void decode(const AttentionParameters& p) {
  using Tile = KvTile<Element, kDim>;
  constexpr int kSlotBytes = Tile::bytes(kUnitKeys);
  // The smallest ring holds the shares of 300 splits, more than blocks run at once.
  static_assert(kSlots * kSlotBytes >= kDecodeRows * kPartStride<kDim> * 4);
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ float maxima[kDecodeWarps][kDecodeRows], sums[kDecodeWarps][kDecodeRows];
  __shared__ uint32_t arrivals;

  const AttentionItem item = p.items[blockIdx.z];
  const int kv_head = blockIdx.y, split = blockIdx.x;
  const int pages = (item.visible + kKvPageTokens - 1) / kKvPageTokens;
  const int begin = split * p.split_pages;
  if (item.tokens == 0 || begin >= pages) return;
  const int end = min(begin + p.split_pages, pages);
  const int rows = item.tokens * p.group;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
  const uint32_t ring = shared_address(shared) + warp * kSlots * kSlotBytes;

  // Slot i of the warp's stream: keys (even) or values (odd) of its unit i / 2, half a page.
  const int warp_pages = (end - begin - warp + kDecodeWarps - 1) / kDecodeWarps;
  const int slots = max(warp_pages, 0) * (kKvPageTokens / kUnitKeys) * 2;
  const auto first_key = [&](int i) {
    return (begin + warp + i / 4 * kDecodeWarps) * kKvPageTokens + i / 2 % 2 * kUnitKeys;
  };
  int64_t page = 0;  // of the slot that is copied: four slots share one
  const auto copy_slot = [&](int i) {
    if (i < slots) {
      const int key = first_key(i), within = key % kKvPageTokens;
      if (i % 4 == 0) page = p.words[item.block_begin + key / kKvPageTokens];
      const KvHead<const Element> head(p.pages + (page * p.kv_heads + kv_head) * p.head_bytes,
                                       kDim);
      copy_tile<Element, kDim, kUnitKeys, kUnitKeys, 32>(
          ring + i % kSlots * kSlotBytes, 0, (i % 2 ? head.v : head.k) + within * kDim,
          i % 2 ? nullptr : head.k_scales + within, item.visible - key, lane);
    }
    commit_copies();  // empty ones too: groups are counted
  };
#pragma unroll
  for (int i = 0; i < kSlots - 1; ++i) copy_slot(i);

  QueryRows<Activation, Element, kDim, 1> state;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    state.visible[0][r] = p.positions[token_of(p, item, g + 8 * r)] + 1;
  }
  // q passes through the last slot of the first ring, to which nothing is copied yet; in int8,
  // where slots are smaller, through the bytes behind the rings.
  const uint32_t queries = shared_address(shared) + decode_queries_at(sizeof(Element), kDim);
  stage_queries<Activation, Element, kDim, kDecodeRows, kThreads>(p, item, kv_head, queries);
  __syncthreads();  // q is there
  uint32_t q[kDim / 16][4];
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) load_queries<Activation, kDim>(queries, 0, k, q[k]);
  __syncthreads();  // and in everybody's registers: the slot may be copied to
  const auto operand = [&](int, int k, uint32_t(&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = q[k][i];
  };

  uint32_t probabilities[1][1][4];
  for (int i = 0; i < slots; ++i) {
    wait_copies<kSlots - 2>();
    __syncwarp();  // all lanes' copies of this slot are there, and slot i - 1 has been read
    copy_slot(i + kSlots - 1);
    const uint32_t tile = ring + i % kSlots * kSlotBytes;
    if (i % 2 == 0) {
      float scores[1][kUnitKeys / 8][4];
      state.score(tile, operand, scores);
      state.template softmax<true>(p.scale, first_key(i), tile, scores, probabilities);
    } else {
      state.add_values(tile, probabilities);
    }
  }
  wait_copies<0>();

  // The warps' results, one above the other.
  state.finish_sums();
  __syncthreads();  // the rings are read no more
  auto* const parts = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = g + 8 * r;
    if (row >= rows) continue;
    float* const to = parts + (warp * kDecodeRows + row) * kPartStride<kDim>;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) to[dimension<Element>(n, i, t)] = state.out[0][n][2 * r + i];
    }
    if (t == 0) {
      maxima[warp][row] = state.maximum[0][r];
      sums[warp][row] = state.sum[0][r];
    }
  }
  __syncthreads();  // all parts are there

  const int splits = (pages + p.split_pages - 1) / p.split_pages;
  const int64_t place = static_cast<int64_t>(blockIdx.z) * p.kv_heads + kv_head;
  // What a block hands on: its rows, then a maximum and a sum for each.
  constexpr int kPartFloats = kDecodeRows * (kDim + 2);
  float* const all_parts = p.parts + place * p.splits * kPartFloats;
  const auto store = [&](int row, int i, float value) {
    output<Activation>(p, item, kv_head, row, kDim)[i] =
        from_float<Activation>(Tile::kInt8 ? value * (1.0f / kValueFactor<Activation>) : value);
  };
  for (int at = threadIdx.x; at < rows * kDim; at += kThreads) {
    const int row = at / kDim, i = at % kDim;
    float most = maxima[0][row];
    for (int w = 1; w < kDecodeWarps; ++w) most = fmaxf(most, maxima[w][row]);
    float value = 0.0f, sum = 0.0f;
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float share = maxima[w][row] == -INFINITY ? 0.0f : exp2f(maxima[w][row] - most);
      // A warp without a visible key has nothing to add; a NaN reaches the sum.
      value += parts[(w * kDecodeRows + row) * kPartStride<kDim> + i] * share;
      sum += sums[w][row] * share;
    }
    if (splits == 1) {
      store(row, i, value / sum);
    } else {
      float* const part = all_parts + split * kPartFloats;
      part[row * kDim + i] = value;
      if (i == 0) {
        part[kDecodeRows * kDim + 2 * row] = most;
        part[kDecodeRows * kDim + 2 * row + 1] = sum;
      }
    }
  }
  if (splits == 1) return;

  __syncthreads();  // the block's part is written
  if (threadIdx.x == 0) arrivals = count_up(p.counters + place);
  __syncthreads();  // everybody knows whether this block is the last
  if (arrivals + 1 != static_cast<uint32_t>(splits)) return;
  if (threadIdx.x == 0) p.counters[place] = 0;
  // Reading L2 takes hundreds of cycles: loads do not wait for each other. First the maxima and
  // sums of a row, one of a lane, for all rows over the warps.
  auto* const shares = reinterpret_cast<float*>(shared);  // [splits][rows], divided by the sum
  for (int row = warp; row < rows; row += kDecodeWarps) {
    const float* const stats = all_parts + kDecodeRows * kDim + 2 * row;
    float most = -INFINITY, sum = 0.0f;
    for (int s = lane; s < splits; s += 32) {
      const float2 maximum_and_sum = load_l2_8(stats + s * kPartFloats);
      const float maximum = maximum_and_sum.x, of_split = maximum_and_sum.y;
      const float both = fmaxf(most, maximum);
      // Of a split without a visible key nothing counts; a NaN reaches the sum.
      sum = (most == -INFINITY ? 0.0f : sum * exp2f(most - both)) +
            (maximum == -INFINITY ? 0.0f * of_split : of_split * exp2f(maximum - both));
      most = both;
      shares[s * rows + row] = maximum;
    }
    const float of_lane = most;
    most = reduce_warp(most, [](float a, float b) { return fmaxf(a, b); });
    sum = reduce_warp(of_lane == -INFINITY ? 0.0f * sum : sum * exp2f(of_lane - most),
                      [](float a, float b) { return a + b; });
    for (int s = lane; s < splits; s += 32) {
      float& share = shares[s * rows + row];
      share = (share == -INFINITY ? 0.0f : exp2f(share - most)) / sum;
    }
  }
  __syncthreads();  // the shares are there
  constexpr int kAtOnce = 8;
  for (int at = threadIdx.x * 4; at < rows * kDim; at += kThreads * 4) {
    const int row = at / kDim;
    float4 value = {};
    for (int first = 0; first < splits; first += kAtOnce) {
      float4 v[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        v[i] = load_l2_16(all_parts + (first + i) * kPartFloats + at, first + i < splits);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float share = first + i < splits ? shares[(first + i) * rows + row] : 0.0f;
        value.x += v[i].x * share, value.y += v[i].y * share;
        value.z += v[i].z * share, value.w += v[i].w * share;
      }
    }
    store(row, at % kDim, value.x), store(row, at % kDim + 1, value.y);
    store(row, at % kDim + 2, value.z), store(row, at % kDim + 3, value.w);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_f16_64(const __grid_constant__ AttentionParameters p) {
  decode<__half, __half, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_f16_128(const __grid_constant__ AttentionParameters p) {
  decode<__half, __half, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_int8_64(const __grid_constant__ AttentionParameters p) {
  decode<__half, int8_t, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_int8_128(const __grid_constant__ AttentionParameters p) {
  decode<__half, int8_t, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_bf16_64(const __grid_constant__ AttentionParameters p) {
  decode<__nv_bfloat16, __nv_bfloat16, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_bf16_128(const __grid_constant__ AttentionParameters p) {
  decode<__nv_bfloat16, __nv_bfloat16, 128>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_bf16_int8_64(const __grid_constant__ AttentionParameters p) {
  decode<__nv_bfloat16, int8_t, 64>(p);
}
extern "C" __global__ void __launch_bounds__(kThreads, 2)
    attention_decode_bf16_int8_128(const __grid_constant__ AttentionParameters p) {
  decode<__nv_bfloat16, int8_t, 128>(p);
}

}  // namespace altiplano::cuda
