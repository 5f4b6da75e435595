// What the native kernel tests share: checks that count, repeatable random numbers, and buffers.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "cpu/kernels.h"

namespace altiplano::test {

using cpu::Kernels;

inline constexpr double kEps = 0x1p-24;  // half an ulp of 1 in f32: the error of one operation

// Failed checks of the running case; the first few are printed.
inline int failures = 0;
inline bool quick = false;  // fewer shapes, for emulators

__attribute__((format(printf, 4, 5))) inline void check(bool ok, const char* file, int line,
                                                        const char* format, ...) {
  if (ok || ++failures > 5) return;
  std::fprintf(stderr, "  %s:%d: ", file, line);
  va_list args;
  va_start(args, format);
  std::vfprintf(stderr, format, args);
  va_end(args);
  std::fprintf(stderr, "\n");
}
// A message in printf's manner says what was found.
#define CHECK(condition, ...) \
  ::altiplano::test::check(static_cast<bool>(condition), __FILE__, __LINE__, __VA_ARGS__)

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t integer(int64_t low, int64_t high) {  // inclusive
    return low + static_cast<int64_t>(engine_() % static_cast<uint64_t>(high - low + 1));
  }
  float normal(float deviation = 1.f) { return deviation * normal_(engine_); }
  std::vector<float> normals(int64_t n, float deviation = 1.f) {
    std::vector<float> x(n);
    for (float& v : x) v = normal(deviation);
    return x;
  }

 private:
  std::mt19937 engine_;
  std::normal_distribution<float> normal_;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// 64-byte aligned bytes, exactly as many as asked for, so that AddressSanitizer sees every overrun.
class Buffer {
 public:
  explicit Buffer(size_t bytes, uint8_t fill = 0)
      : data_(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 63) / 64 * 64))) {
    std::memset(data_, fill, (bytes + 63) / 64 * 64);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  uint8_t* data() { return data_; }

 private:
  uint8_t* data_;
};

double f16_value(uint16_t bits);  // by its definition; finite
bool f16_is_finite(uint16_t bits);
// Of the finite numbers around, the nearest; of two equally near, the even one.
uint16_t nearest_f16(float x);

// A matrix in canonical form, its packed form, and its values in f64.
struct Matrix {
  WeightFormat format;
  int64_t rows, cols;
  std::vector<uint8_t> values;
  std::vector<uint16_t> scales;
  std::vector<uint8_t> zeros;
  std::vector<double> exact;  // [rows][cols]

  cpu::PackedMatrix pack(const Kernels& k, Buffer& into) const;
  static size_t packed_bytes(const Kernels& k, WeightFormat format, int64_t rows, int64_t cols);
  CanonicalRows slice(int64_t first, int64_t count) const;
};

// Random codes and scales, independent of the quantizer under test.
Matrix random_matrix(WeightFormat format, int64_t rows, int64_t cols, Random& random);
// All formats: the float types, and int8 and int4 in groups of 32, 64, 128 with and without zeros.
std::vector<WeightFormat> all_formats();
const char* describe(WeightFormat format);

// One file each; the table under test is compared with straightforward f64, with f32's error
// bounds, and bit by bit with the portable table where the results are exact.
void test_packing(const Kernels& k);
void test_matmul_error(const Kernels& k);
void test_matmul_extremes(const Kernels& k);
void test_matmul_is_the_same_for_any_batch(const Kernels& k);
void test_matmul_tile_ranges(const Kernels& k);
void test_quantize_activations(const Kernels& k);
void test_matmul_int8_error(const Kernels& k);
void test_matmul_int8_extremes(const Kernels& k);
void test_matmul_int8_is_the_same_for_any_batch(const Kernels& k);
void test_matmul_int8_tile_ranges(const Kernels& k);
void test_rmsnorm(const Kernels& k);
void test_rope(const Kernels& k);
void test_silu_mul(const Kernels& k);
void test_softmax(const Kernels& k);
void test_log_sum_exp(const Kernels& k);
void test_conversions(const Kernels& k);
void test_quantize(const Kernels& k);
void test_int4_search(const Kernels& k);
void test_lossless_blocks(const Kernels& k);
void test_kv_store(const Kernels& k);
void test_kv_store_int8(const Kernels& k);
void test_attend_error(const Kernels& k);
void test_attend_is_the_same_for_any_batch(const Kernels& k);
void test_attend_extremes(const Kernels& k);
void test_attend_heads(const Kernels& k);
void test_attend_ignores_what_is_not_visible(const Kernels& k);
void test_attend_shows_what_is_not_finite(const Kernels& k);
void test_choice_of_a_table(const Kernels& k);

}  // namespace altiplano::test
