// The packed layout of matrices: tiles of 8 rows (portable, AVX2) or 16 rows (AVX-512), one vector
// lane to a row. An output element is then one lane's chain of operations over k: there are no
// horizontal sums, and its bits do not depend on the tokens or rows computed beside it.
//
//   f32, f16, bf16     column 0: r0 r1 .. r7 | column 1: r0 r1 .. r7 | ...
//
//   int8, int4         group 0 | group 1 | ... | last group (may be short)
//     a group:         f16 scales (r0 .. r7)                             2 bytes a row
//                      zero points (r0 .. r7), with zero points only     1 byte a row
//                      steps: a 32-bit word for each row
//                        int8: 4 columns to a word   | r0: k k+1 k+2 k+3 | r1: ... | .. r7 |
//                        int4: 8 columns to a word   | r0: k|k+4 k+1|k+5 k+2|k+6 k+3|k+7 | ...
//                              (low nibble | high nibble of a byte)
//
// So the words of a step, their high or their low nibbles, are four neighbouring columns of every
// row: what an instruction that multiplies four bytes of a lane at once takes (vpdpbusd). The last
// word of a short group is padded with q = zero point; missing rows of the last tile have scale 0.
// A tile is padded to 64 bytes, with zero bytes.
//
// The chain with f32 activations: per group s = sum of (q - zero) * x in order of k, then
// total += scale * s in order of groups. Float matrices are summed in blocks of kFloatBlock columns
// the same way, with scale 1: blocks shorten the chain (a smaller rounding error), and give
// processors independent chains to overlap. The chain with int8 activations: see
// Kernels::matmul_int8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/scalar.h"
#include "util/weight_format.h"

namespace altiplano::cpu {
namespace {

constexpr int kTileRows = 8;
constexpr int kWideTileRows = 16;
constexpr int kFloatBlock = 128;

// Where things are in the tiles of a matrix.
struct TileLayout {
  int block;           // columns of a group, or kFloatBlock
  int64_t blocks;      // in a row; the last may be short
  size_t block_bytes;  // of a full block
  size_t zeros_at;     // within a block, behind the scales
  size_t data_at;      // within a block
  int word_columns;    // columns of a 32-bit word (quantized formats)
  size_t tile_bytes;
};

inline TileLayout tile_layout(WeightFormat format, int64_t cols, int tile_rows) {
  TileLayout layout{};
  if (format.type == WeightType::kInt8 || format.type == WeightType::kInt4) {
    layout.word_columns = format.type == WeightType::kInt8 ? 4 : 8;
    layout.block = format.group;
    layout.zeros_at = tile_rows * sizeof(uint16_t);
    layout.data_at = layout.zeros_at + (format.zero_points ? tile_rows : 0);
    layout.block_bytes =
        layout.data_at + layout.block / layout.word_columns * tile_rows * sizeof(uint32_t);
  } else {
    layout.block = kFloatBlock;
    const size_t element_bytes = format.type == WeightType::kF32 ? 4 : 2;
    layout.block_bytes = kFloatBlock * tile_rows * element_bytes;
  }
  layout.blocks = (cols + layout.block - 1) / layout.block;
  // Short last blocks take the place of full ones: a few bytes a tile for one simple stride.
  layout.tile_bytes = (layout.blocks * layout.block_bytes + 63) / 64 * 64;
  return layout;
}

inline int block_columns(const TileLayout& layout, int64_t cols, int64_t block) {
  const int64_t left = cols - block * layout.block;
  return static_cast<int>(left < layout.block ? left : layout.block);
}

}  // namespace
}  // namespace altiplano::cpu
