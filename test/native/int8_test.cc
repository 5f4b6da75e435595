// Matmul with int8 activations, and their quantization. All tables must give the bits of the
// portable one, which is compared with f64.
#include <algorithm>
#include <bit>

#include "check.h"
#include "cpu/scalar.h"

namespace altiplano::test {

using cpu::activation_groups;
using cpu::ActivationGroup;
using cpu::kActivationGroup;
using cpu::PackedMatrix;
using cpu::scale_of;

namespace {

struct Packed {
  Matrix matrix;
  Buffer bytes;
  PackedMatrix packed;
  Packed(const Kernels& k, Matrix m)
      : matrix(std::move(m)),
        bytes(Matrix::packed_bytes(k, matrix.format, matrix.rows, matrix.cols), 0xff),
        packed(matrix.pack(k, bytes)) {}
  int64_t tiles(const Kernels& k) const { return (matrix.rows + k.tile_rows - 1) / k.tile_rows; }
};

std::vector<WeightFormat> quantized_formats() {
  std::vector<WeightFormat> formats = all_formats();
  std::erase_if(formats, [](WeightFormat f) { return !f.quantized(); });
  return formats;
}

std::vector<ActivationGroup> quantize(const Kernels& k, const std::vector<float>& x,
                                      int64_t tokens) {
  const int64_t cols = static_cast<int64_t>(x.size()) / tokens, groups = activation_groups(cols);
  std::vector<ActivationGroup> out(tokens * groups);
  for (int64_t t = 0; t < tokens; ++t) {
    k.quantize_activations(x.data() + t * cols, cols, out.data() + t * groups);
  }
  return out;
}

constexpr float kGuard = -12345.f;

std::vector<float> multiply(const Kernels& k, const Packed& w,
                            const std::vector<ActivationGroup>& x, int64_t tokens) {
  const int64_t rows = w.matrix.rows, ldy = rows + 3;
  std::vector<float> y(tokens * ldy - 3, kGuard), result(tokens * rows);
  k.matmul_int8(w.packed, 0, w.tiles(k), x.data(), activation_groups(w.matrix.cols), tokens,
                y.data(), ldy);
  for (int64_t t = 0; t < tokens; ++t) {
    std::copy_n(y.begin() + t * ldy, rows, result.begin() + t * rows);
    for (int64_t i = rows; t + 1 < tokens && i < ldy; ++i) {
      CHECK(y[t * ldy + i] == kGuard, "wrote behind the last row");
    }
  }
  return result;
}

// The product with the quantized activations. A group's term is exact until it is added: the
// scales' product is an f16 times a power of two, at least 2^-120. So it goes through the roundings
// of its own and all later groups' fused additions: at most `groups`, each at most kEps of a sum of
// magnitudes, or 2^-150 where that is subnormal.
void check_product(const Kernels& k, const Packed& w, const std::vector<ActivationGroup>& x,
                   const std::vector<float>& y, int64_t tokens) {
  const Matrix& m = w.matrix;
  const int64_t groups = activation_groups(m.cols);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < m.rows; ++r) {
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < m.cols; ++i) {
        const ActivationGroup& group = x[t * groups + i / kActivationGroup];
        const double term =
            m.exact[r * m.cols + i] * (double{scale_of(group)} * group.codes[i % kActivationGroup]);
        sum += term;
        magnitude += std::abs(term);
      }
      const double bound =
          1.01 * static_cast<double>(groups) * kEps * magnitude + groups * 0x1p-150;
      const double error = std::abs(y[t * m.rows + r] - sum);
      CHECK(error <= bound, "%s: %s %lld x %lld, token %lld row %lld: %g, exactly %g, bound %g",
            k.name, describe(m.format), static_cast<long long>(m.rows),
            static_cast<long long>(m.cols), static_cast<long long>(t), static_cast<long long>(r),
            y[t * m.rows + r], sum, bound);
    }
  }
}

// By this table and by the portable one: the same bits, and right.
void check_matmul(const Kernels& k, const Matrix& m, const std::vector<float>& x, int64_t tokens) {
  const Packed w(k, m), reference(cpu::portable_kernels(), m);
  const std::vector<ActivationGroup> codes = quantize(k, x, tokens);
  const std::vector<float> y = multiply(k, w, codes, tokens);
  check_product(k, w, codes, y, tokens);
  CHECK(same_bits(y, multiply(cpu::portable_kernels(), reference, codes, tokens)),
        "%s: %s %lld x %lld, %lld tokens: not the bits of the portable table", k.name,
        describe(m.format), static_cast<long long>(m.rows), static_cast<long long>(m.cols),
        static_cast<long long>(tokens));
}

}  // namespace

void test_quantize_activations(const Kernels& k) {
  Random random(1);
  for (int i = 0; i < (quick ? 100 : 2000); ++i) {
    const int64_t n = random.integer(1, 200);
    const float sizes[] = {1.f, 1e-3f, 1e-26f, 1e-28f, 1e-40f, 1e20f, 1e23f};
    std::vector<float> x = random.normals(n, sizes[i % 7]);
    if (i % 5 == 0) std::fill_n(x.begin(), std::min<int64_t>(n, 40), 0.f);
    if (i % 5 == 1) x[random.integer(0, n - 1)] *= 1000;
    if (i % 5 == 2) {  // ties
      for (float& v : x) v = static_cast<float>(random.integer(-254, 254)) * 0.5f;
      x[0] = 127;
    }
    const std::vector<ActivationGroup> groups = quantize(k, x, 1);
    const std::vector<ActivationGroup> expected = quantize(cpu::portable_kernels(), x, 1);
    CHECK(std::memcmp(groups.data(), expected.data(), groups.size() * sizeof(groups[0])) == 0,
          "%s: not the bits of the portable table, %lld numbers", k.name,
          static_cast<long long>(n));
    for (size_t g = 0; g < groups.size(); ++g) {
      int32_t sum = 0;
      float most = 0;
      for (int j = 0; j < kActivationGroup; ++j) {
        const int64_t at = static_cast<int64_t>(g) * kActivationGroup + j;
        const int code = groups[g].codes[j];
        sum += code;
        CHECK(code >= -127, "code %d", code);
        if (at >= n) CHECK(code == 0, "code %d behind the last column", code);
        if (at >= n) continue;
        // Half a step; a quotient by a power of two is exact.
        const double step = scale_of(groups[g]);
        CHECK(std::abs(x[at] - step * code) <= step * 0.5, "%g became %d * %g", x[at], code, step);
        most = std::max(most, std::abs(x[at]));
      }
      int exponent;
      CHECK(std::frexp(scale_of(groups[g]), &exponent) == 0.5f, "scale %g", scale_of(groups[g]));
      CHECK(scale_of(groups[g]) == 0x1p-96f || most > 63.5f * scale_of(groups[g]),
            "scale %g for at most %g", scale_of(groups[g]), most);
      const auto origin = std::bit_cast<int32_t>(groups[g].origin);
      CHECK(sum == groups[g].sum && origin - 8 * sum == groups[g].int4_start &&
                origin - 128 * sum == groups[g].int8_start,
            "sum %d, found %d, starts %d and %d", sum, groups[g].sum, groups[g].int4_start - origin,
            groups[g].int8_start - origin);
    }
  }
  for (float bad : {NAN, INFINITY, -INFINITY, 0x1.1p90f}) {
    for (int64_t at : {0, 17, 31, 63, 64, 69}) {
      std::vector<float> x = random.normals(70);
      x[at] = bad;
      const std::vector<ActivationGroup> groups = quantize(k, x, 1);
      for (int64_t g = 0; g < 3; ++g) {
        // The first group tells of the whole row.
        CHECK(std::isnan(scale_of(groups[g])) == (g == 0 || g == at / kActivationGroup),
              "scale %g of group %lld", scale_of(groups[g]), static_cast<long long>(g));
      }
      CHECK(groups[at / kActivationGroup].sum == 0, "codes of a group that is not finite");
    }
  }
}

void test_matmul_int8_error(const Kernels& k) {
  Random random(2);
  for (WeightFormat format : quantized_formats()) {
    for (int i = 0; i < (quick ? 6 : 40); ++i) {
      const int64_t rows = random.integer(1, 80);
      const int64_t cols = i == 0 ? 1500 : random.integer(1, 300);
      const int64_t tokens = i % 3 == 0 ? 1 : random.integer(1, 30);
      check_matmul(k, random_matrix(format, rows, cols, random), random.normals(tokens * cols),
                   tokens);
    }
  }
}

void test_matmul_int8_extremes(const Kernels& k) {
  Random random(3);
  for (WeightFormat format : quantized_formats()) {
    const int64_t rows = 37, cols = 203, tokens = 15;
    for (float size : {1e-44f, 1e-30f, 1e-20f, 1e20f, 1e26f}) {
      check_matmul(k, random_matrix(format, rows, cols, random),
                   random.normals(tokens * cols, size), tokens);
    }
    // Sums as large as they can be: all codes at an end of their range, against all signs, with
    // the least and the greatest scale of activations too.
    for (int i = 0; i < 24; ++i) {
      const float size = 127 * (i < 8 ? 1.f : i < 16 ? 0x1p-96f : 0x1p83f);
      Matrix m = random_matrix(format, rows, 256, random);
      const bool int4 = format.type == WeightType::kInt4;
      std::fill(m.values.begin(), m.values.end(),
                static_cast<uint8_t>(i & 1 ? (int4 ? 0xff : 0x7f) : (int4 ? 0x00 : 0x80)));
      std::fill(m.zeros.begin(), m.zeros.end(),
                static_cast<uint8_t>(i & 2 ? (int4 ? 15 : 0x7f) : (int4 ? 0 : 0x80)));
      std::fill(m.scales.begin(), m.scales.end(), cpu::f32_to_f16_one(i & 4 ? 65504.f : -1e-7f));
      std::vector<float> exact(rows * 256);
      k.dequantize(m.slice(0, rows), exact.data());
      m.exact.assign(exact.begin(), exact.end());
      std::vector<float> x(tokens * 256, size);
      for (int64_t at = 0; at < tokens * 256; ++at) {
        if ((at / 256 % 3 == 1) || (at / 256 % 3 == 2 && at % 2)) x[at] = -size;
      }
      check_matmul(k, m, x, tokens);
    }
    // A NaN reaches exactly the token that holds it.
    const Packed w(k, random_matrix(format, rows, cols, random));
    std::vector<float> x = random.normals(tokens * cols);
    x[2 * cols + 202] = NAN;
    const std::vector<float> y = multiply(k, w, quantize(k, x, tokens), tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        CHECK(std::isnan(y[t * rows + r]) == (t == 2), "%s: a NaN of token 2 and token %lld",
              describe(format), static_cast<long long>(t));
      }
    }
  }
}

void test_matmul_int8_is_the_same_for_any_batch(const Kernels& k) {
  Random random(4);
  for (WeightFormat format : quantized_formats()) {
    for (const auto& [rows, cols] : {std::pair{1, 7}, {16, 128}, {70, 299}, {130, 416}}) {
      const Packed w(k, random_matrix(format, rows, cols, random));
      const int64_t most = quick ? 14 : 40, groups = activation_groups(cols);
      const std::vector<ActivationGroup> x = quantize(k, random.normals(most * cols), most);
      std::vector<float> alone;
      for (int64_t t = 0; t < most; ++t) {
        const std::vector<float> y =
            multiply(k, w, {x.begin() + t * groups, x.begin() + (t + 1) * groups}, 1);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (int64_t tokens = 2; tokens <= most; ++tokens) {
        CHECK(same_bits(multiply(k, w, x, tokens), {alone.begin(), alone.begin() + tokens * rows}),
              "%s %d x %d: %lld tokens differ from one", describe(format), rows, cols,
              static_cast<long long>(tokens));
      }
    }
  }
}

void test_matmul_int8_tile_ranges(const Kernels& k) {
  Random random(5);
  for (WeightFormat format : quantized_formats()) {
    for (int64_t tokens : {1, 5, 15}) {
      const int64_t rows = 11 * k.tile_rows - 3, cols = 131;
      const Packed w(k, random_matrix(format, rows, cols, random));
      const std::vector<ActivationGroup> x = quantize(k, random.normals(tokens * cols), tokens);
      const std::vector<float> whole = multiply(k, w, x, tokens);
      for (int64_t begin = 0; begin < 11; begin += 3) {
        for (int64_t end = begin + 1; end <= 11; end += 2) {
          std::vector<float> y(tokens * rows, kGuard);
          k.matmul_int8(w.packed, begin, end, x.data(), activation_groups(cols), tokens, y.data(),
                        rows);
          for (int64_t t = 0; t < tokens; ++t) {
            for (int64_t r = 0; r < rows; ++r) {
              const bool inside = r >= begin * k.tile_rows && r < end * k.tile_rows;
              const float expected = inside ? whole[t * rows + r] : kGuard;
              CHECK(std::memcmp(&y[t * rows + r], &expected, 4) == 0,
                    "%s: tiles %lld to %lld, row %lld", describe(format),
                    static_cast<long long>(begin), static_cast<long long>(end),
                    static_cast<long long>(r));
            }
          }
        }
      }
    }
  }
}

}  // namespace altiplano::test
