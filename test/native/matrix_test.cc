// Packing and matmul.
#include <algorithm>

#include "check.h"
#include "cpu/scalar.h"

namespace altiplano::test {

using cpu::PackedMatrix;

CanonicalRows Matrix::slice(int64_t first, int64_t count) const {
  const int64_t groups = format.groups(cols);
  return {format,
          count,
          cols,
          values.data() + first * canonical_row_bytes(format, cols),
          scales.empty() ? nullptr : scales.data() + first * groups,
          zeros.empty() ? nullptr : zeros.data() + first * groups};
}

size_t Matrix::packed_bytes(const Kernels& k, WeightFormat format, int64_t rows, int64_t cols) {
  return (rows + k.tile_rows - 1) / k.tile_rows * k.packed_tile_bytes(format, cols);
}

PackedMatrix Matrix::pack(const Kernels& k, Buffer& into) const {
  const size_t tile_bytes = k.packed_tile_bytes(format, cols);
  for (int64_t row = 0; row < rows; row += k.tile_rows) {
    k.pack_tile(slice(row, std::min<int64_t>(k.tile_rows, rows - row)),
                into.data() + row / k.tile_rows * tile_bytes);
  }
  return {format, rows, cols, into.data(), tile_bytes};
}

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

constexpr float kGuard = -12345.f;

// y = W x by the table, y [tokens][rows + gap] with guards in the gap.
std::vector<float> multiply(const Kernels& k, const Packed& w, const std::vector<float>& x,
                            int64_t tokens, const std::vector<float>* add_to = nullptr) {
  const int64_t rows = w.matrix.rows, ldy = rows + 3;
  std::vector<float> y(tokens * ldy - 3, kGuard), result(tokens * rows);
  if (add_to) {
    for (int64_t t = 0; t < tokens; ++t) {
      std::copy_n(add_to->begin() + t * rows, rows, y.begin() + t * ldy);
    }
  }
  k.matmul(w.packed, 0, w.tiles(k), x.data(), w.matrix.cols, tokens, y.data(), ldy,
           add_to != nullptr);
  for (int64_t t = 0; t < tokens; ++t) {
    std::copy_n(y.begin() + t * ldy, rows, result.begin() + t * rows);
    for (int64_t i = rows; t + 1 < tokens && i < ldy; ++i) {
      CHECK(y[t * ldy + i] == kGuard, "wrote behind the last row");
    }
  }
  return result;
}

// Higham, "Accuracy and Stability of Numerical Algorithms", chapter 3: a term that goes through m
// roundings has the relative error gamma_m <= m u / (1 - m u). A term of matmul goes through the
// product and the additions of its block (at most 128), the scale, and an addition per block;
// products or sums that underflow lose up to 2^-149 each, times a scale of at most 65504.
void check_product(const Kernels& k, const Packed& w, const std::vector<float>& x, int64_t tokens,
                   const std::vector<float>* add_to) {
  const Matrix& m = w.matrix;
  const std::vector<float> y = multiply(k, w, x, tokens, add_to);
  const int64_t block = m.format.quantized() ? m.format.group : 128;
  const double roundings = std::min(block, m.cols) + 1 + 2 + (m.cols + block - 1) / block;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < m.rows; ++r) {
      double sum = add_to ? (*add_to)[t * m.rows + r] : 0, magnitude = std::abs(sum);
      for (int64_t i = 0; i < m.cols; ++i) {
        const double term = m.exact[r * m.cols + i] * x[t * m.cols + i];
        sum += term;
        magnitude += std::abs(term);
      }
      const double bound = 1.01 * roundings * kEps * magnitude + m.cols * 0x1p-148 * 65504;
      const double error = std::abs(y[t * m.rows + r] - sum);
      CHECK(error <= bound, "%s %lld x %lld, token %lld row %lld: %g, exactly %g, bound %g",
            describe(m.format), static_cast<long long>(m.rows), static_cast<long long>(m.cols),
            static_cast<long long>(t), static_cast<long long>(r), y[t * m.rows + r], sum, bound);
    }
  }
}

}  // namespace

void test_packing(const Kernels& k) {
  Random random(1);
  for (WeightFormat format : all_formats()) {
    for (int i = 0; i < (quick ? 4 : 20); ++i) {
      const Packed w(k,
                     random_matrix(format, random.integer(1, 20), random.integer(1, 300), random));
      const Matrix& m = w.matrix;
      std::vector<float> row(m.cols), all(m.rows * m.cols);
      k.dequantize(m.slice(0, m.rows), all.data());
      for (int64_t r = 0; r < m.rows; ++r) {
        k.unpack_row(w.packed, r, row.data());
        for (int64_t c = 0; c < m.cols; ++c) {
          CHECK(row[c] == m.exact[r * m.cols + c], "%s: unpacked %g, packed %g", describe(format),
                row[c], m.exact[r * m.cols + c]);
          CHECK(all[r * m.cols + c] == m.exact[r * m.cols + c], "%s: dequantized %g, exactly %g",
                describe(format), all[r * m.cols + c], m.exact[r * m.cols + c]);
        }
      }
    }
  }
}

void test_matmul_error(const Kernels& k) {
  Random random(2);
  for (WeightFormat format : all_formats()) {
    for (int i = 0; i < (quick ? 6 : 40); ++i) {
      const int64_t rows = random.integer(1, 40);
      const int64_t cols = i == 0 ? 1500 : random.integer(1, 300);
      const int64_t tokens = i % 3 == 0 ? 1 : random.integer(1, 20);
      const Packed w(k, random_matrix(format, rows, cols, random));
      const std::vector<float> x = random.normals(tokens * cols);
      const std::vector<float> before = random.normals(tokens * rows);
      check_product(k, w, x, tokens, i % 2 ? &before : nullptr);
    }
  }
}

void test_matmul_extremes(const Kernels& k) {
  Random random(3);
  for (WeightFormat format : all_formats()) {
    for (float size : {1e-44f, 1e-38f, 1e-30f, 1e20f, 1e26f}) {
      for (int64_t tokens : {1, 7, 14}) {
        const Packed w(k, random_matrix(format, 19, 203, random));
        std::vector<float> x = random.normals(tokens * 203, size);
        check_product(k, w, x, tokens, nullptr);
        for (float& v : x) {  // of all sizes in one sum
          if (random.integer(0, 3) == 0) v *= 1e-12f;
        }
        check_product(k, w, x, tokens, nullptr);
      }
    }
    // NaN and infinity reach exactly the tokens that hold them, and padding never meets them.
    const int64_t cols = 99, rows = 13, tokens = 9;
    const Packed w(k, random_matrix(format, rows, cols, random));
    std::vector<float> x = random.normals(tokens * cols);
    x[2 * cols + 98] = NAN;
    const std::vector<float> y = multiply(k, w, x, tokens);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        CHECK(std::isnan(y[t * rows + r]) == (t == 2), "%s: a NaN of token 2 and token %lld",
              describe(format), static_cast<long long>(t));
      }
    }
  }
}

void test_matmul_is_the_same_for_any_batch(const Kernels& k) {
  Random random(4);
  for (WeightFormat format : all_formats()) {
    for (const auto& [rows, cols] : {std::pair{1, 7}, {8, 128}, {20, 299}, {43, 416}}) {
      const Packed w(k, random_matrix(format, rows, cols, random));
      const int64_t most = quick ? 20 : 200;
      const std::vector<float> x = random.normals(most * cols);
      const std::vector<float> before = random.normals(most * rows);
      std::vector<float> alone, alone_added;
      for (int64_t t = 0; t < most; ++t) {
        const std::vector<float> xt(x.begin() + t * cols, x.begin() + (t + 1) * cols);
        const std::vector<float> bt(before.begin() + t * rows, before.begin() + (t + 1) * rows);
        const std::vector<float> y = multiply(k, w, xt, 1), added = multiply(k, w, xt, 1, &bt);
        alone.insert(alone.end(), y.begin(), y.end());
        alone_added.insert(alone_added.end(), added.begin(), added.end());
      }
      for (int64_t tokens : {2, 3, 4, 5, 6, 7, 11, 12, 13, 20, 97, 200}) {
        if (tokens > most) continue;
        const std::vector<float> y = multiply(k, w, x, tokens);
        CHECK(same_bits(y, {alone.begin(), alone.begin() + tokens * rows}),
              "%s %d x %d: %lld tokens differ from one", describe(format), rows, cols,
              static_cast<long long>(tokens));
        const std::vector<float> added = multiply(k, w, x, tokens, &before);
        CHECK(same_bits(added, {alone_added.begin(), alone_added.begin() + tokens * rows}),
              "%s %d x %d: %lld tokens differ from one, accumulating", describe(format), rows, cols,
              static_cast<long long>(tokens));
      }
    }
  }
}

void test_matmul_tile_ranges(const Kernels& k) {
  Random random(5);
  for (WeightFormat format : all_formats()) {
    for (int64_t tokens : {1, 5, 15}) {
      const int64_t rows = 11 * k.tile_rows - 3, cols = 131;
      const Packed w(k, random_matrix(format, rows, cols, random));
      const std::vector<float> x = random.normals(tokens * cols);
      const std::vector<float> whole = multiply(k, w, x, tokens);
      for (int64_t begin = 0; begin < 11; begin += 3) {
        for (int64_t end = begin + 1; end <= 11; end += 2) {
          std::vector<float> y(tokens * rows, kGuard);
          k.matmul(w.packed, begin, end, x.data(), cols, tokens, y.data(), rows, false);
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
