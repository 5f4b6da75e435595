// What host and device agree on about matrix multiplication: the packed layout of weights, the tile
// shapes of the kernels, and the argument that they take. See docs/cuda-kernels.md.
#pragma once

#include <cstdint>

#include "util/kv_type.h"

namespace altiplano::cuda {

// What becomes of the products y[T][rows] = x[T][cols] W^T. 16 bits are f16, or bf16 for kBF16.
enum class Epilogue : uint8_t {
  kStore16,   // y, rounded to 16 bits
  kStoreF32,  // y
  kAddF32,    // y += products: the residual stream
  kSiluMul,   // y[T][rows / 2] = silu(gate) * up, rounded to 16 bits; for RowOrder::kGateUp
  kHeads,     // y = rotated q, rounded to 16 bits; rotated k, and v, to the KV cache
};

// --- the packed layout --------------------------------------------------------------------------
// Weights lie in panels of 64 rows; a panel in slices of columns, as many as 128 bytes of
// activations; a slice in 4 strips of 16 rows; a strip in blocks of 512 bytes, 16 for each lane of
// a warp, in the order in which the lane's `mma` fragments take them. So every copy and every load
// of weights is 16 bytes wide and consecutive.

inline constexpr int kPanelRows = 64;
inline constexpr int kSliceBytes = 128;  // of activations: 64 in 16 bits, 128 in int8
// Rows and columns are padded to multiples of these, so that kernels need no bounds for weights:
// the rows of the largest tile, the columns of the longest stage.
inline constexpr int kPaddedRows = 256;
inline constexpr int kPaddedCols = 128;

// How weights are kept and multiplied; one kernel file each.
enum class MatmulKind : uint8_t {
  kF16,   // f16, from any float type
  kInt8,  // int8 groups, f16 activations
  kInt4,  // int4 groups, f16 activations
  kW8A8,  // int8 with an f32 scale per row, int8 activations with an f32 scale per token
  kBF16,  // bf16, from any float type, bf16 activations
};
inline constexpr int kMatmulKinds = 5;

// Bytes of a slice of a panel.
constexpr int panel_slice_bytes(MatmulKind kind) {
  switch (kind) {
    case MatmulKind::kF16:
    case MatmulKind::kBF16:
    case MatmulKind::kW8A8:
      return 8192;
    case MatmulKind::kInt8:
      return 4096;
    case MatmulKind::kInt4:
      return 2048;
  }
  return 0;
}

constexpr int slice_cols(MatmulKind kind) { return kind == MatmulKind::kW8A8 ? 128 : 64; }
constexpr bool is_float(MatmulKind kind) {
  return kind == MatmulKind::kF16 || kind == MatmulKind::kBF16;
}
constexpr bool has_groups(MatmulKind kind) {
  return kind == MatmulKind::kInt8 || kind == MatmulKind::kInt4;
}

// Groups of the smallest size (32) in a slice.
inline constexpr int kMostSliceGroups = 2;

// --- tiles --------------------------------------------------------------------------------------

// A block computes `rows` x `tokens` outputs with row_warps x token_warps warps; a stage of its
// ring holds `slices` of the columns.
struct Tile {
  int rows;
  int tokens;
  int row_warps;
  int token_warps;
  int slices;
  int stages;
  int blocks;  // that a multiprocessor of sm_80 holds at once

  constexpr int threads() const { return row_warps * token_warps * 32; }
  constexpr int weight_bytes(MatmulKind kind) const {  // of a stage
    return rows / kPanelRows * slices * panel_slice_bytes(kind);
  }
  constexpr int activation_bytes() const { return tokens * slices * kSliceBytes; }
  constexpr int scale_bytes(MatmulKind kind) const {
    return has_groups(kind) ? rows * slices * kMostSliceGroups * 2 : 0;
  }
  constexpr int zero_bytes(MatmulKind kind) const { return scale_bytes(kind) / 2; }
  constexpr int stage_bytes(MatmulKind kind) const {
    return weight_bytes(kind) + activation_bytes() + scale_bytes(kind) + zero_bytes(kind);
  }
  constexpr int shared_bytes(MatmulKind kind) const { return stages * stage_bytes(kind); }
};

// Up to 64 tokens, four warps of 32 rows each: no weight is unpacked twice, and two blocks (int4
// for up to 8 tokens: three) on a multiprocessor keep loading while one waits. For more, 128 x 128
// reads weights half as often as 128 x 64. Largest, warps of 64 x 64: the fewest bytes of shared
// memory for a multiply-add that the registers allow.
inline constexpr int kTiles = 6;
constexpr Tile tile_of(MatmulKind kind, int index) {
  const bool int4 = kind == MatmulKind::kInt4;
  switch (index) {
    case 0:
      return {128, 8, 4, 1, int4 ? 2 : 1, 4, int4 ? 3 : 2};
    case 1:
      return {128, 16, 4, 1, int4 ? 2 : 1, 4, 2};
    case 2:
      return {128, 32, 4, 1, int4 ? 2 : 1, 4, 2};
    case 3:
      return {128, 64, 4, 1, 1, has_groups(kind) ? 4 : 3, 2};
    case 4:
      return {128, 128, 4, 2, 1, 3, 1};
    default:
      return {256, 128, 4, 2, 1, has_groups(kind) ? 4 : 3, 1};
  }
}

// Tiles are counted by bands of so many token tiles, within a band row tile by row tile: blocks
// that run together then share both their weights and their activations in L2.
inline constexpr int kBandTiles = 16;

// --- the argument -------------------------------------------------------------------------------

// Where q, k and v go (Epilogue::kHeads). Heads are counted through a whole stack: those of q, then
// of k, then of v. A matrix has some of them.
struct HeadsParameters {
  const int32_t* positions;  // [T]
  const int32_t* slots;      // [T]; below 0: k and v of the token are stored nowhere
  const float* rotations;    // [positions][head_dim / 2] (cos, sin)
  uint8_t* pages;            // of the layer: [pages][kv_heads][head_bytes], see kv_page.h
  int64_t head_bytes;
  int32_t first_head;  // of the matrix
  int32_t heads;
  int32_t kv_heads;
  int32_t head_dim_log2;  // 6 or 7: a head never lies in two tiles
  KvType kv_type;
};

// Each block computes `whole_tiles` tiles alone. The units (stages) of those left over form a line,
// of which blocks take equal stretches; where one ends within a tile, partial sums meet in
// `partials`. See matmul_schedule.cuh.
struct MatmulParameters {
  const uint8_t* values;  // packed weights
  // has_groups: f16 [panels][groups][64]; W8A8: f32 [rows]
  const void* scales;
  // [panels][groups][64] bytes; null without zero points. int8: the zero point + 128.
  const uint8_t* zeros;
  const uint8_t* x;       // [tokens][x_stride_bytes]: f16 or int8
  const float* x_scales;  // [tokens] for W8A8
  void* y;                // [tokens][y_stride]
  float* partials;        // [2 * blocks][tile tokens][tile rows]
  uint32_t* counters;     // [blocks], zero between launches

  int64_t x_stride_bytes;
  int64_t y_stride;    // elements
  int32_t tokens;      // T
  int32_t rows;        // as they are packed, without the padding; see RowOrder
  int32_t cols_bytes;  // of a row of x, without padding
  int32_t slices;      // of a panel
  int32_t groups;      // of a row, padding included
  int32_t group_shift;
  int32_t row_tiles;
  int32_t token_tiles;
  int32_t tile_units;   // stages of a tile
  int32_t whole_tiles;  // of each block
  int32_t block_units;  // units of a block in the line; the first `longer_blocks` have one more
  int32_t longer_blocks;
  HeadsParameters heads;
  Epilogue epilogue;
  uint8_t store_singly;  // y or its stride is not aligned (kStore16 and kStoreF32)
  uint8_t read_once;     // a single token tile: weights need not stay in L2
};

}  // namespace altiplano::cuda
