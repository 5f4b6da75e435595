// RMSNorm that writes int8 codes and a scale for each token. Against float64, for rows that
// registers hold and such as they do not.
#include <algorithm>
#include <functional>

#include "cuda/operations.h"
#include "device.h"

namespace altiplano::test {
namespace {

constexpr float kNormEps = 1e-5f;

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

struct Quantized {
  std::vector<int8_t> codes;  // [T][stride]
  std::vector<float> scales;  // [T]
  int64_t stride;
};

// x [T][cols]. Behind the columns of x stands NaN, behind those of the codes something that must
// stay.
Quantized normalize(CudaDevice& device, const std::vector<float>& x,
                    const std::vector<float>& weight) {
  const auto cols = static_cast<int64_t>(weight.size());
  const int64_t tokens = static_cast<int64_t>(x.size()) / cols, x_stride = round_up(cols, 8);
  std::vector<float> rows(tokens * x_stride, NAN);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < cols; ++c) rows[t * x_stride + c] = x[t * cols + c];
  }
  AttentionShape shape;
  shape.heads = shape.kv_heads = shape.layers = 1;
  shape.head_dim = 8;
  const cuda::Operations operations(device.kernels(), shape);
  Quantized result;
  result.stride = round_up(cols, 16);
  result.codes.assign(tokens * result.stride, 99);
  const cuda::DeviceMemory in = device.upload(rows), w = device.upload(weight),
                           codes = device.upload(result.codes);
  const cuda::DeviceMemory scales(device.context(), tokens * sizeof(float), "scales");
  operations.rmsnorm(device.stream(), static_cast<uint32_t>(tokens), in.get(), x_stride, w.get(),
                     kNormEps, cols, {codes.get(), result.stride, scales.get()});
  result.codes = device.download<int8_t>(codes, result.codes.size());
  result.scales = device.download<float>(scales, tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t c = cols; c < result.stride; ++c) {
      CHECK(result.codes[t * result.stride + c] == 99, "written behind the columns");
    }
  }
  return result;
}

}  // namespace

// The scale is off by the sum of squares, as in test_rmsnorm, and by the root, two quotients and
// two products: share. A code is rounded from a number of at most 127 that two products and a
// quotient have changed, and the product that was the largest one.
void test_rmsnorm_int8(CudaDevice& device) {
  Random random(7);
  for (const int64_t cols : {1, 7, 33, 256, 1000, 1001, 4096, 5120, 8192, 8196}) {
    const int64_t tokens = random.integer(2, 4);
    const std::vector<float> x = random.normals(tokens * cols, 3), weight = random.normals(cols);
    const Quantized found = normalize(device, x, weight);
    const double share = (static_cast<double>(cols) / 256 + 8 + 5 + 7) * kEps;
    for (int64_t t = 0; t < tokens; ++t) {
      double squares = 0, largest = 0;
      for (int64_t c = 0; c < cols; ++c) {
        squares += std::pow(static_cast<double>(x[t * cols + c]), 2);
        largest = std::max(largest, std::abs(static_cast<double>(x[t * cols + c]) * weight[c]));
      }
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + kNormEps);
      const double scale = largest * inverse / 127, off = 0.5 + 127 * 4 * kEps;
      CHECK(std::abs(found.scales[t] - scale) <= share * scale, "%lld columns: scale %g, not %g",
            static_cast<long long>(cols), found.scales[t], scale);
      int most = 0;
      for (int64_t c = 0; c < cols; ++c) {
        const int code = found.codes[t * found.stride + c];
        const double exact = static_cast<double>(x[t * cols + c]) * inverse * weight[c] / scale;
        CHECK(std::abs(code - exact) <= off, "%lld columns: code %d, not %g",
              static_cast<long long>(cols), code, exact);
        most = std::max(most, std::abs(code));
      }
      CHECK(most == 127, "%lld columns: the largest code is %d", static_cast<long long>(cols),
            most);
    }
  }
}

// Rows of zeros, and of numbers that are nothing beside eps, are zeros; a NaN or an infinity makes
// the scale of its row so that every product is NaN or infinite; no other row is touched.
void test_rmsnorm_int8_not_finite(CudaDevice& device) {
  Random random(8);
  for (const int64_t cols : {64, 77}) {
    constexpr int64_t kTokens = 7;
    std::vector<float> x = random.normals(kTokens * cols), weight = random.normals(cols);
    const Quantized before = normalize(device, x, weight);
    const auto row = [&](int64_t t) { return x.begin() + t * cols; };
    std::fill_n(row(1), cols, 0.f);
    std::fill_n(row(2), cols, 1e-36f);
    row(3)[cols - 1] = NAN;
    row(4)[0] = INFINITY;
    row(5)[cols / 2] = -INFINITY;
    const Quantized found = normalize(device, x, weight);
    for (int64_t t = 0; t < kTokens; ++t) {
      const int8_t* codes = &found.codes[t * found.stride];
      if (t == 0 || t == kTokens - 1) {
        CHECK(found.scales[t] == before.scales[t] &&
                  std::equal(codes, codes + cols, &before.codes[t * before.stride]),
              "row %d is another", static_cast<int>(t));
      } else if (t < 3) {
        CHECK(
            std::isfinite(found.scales[t]) && std::all_of(codes, codes + cols, std::logical_not{}),
            "row %d is not zero", static_cast<int>(t));
      } else {
        // A product is scale * integer, and integers may be 0.
        CHECK(!std::isfinite(found.scales[t] * 0.f), "row %d: scale %g", static_cast<int>(t),
              found.scales[t]);
      }
    }
    weight[1] = NAN;
    for (const float scale : normalize(device, x, weight).scales) {
      CHECK(std::isnan(scale), "a weight that is NaN: scale %g", scale);
    }
  }
}

}  // namespace altiplano::test
