// The canonical weight formats: public, documented in docs/weight-formats.md, and the same on every
// device. A backend packs them into layouts of its own, which never leave memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace altiplano {

enum class WeightType : uint8_t { kF32, kF16, kBF16, kInt8, kInt4 };

// The format of a matrix. `group` columns share a scale (32, 64 or 128; 0 for the float types); the
// last group of a row may be short.
struct WeightFormat {
  WeightType type = WeightType::kF32;
  int group = 0;
  bool zero_points = false;

  bool quantized() const { return type == WeightType::kInt8 || type == WeightType::kInt4; }
  int64_t groups(int64_t cols) const { return quantized() ? (cols + group - 1) / group : 0; }
  bool operator==(const WeightFormat&) const = default;
};

// Zero point of an int4 matrix without zero points: w = (q - 8) * scale, q in 0..15.
inline constexpr int kInt4DefaultZero = 8;

// Rows of a matrix in canonical form, row-major.
//   f32, f16, bf16: values [rows][cols]
//   int8: values int8 [rows][cols], scales f16 [rows][groups], zeros int8 [rows][groups] or null
//         w = (q - zero) * scale, zero 0 if null
//   int4: values two to a byte, even column in the low nibble, uint8 [rows][(cols + 1) / 2],
//         scales f16 [rows][groups], zeros uint8 0..15 [rows][groups] or null
//         w = (q - zero) * scale, zero 8 if null
// Scales are finite. Every w is exact in f32: at most 5 + 11 or 9 + 11 significant bits.
struct CanonicalRows {
  WeightFormat format;
  int64_t rows = 0;
  int64_t cols = 0;
  const void* values = nullptr;
  const uint16_t* scales = nullptr;
  const uint8_t* zeros = nullptr;  // int8 zero points are stored as their two's complement byte
};

// Memory for such rows.
struct CanonicalArrays {
  void* values = nullptr;
  uint16_t* scales = nullptr;
  uint8_t* zeros = nullptr;
};

inline int64_t canonical_row_bytes(WeightFormat format, int64_t cols) {
  switch (format.type) {
    case WeightType::kF32:
      return cols * 4;
    case WeightType::kF16:
    case WeightType::kBF16:
      return cols * 2;
    case WeightType::kInt8:
      return cols;
    case WeightType::kInt4:
      return (cols + 1) / 2;
  }
  return 0;
}

}  // namespace altiplano
