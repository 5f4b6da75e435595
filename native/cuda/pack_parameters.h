// The argument of the kernels that pack weights (matmul_pack.cu), shared by host and device.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

// Canonical rows (docs/weight-formats.md), and where they go. Rows are taken in pairs: rows 2 i and
// 2 i + 1 always share their 16-byte pieces.
struct PackParameters {
  const uint8_t* values;  // of the first row of the stretch
  const uint16_t* scales;
  const uint8_t* zeros;
  uint8_t* packed_values;
  void* packed_scales;
  uint8_t* packed_zeros;

  int64_t pair_begin;  // of the matrix, or of gate or up
  int64_t rows;        // of the stretch; pairs beyond it become zeros
  int64_t cols;
  int64_t slices;
  int64_t groups;         // of a canonical row
  int64_t packed_groups;  // of a packed one
  int32_t group_shift;
  // Pair i of the source is pair `pair_step` * i + `pair_offset` of the packed matrix: for gate and
  // up 2 i and 2 i + 1, so that a lane holds rows of gate, gate, up, up.
  int32_t pair_step;
  int32_t pair_offset;
};

// The argument of quantize_rows (quantize.cu): x[rows][x_stride] in f16 to codes and a scale per
// row.
struct QuantizeParameters {
  const uint8_t* x;
  uint8_t* values;
  float* scales;
  int64_t x_stride_bytes;
  int64_t values_stride;
  int32_t cols;
};

}  // namespace altiplano::cuda
