// Quantization: the same bits from every table, errors within their bounds, and int4 as good as
// docs/weight-formats.md says.
#include <algorithm>

#include "check.h"

namespace altiplano::test {
namespace {

// The largest f16: with it as scale, weights may be cut off.
constexpr uint16_t kLargestScale = 0x7bff;

Matrix quantized(const Kernels& k, WeightFormat format, const std::vector<float>& x, int64_t rows,
                 int64_t cols) {
  Matrix m{format, rows, cols, {}, {}, {}, {}};
  m.values.assign(rows * canonical_row_bytes(format, cols), 0xcc);
  m.scales.resize(rows * format.groups(cols));
  if (format.zero_points) m.zeros.resize(m.scales.size());
  k.quantize(format, x.data(), rows, cols, m.values.data(), m.scales.data(),
             format.zero_points ? m.zeros.data() : nullptr);
  return m;
}

// What int4 makes of a group for one scale and zero point: the sum of squared errors. Codes are
// computed in f32, as the kernels do.
double squared_error(const float* x, int64_t n, uint16_t scale_bits, int zero) {
  const double scale = f16_value(scale_bits);
  const float inverse = scale == 0 ? 0.f : 1.f / static_cast<float>(scale);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float code = std::nearbyint(x[i] * inverse);
    const double w = std::clamp<double>(code, -zero, 15 - zero) * scale;
    sum += (x[i] - w) * (x[i] - w);
  }
  return sum;
}

struct Rounding {
  uint16_t scale;
  int zero;
};

// Round-to-nearest, by docs/weight-formats.md; finite weights.
Rounding round_to_nearest(WeightFormat format, const float* x, int64_t n) {
  const float low = std::min(0.f, *std::min_element(x, x + n));
  const float high = std::max(0.f, *std::max_element(x, x + n));
  const float range = format.zero_points ? high - low : std::max(-low, high);
  const float steps = format.zero_points ? 15 : 8;
  uint16_t scale = std::min(nearest_f16(range / steps), kLargestScale);
  if (scale < kLargestScale && f16_value(scale) * (steps + 0.125) < range) ++scale;
  if (!format.zero_points) {
    return {static_cast<uint16_t>(scale | (-low < high ? 0x8000 : 0)), kInt4DefaultZero};
  }
  const float inverse = scale == 0 ? 0.f : 1.f / static_cast<float>(f16_value(scale));
  return {scale, static_cast<int>(std::clamp(std::nearbyint(-low * inverse), 0.f, 15.f))};
}

// The least error of all scales within reach, half a percent apart, and all zero points.
double least_error(WeightFormat format, const float* x, int64_t n) {
  const float low = std::min(0.f, *std::min_element(x, x + n));
  const float high = std::max(0.f, *std::max_element(x, x + n));
  const float range = format.zero_points ? high - low : std::max(-low, high);
  const float most_steps = format.zero_points ? 22 : 14;
  double least = INFINITY;
  for (float steps = most_steps / 2; steps < most_steps; steps *= 1.005f) {
    const uint16_t scale = nearest_f16(range / steps);
    if (format.zero_points) {
      const int middle = static_cast<int>(-low / range * 15);
      for (int zero = std::max(0, middle - 3); zero <= std::min(15, middle + 3); ++zero) {
        least = std::min(least, squared_error(x, n, scale, zero));
      }
    } else {
      for (const int sign : {0, 0x8000}) {
        const uint16_t signed_scale = static_cast<uint16_t>(scale | sign);
        least = std::min(least, squared_error(x, n, signed_scale, kInt4DefaultZero));
      }
    }
  }
  return least;
}

// int8 is rounded to nearest: each weight within these parts of a step (docs/weight-formats.md).
void check_int8(const Matrix& m, const std::vector<float>& x, const std::vector<float>& w) {
  const int64_t groups = m.format.groups(m.cols);
  for (size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) continue;
    const int64_t row = static_cast<int64_t>(i) / m.cols, col = static_cast<int64_t>(i) % m.cols;
    const double scale = f16_value(m.scales[row * groups + col / m.format.group]);
    const double steps = m.format.zero_points ? 0.63 : 0.51;
    CHECK(scale == 65504 || std::abs(w[i] - x[i]) <= steps * scale,
          "%s: %g became %g with the scale %g", describe(m.format), x[i], w[i], scale);
  }
}

// int4: a weight whose code is not at an end is off by half a step, and the errors of a group are
// together no larger than those of round-to-nearest. A group with NaN or infinity is rounded to
// nearest.
void check_int4(const Matrix& m, const std::vector<float>& x, const std::vector<float>& w) {
  const int64_t groups = m.format.groups(m.cols);
  for (int64_t g = 0; g < m.rows * groups; ++g) {
    const int64_t begin = g / groups * m.cols + g % groups * m.format.group;
    const int64_t end = std::min(begin + m.format.group, (g / groups + 1) * m.cols);
    const double scale = f16_value(m.scales[g]);
    const int zero = m.format.zero_points ? m.zeros[g] : kInt4DefaultZero;
    double error = 0;
    bool finite = true;
    for (int64_t i = begin; i < end; ++i) {
      finite = finite && std::isfinite(x[i]);
      if (!std::isfinite(x[i])) continue;
      const double code = scale == 0 ? zero : w[i] / scale + zero;  // exact
      const bool at_an_end = code == 0 || code == 15;
      CHECK(at_an_end || std::abs(w[i] - x[i]) <= 0.51 * std::abs(scale),
            "%s: %g became %g with the scale %g", describe(m.format), x[i], w[i], scale);
      error += (x[i] - static_cast<double>(w[i])) * (x[i] - static_cast<double>(w[i]));
    }
    if (!finite) continue;
    const Rounding nearest = round_to_nearest(m.format, &x[begin], end - begin);
    const double most = squared_error(&x[begin], end - begin, nearest.scale, nearest.zero);
    // The kernel compares sums of n squares in f32: a difference, a square and n additions round,
    // so each sum is within (n + 3) eps, and so is the other one.
    const double bound = most * (1 + 2 * static_cast<double>(end - begin + 4) * kEps);
    CHECK(error <= bound, "%s, %lld weights: error %g, rounding to nearest %g", describe(m.format),
          static_cast<long long>(end - begin), error, most);
  }
}

}  // namespace

void test_quantize(const Kernels& k) {
  Random random(22);
  for (WeightFormat format : all_formats()) {
    if (!format.quantized()) continue;
    for (int trial = 0; trial < (quick ? 12 : 60); ++trial) {
      const int64_t rows = random.integer(1, 5), cols = random.integer(1, 300);
      const float sizes[] = {1.f, 1e-3f, 1e-7f, 1e-9f, 1e-42f, 1e5f, 1e8f, 1e38f};
      const float size = sizes[trial % 8];
      std::vector<float> x = random.normals(rows * cols, size);
      if (trial % 3 == 1) {
        for (float& v : x) v = std::abs(v);
      }
      if (trial % 4 == 3) {  // ties, between weights and between candidates
        for (float& v : x) v = static_cast<float>(random.integer(-4, 4)) * size / 4;
      }
      if (trial % 5 == 2) std::fill(x.begin(), x.begin() + std::min<int64_t>(cols, 64), 0.f);
      if (trial % 7 == 3) {
        x[x.size() / 2] = NAN;
        x[x.size() / 3] = INFINITY;
      }
      const Matrix m = quantized(k, format, x, rows, cols);
      const Matrix same = quantized(cpu::portable_kernels(), format, x, rows, cols);
      CHECK(m.values == same.values && m.scales == same.scales && m.zeros == same.zeros,
            "%s: other bits than the portable table's, size %g", describe(format), size);
      for (uint16_t scale : m.scales) {
        CHECK(f16_is_finite(scale), "%s: a scale that is not finite", describe(format));
      }
      std::vector<float> w(rows * cols);
      k.dequantize(m.slice(0, rows), w.data());
      (format.type == WeightType::kInt8 ? check_int8 : check_int4)(m, x, w);
      const int64_t groups = format.groups(cols);
      for (int64_t group = 0; group < groups; ++group) {
        const int64_t end = std::min(cols, (group + 1) * format.group);
        const bool all_zero =
            std::all_of(&x[group * format.group], &x[0] + end, [](float v) { return v == 0; });
        if (all_zero) CHECK(m.scales[group] == 0, "a group of zeros has the scale 0");
      }
    }
  }
}

// Weights of trained models are spread about normally, with some more that are large.
void test_int4_search(const Kernels& k) {
  Random random(24);
  for (WeightFormat format : all_formats()) {
    if (format.type != WeightType::kInt4) continue;
    for (const bool heavy_tails : {false, true}) {
      const int64_t rows = quick ? 30 : 60, cols = 2 * format.group;
      std::vector<float> x = random.normals(rows * cols, 0.02f);
      for (float& v : x) {
        if (heavy_tails) v *= std::exp(random.normal(0.4f));
      }
      const Matrix m = quantized(k, format, x, rows, cols);
      double found = 0, nearest = 0, least = 0;
      for (int64_t g = 0; g < rows * 2; ++g) {
        const float* group = &x[g * format.group];
        const Rounding rounding = round_to_nearest(format, group, format.group);
        nearest += squared_error(group, format.group, rounding.scale, rounding.zero);
        found += squared_error(group, format.group, m.scales[g],
                               format.zero_points ? m.zeros[g] : kInt4DefaultZero);
        least += least_error(format, group, format.group);
      }
      // Seen: 0.86 to 0.93 of round-to-nearest, and at most 0.2 % above the least.
      CHECK(found < 0.95 * nearest, "%s: %.3f of round-to-nearest's error", describe(format),
            found / nearest);
      CHECK(found < 1.01 * least, "%s: %.4f of the least error", describe(format), found / least);
    }
  }
}

}  // namespace altiplano::test
