// The kernels that compute a row of activations: embedding, RMSNorm, SiLU, gathering rows; and
// copies of pages. Against float64, for odd sizes.
#include "cuda/operations.h"

#include <algorithm>

#include "device.h"
#include "halves.h"

namespace altiplano::test {
namespace {

AttentionShape plain_shape(ActivationType activations = ActivationType::kF16) {
  AttentionShape shape;
  shape.heads = shape.kv_heads = shape.layers = 1;
  shape.head_dim = 8;
  shape.kv_type = KvType::kF16;
  shape.activations = activations;
  return shape;
}

// Numbers of a row of activations, padding included.
int64_t stride_of(int64_t cols) { return (cols + 7) / 8 * 8; }

// Rows with padding that nothing may read.
std::vector<float> padded(const std::vector<float>& rows, int64_t cols) {
  const int64_t stride = stride_of(cols), count = static_cast<int64_t>(rows.size()) / cols;
  std::vector<float> result(count * stride, NAN);
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(rows.begin() + r * cols, cols, result.begin() + r * stride);
  }
  return result;
}

constexpr int64_t kSizes[] = {1, 7, 33, 256, 1000};

}  // namespace

void test_embed(CudaDevice& device) {
  const cuda::Operations operations(device.kernels(), plain_shape());
  Random random(1);
  for (const WeightFormat format : all_formats()) {
    // Fewer columns than a block takes at once, and more.
    for (const int64_t least : {0, 4096}) {
      const int64_t rows = 9;
      const int64_t cols = least + random.integer(1, 3) * 65 + random.integer(0, 1);
      const Matrix m = random_matrix(format, rows, cols, random);
      const cuda::DeviceMemory values = device.upload(m.values), scales = device.upload(m.scales),
                               zeros = device.upload(m.zeros);
      const cuda::CanonicalView view = {
          reinterpret_cast<const void*>(values.get()),
          m.scales.empty() ? nullptr : reinterpret_cast<const uint16_t*>(scales.get()),
          m.zeros.empty() ? nullptr : reinterpret_cast<const uint8_t*>(zeros.get()), cols,
          format.group};
      // Below zero: what a row of the step before chose.
      const std::vector<int32_t> tokens = {3, -2, 0, 8, -1, 3}, chosen = {5, 7};
      const std::vector<int64_t> expected = {3, 7, 0, 8, 5, 3};
      const cuda::DeviceMemory ids = device.upload(tokens), choices = device.upload(chosen);
      const int64_t stride = stride_of(cols);
      const cuda::DeviceMemory x(device.context(), tokens.size() * stride * sizeof(float), "x");
      operations.embed(device.stream(), format, view, static_cast<uint32_t>(tokens.size()),
                       ids.get(), choices.get(), x.get(), stride);
      const auto found = device.download<float>(x, tokens.size() * stride);
      bool same = true;
      for (size_t t = 0; t < tokens.size(); ++t) {
        for (int64_t c = 0; c < cols; ++c) {
          same = same && found[t * stride + c] == m.exact[expected[t] * cols + c];
        }
      }
      CHECK(same, "%s, %lld columns: not the rows of the embedding", describe(format),
            static_cast<long long>(cols));
    }
  }
}

// x is f32, the sum of n squares has a relative error of at most (n / threads + threads / 32 + 5)
// f32 roundings; root, quotient and products add 4. The result is rounded to 16 bits: in bf16
// whatever its size.
void test_rmsnorm(CudaDevice& device) {
  Random random(2);
  for (const ActivationType type : {ActivationType::kF16, ActivationType::kBF16}) {
    const cuda::Operations operations(device.kernels(), plain_shape(type));
    // Rows that registers hold, short and as long as can be, and such as they do not.
    for (const int64_t cols : {1, 7, 33, 256, 1000, 1001, 4096, 5120, 8192, 8196}) {
      const int64_t tokens = random.integer(1, 5), stride = stride_of(cols);
      const std::vector<float> x = random.normals(tokens * cols, 3),
                               weight = random.normals(cols,
                                                       type == ActivationType::kBF16 ? 1e20f : 1.f);
      constexpr float kNormEps = 1e-5f;
      const cuda::DeviceMemory w = device.upload(weight), in = device.upload(padded(x, cols));
      const cuda::DeviceMemory out(device.context(), tokens * stride * 2, "out");
      operations.rmsnorm(device.stream(), static_cast<uint32_t>(tokens), in.get(), stride, w.get(),
                         kNormEps, cols, {out.get(), stride});
      const auto found = from_halves(device.download<uint16_t>(out, tokens * stride), type);
      for (int64_t t = 0; t < tokens; ++t) {
        double squares = 0;
        for (int64_t c = 0; c < cols; ++c) {
          squares += std::pow(static_cast<double>(x[t * cols + c]), 2);
        }
        const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + kNormEps);
        const double share = (static_cast<double>(cols) / 256 + 8 + 5 + 4) * kEps;
        for (int64_t c = 0; c < cols; ++c) {
          const double exact = x[t * cols + c] * inverse * weight[c];
          CHECK(is_near(found[t * stride + c], exact, share * std::abs(exact), type),
                "%s, %lld columns: %g, expected %g", describe(type), static_cast<long long>(cols),
                found[t * stride + c], exact);
        }
      }
    }
  }
}

// expf is off by 2 units in the last place, its sum with 1 and the quotient and product by one
// each: less than 8 f32 roundings in all.
void test_silu_mul(CudaDevice& device) {
  const cuda::Operations operations(device.kernels(), plain_shape());
  Random random(3);
  for (const int64_t cols : kSizes) {
    const int64_t tokens = random.integer(1, 5), stride = stride_of(cols);
    std::vector<float> gate_up = random.normals(tokens * 2 * cols, 4);
    gate_up[0] = -60000;  // exp overflows: silu is 0
    const std::vector<uint16_t> halves = to_halves(gate_up);
    const std::vector<double> values = from_halves(halves);
    const cuda::DeviceMemory in = device.upload(halves);
    const cuda::DeviceMemory out(device.context(), tokens * stride * 2, "out");
    operations.silu_mul(device.stream(), static_cast<uint32_t>(tokens), in.get(), cols, out.get(),
                        stride);
    const auto found = from_halves(device.download<uint16_t>(out, tokens * stride));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        const double gate = values[t * 2 * cols + c], up = values[t * 2 * cols + cols + c];
        const double exact = gate / (1 + std::exp(-gate)) * up;
        CHECK(is_near(found[t * stride + c], exact, 8 * kEps * std::abs(exact)),
              "silu(%g) * %g: %g, expected %g", gate, up, found[t * stride + c], exact);
      }
    }
  }
}

void test_gather_rows(CudaDevice& device) {
  const cuda::Operations operations(device.kernels(), plain_shape());
  Random random(4);
  for (const int64_t stride : {8, 64, 5000}) {
    const std::vector<uint16_t> h = to_halves(random.normals(6 * stride));
    const std::vector<int32_t> rows = {5, 0, 0, 3};
    const cuda::DeviceMemory in = device.upload(h), wanted = device.upload(rows);
    const cuda::DeviceMemory out(device.context(), rows.size() * stride * 2, "out");
    operations.gather_rows(device.stream(), {in.get(), stride}, wanted.get(),
                           static_cast<uint32_t>(rows.size()), {out.get(), stride});
    const auto found = device.download<uint16_t>(out, rows.size() * stride);
    for (size_t r = 0; r < rows.size(); ++r) {
      CHECK(std::equal(found.begin() + r * stride, found.begin() + (r + 1) * stride,
                       h.begin() + rows[r] * stride),
            "row %zu of stride %lld", r, static_cast<long long>(stride));
    }
    // The same bytes as codes, with a scale for each row.
    const std::vector<float> scales = random.normals(6);
    const cuda::DeviceMemory in_scales = device.upload(scales);
    const cuda::DeviceMemory out_scales(device.context(), rows.size() * sizeof(float), "scales");
    operations.gather_rows(device.stream(), {in.get(), 2 * stride, in_scales.get()}, wanted.get(),
                           static_cast<uint32_t>(rows.size()),
                           {out.get(), 2 * stride, out_scales.get()});
    CHECK(device.download<uint16_t>(out, rows.size() * stride) == found, "the same bytes");
    CHECK(device.download<float>(out_scales, rows.size()) ==
              (std::vector<float>{scales[5], scales[0], scales[0], scales[3]}),
          "the scales of the rows");
  }
}

// Pairs are copied in order: what one writes, the next may read.
void test_copy_pages(CudaDevice& device) {
  Random random(5);
  AttentionShape shape = plain_shape();
  shape.layers = 3;
  const cuda::Operations operations(device.kernels(), shape);
  for (const int64_t page_bytes : {16, 1040, 8192}) {
    constexpr int64_t kPages = 7;
    const int64_t layer_bytes = kPages * page_bytes;
    std::vector<uint8_t> cache(3 * layer_bytes);
    for (uint8_t& byte : cache) byte = static_cast<uint8_t>(random.integer(0, 255));
    const cuda::DeviceMemory memory = device.upload(cache);
    const std::vector<int32_t> pairs = {0, 1, 1, 2, 2, 2, 6, 0, 5, 6, 0, 4};
    const cuda::DeviceMemory list = device.upload(pairs);
    operations.copy_pages(device.stream(),
                          {.pages = memory.get(),
                           .layer_bytes = layer_bytes,
                           .page_bytes = page_bytes,
                           .head_bytes = page_bytes},
                          list.get(), static_cast<int64_t>(pairs.size() / 2));
    for (int layer = 0; layer < 3; ++layer) {
      uint8_t* base = cache.data() + layer * layer_bytes;
      for (size_t i = 0; i < pairs.size(); i += 2) {
        std::memmove(base + pairs[i + 1] * page_bytes, base + pairs[i] * page_bytes, page_bytes);
      }
    }
    CHECK(device.download<uint8_t>(memory, cache.size()) == cache, "pages of %lld bytes",
          static_cast<long long>(page_bytes));
  }
}

}  // namespace altiplano::test
