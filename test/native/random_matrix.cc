// Random matrices in canonical form: codes and scales of their own, not a quantizer's.
#include "check.h"
#include "cpu/scalar.h"

namespace altiplano::test {

std::vector<WeightFormat> all_formats() {
  std::vector<WeightFormat> formats = {
      {WeightType::kF32, 0, false}, {WeightType::kF16, 0, false}, {WeightType::kBF16, 0, false}};
  for (WeightType type : {WeightType::kInt8, WeightType::kInt4}) {
    for (int group : {32, 64, 128}) {
      for (bool zero_points : {false, true}) formats.push_back({type, group, zero_points});
    }
  }
  return formats;
}

const char* describe(WeightFormat format) {
  static char text[64];
  static const char* const names[] = {"f32", "f16", "bf16", "int8", "int4"};
  std::snprintf(text, sizeof(text), "%s group %d%s", names[static_cast<int>(format.type)],
                format.group, format.zero_points ? " with zero points" : "");
  return text;
}

Matrix random_matrix(WeightFormat format, int64_t rows, int64_t cols, Random& random) {
  Matrix m{format, rows, cols, {}, {}, {}, std::vector<double>(rows * cols)};
  const int64_t row_bytes = canonical_row_bytes(format, cols);
  m.values.resize(rows * row_bytes);
  const int64_t groups = format.groups(cols);
  if (format.quantized()) m.scales.resize(rows * groups);
  if (format.zero_points) m.zeros.resize(rows * groups);
  for (uint16_t& s : m.scales) {
    s = cpu::f32_to_f16_one(random.normal(0.05f));  // of either sign
    if (random.integer(0, 20) == 0) s = 0;
  }
  for (uint8_t& z : m.zeros) {
    z = static_cast<uint8_t>(random.integer(0, format.type == WeightType::kInt4 ? 15 : 255));
  }
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* row = m.values.data() + r * row_bytes;
    for (int64_t k = 0; k < cols; ++k) {
      double& exact = m.exact[r * cols + k];
      const int64_t g = format.quantized() ? r * groups + k / format.group : 0;
      const auto zero = [&](int otherwise) { return m.zeros.empty() ? otherwise : m.zeros[g]; };
      switch (format.type) {
        case WeightType::kF32: {
          const float v = random.normal();
          std::memcpy(row + 4 * k, &v, 4);
          exact = v;
          break;
        }
        case WeightType::kF16: {
          const uint16_t v = cpu::f32_to_f16_one(random.normal());
          std::memcpy(row + 2 * k, &v, 2);
          exact = cpu::f16_to_f32_one(v);
          break;
        }
        case WeightType::kBF16: {
          const uint16_t v = cpu::f32_to_bf16_one(random.normal());
          std::memcpy(row + 2 * k, &v, 2);
          exact = cpu::bf16_to_f32_one(v);
          break;
        }
        case WeightType::kInt8: {
          const int q = static_cast<int>(random.integer(-128, 127));
          row[k] = static_cast<uint8_t>(q);
          const int z = static_cast<int8_t>(zero(0));
          exact = static_cast<double>(q - z) * cpu::f16_to_f32_one(m.scales[g]);
          break;
        }
        case WeightType::kInt4: {
          const int q = static_cast<int>(random.integer(0, 15));
          // The nibble behind an odd last column is left as garbage.
          row[k / 2] = k % 2 ? static_cast<uint8_t>((row[k / 2] & 15) | q << 4)
                             : static_cast<uint8_t>(q | 0xa0);
          exact =
              static_cast<double>(q - zero(kInt4DefaultZero)) * cpu::f16_to_f32_one(m.scales[g]);
          break;
        }
      }
    }
  }
  return m;
}

}  // namespace altiplano::test
