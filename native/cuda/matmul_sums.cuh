// The end of an output tile: sums of several blocks meet, and become outputs.
//
// A lane 4 g + t holds of every 32 rows the four rows 4 g .. 4 g + 3 (see matmul_weights.cuh) for
// tokens 2 t and 2 t + 1 of each 8: everything is stored four neighbouring rows at a time, and the
// eight lanes of a t make whole sectors.
#pragma once

#include <algorithm>
#include <type_traits>

#include "cuda/activation_element.cuh"
#include "cuda/matmul_parameters.h"
#include "cuda/matmul_schedule.cuh"
#include "cuda/ptx.cuh"

namespace altiplano::cuda {

// The accumulators of a warp, [strip][8 tokens][as mma has them]. Number is float or int32_t.
template <class Number, int kStrips, int kEights>
struct Sums {
  Number at[kStrips][kEights][4];

  __device__ void clear() {
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
        for (int i = 0; i < 4; ++i) at[strip][eight][i] = 0;
      }
    }
  }
};

// Four neighbouring rows of one token.
template <class Number>
struct FourRows {
  Number at[4];
};

__device__ inline void add_bits(FourRows<float>& sum, float4 v) {
  sum.at[0] += v.x, sum.at[1] += v.y, sum.at[2] += v.z, sum.at[3] += v.w;
}
__device__ inline void add_bits(FourRows<int32_t>& sum, float4 v) {
  sum.at[0] += __float_as_int(v.x), sum.at[1] += __float_as_int(v.y);
  sum.at[2] += __float_as_int(v.z), sum.at[3] += __float_as_int(v.w);
}
__device__ inline float4 bits_of(const FourRows<float>& v) {
  return make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
}
__device__ inline float4 bits_of(const FourRows<int32_t>& v) {
  return make_float4(__int_as_float(v.at[0]), __int_as_float(v.at[1]), __int_as_float(v.at[2]),
                     __int_as_float(v.at[3]));
}

// `pair` counts 32 rows of the warp, `parity` the tokens 2 t and 2 t + 1.
template <class Number, int kStrips, int kEights>
__device__ inline FourRows<Number> four_rows(const Sums<Number, kStrips, kEights>& sums, int pair,
                                             int eight, int parity) {
  return {{sums.at[2 * pair][eight][parity], sums.at[2 * pair][eight][2 + parity],
           sums.at[2 * pair + 1][eight][parity], sums.at[2 * pair + 1][eight][2 + parity]}};
}
template <class Number, int kStrips, int kEights>
__device__ inline void set_four_rows(Sums<Number, kStrips, kEights>& sums, int pair, int eight,
                                     int parity, const FourRows<Number>& v) {
  sums.at[2 * pair][eight][parity] = v.at[0];
  sums.at[2 * pair][eight][2 + parity] = v.at[1];
  sums.at[2 * pair + 1][eight][parity] = v.at[2];
  sums.at[2 * pair + 1][eight][2 + parity] = v.at[3];
}

// Where the lane's outputs begin within the tile.
struct LanePlace {
  int row;    // 4 g of the warp's first row
  int token;  // 2 t of the warp's first token
};

// Leaves this block's sums in the workspace. True for the block that comes last: it then holds the
// sums of all. All threads of the block call it.
template <int kRows, int kTokens, class Number, int kStrips, int kEights>
__device__ bool meet(const MatmulParameters& p, const Place& place, const LanePlace& lane,
                     Sums<Number, kStrips, kEights>& sums) {
  const Sharing sharing(p, place.tile);
  const int block = static_cast<int>(blockIdx.x);
  const int tokens = p.tokens - place.token_tile * kTokens;
  const auto partial = [&](int of_block) {
    return p.partials + static_cast<int64_t>(sharing.slot(of_block)) * (kRows * kTokens) +
           lane.token * kRows + lane.row;
  };

  float* to = partial(block);
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
    for (int parity = 0; parity < 2; ++parity) {
      if (lane.token + eight * 8 + parity < tokens) {
#pragma unroll
        for (int pair = 0; pair < kStrips / 2; ++pair) {
          store_16(to + (eight * 8 + parity) * kRows + pair * 32,
                   bits_of(four_rows(sums, pair, eight, parity)));
        }
      }
    }
  }
  __shared__ uint32_t arrived;
  __syncthreads();  // before the count, which makes the sums of all threads visible
  if (threadIdx.x == 0) {
    arrived = count_up(p.counters + sharing.first);
    if (arrived == static_cast<uint32_t>(sharing.last - sharing.first)) {
      p.counters[sharing.first] = 0;  // for the next launch
    }
  }
  __syncthreads();
  if (arrived != static_cast<uint32_t>(sharing.last - sharing.first)) return false;

  // The sums of the others are read back; this block's take their place in the order from its
  // registers. Some tokens of some blocks at a time: reading L2 takes hundreds of cycles, so kLoads
  // of them are under way.
  constexpr int kLoads = 8;
  constexpr int kOfToken = kStrips / 2;
  constexpr int kChunk = std::min(kEights, kLoads / 2 / kOfToken);
  constexpr int kBlocks = kLoads / (kChunk * 2 * kOfToken);
#pragma unroll
  for (int begin = 0; begin < kEights; begin += kChunk) {
    FourRows<Number> totals[kChunk][2][kOfToken] = {};
    const auto add_blocks = [&](int first, int last) {
      for (; first <= last; first += kBlocks) {
        float4 parts[kBlocks][kChunk][2][kOfToken];
#pragma unroll
        for (int other = 0; other < kBlocks; ++other) {
          const float* from = partial(first + other);
#pragma unroll
          for (int i = 0; i < kChunk; ++i) {
#pragma unroll
            for (int parity = 0; parity < 2; ++parity) {
              const int token = (begin + i) * 8 + parity;
              const bool exists = first + other <= last && lane.token + token < tokens;
#pragma unroll
              for (int pair = 0; pair < kOfToken; ++pair) {
                parts[other][i][parity][pair] =
                    load_l2_16(from + token * kRows + pair * 32, exists);
              }
            }
          }
        }
#pragma unroll
        for (int other = 0; other < kBlocks; ++other) {
#pragma unroll
          for (int i = 0; i < kChunk; ++i) {
#pragma unroll
            for (int parity = 0; parity < 2; ++parity) {
#pragma unroll
              for (int pair = 0; pair < kOfToken; ++pair) {
                add_bits(totals[i][parity][pair], parts[other][i][parity][pair]);
              }
            }
          }
        }
      }
    };
    add_blocks(sharing.first, block - 1);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
#pragma unroll
      for (int parity = 0; parity < 2; ++parity) {
#pragma unroll
        for (int pair = 0; pair < kOfToken; ++pair) {
          add_bits(totals[i][parity][pair], bits_of(four_rows(sums, pair, begin + i, parity)));
        }
      }
    }
    add_blocks(block + 1, sharing.last);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
#pragma unroll
      for (int parity = 0; parity < 2; ++parity) {
#pragma unroll
        for (int pair = 0; pair < kOfToken; ++pair) {
          set_four_rows(sums, pair, begin + i, parity, totals[i][parity][pair]);
        }
      }
    }
  }
  return true;
}

__device__ inline float silu(float v) { return __fdividef(v, 1.f + __expf(-v)); }

// What outputs of 16 bits are: the type of activations.
template <MatmulKind kKind>
using Output16 = std::conditional_t<kKind == MatmulKind::kBF16, __nv_bfloat16, __half>;

// Stores four rows of a token, aligned.
template <class Element, Epilogue kEpilogue>
__device__ inline void store_four(void* to, const float (&v)[4]) {
  if constexpr (kEpilogue == Epilogue::kStore16) {
    *static_cast<uint2*>(to) =
        make_uint2(pack_pair<Element>(v[0], v[1]), pack_pair<Element>(v[2], v[3]));
  } else if constexpr (kEpilogue == Epilogue::kStoreF32) {
    *static_cast<float4*>(to) = make_float4(v[0], v[1], v[2], v[3]);
  } else if constexpr (kEpilogue == Epilogue::kAddF32) {
    const float4 old = *static_cast<const float4*>(to);
    *static_cast<float4*>(to) = make_float4(old.x + v[0], old.y + v[1], old.z + v[2], old.w + v[3]);
  } else {  // rows of gate, gate, up, up
    *static_cast<uint32_t*>(to) = pack_pair<Element>(silu(v[0]) * v[2], silu(v[1]) * v[3]);
  }
}

// Stores those of four rows of a token that exist, one by one.
template <class Element, Epilogue kEpilogue>
__device__ inline void store_singly(void* to, const float (&v)[4], int rows) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= rows) break;
    if constexpr (kEpilogue == Epilogue::kStore16) {
      static_cast<Element*>(to)[i] = from_float<Element>(v[i]);
    } else {
      static_cast<float*>(to)[i] = v[i];
    }
  }
}

// The scales of four rows; of W8A8 only.
template <MatmulKind kKind>
__device__ inline float4 row_scales(const MatmulParameters& p, int row) {
  if constexpr (kKind == MatmulKind::kW8A8) {
    return *reinterpret_cast<const float4*>(static_cast<const float*>(p.scales) + row);
  } else {
    return make_float4(1.f, 1.f, 1.f, 1.f);
  }
}

// The products that sums stand for. `token` exists.
template <MatmulKind kKind, class Number>
__device__ inline FourRows<float> products(const MatmulParameters& p, const FourRows<Number>& sum,
                                           const float4& scales, int token) {
  FourRows<float> v;
#pragma unroll
  for (int i = 0; i < 4; ++i) v.at[i] = static_cast<float>(sum.at[i]);
  if constexpr (kKind == MatmulKind::kW8A8) {
    const float token_scale = p.x_scales[token];
    v.at[0] *= scales.x * token_scale, v.at[1] *= scales.y * token_scale;
    v.at[2] *= scales.z * token_scale, v.at[3] *= scales.w * token_scale;
  }
  return v;
}

template <MatmulKind kKind, Epilogue kEpilogue, bool kSingly, class Number, int kStrips,
          int kEights>
__device__ inline void store_as(const MatmulParameters& p, int first_row, int first_token,
                                const Sums<Number, kStrips, kEights>& sums) {
  constexpr int kElementBytes =
      kEpilogue == Epilogue::kStore16 || kEpilogue == Epilogue::kSiluMul ? 2 : 4;
  constexpr int kRowsOfOutput = kEpilogue == Epilogue::kSiluMul ? 2 : 1;
  const int64_t stride = p.y_stride * kElementBytes;
#pragma unroll
  for (int pair = 0; pair < kStrips / 2; ++pair) {
    const int row = first_row + pair * 32;
    if (row < p.rows) {
      auto* to =
          static_cast<uint8_t*>(p.y) + first_token * stride + row / kRowsOfOutput * kElementBytes;
      const float4 scales = row_scales<kKind>(p, row);
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
        for (int parity = 0; parity < 2; ++parity) {
          const int token = first_token + eight * 8 + parity;
          if (token < p.tokens) {
            const FourRows<float> v =
                products<kKind>(p, four_rows(sums, pair, eight, parity), scales, token);
            if constexpr (kSingly) {
              store_singly<Output16<kKind>, kEpilogue>(to + (eight * 8 + parity) * stride, v.at,
                                                       p.rows - row);
            } else {
              store_four<Output16<kKind>, kEpilogue>(to + (eight * 8 + parity) * stride, v.at);
            }
          }
        }
      }
    }
  }
}

template <MatmulKind kKind, int kRows, int kTokens, class Number, int kStrips, int kEights>
__device__ inline void store_outputs(const MatmulParameters& p, const Place& place,
                                     const LanePlace& lane,
                                     const Sums<Number, kStrips, kEights>& sums) {
  const int row = place.row_tile * kRows + lane.row;
  const int token = place.token_tile * kTokens + lane.token;
  switch (p.epilogue) {
    case Epilogue::kStore16:
      if (p.store_singly) {
        store_as<kKind, Epilogue::kStore16, true>(p, row, token, sums);
      } else {
        store_as<kKind, Epilogue::kStore16, false>(p, row, token, sums);
      }
      break;
    case Epilogue::kStoreF32:
      if (p.store_singly) {
        store_as<kKind, Epilogue::kStoreF32, true>(p, row, token, sums);
      } else {
        store_as<kKind, Epilogue::kStoreF32, false>(p, row, token, sums);
      }
      break;
    case Epilogue::kAddF32:
      store_as<kKind, Epilogue::kAddF32, false>(p, row, token, sums);
      break;
    case Epilogue::kSiluMul:
      store_as<kKind, Epilogue::kSiluMul, false>(p, row, token, sums);
      break;
    case Epilogue::kHeads:  // matmul_heads.cuh
      break;
  }
}

}  // namespace altiplano::cuda
