// From the element types of files to the canonical weight formats, on the host.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "util/file_type.h"
#include "util/weight_format.h"

namespace altiplano::cpu {

// `count` values (a multiple of the type's block) to f32, exact.
void to_float(const Kernels& k, FileType type, const uint8_t* raw, int64_t count, float* out);

// Converts rows of a file to a canonical format. What the format can hold exactly is mapped without
// loss (Q8_0 to int8 and Q4_0 to int8 or int4 with group 32, upward float conversions); anything
// else is rounded or quantized. One object per thread: it owns the memory of the rows it returns.
class RowConverter {
 public:
  explicit RowConverter(const Kernels& kernels) : kernels_(kernels) {}

  // raw: `rows` rows of `cols` values. The result is valid until the next call. Throws Error
  // ALTIPLANO_CHECKPOINT_INVALID if a value is NaN, infinite or too large for the format, with its
  // row; raw starts with row `first_row`.
  CanonicalRows convert(FileType type, const uint8_t* raw, int64_t rows, int64_t cols,
                        WeightFormat format, int64_t first_row = 0);

 private:
  CanonicalRows from_q8_0(const uint8_t* raw, int64_t rows, int64_t cols, WeightFormat format);
  CanonicalRows from_q4_0(const uint8_t* raw, int64_t rows, int64_t cols, WeightFormat format);
  CanonicalRows from_floats(int64_t rows, int64_t cols, WeightFormat format);
  [[noreturn]] void fail(int64_t row, const std::string& what) const;

  const Kernels& kernels_;
  int64_t first_row_ = 0;
  std::vector<float> floats_;
  std::vector<uint8_t> values_;
  std::vector<uint16_t> scales_;
  std::vector<uint8_t> zeros_;
};

}  // namespace altiplano::cpu
