#include "kernel_cases.h"

#include <algorithm>
#include <set>

#include "kernel_inputs.h"

namespace ptx_simulator::test {

namespace {

uint32_t pieces(int64_t of, int64_t size) { return static_cast<uint32_t>((of + size - 1) / size); }

// --- rmsnorm.cu ---

template <class T>
std::vector<T> random_values(Random& random, size_t count);
template <>
std::vector<float> random_values(Random& random, size_t count) {
  return normals(random, count);
}
template <>
std::vector<uint16_t> random_values(Random& random, size_t count) {
  return normals_f16(random, count);
}

template <class T>
T not_a_number() {
  if constexpr (sizeof(T) == 2) {
    return kNanF16;
  } else {
    return kNan;
  }
}

template <class T>
std::string run_rmsnorm(KernelDevice& device, int rows, int length, int threads, uint32_t seed) {
  constexpr bool kIsF16 = sizeof(T) == 2;
  const float epsilon = 1e-5f;
  Random random(seed);
  const auto x = random_values<T>(random, static_cast<size_t>(rows) * length);
  const auto weight = random_values<T>(random, length);
  std::vector<double> expected(x.size()), bounds(x.size());
  for (int row = 0; row < rows; ++row) {
    double squares = 0;
    for (int i = 0; i < length; ++i) squares += std::pow(value_of(x[row * length + i]), 2);
    const double scale = 1 / std::sqrt(squares / length + epsilon);
    for (int i = 0; i < length; ++i) {
      const size_t at = static_cast<size_t>(row) * length + i;
      expected[at] = value_of(x[at]) * scale * value_of(weight[i]);
      // A thread adds up ceil(length / threads) squares, packs of up to eight at a time; ten levels
      // of a tree follow, a division, and the addition of epsilon. The root halves relative errors;
      // rsqrt.approx is exact to 2^-22.9; two products follow.
      const double chain = pieces(length, threads) + 8 + 12;
      const double relative = chain / 2 * kEpsF32 + 0x1p-22 + 2 * kEpsF32 + (kIsF16 ? kEpsF16 : 0);
      bounds[at] = 1.01 * relative * std::fabs(expected[at]) + (kIsF16 ? kLeastF16 : 1e-40);
    }
  }
  const DeviceArray<T> x_array(device, x), weight_array(device, weight);
  const DeviceArray<T> y_array(device, std::vector<T>(x.size(), not_a_number<T>()));
  device.launch(kIsF16 ? "rmsnorm_f16" : "rmsnorm_f32",
                {{static_cast<uint32_t>(rows), 1, 1}, {static_cast<uint32_t>(threads), 1, 1}},
                {x_array.address(), weight_array.address(), y_array.address(), length, epsilon});
  return compare(y_array.values(), expected, bounds);
}

// --- softmax.cu ---

std::string run_softmax(KernelDevice& device, bool per_warp, int rows, int length, int threads,
                        uint32_t seed) {
  Random random(seed);
  auto x = normals(random, static_cast<size_t>(rows) * length, 4.f);
  // Something that is masked, but never the whole row.
  for (size_t i = 0; i < x.size(); ++i) {
    if (i % length != 0 && random() % 8 == 0) x[i] = -INFINITY;
  }
  std::vector<double> expected(x.size()), bounds(x.size());
  for (int row = 0; row < rows; ++row) {
    const float* const values = x.data() + static_cast<size_t>(row) * length;
    const double max = *std::max_element(values, values + length);
    double sum = 0, least = max;
    for (int i = 0; i < length; ++i) {
      sum += std::exp(values[i] - max);
      if (std::isfinite(values[i])) least = std::min<double>(least, values[i]);
    }
    // The argument of an exponential, log2(e) (x - max), has three roundings (that of the constant
    // is one), ex2.approx another 2 ulp. A thread's terms may be rescaled once for each of its
    // elements, then once to the row's maximum; the sum has a chain and a tree of ten levels, and
    // quotient and product follow.
    const double argument = (max - least) * 1.4427;
    const double exponential = 3 * kEpsF32 * argument * 0.6932 + 0x1p-22;
    const double chain = pieces(length, std::min(threads, per_warp ? 32 : threads));
    const double relative = (chain + 3) * exponential + (2 * chain + 14) * kEpsF32;
    for (int i = 0; i < length; ++i) {
      const size_t at = static_cast<size_t>(row) * length + i;
      expected[at] = std::exp(values[i] - max) / sum;
      bounds[at] = 1.01 * relative * expected[at] + 1e-37;  // ex2 flushes what is smaller
    }
  }
  const DeviceArray<float> x_array(device, x);
  const DeviceArray<float> y_array(device, std::vector<float>(x.size(), kNan));
  const uint32_t block = static_cast<uint32_t>(threads);
  if (per_warp) {
    const int warps = threads / 32;
    device.launch("softmax_warp",
                  {{pieces(rows, warps), 1, 1},
                   {block, 1, 1},
                   static_cast<uint32_t>(warps * length * sizeof(float))},
                  {x_array.address(), y_array.address(), rows, length});
  } else {
    device.launch("softmax_block", {{static_cast<uint32_t>(rows), 1, 1}, {block, 1, 1}},
                  {x_array.address(), y_array.address(), length});
  }
  return compare(y_array.values(), expected, bounds);
}

// --- split_sum.cu ---

std::string run_split_sum(KernelDevice& device, int64_t length, int blocks, int threads,
                          uint32_t seed) {
  Random random(seed);
  auto x = normals(random, length);
  uint32_t expected_count = 0;
  float expected_largest = 0;
  double sum = 0, magnitudes = 0;
  for (float& v : x) {
    if (random() % 64 == 0) {
      v = random() % 2 == 0 ? kNan : -INFINITY;
      ++expected_count;
    } else {
      expected_largest = std::max(expected_largest, std::fabs(v));
      sum += v;
      magnitudes += std::fabs(v);
    }
  }
  const DeviceArray<float> x_array(device, x);
  const DeviceArray<float> parts(device, std::vector<float>(blocks, kNan));
  const DeviceArray<uint32_t> tickets(device, {0});
  float first = 0;
  for (int time = 0; time < 2; ++time) {
    const DeviceArray<uint32_t> count(device, {0}), largest(device, {0});
    const DeviceArray<float> result(device, {kNan});
    device.launch("split_sum",
                  {{static_cast<uint32_t>(blocks), 1, 1}, {static_cast<uint32_t>(threads), 1, 1}},
                  {x_array.address(), length, parts.address(), tickets.address(), count.address(),
                   largest.address(), result.address()});
    // Of a thread's elements, of a tree of ten levels, of the blocks' parts, of a tree again.
    const double chain = pieces(length, int64_t{blocks} * threads) + pieces(blocks, threads) + 20;
    const auto problem =
        compare(result.values(), {sum}, {1.01 * chain * kEpsF32 * magnitudes + 1e-37});
    if (!problem.empty()) return "sum: " + problem;
    if (count.values()[0] != expected_count) return "wrong count of what is not finite";
    uint32_t largest_bits;
    std::memcpy(&largest_bits, &expected_largest, sizeof(largest_bits));
    if (largest.values()[0] != largest_bits) return "wrong largest element";
    if (tickets.values()[0] != 0) return "tickets are not as they were";
    if (time == 1 && std::memcmp(&first, result.values().data(), sizeof(first)) != 0) {
      return "another sum the second time";
    }
    first = result.values()[0];
  }
  return "";
}

std::string run_split_rows(KernelDevice& device, int rows, int length, int slices, int threads,
                           uint32_t seed) {
  Random random(seed);
  const auto x = normals(random, static_cast<size_t>(rows) * length);
  const auto before = normals(random, rows);
  std::vector<double> expected(rows), bounds(rows);
  for (int row = 0; row < rows; ++row) {
    double magnitudes = std::fabs(before[row]);
    expected[row] = before[row];
    for (int i = 0; i < length; ++i) {
      expected[row] += x[static_cast<size_t>(row) * length + i];
      magnitudes += std::fabs(x[static_cast<size_t>(row) * length + i]);
    }
    const double chain = pieces(length, int64_t{slices} * threads) + 10 + slices;
    bounds[row] = 1.01 * chain * kEpsF32 * magnitudes;
  }
  const DeviceArray<float> x_array(device, x), sums(device, before);
  device.launch("split_rows",
                {{static_cast<uint32_t>(rows), static_cast<uint32_t>(slices), 1},
                 {static_cast<uint32_t>(threads), 1, 1}},
                {x_array.address(), length, sums.address()});
  return compare(sums.values(), expected, bounds);
}

// --- gemm_int4.cu ---

std::string run_int4(KernelDevice& device, int m, int n, int k, uint32_t seed) {
  constexpr int kGroup = 64;
  const int groups = k / kGroup;
  Random random(seed);
  const auto x = normals_f16(random, static_cast<size_t>(m) * k);
  std::vector<int> codes(static_cast<size_t>(n) * k);
  for (int& code : codes) code = static_cast<int>(random() % 16);
  std::vector<uint16_t> scales(static_cast<size_t>(n) * groups);
  for (uint16_t& scale : scales) scale = f16_towards_zero(0.01f + std::fabs(normal(random, 0.02f)));

  // Word t of 32 steps of k: pair p of its nibbles (p and p + 4) is for k = 8 p + 2 t and the next.
  std::vector<uint32_t> words(static_cast<size_t>(n) * k / 8);
  for (int row = 0; row < n; ++row) {
    for (int at = 0; at < k; ++at) {
      const int pair = at % 32 / 8, lane = at % 8 / 2, nibble = pair + at % 2 * 4;
      const size_t word = (static_cast<size_t>(row) * k + at / 32 * 32) / 8 + lane;
      words[word] |= static_cast<uint32_t>(codes[static_cast<size_t>(row) * k + at]) << 4 * nibble;
    }
  }
  std::vector<double> expected(static_cast<size_t>(m) * n), bounds(expected.size());
  for (int row = 0; row < m; ++row) {
    for (int column = 0; column < n; ++column) {
      double sum = 0, magnitudes = 0;
      for (int at = 0; at < k; ++at) {
        const double weight = (codes[static_cast<size_t>(column) * k + at] - 8) *
                              f16_value(scales[static_cast<size_t>(column) * groups + at / kGroup]);
        const double product = f16_value(x[static_cast<size_t>(row) * k + at]) * weight;
        sum += product;
        magnitudes += std::fabs(product);
      }
      const size_t at = static_cast<size_t>(row) * n + column;
      expected[at] = sum;
      // Of mma within a group (see instructions/mma.cc), a rounding per group, and that to f16.
      const double relative = 2 * kGroup * 0x1p-23 + groups * kEpsF32;
      bounds[at] = 1.01 * (relative * magnitudes + kEpsF16 * std::fabs(sum)) + kLeastF16;
    }
  }
  const DeviceArray<uint16_t> x_array(device, x), scales_array(device, scales);
  const DeviceArray<uint32_t> words_array(device, words);
  const DeviceArray<uint16_t> d_array(device, std::vector<uint16_t>(expected.size(), kNanF16));
  device.launch("gemm_int4", {{pieces(n, 64), pieces(m, 16), 1}, {128, 1, 1}},
                {x_array.address(), words_array.address(), scales_array.address(),
                 d_array.address(), m, n, k});
  return compare(d_array.values(), expected, bounds);
}

std::string shape_text(std::initializer_list<int64_t> sizes) {
  std::string text;
  for (const int64_t size : sizes) text += (text.empty() ? " " : " x ") + std::to_string(size);
  return text;
}

std::vector<KernelCase> make_cases() {
  std::vector<KernelCase> cases;
  // One warp and many, lengths that suit 16 bytes or do not, one round of a loop and many.
  struct Rows {
    int rows, length, threads;
  };
  for (const auto& [rows, length, threads] :
       {Rows{2, 136, 64}, Rows{3, 77, 64}, Rows{1, 1, 32}, Rows{2, 2080, 32}, Rows{1, 999, 32},
        Rows{1, 3000, 1024}, Rows{3, 4097, 1024}}) {
    const bool is_small = length < 4000;
    cases.push_back({"rmsnorm_f32" + shape_text({rows, length}), "rmsnorm", is_small,
                     [=](KernelDevice& device, uint32_t seed) {
                       return run_rmsnorm<float>(device, rows, length, threads, seed);
                     }});
    cases.push_back({"rmsnorm_f16" + shape_text({rows, length}), "rmsnorm", is_small,
                     [=](KernelDevice& device, uint32_t seed) {
                       return run_rmsnorm<uint16_t>(device, rows, length, threads, seed);
                     }});
  }
  for (const auto& [rows, length, threads] :
       {Rows{2, 131, 64}, Rows{5, 31, 96}, Rows{1, 1, 32}, Rows{2, 700, 32}, Rows{1, 2900, 1024},
        Rows{3, 1025, 256}, Rows{2, 5000, 1024}}) {
    const bool is_small = rows * length < 3000;
    cases.push_back({"softmax_block" + shape_text({rows, length}), "softmax", is_small,
                     [=](KernelDevice& device, uint32_t seed) {
                       return run_softmax(device, false, rows, length, threads, seed);
                     }});
    if (threads / 32 * length * sizeof(float) > 160 * 1024) continue;  // shared memory
    cases.push_back({"softmax_warp" + shape_text({rows, length}), "softmax", is_small,
                     [=](KernelDevice& device, uint32_t seed) {
                       return run_softmax(device, true, rows, length, threads, seed);
                     }});
  }
  struct Sum {
    int length, blocks, threads;
  };
  for (const auto& [length, blocks, threads] :
       {Sum{300, 3, 64}, Sum{1, 1, 32}, Sum{500, 300, 32}, Sum{90001, 300, 320}, Sum{3000, 2, 1024},
        Sum{3001, 2, 32}, Sum{100003, 40, 256}}) {
    cases.push_back({"split_sum" + shape_text({length}), "split_sum", length < 100000,
                     [=](KernelDevice& device, uint32_t seed) {
                       return run_split_sum(device, length, blocks, threads, seed);
                     }});
    cases.push_back({"split_rows" + shape_text({3, length}), "split_sum", length < 100000,
                     [=](KernelDevice& device, uint32_t seed) {
                       return run_split_rows(device, 3, length, blocks, threads, seed);
                     }});
  }
  struct Product {
    int m, n, k;
  };
  for (const auto& [m, n, k] :
       {Product{3, 5, 7}, Product{2, 3, 1}, Product{10, 21, 45}, Product{20, 9, 90},
        Product{65, 66, 197}, Product{1, 130, 31}, Product{64, 64, 32}, Product{100, 41, 129}}) {
    for (const bool transposed : {true, false}) {
      cases.push_back({(transposed ? "gemm_nt" : "gemm_nn") + shape_text({m, n, k}), "gemm_f16",
                       m < 66, [=](KernelDevice& device, uint32_t seed) {
                         return run_gemm(device, transposed, m, n, k, seed);
                       }});
    }
  }
  for (const auto& [m, n, k] : {Product{27, 67, 192}, Product{1, 9, 64}, Product{2, 6, 64},
                                Product{2, 14, 64}, Product{5, 131, 640}}) {
    cases.push_back(
        {"gemm_int4" + shape_text({m, n, k}), "gemm_int4", k < 200,
         [=](KernelDevice& device, uint32_t seed) { return run_int4(device, m, n, k, seed); }});
  }
  return cases;
}

}  // namespace

// --- gemm_f16.cu ---

std::string run_gemm(KernelDevice& device, bool transposed, int m, int n, int k, uint32_t seed) {
  constexpr uint32_t kTile = 64, kSharedBytes = 4 * 8192;
  const auto padded = [](int size) { return (size + 7) / 8 * 8; };
  const int a_stride = padded(k), b_rows = transposed ? n : k, b_columns = transposed ? k : n;
  const int b_stride = padded(b_columns);
  Random random(seed);
  // What lies between the rows must not count.
  const auto matrix = [&](int rows, int columns, int stride) {
    std::vector<uint16_t> values(static_cast<size_t>(rows) * stride, kNanF16);
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < columns; ++i) {
        values[static_cast<size_t>(row) * stride + i] = f16_towards_zero(normal(random));
      }
    }
    return values;
  };
  const auto a = matrix(m, k, a_stride), b = matrix(b_rows, b_columns, b_stride);
  std::vector<double> a_values(a.size()), b_values(b.size());
  for (size_t i = 0; i < a.size(); ++i) a_values[i] = f16_value(a[i]);
  for (size_t i = 0; i < b.size(); ++i) b_values[i] = f16_value(b[i]);
  std::vector<double> expected(static_cast<size_t>(m) * n), bounds(expected.size());
  for (int row = 0; row < m; ++row) {
    for (int column = 0; column < n; ++column) {
      double sum = 0, magnitudes = 0;
      for (int at = 0; at < k; ++at) {
        const double product = a_values[static_cast<size_t>(row) * a_stride + at] *
                               b_values[transposed ? static_cast<size_t>(column) * b_stride + at
                                                   : static_cast<size_t>(at) * b_stride + column];
        sum += product;
        magnitudes += std::fabs(product);
      }
      expected[static_cast<size_t>(row) * n + column] = sum;
      // instructions/mma.cc: 2 * 16 units of 2^-23 for each step of 16.
      bounds[static_cast<size_t>(row) * n + column] =
          1.01 * 32 * pieces(k, 16) * 0x1p-23 * magnitudes;
    }
  }
  const DeviceArray<uint16_t> a_array(device, a), b_array(device, b);
  const DeviceArray<float> d_array(device, std::vector<float>(expected.size(), kNan));
  device.launch(
      transposed ? "gemm_nt" : "gemm_nn",
      {{pieces(n, kTile), pieces(m, kTile), 1}, {128, 1, 1}, kSharedBytes},
      {a_array.address(), b_array.address(), d_array.address(), m, n, k, a_stride, b_stride});
  return compare(d_array.values(), expected, bounds);
}

const std::vector<KernelCase>& kernel_cases() {
  static const std::vector<KernelCase> cases = make_cases();
  return cases;
}

std::vector<std::string> kernel_modules() {
  std::set<std::string> names;
  for (const KernelCase& each : kernel_cases()) names.insert(each.module);
  return {names.begin(), names.end()};
}

}  // namespace ptx_simulator::test
