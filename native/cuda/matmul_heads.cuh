// The end of an output tile of q, k and v: q and k are rotated by the positions of their tokens, q
// becomes an output, k and v go to the paged cache. Nothing of them is rounded before that.
//
// The sums of a tile pass through shared memory, some tokens at a time, in the stage of the ring
// that nothing is copied to. A warp then has 128 rows of a token, whole heads: each lane two of the
// pairs that are rotated together, the largest magnitude is a matter of shuffles, and all stores
// are of whole sectors. In the accumulators a head is spread over two to four warps, and what a
// lane could store of it at once is 4 bytes of int8.
#pragma once

#include "cuda/kv_element.cuh"
#include "cuda/matmul_parameters.h"
#include "cuda/matmul_schedule.cuh"
#include "cuda/matmul_sums.cuh"
#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"

namespace altiplano::cuda {

// Rows of a token that a warp has: one head of 128, or two of 64.
inline constexpr int kHeadRows = 128;

// The products of a tile's tokens in shared memory, as many as fit at a time: f32
// [tokens][kRows + 4]. The padding spreads the four tokens of a store (2 t) over all banks.
template <int kRows, int kTokens, int kEights, int kBytes>
struct HeadChunks {
  static constexpr int kTokenBytes = (kRows + 4) * 4;
  static constexpr int kTokenWarps = kTokens / (kEights * 8);
  static constexpr int eights() {
    int most = kEights;
    while (kTokenWarps * most * 8 * kTokenBytes > kBytes) most /= 2;
    return most;
  }
  static constexpr int kChunkEights = eights();  // of a warp
  static constexpr int kCount = kEights / kChunkEights;
  static constexpr int kChunkTokens = kTokenWarps * kChunkEights * 8;
  static_assert(kEights % kChunkEights == 0 && kChunkEights > 0);

  // The token of the tile that stands at `index` of a chunk.
  static __device__ int token(int chunk, int index) {
    constexpr int kOfWarp = kChunkEights * 8;
    return index / kOfWarp * (kEights * 8) + chunk * kOfWarp + index % kOfWarp;
  }
};

// Two pairs of a head: rows i, i + 1, and those d / 2 further.
struct TwoPairs {
  float2 low, high;

  // r: cos, sin of the first, of the second
  __device__ TwoPairs rotated(float4 r) const {
    return {make_float2(low.x * r.x - high.x * r.y, low.y * r.z - high.y * r.w),
            make_float2(high.x * r.x + low.x * r.y, high.y * r.z + low.y * r.w)};
  }
  __device__ uint32_t largest() const {
    return max(max(magnitude_bits(low.x), magnitude_bits(low.y)),
               max(magnitude_bits(high.x), magnitude_bits(high.y)));
  }
};

// What a lane does with its rows of a token: the same for every token of a tile. Query is the type
// of activations.
template <class Query>
class HeadLane {
 public:
  // `row`: of the matrix, the first of the warp. `lane`: 0 to 31.
  __device__ HeadLane(const MatmulParameters& p, int row, int lane)
      : p_(p), head_dim_(hide(1 << p.heads.head_dim_log2)) {
    const HeadsParameters& h = p.heads;
    const int head = lane * 4 >> h.head_dim_log2;  // of the warp
    i_ = lane * 2 - (head << h.head_dim_log2) / 2;
    row_ = (head << h.head_dim_log2) + i_;
    exists_ = row + row_ < p.rows;
    head_ = h.first_head + (row >> h.head_dim_log2) + head;
    is_query_ = head_ < h.heads;
    is_value_ = head_ >= h.heads + h.kv_heads;
    if (!is_query_) head_ -= h.heads + (is_value_ ? h.kv_heads : 0);
  }

  // What a token needs beside its sums.
  struct Inputs {
    TwoPairs sums;
    float4 rotation;
    int slot;  // below 0: stored nowhere
  };
  // `row` is the address of the warp's first row of the token in shared memory. A token that does
  // not exist has sums, too.
  __device__ Inputs load(uint32_t row, int token) const {
    const bool wanted = exists_ && token < p_.tokens;
    Inputs inputs = {{}, make_float4(1.f, 0.f, 1.f, 0.f), -1};
    if (wanted && !is_query_) inputs.slot = __ldg(p_.heads.slots + token);
    if (wanted && !is_value_) {
      const int64_t at = static_cast<int64_t>(__ldg(p_.heads.positions + token)) * head_dim_;
      inputs.rotation = __ldg(reinterpret_cast<const float4*>(p_.heads.rotations + at) + i_ / 2);
    }
    inputs.sums = {load_shared_f32_pair(row + row_ * 4),
                   load_shared_f32_pair(row + (row_ + head_dim_ / 2) * 4)};
    return inputs;
  }

  // All lanes of a warp call it, with the same token.
  __device__ void store(int token, const Inputs& inputs) const {
    const TwoPairs v = inputs.sums.rotated(inputs.rotation);
    if (p_.heads.kv_type == KvType::kInt8) {
      uint32_t largest = v.largest();
      for (int distance = head_dim_ / 8; distance > 0; distance /= 2) {
        largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
      }
      if (inputs.slot >= 0) store_int8(inputs.slot, v, largest);
    } else if (inputs.slot >= 0) {
      if (p_.heads.kv_type == KvType::kF16) {
        store_16_bits(in_cache<__half>(inputs.slot), v);
      } else if (p_.heads.kv_type == KvType::kBF16) {
        store_16_bits(in_cache<__nv_bfloat16>(inputs.slot), v);
      } else {
        float* const to = in_cache<float>(inputs.slot);
        store_8(to, v.low);
        store_8(to + head_dim_ / 2, v.high);
      }
    }
    if (is_query_ && exists_ && token < p_.tokens) {
      store_16_bits(static_cast<Query*>(p_.y) + token * p_.y_stride + head_ * head_dim_ + i_, v);
    }
  }

 private:
  __device__ uint8_t* page_head(int slot) const {
    const int64_t index = static_cast<int64_t>(slot / kKvPageTokens) * p_.heads.kv_heads + head_;
    return p_.heads.pages + index * p_.heads.head_bytes;
  }
  // Where row i of the token at a slot goes.
  template <class Element>
  __device__ Element* in_cache(int slot) const {
    const KvHead<Element> head(page_head(slot), head_dim_);
    return (is_value_ ? head.v : head.k) + slot % kKvPageTokens * head_dim_ + i_;
  }

  template <class Element>
  __device__ void store_16_bits(Element* to, const TwoPairs& v) const {
    *reinterpret_cast<uint32_t*>(to) = pack_pair<Element>(v.low.x, v.low.y);
    *reinterpret_cast<uint32_t*>(to + head_dim_ / 2) = pack_pair<Element>(v.high.x, v.high.y);
  }

  // docs/weight-formats.md. The numbers of a tiny head are raised first, which is exact, so that
  // the inverse of the scale is finite. Codes of what is not finite mean nothing: the scale is NaN.
  __device__ void store_int8(int slot, const TwoPairs& v, uint32_t largest_bits) const {
    const float largest = __uint_as_float(largest_bits);
    const float raise = largest < 0x1p-60f ? 0x1p64f : 1.f;
    const float inverse = largest > 0.f ? 127.f / (largest * raise) : 0.f;
    const auto two = [&](float2 numbers) {
      return make_char2(static_cast<signed char>(__float2int_rn(numbers.x * raise * inverse)),
                        static_cast<signed char>(__float2int_rn(numbers.y * raise * inverse)));
    };
    int8_t* const to = in_cache<int8_t>(slot);
    *reinterpret_cast<char2*>(to) = two(v.low);
    *reinterpret_cast<char2*>(to + head_dim_ / 2) = two(v.high);
    if (i_ == 0) {
      const KvHead<int8_t> head(page_head(slot), head_dim_);
      (is_value_ ? head.v_scales : head.k_scales)[slot % kKvPageTokens] = kv_scale(largest_bits);
    }
  }

  const MatmulParameters& p_;
  const int head_dim_;
  int row_;   // of the warp's, the lane's first
  int i_;     // of the head, the same
  int head_;  // of the queries, of the keys or of the values
  bool is_query_, is_value_;
  bool exists_;
};

// `scratch`: kBytes of shared memory that nobody copies to. All threads of the block call it; they
// may still read it when they come back, until the next barrier.
template <MatmulKind kKind, int kRows, int kTokens, int kBytes, class Number, int kStrips,
          int kEights>
__device__ inline void store_heads(const MatmulParameters& p, const Place& place,
                                   const LanePlace& lane,
                                   const Sums<Number, kStrips, kEights>& sums, uint32_t scratch) {
  using Chunks = HeadChunks<kRows, kTokens, kEights, kBytes>;
  constexpr int kWarpsOfToken = kRows / kHeadRows;
  constexpr int kTokensAtOnce = kRows / (kStrips * 16) * Chunks::kTokenWarps / kWarpsOfToken;
  constexpr int kTurns = Chunks::kChunkTokens / kTokensAtOnce;  // of a warp in a chunk
  constexpr int kLoads = kTurns < 2 ? kTurns : 2;               // that are under way together
  static_assert(kTurns % kLoads == 0);

  const int thread = hide(static_cast<int>(threadIdx.x)), warp = thread / 32;
  const int warp_row = warp % kWarpsOfToken * kHeadRows;
  using Lane = HeadLane<Output16<kKind>>;
  const Lane head_lane(p, place.row_tile * kRows + warp_row, thread % 32);
  const int tile_token = place.token_tile * kTokens;
  const int row = place.row_tile * kRows + lane.row;

#pragma unroll 1
  for (int chunk = 0; chunk < Chunks::kCount; ++chunk) {
    if (tile_token + Chunks::token(chunk, 0) >= p.tokens) break;
    __syncthreads();  // what stood there has been read
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      if (eight / Chunks::kChunkEights != chunk) continue;
      const int index = lane.token / (kEights * 8) * (Chunks::kChunkEights * 8) +
                        lane.token % (kEights * 8) + eight % Chunks::kChunkEights * 8;
#pragma unroll
      for (int pair = 0; pair < kStrips / 2; ++pair) {
        const float4 scales = row_scales<kKind>(p, row + pair * 32);
#pragma unroll
        for (int parity = 0; parity < 2; ++parity) {
          const int token = tile_token + lane.token + eight * 8 + parity;
          FourRows<float> v = {};
          if (token < p.tokens) {
            v = products<kKind>(p, four_rows(sums, pair, eight, parity), scales, token);
          }
          const float4 bits = bits_of(v);
          store_shared_16(
              scratch + (index + parity) * Chunks::kTokenBytes + (lane.row + pair * 32) * 4,
              make_uint4(__float_as_uint(bits.x), __float_as_uint(bits.y), __float_as_uint(bits.z),
                         __float_as_uint(bits.w)));
        }
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int turn = 0; turn < kTurns; turn += kLoads) {
      typename Lane::Inputs inputs[kLoads];
      int tokens[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int index = (turn + i) * kTokensAtOnce + warp / kWarpsOfToken;
        tokens[i] = tile_token + Chunks::token(chunk, index);
        inputs[i] = head_lane.load(scratch + index * Chunks::kTokenBytes + warp_row * 4, tokens[i]);
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) head_lane.store(tokens[i], inputs[i]);
    }
  }
}

}  // namespace altiplano::cuda
