// Matrix multiplication on tensor cores, y[T][rows] = x[T][cols] W^T: one pipeline for all weight
// formats and tile sizes. Weights are the A operand of `mma` (16 of their rows), tokens the B
// operand, 8 at a time: few tokens waste little. docs/cuda-kernels.md has the pictures.
//
// A block runs through its stretch of units (matmul_schedule.cuh) with a ring of stages in shared
// memory, filled by asynchronous copies of 16 bytes without a pause between tiles. A stage is
//   weights      [panels of 64 rows][slices][strips][...]: as they lie in global memory
//   activations  [slices][tokens][128 bytes], 16-byte pieces of a row exchanged by `piece ^ (row %
//                8)`, so that the eight rows of an ldmatrix come from eight different banks
//   scales       f16 [panels][groups of the stage][64], then zero points in bytes
#pragma once

#include "cuda/matmul_heads.cuh"
#include "cuda/matmul_parameters.h"
#include "cuda/matmul_schedule.cuh"
#include "cuda/matmul_sums.cuh"
#include "cuda/matmul_weights.cuh"
#include "cuda/ptx.cuh"

namespace altiplano::cuda {

template <MatmulKind kKind, int kIndex>
struct MatmulShape {
  static constexpr Tile kTile = tile_of(kKind, kIndex);
  static constexpr int kThreads = kTile.threads();
  static constexpr int kPanels = kTile.rows / kPanelRows;
  static constexpr int kSlices = kTile.slices;
  static constexpr int kStrips = kTile.rows / kTile.row_warps / 16;     // of a warp
  static constexpr int kEights = kTile.tokens / kTile.token_warps / 8;  // of a warp
  static constexpr int kActivationsAt = kTile.weight_bytes(kKind);
  static constexpr int kScalesAt = kActivationsAt + kTile.activation_bytes();
  static constexpr int kZerosAt = kScalesAt + kTile.scale_bytes(kKind);
  static constexpr int kStageBytes = kTile.stage_bytes(kKind);
  static constexpr int kRingBytes = kTile.shared_bytes(kKind);
  static constexpr int kSliceWeights = panel_slice_bytes(kKind);
  static constexpr bool kHasGroups = has_groups(kKind);
  static constexpr int kCols = kSlices * slice_cols(kKind);  // of a stage
  static constexpr int kMostGroups = kSlices * kMostSliceGroups;
};

// Groups of a row in a stage that has kMostGroups of 32 columns: 1, 2 or 4, as a power of two.
template <int kMostGroups>
__device__ inline int stage_groups_log2(const MatmulParameters& p) {
  constexpr int kMostLog2 = kMostGroups == 4 ? 2 : kMostGroups == 2 ? 1 : 0;
  static_assert(1 << kMostLog2 == kMostGroups);
  return max(0, kMostLog2 + 5 - p.group_shift);
}

// Starts the copies of one stage after the other, some units ahead of the computation.
template <MatmulKind kKind, int kIndex>
class StageLoader {
  using Shape = MatmulShape<kKind, kIndex>;

 public:
  __device__ explicit StageLoader(const MatmulParameters& p)
      : p_(p), place_(p), policy_(p.read_once ? policy_evict_first() : policy_evict_normal()) {
    find_tile();
  }

  // Copies the next unit into the stage at shared memory address `stage`.
  __device__ void load(uint32_t stage) {
    load_weights(stage);
    load_activations(stage + Shape::kActivationsAt);
    if constexpr (Shape::kHasGroups) load_groups(stage);
    if (place_.advance(p_)) find_tile();
  }

 private:
  static constexpr int kSliceWeights = Shape::kSliceWeights;
  static constexpr int kPanelStage = kSliceWeights * Shape::kSlices;  // bytes of a panel in a stage

  __device__ void find_tile() {
    const int thread = static_cast<int>(threadIdx.x);
    weights_ = p_.values + static_cast<int64_t>(place_.row_tile * Shape::kPanels) * panel_bytes() +
               thread * 16;
    token_ = place_.token_tile * Shape::kTile.tokens + thread / 8;
    x_ = p_.x + token_ * p_.x_stride_bytes + thread % 8 * 16;
  }
  __device__ int64_t panel_bytes() const { return static_cast<int64_t>(p_.slices) * kSliceWeights; }

  __device__ void load_weights(uint32_t stage) {
    constexpr int kPieces = Shape::kPanels * kPanelStage / 16;
    static_assert(kPieces % Shape::kThreads == 0 && kPanelStage % 16 == 0);
    const uint8_t* from = weights_ + static_cast<int64_t>(place_.step) * kPanelStage;
    const uint32_t to = stage + threadIdx.x * 16;
#pragma unroll
    for (int i = 0; i < kPieces / Shape::kThreads; ++i) {
      // Threads that copy at the same time are in the same panel, or know theirs from here.
      constexpr int kStep = Shape::kThreads * 16;
      if constexpr (kPanelStage % kStep == 0) {
        const int panel = i * kStep / kPanelStage;
        copy_async_16(to + i * kStep, from + panel * panel_bytes() + i * kStep % kPanelStage,
                      policy_);
      } else {
        static_assert(kStep % kPanelStage == 0);
        const int panel = static_cast<int>(threadIdx.x) * 16 / kPanelStage;
        copy_async_16(
            to + i * kStep,
            from + (i * (kStep / kPanelStage) + panel) * panel_bytes() - panel * kPanelStage,
            policy_);
      }
    }
  }

  __device__ void load_activations(uint32_t to) {
    constexpr int kRowStep = Shape::kThreads / 8;  // a thread's pieces are so many tokens apart
    constexpr int kTokens = Shape::kTile.tokens;
    const int row = static_cast<int>(threadIdx.x) / 8, piece = static_cast<int>(threadIdx.x) % 8;
#pragma unroll
    for (int slice = 0; slice < Shape::kSlices; ++slice) {
      const int column = (place_.step * Shape::kSlices + slice) * kSliceBytes;
      const int bytes = min(max(p_.cols_bytes - column - piece * 16, 0), 16);
#pragma unroll
      for (int i = 0; i < (kTokens + kRowStep - 1) / kRowStep; ++i) {
        if (kTokens % kRowStep != 0 && row + i * kRowStep >= kTokens) continue;
        const bool exists = token_ + i * kRowStep < p_.tokens;
        // kRowStep is a multiple of 8: the exchange of pieces is the same for all i.
        copy_async_16(
            to + (slice * kTokens + row + i * kRowStep) * kSliceBytes + (piece ^ (row % 8)) * 16,
            x_ + (exists ? i * kRowStep * p_.x_stride_bytes + column : 0),
            static_cast<uint32_t>(exists ? bytes : 0));
      }
    }
  }

  // Scales by the first threads, 8 pieces for the 64 scales of a group of a panel; zero points by
  // the ones behind, 4 pieces each.
  __device__ void load_groups(uint32_t stage) {
    static_assert(Shape::kPanels * Shape::kMostGroups * 12 <= Shape::kThreads);
    const int groups_log2 = stage_groups_log2<Shape::kMostGroups>(p_);
    const int first_group = place_.step * Shape::kCols >> p_.group_shift;
    const int first_panel = place_.row_tile * Shape::kPanels;
    const int thread = static_cast<int>(threadIdx.x);
    const int scale_threads = Shape::kPanels * 8 << groups_log2;
    if (thread < scale_threads) {
      const int panel = thread >> (3 + groups_log2), piece = thread - (panel << (3 + groups_log2));
      const int64_t group = static_cast<int64_t>(first_panel + panel) * p_.groups + first_group;
      copy_async_16(stage + Shape::kScalesAt + thread * 16,
                    static_cast<const uint8_t*>(p_.scales) + group * (kPanelRows * 2) + piece * 16,
                    policy_);
    } else if (p_.zeros != nullptr && (thread - scale_threads) * 2 < scale_threads) {
      const int index = thread - scale_threads;
      const int panel = index >> (2 + groups_log2), piece = index - (panel << (2 + groups_log2));
      const int64_t group = static_cast<int64_t>(first_panel + panel) * p_.groups + first_group;
      copy_async_16(stage + Shape::kZerosAt + index * 16,
                    p_.zeros + group * kPanelRows + piece * 16, policy_);
    }
  }

  const MatmulParameters& p_;
  Place place_;
  uint64_t policy_;
  const uint8_t* weights_;
  const uint8_t* x_;
  int token_;
};

template <MatmulKind kKind, class Number>
__device__ inline void multiply_add(Number (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  if constexpr (kKind == MatmulKind::kW8A8) {
    mma_s8(d, a, b0, b1);
  } else if constexpr (kKind == MatmulKind::kBF16) {
    mma_bf16(d, a, b0, b1);
  } else {
    mma_f16(d, a, b0, b1);
  }
}

// A warp's share of a stage. `after_first_step()` is called when the tensor cores have work.
template <MatmulKind kKind, int kIndex, class Number, class AfterFirstStep>
__device__ inline void multiply_stage(
    const MatmulParameters& p, uint32_t stage, int row_warp, int token_warp,
    Sums<Number, MatmulShape<kKind, kIndex>::kStrips, MatmulShape<kKind, kIndex>::kEights>& sums,
    const AfterFirstStep& after_first_step) {
  using Shape = MatmulShape<kKind, kIndex>;
  constexpr int kStrips = Shape::kStrips, kEights = Shape::kEights;
  constexpr int kStripBytes = Shape::kSliceWeights / 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int panel = row_warp * kStrips / 4, strip = row_warp * kStrips % 4;

  // ldmatrix: lanes 0-7 give rows of the first matrix, and so on. Matrices are two pieces of 8
  // columns for 8 tokens, then the same for the next 8 tokens; if there are only 8 tokens, the four
  // pieces of two steps.
  const int matrix = lane / 8;
  const int token = token_warp * kEights * 8 + lane % 8 + (kEights == 1 ? 0 : matrix / 2 * 8);
  const int piece = kEights == 1 ? matrix : matrix % 2;

#pragma unroll
  for (int slice = 0; slice < Shape::kSlices; ++slice) {
    const uint32_t activations =
        stage + Shape::kActivationsAt + (slice * Shape::kTile.tokens + token) * kSliceBytes;
    WarpSlice warp_slice;
    warp_slice.weights = stage + (panel * Shape::kSlices + slice) * Shape::kSliceWeights +
                         strip * kStripBytes + lane * 16;
    warp_slice.has_zeros = p.zeros != nullptr;
    if constexpr (Shape::kHasGroups) {
      const int groups_log2 = stage_groups_log2<Shape::kMostGroups>(p);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int group = (panel << groups_log2) + ((slice * 64 + half * 32) >> p.group_shift);
        const int row = group * kPanelRows + strip * 16 + lane / 4 * 4;
        warp_slice.scales[half] = stage + Shape::kScalesAt + row * 2;
        warp_slice.zeros[half] = stage + Shape::kZerosAt + row;
      }
    }

    Weights<kKind, kStrips> weights;
    uint32_t b[kEights == 1 ? 2 : kEights][2];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if (step % 2 == 0) weights.begin_half(warp_slice, step / 2);
      if constexpr (kEights == 1) {
        if (step % 2 == 0) {
          load_matrices(activations + ((step * 2 + piece) ^ (token % 8)) * 16, b[0][0], b[0][1],
                        b[1][0], b[1][1]);
        }
      } else {
#pragma unroll
        for (int eight = 0; eight < kEights; eight += 2) {
          load_matrices(
              activations + eight * 8 * kSliceBytes + ((step * 2 + piece) ^ (token % 8)) * 16,
              b[eight][0], b[eight][1], b[eight + 1][0], b[eight + 1][1]);
        }
      }
#pragma unroll
      for (int s = 0; s < kStrips; ++s) {
        uint32_t a[4];
        weights.fragment(warp_slice, step, s, a);
#pragma unroll
        for (int eight = 0; eight < kEights; ++eight) {
          const uint32_t(&fragment)[2] = b[kEights == 1 ? step % 2 : eight];
          multiply_add<kKind>(sums.at[s][eight], a, fragment[0], fragment[1]);
        }
      }
      if (slice == 0 && step == 0) after_first_step();
    }
  }
}

template <MatmulKind kKind, int kIndex>
__device__ inline void matmul(const MatmulParameters& p) {
  using Shape = MatmulShape<kKind, kIndex>;
  using Number = std::conditional_t<kKind == MatmulKind::kW8A8, int32_t, float>;
  constexpr int kRows = Shape::kTile.rows, kTokens = Shape::kTile.tokens;
  constexpr int kStages = Shape::kTile.stages;
  extern __shared__ __align__(128) uint8_t ring[];

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row_warp = warp % Shape::kTile.row_warps, token_warp = warp / Shape::kTile.row_warps;
  const LanePlace lane_place = {row_warp * Shape::kStrips * 16 + lane / 4 * 4,
                                token_warp * Shape::kEights * 8 + lane % 4 * 2};
  const int end = units_of(p, static_cast<int>(blockIdx.x));

  // kStages - 1 groups of copies are always under way, empty ones at the end.
  const uint32_t stages = shared_address(ring);
  StageLoader<kKind, kIndex> loader(p);
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < end) loader.load(stages + i * Shape::kStageBytes);
    commit_copies();
  }

  Place place(p);
  uint32_t stage = 0, free_stage = (kStages - 1) * Shape::kStageBytes;
  int unit = 0;
  while (unit < end) {
    // A tile, or what of it lies in this block's stretch of the line.
    const int steps = min(p.tile_units - place.step, end - unit);
    Sums<Number, Shape::kStrips, Shape::kEights> sums;
    sums.clear();
    for (const int tile_end = unit + steps; unit < tile_end; ++unit) {
      wait_copies<kStages - 2>();
      // All copies of this stage have arrived, and nobody reads the stage before it any more.
      __syncthreads();
      multiply_stage<kKind, kIndex>(p, stages + stage, row_warp, token_warp, sums, [&] {
        if (unit + kStages - 1 < end) loader.load(stages + free_stage);
        commit_copies();
      });
      free_stage = stage;
      stage = stage + Shape::kStageBytes == Shape::kRingBytes ? 0 : stage + Shape::kStageBytes;
    }
    const LanePlace outputs = {hide(lane_place.row), hide(lane_place.token)};
    if (steps == p.tile_units || meet<kRows, kTokens>(p, place, outputs, sums)) {
      if (p.epilogue == Epilogue::kHeads) {
        store_heads<kKind, kRows, kTokens, Shape::kStageBytes>(p, place, outputs, sums,
                                                               stages + free_stage);
      } else {
        store_outputs<kKind, kRows, kTokens>(p, place, outputs, sums);
      }
    }
    place.next_tile(p);
  }
  wait_copies<0>();
}

}  // namespace altiplano::cuda
