// A weight matrix in canonical form (docs/weight-formats.md) in device memory, as kernels take it:
// by value. Included by kernels and by the host.
#pragma once

#include <cstdint>

namespace altiplano::cuda {

struct CanonicalView {
  const void* values;      // [rows][row bytes]
  const uint16_t* scales;  // f16 [rows][groups]; null for float types
  const uint8_t* zeros;    // [rows][groups]; null without zero points
  int64_t cols;
  int32_t group;
};

}  // namespace altiplano::cuda
