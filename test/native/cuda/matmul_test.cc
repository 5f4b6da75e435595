// Matrix multiplication against f64, in all formats, over shapes that fill tiles and that do not.
#include <algorithm>
#include <utility>

#include "cuda/matmul_plan.h"
#include "matmul_problem.h"
#include "util/error.h"

namespace altiplano::test {

using cuda::Epilogue;
using cuda::Matmul;
using cuda::PackedMatrix;
using cuda::RowOrder;

namespace {

void check_near(float y, Expected e, const Matrix& m, int64_t tokens, int64_t token, int64_t row) {
  CHECK(std::abs(y - e.value) <= e.bound,
        "%s %lld x %lld, %lld tokens, token %lld row %lld: %g, exactly %g, bound %g",
        describe(m.format), static_cast<long long>(m.rows), static_cast<long long>(m.cols),
        static_cast<long long>(tokens), static_cast<long long>(token), static_cast<long long>(row),
        y, e.value, e.bound);
}

// Multiplies with kStoreF32 and checks every product.
void check_product(CudaDevice& device, Matmul& matmul, const PackedMatrix& w, const Matrix& m,
                   int64_t tokens, Random& random) {
  const ActivationType type = w.shape.activations;
  const std::vector<float> x = normals_of(type, tokens * m.cols, random);
  const std::vector<float> y = multiply(device, matmul, w, x, tokens, Epilogue::kStoreF32);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < m.rows; ++r) {
      const Expected e = expected(m, r, &x[t * m.cols], type);
      check_near(y[t * m.rows + r], stored_f32(e), m, tokens, t, r);
    }
  }
  device.launches();
}

// int8 by int8. Whole numbers times a power of two, with 127 of them as the largest of each row and
// token, are quantized without an error, and so is everything behind. Of long rows about a thousand
// activations are not zero: sums of so many products of 127 are exact in f32 (below 2^24).
void check_integers(CudaDevice& device, Matmul& matmul, int64_t rows, int64_t cols,
                    const std::vector<int64_t>& token_counts, Random& random) {
  Matrix m = random_matrix({WeightType::kF32, 0, false}, rows, cols, random);
  auto* values = reinterpret_cast<float*>(m.values.data());
  for (int64_t r = 0; r < rows; ++r) {
    const auto step = std::ldexp(1.f, static_cast<int>(random.integer(-12, 2)));
    for (int64_t k = 0; k < cols; ++k) {
      values[r * cols + k] = static_cast<float>(random.integer(-127, 127)) * step;
      if (k == 3) values[r * cols + k] = 127 * step;
      m.exact[r * cols + k] = values[r * cols + k];
    }
  }
  const PackedMatrix w = pack(device, matmul, m, RowOrder::kPlain, true, random);
  for (int64_t tokens : token_counts) {
    std::vector<float> x(tokens * cols), scales(tokens);
    const int64_t stride = round_up(cols, 16);
    std::vector<int8_t> codes(tokens * stride, 99);
    for (int64_t t = 0; t < tokens; ++t) {
      scales[t] = std::ldexp(1.f, static_cast<int>(random.integer(-6, 2)));
      for (int64_t k = 0; k < cols; ++k) {
        const bool is_zero = (k - 5) % (cols / 1000 + 1) != 0 && k != cols - 1;
        const int64_t code = k == 5 ? -127 : is_zero ? 0 : random.integer(-127, 127);
        codes[t * stride + k] = static_cast<int8_t>(code);
        x[t * cols + k] = static_cast<float>(code) * scales[t];
      }
    }
    const std::vector<float> y = multiply(device, matmul, w, x, tokens, Epilogue::kStoreF32);
    // The same from codes.
    const cuda::DeviceMemory of_codes = device.upload(codes), of_scales = device.upload(scales),
                             out(device.context(), y.size() * sizeof(float), "y");
    matmul.multiply(device.stream(), w, {of_codes.get(), stride, of_scales.get()}, tokens,
                    Epilogue::kStoreF32, out.get(), rows);
    CHECK(same_bits(device.download<float>(out, y.size()), y), "%lld tokens from codes",
          static_cast<long long>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        const Expected e = {expected(m, r, &x[t * cols]).value, 0};
        check_near(y[t * rows + r], e, m, tokens, t, r);
      }
    }
    device.launches();
  }
}

}  // namespace

void test_matmul_error(CudaDevice& device) {
  Random random(1);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024));
  // Less than a strip, a panel, a slice; exactly one; one more; a short last group; odd columns.
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{1, 8},    {5, 33},    {64, 64},
                                                           {65, 129}, {128, 128}, {200, 72},
                                                           {256, 96}, {300, 347}, {31, 1000}};
  const std::vector<int64_t> tokens = {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 100, 129};
  size_t next = 0;
  for (const auto& [format, activations] : all_operands()) {
    for (const auto& [rows, cols] : shapes) {
      const Matrix m = random_matrix(format, rows, cols, random);
      const PackedMatrix w = pack(device, *matmul, m, RowOrder::kPlain, false, random, activations);
      CHECK(w.memory.bytes() == cuda::packed_bytes(w.shape), "bytes as they were estimated");
      // All counts of tokens in turn: each meets each format several times.
      for (int i = 0; i < (quick ? 1 : 3); ++i) {
        check_product(device, *matmul, w, m, tokens[next++ % tokens.size()], random);
      }
    }
  }
}

void test_matmul_epilogues(CudaDevice& device) {
  Random random(2);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024));
  for (const auto& [format, type] : all_operands()) {
    if (format.group == 64) continue;
    for (int64_t tokens : {3, 12, 31, 50, 130}) {
      const int64_t half = random.integer(1, 150), cols = random.integer(8, 300);
      const Matrix m = random_matrix(format, 2 * half, cols, random);
      const std::vector<float> x = normals_of(type, tokens * cols, random, 0.3f);
      std::vector<std::vector<Expected>> products(tokens);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < m.rows; ++r) {
          products[t].push_back(expected(m, r, &x[t * cols], type));
        }
      }

      const PackedMatrix plain = pack(device, *matmul, m, RowOrder::kPlain, false, random, type);
      std::vector<float> y = multiply(device, *matmul, plain, x, tokens, Epilogue::kStore16);
      const std::vector<float> before = random.normals(tokens * m.rows);
      const std::vector<float> added =
          multiply(device, *matmul, plain, x, tokens, Epilogue::kAddF32, &before);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < m.rows; ++r) {
          Expected e = products[t][r];
          check_near(y[t * m.rows + r], stored_16(e, type), m, tokens, t, r);
          e.value += before[t * m.rows + r];
          check_near(added[t * m.rows + r], stored_f32(e), m, tokens, t, r);
        }
      }

      const PackedMatrix paired = pack(device, *matmul, m, RowOrder::kGateUp, false, random, type);
      y = multiply(device, *matmul, paired, x, tokens, Epilogue::kSiluMul);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < half; ++r) {
          check_near(y[t * half + r], silu_mul(products[t][r], products[t][half + r], type), m,
                     tokens, t, r);
        }
      }
      device.launches();
    }
  }
}

// As if the device had fewer multiprocessors: blocks run through several tiles, begin and end
// within one, and some tiles are shared by several blocks, others by none.
void test_matmul_sharing(CudaDevice& device) {
  Random random(3);
  for (int multiprocessors : {1, 2, 5}) {
    const auto matmul = cuda::make_matmul(device.kernels(), multiprocessors);
    matmul->prepare(limits(2500, 4096));
    for (const auto& [format, activations] :
         {Operands{{WeightType::kF16, 0, false}},
          {{WeightType::kBF16, 0, false}, ActivationType::kBF16},
          {{WeightType::kInt8, 32, false}},
          {{WeightType::kInt8, 128, true}},
          {{WeightType::kInt4, 32, false}},
          {{WeightType::kInt4, 128, true}}}) {
      for (int64_t tokens : {1, 11, 30, 64, 150}) {
        if (quick && tokens > 11) continue;
        const int64_t rows = random.integer(200, 700), cols = random.integer(200, 900);
        const Matrix m = random_matrix(format, rows, cols, random);
        const PackedMatrix w =
            pack(device, *matmul, m, RowOrder::kPlain, false, random, activations);
        check_product(device, *matmul, w, m, tokens, random);
      }
    }
  }
  // Each of the tiles for many tokens, shared by blocks.
  bool met[cuda::kMatmulKinds][cuda::kTiles] = {};
  struct Shape {
    int multiprocessors;
    int64_t rows, cols, tokens;
  };
  for (const Shape& shape : {Shape{7, 250, 300, 100}, {3, 390, 300, 230}, {3, 1280, 400, 230}}) {
    if (quick) break;
    const auto& [multiprocessors, rows, cols, tokens] = shape;
    const auto matmul = cuda::make_matmul(device.kernels(), multiprocessors);
    matmul->prepare(limits(tokens, 1024, true));
    const auto meet = [&](cuda::MatmulKind kind) {
      const int64_t slices = round_up(shape.cols, cuda::kPaddedCols) / cuda::slice_cols(kind);
      const cuda::MatmulPlan plan =
          cuda::plan_matmul({shape.multiprocessors}, kind, shape.rows, slices, shape.tokens);
      if (plan.tiles() % plan.blocks != 0) met[static_cast<int>(kind)][plan.tile_index] = true;
    };
    for (const auto& [format, type] : all_operands()) {
      const Matrix m = random_matrix(format, rows, cols, random);
      const PackedMatrix w = pack(device, *matmul, m, RowOrder::kPlain, false, random, type);
      check_product(device, *matmul, w, m, tokens, random);
      meet(w.kind);
    }
    check_integers(device, *matmul, rows, cols, {tokens}, random);
    meet(cuda::MatmulKind::kW8A8);
  }
  for (int kind = 0; kind < cuda::kMatmulKinds && !quick; ++kind) {
    for (int tile = 3; tile < cuda::kTiles; ++tile) {
      CHECK(met[kind][tile], "kind %d is not tested with tile %d", kind, tile);
    }
  }

  // More token tiles than a band of the line of units has.
  const auto matmul = cuda::make_matmul(device.kernels(), 3);
  matmul->prepare(limits(2500, 64));
  const Matrix m = random_matrix({WeightType::kInt4, 32, false}, 270, 64, random);
  const PackedMatrix w = pack(device, *matmul, m, RowOrder::kPlain, false, random);
  check_product(device, *matmul, w, m, 2400, random);
}

void test_matmul_repeatable(CudaDevice& device) {
  Random random(4);
  struct Shape {
    int multiprocessors;
    int64_t rows, cols;
    std::vector<int64_t> tokens;
  };
  // The last two with the largest tiles, which blocks share.
  for (const Shape& shape :
       {Shape{108, 130, 900, {1, 40, 130}}, {3, 390, 300, {230}}, {3, 1280, 400, {230}}}) {
    if (quick && shape.rows > 1000) continue;
    const auto matmul = cuda::make_matmul(device.kernels(), shape.multiprocessors);
    matmul->prepare(limits(300, 1024));
    for (WeightType type : {WeightType::kF16, WeightType::kInt4}) {
      const Matrix m = random_matrix({type, type == WeightType::kInt4 ? 32 : 0, false}, shape.rows,
                                     shape.cols, random);
      const PackedMatrix w = pack(device, *matmul, m, RowOrder::kPlain, false, random);
      for (int64_t tokens : shape.tokens) {
        const std::vector<float> x = normals_of(ActivationType::kF16, tokens * m.cols, random);
        const std::vector<float> y = multiply(device, *matmul, w, x, tokens, Epilogue::kStoreF32);
        for (int seed = 2; seed < 6; ++seed) {
          device.set_seed(seed);
          CHECK(same_bits(y, multiply(device, *matmul, w, x, tokens, Epilogue::kStoreF32)),
                "%lld tokens, seed %d", static_cast<long long>(tokens), seed);
        }
        device.launches();
      }
    }
  }
  device.set_seed(1);
}

// Integers exactly; other numbers are off by half a step each.
void test_matmul_int8_activations(CudaDevice& device) {
  Random random(5);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024, true));
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{3, 17}, {64, 128}, {130, 300}, {300, 1000}}) {
    check_integers(device, *matmul, rows, cols, {1, 9, 32, 40, 140}, random);
  }
  // Rows as long as 7B has, and longer than quantization keeps in registers.
  matmul->prepare(limits(3, 17003, true));
  check_integers(device, *matmul, 20, 11008, {3}, random);
  check_integers(device, *matmul, 20, 17003, {3}, random);
  matmul->prepare(limits(300, 1024, true));

  for (WeightFormat format : all_formats()) {
    const int64_t rows = 70, cols = 200, tokens = 20;
    const Matrix m = random_matrix(format, rows, cols, random);
    const PackedMatrix w = pack(device, *matmul, m, RowOrder::kPlain, true, random);
    const std::vector<float> x = normals_of(ActivationType::kF16, tokens * cols, random);
    const std::vector<float> y = multiply(device, *matmul, w, x, tokens, Epilogue::kStoreF32);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        check_near(y[t * rows + r], stored_f32(expected_int8(m, r, &x[t * cols])), m, tokens, t, r);
      }
    }
    device.launches();
  }
}

// Weights and activations that f16 has not, with products that it has and that it has not: bf16
// computes them as well as any, where f16 makes infinities, or zeros, of the weights.
void test_matmul_range(CudaDevice& device) {
  Random random(7);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024));
  struct Sizes {
    float weights, activations;
  };
  const int64_t rows = 70, cols = 200;
  for (const Sizes& sizes : {Sizes{4e37f, 1e-33f}, Sizes{1e-30f, 1e35f}}) {
    Matrix m = random_matrix({WeightType::kBF16, 0, false}, rows, cols, random);
    for (size_t i = 0; i < m.exact.size(); ++i) {
      const auto large = static_cast<float>(m.exact[i]) * sizes.weights;
      const uint16_t bits = to_bits(ActivationType::kBF16, large);
      std::memcpy(&m.values[2 * i], &bits, 2);
      m.exact[i] = from_bits(ActivationType::kBF16, bits);
    }
    for (int64_t tokens : {1, 11, 20, 50, 130}) {
      constexpr ActivationType kType = ActivationType::kBF16;
      const std::vector<float> x = normals_of(kType, tokens * cols, random, sizes.activations);
      const PackedMatrix w = pack(device, *matmul, m, RowOrder::kPlain, false, random, kType);
      const std::vector<float> y = multiply(device, *matmul, w, x, tokens, Epilogue::kStore16);
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t r = 0; r < rows; ++r) {
          const Expected e = stored_16(expected(m, r, &x[t * cols], kType), kType);
          check_near(y[t * rows + r], e, m, tokens, t, r);
        }
      }
      const PackedMatrix f16 = pack(device, *matmul, m, RowOrder::kPlain, false, random);
      const std::vector<float> lost =
          multiply(device, *matmul, f16, x, tokens, Epilogue::kStoreF32);
      CHECK(std::none_of(lost.begin(), lost.end(),
                         [](float v) { return std::isfinite(v) && v != 0; }),
            "f16 computes what it cannot hold");
      device.launches();
    }
  }

  // Only floats are multiplied in bf16.
  for (const bool int8_activations : {false, true}) {
    const WeightFormat format = {int8_activations ? WeightType::kBF16 : WeightType::kInt8,
                                 int8_activations ? 0 : 32, false};
    bool refused = false;
    try {
      matmul->allocate({format, 64, 64, RowOrder::kPlain, int8_activations, ActivationType::kBF16});
    } catch (const Error& error) {
      refused = std::strcmp(error.code(), "ALTIPLANO_INTERNAL") == 0;
    }
    CHECK(refused, "%s with bf16 activations", describe(format));
  }
}

// NaN and infinity of a token reach its own outputs, and no other's; padding never meets them.
void test_matmul_not_finite(CudaDevice& device) {
  Random random(6);
  const auto matmul = cuda::make_matmul(device.kernels());
  matmul->prepare(limits(300, 1024, true));
  const int64_t rows = 70, cols = 99;
  for (bool int8_activations : {false, true}) {
    for (const auto& [format, type] : all_operands()) {
      if (int8_activations && type == ActivationType::kBF16) continue;
      const Matrix m = random_matrix(format, rows, cols, random);
      const PackedMatrix w =
          pack(device, *matmul, m, RowOrder::kPlain, int8_activations, random, type);
      for (float bad : {NAN, INFINITY}) {
        const int64_t tokens = 11;
        std::vector<float> x = normals_of(type, tokens * cols, random);
        x[2 * cols + 98] = bad;
        const std::vector<float> y = multiply(device, *matmul, w, x, tokens, Epilogue::kStoreF32);
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < rows; ++r) {
            // A weight of zero times infinity is NaN, too.
            CHECK(std::isfinite(y[t * rows + r]) == (t != 2), "%s: %g, token %lld: %g",
                  describe(format), bad, static_cast<long long>(t), y[t * rows + r]);
          }
        }
        device.launches();
      }
    }
  }
}

}  // namespace altiplano::test
