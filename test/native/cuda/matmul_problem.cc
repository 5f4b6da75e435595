#include "matmul_problem.h"

#include <algorithm>

namespace altiplano::test {
namespace {

using cuda::CanonicalOnDevice;
using cuda::DeviceMemory;
using cuda::Epilogue;
using cuda::Matmul;
using cuda::PackedMatrix;
using cuda::RowOrder;

constexpr uint8_t kGuard = 0x5a;

// Always with something behind the last column; in whole sectors where the columns are, else not.
int64_t stride_of(int64_t columns) {
  return columns % 32 == 0 ? columns + 16 : round_up(columns, 8) + 8;
}
// Of outputs that need not be aligned, for some numbers of columns.
int64_t y_stride_of(int64_t columns, Epilogue epilogue) {
  const bool any = epilogue == Epilogue::kStore16 || epilogue == Epilogue::kStoreF32;
  return any && columns % 5 == 0 ? columns + 1 : stride_of(columns);
}

bool has_16_bits(Epilogue epilogue) {
  return epilogue == Epilogue::kStore16 || epilogue == Epilogue::kSiluMul;
}

}  // namespace

std::vector<Operands> all_operands() {
  std::vector<Operands> all;
  for (const WeightFormat format : all_formats()) {
    all.push_back({format});
    if (!format.quantized()) all.push_back({format, ActivationType::kBF16});
  }
  return all;
}

std::vector<float> normals_of(ActivationType type, int64_t count, Random& random, float deviation) {
  std::vector<float> x = random.normals(count, deviation);
  for (float& v : x) v = from_bits(type, to_bits(type, v));
  return x;
}

StepLimits limits(int64_t tokens, int64_t cols, bool int8_activations) {
  StepLimits l;
  l.tokens = tokens;
  l.most_cols = cols;
  l.int8_activations = int8_activations;
  return l;
}

PackedMatrix pack(CudaDevice& device, Matmul& matmul, const Matrix& m, RowOrder order,
                  bool int8_activations, Random& random, ActivationType activations) {
  PackedMatrix packed =
      matmul.allocate({m.format, m.rows, m.cols, order, int8_activations, activations});
  struct Stretch {
    int64_t begin, rows;
  };
  std::vector<Stretch> stretches;
  const int parts = order == RowOrder::kGateUp ? 2 : 1;
  for (int part = 0; part < parts; ++part) {
    const int64_t rows = m.rows / parts;
    for (int64_t begin = 0, count; begin < rows; begin += count) {
      count = std::min(rows - begin, random.integer(1, 150) * cuda::kPackRows);
      stretches.push_back({part * rows + begin, count});
    }
  }
  for (size_t i = stretches.size(); i > 1; --i) {
    std::swap(stretches[i - 1], stretches[random.integer(0, static_cast<int64_t>(i) - 1)]);
  }
  const int64_t row_bytes = canonical_row_bytes(m.format, m.cols);
  const int64_t groups = m.format.groups(m.cols);
  for (const Stretch& s : stretches) {
    // Exactly these rows, so that reading beyond them is seen.
    const auto part = [&](const auto& all, int64_t of_row) {
      using T = typename std::decay_t<decltype(all)>::value_type;
      if (all.empty()) return DeviceMemory();
      return device.upload(std::vector<T>(all.begin() + s.begin * of_row,
                                          all.begin() + (s.begin + s.rows) * of_row));
    };
    const DeviceMemory values = part(m.values, row_bytes), scales = part(m.scales, groups),
                       zeros = part(m.zeros, groups);
    matmul.pack(device.stream(), {s.begin, s.rows, values.get(), scales.get(), zeros.get()},
                packed);
    device.stream().synchronize();
  }
  return packed;
}

std::vector<float> multiply(CudaDevice& device, Matmul& matmul, const PackedMatrix& w,
                            const std::vector<float>& x, int64_t tokens, Epilogue epilogue,
                            const std::vector<float>* before) {
  const ActivationType type = w.shape.activations;
  const int64_t cols = w.shape.cols, x_stride = stride_of(cols);
  std::vector<uint16_t> x16(tokens * x_stride, kNan16);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < cols; ++k) {
      x16[t * x_stride + k] = to_bits(type, x[t * cols + k]);
    }
  }
  const int64_t columns = epilogue == Epilogue::kSiluMul ? w.shape.rows / 2 : w.shape.rows;
  const int64_t element = has_16_bits(epilogue) ? 2 : 4;
  const int64_t y_stride = y_stride_of(columns, epilogue);
  std::vector<uint8_t> y((tokens + 1) * y_stride * element, kGuard);
  if (before != nullptr) {
    for (int64_t t = 0; t < tokens; ++t) {
      std::memcpy(&y[t * y_stride * 4], before->data() + t * columns, columns * 4);
      std::memset(&y[(t * y_stride + columns) * 4], 0, (round_up(columns, 4) - columns) * 4);
    }
  }
  const DeviceMemory x_memory = device.upload(x16), y_memory = device.upload(y);
  matmul.multiply(device.stream(), w, {x_memory.get(), x_stride}, tokens, epilogue, y_memory.get(),
                  y_stride);
  y = device.download<uint8_t>(y_memory, y.size());

  std::vector<float> result(tokens * columns);
  for (int64_t t = 0; t <= tokens; ++t) {
    for (int64_t c = 0; c < y_stride; ++c) {
      const uint8_t* at = &y[(t * y_stride + c) * element];
      if (t < tokens && c < columns) {
        uint16_t bits;
        std::memcpy(&bits, at, 2);
        if (has_16_bits(epilogue)) {
          result[t * columns + c] = from_bits(type, bits);
        } else {
          std::memcpy(&result[t * columns + c], at, 4);
        }
      } else {
        const bool padding = t < tokens && y_stride % 8 == 0 && c < round_up(columns, 4);
        CHECK(padding || std::all_of(at, at + element, [](uint8_t b) { return b == kGuard; }),
              "token %lld column %lld of %lld x %lld was written", static_cast<long long>(t),
              static_cast<long long>(c), static_cast<long long>(tokens),
              static_cast<long long>(columns));
      }
    }
  }
  return result;
}

Expected expected(const Matrix& m, int64_t row, const float* x, ActivationType type) {
  double sum = 0, magnitude = 0, activations = 0;
  for (int64_t k = 0; k < m.cols; ++k) {
    const double term = m.exact[row * m.cols + k] * x[k];
    sum += term;
    magnitude += std::abs(term);
    activations += std::abs(static_cast<double>(x[k]));
  }
  constexpr double kMostSharing = 64;
  const double additions = static_cast<double>(m.cols) / 16 + 1 + kMostSharing;
  const bool exact = type == ActivationType::kBF16 && m.format.type == WeightType::kBF16;
  const double rounding = exact ? 0 : half_eps(type), least = exact ? 0 : half_least(type);
  return {sum, magnitude * rounding + activations * least +
                   additions * 0x1p-22 * (magnitude * (1 + rounding) + activations * least)};
}

Expected expected_int8(const Matrix& m, int64_t row, const float* x) {
  double sum = 0, largest_w = 0, largest_x = 0, sum_w = 0, sum_x = 0;
  for (int64_t k = 0; k < m.cols; ++k) {
    const double weight = std::abs(m.exact[row * m.cols + k]);
    const double activation = std::abs(static_cast<double>(x[k]));
    sum += m.exact[row * m.cols + k] * x[k];
    largest_w = std::max(largest_w, weight), sum_w += weight;
    largest_x = std::max(largest_x, activation), sum_x += activation;
  }
  const double dw = largest_w / 127 * (0.5 + 0x1p-15);
  const double dx = largest_x / 127 * (0.5 + 0x1p-15);
  const double bound = sum_w * dx + sum_x * dw + static_cast<double>(m.cols) * dx * dw;
  return {sum, bound * 1.001 + std::abs(sum) * 0x1p-21};
}

Expected stored_16(Expected e, ActivationType type) {
  return {e.value, e.bound + (std::abs(e.value) + e.bound) * half_eps(type) + half_least(type)};
}
Expected stored_f32(Expected e) {
  return {e.value, e.bound + (std::abs(e.value) + e.bound) * 0x1p-24};
}

// The slope of silu is at most 1.1. exp is computed as 2^(x log2 e): the rounding of that product
// is relative to x, and the approximation and the division are good to a few units.
Expected silu_mul(Expected gate, Expected up, ActivationType type) {
  const double silu = gate.value / (1 + std::exp(-gate.value));
  const double approximation = std::abs(silu) * (std::abs(gate.value) + 8) * 0x1p-22 + 0x1p-126;
  const double silu_bound = 1.1 * gate.bound + approximation;
  return stored_16(
      {silu * up.value, silu_bound * (std::abs(up.value) + up.bound) + std::abs(silu) * up.bound +
                            std::abs(silu * up.value) * 0x1p-23},
      type);
}

}  // namespace altiplano::test
