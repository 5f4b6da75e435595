// Speed of the CPU kernels, beside the limits of this machine measured in the same run: how fast
// memory is read, and how many fused multiply-adds the vector units do.
//   kernels_bench [--threads N] [table]
// Matmul reads weights from memory (the matrices are larger than caches); tokens 1 is decode.
// Figures are medians; a share is that of the limit measured with the same number of threads.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/int8_peak.h"

#if defined(ALTIPLANO_X86)
#include <immintrin.h>
#endif

namespace altiplano::bench {
namespace {

using cpu::Kernels;
using cpu::PackedMatrix;

int threads = 1;
constexpr int kRuns = 7;

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Processor seconds of work(thread) on all threads at once, of the slowest thread: time that other
// programs take away does not count. The median of some runs after a warm-up.
double seconds(const std::function<void(int)>& work) {
  std::vector<double> times;
  for (int run = 0; run <= kRuns; ++run) {
    std::vector<double> taken(threads);
    const auto timed = [&](int t) {
      const double start = thread_seconds();
      work(t);
      taken[t] = thread_seconds() - start;
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(timed, t);
    timed(0);
    for (std::thread& other : others) other.join();
    if (run > 0) times.push_back(*std::max_element(taken.begin(), taken.end()));
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct Bytes {
  explicit Bytes(size_t size)
      : size(size), data(static_cast<uint8_t*>(std::aligned_alloc(64, size))) {
    // 0x3c3c is about 1 in f16, 0.01 in bf16 and f32: no NaN and no denormal to slow things down.
    std::memset(data, 0x3c, size);
  }
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;
  ~Bytes() { std::free(data); }
  size_t size;
  uint8_t* data;
};

volatile uint64_t sink;

double read_bandwidth() {
  const Bytes memory(size_t{256} << 20);
  const double time = seconds([&](int thread) {
    const size_t words = memory.size / 64 / threads * 8;
    const uint64_t* p = reinterpret_cast<const uint64_t*>(memory.data) + words * thread;
    uint64_t sums[8] = {};
    for (size_t i = 0; i < words; i += 8) {
      for (int j = 0; j < 8; ++j) sums[j] += p[i + j];
    }
    for (uint64_t s : sums) sink = sink + s;
  });
  return static_cast<double>(memory.size) / time;
}

#if defined(ALTIPLANO_X86)
__attribute__((target("avx2,fma"))) void multiply_add(int64_t rounds) {
  // Loops over the sums are unrolled, or they would be kept in memory.
  __m256 sums[12];
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) {
      sums[i] = _mm256_fmadd_ps(sums[i], a, b);
      __asm__ volatile("" : "+x"(sums[i]));  // keeps the loop from being shortened
    }
  }
  float sum = 0;
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sum += _mm256_cvtss_f32(sums[i]);
  sink = sink + static_cast<uint64_t>(sum);
}

// Multiply-adds a second with 256-bit vectors.
double multiply_add_peak() {
  constexpr int64_t kRounds = 4'000'000;
  return kRounds * 12.0 * 8 * threads / seconds([](int) { multiply_add(kRounds); });
}
#else
double multiply_add_peak() { return 0; }
#endif

struct Limits {
  double bytes;  // a second
  double macs;
};

void print(const char* what, double macs, double bytes, double time, const Limits& limits) {
  std::printf("%-28s %8.1f GMAC/s", what, macs / time * 1e-9);
  if (limits.macs > 0) std::printf(" (%3.0f %%)", 100 * macs / time / limits.macs);
  std::printf(" %8.1f GB/s (%3.0f %%)\n", bytes / time * 1e-9, 100 * bytes / time / limits.bytes);
}

void bench_matmul(const Kernels& k, const char* name, WeightFormat format, const Limits& limits) {
  constexpr int64_t kCols = 4096;
  const size_t tile_bytes = k.packed_tile_bytes(format, kCols);
  const int64_t tiles = (size_t{192} << 20) / tile_bytes;
  const Bytes weights(tiles * tile_bytes);
  const PackedMatrix w{format, tiles * k.tile_rows, kCols, weights.data, tile_bytes};
  for (int64_t tokens : {1, 2, 4, 8, 32, 256}) {
    // Many tokens: fewer rows, to keep the bench short.
    const int64_t used = std::min<int64_t>(tiles, tokens > 1 ? 1024 / tokens * 64 + 256 : tiles);
    const std::vector<float> x(tokens * kCols, 0.5f);
    std::vector<float> y(tokens * used * k.tile_rows);
    const double time = seconds([&](int thread) {
      k.matmul(w, used * thread / threads, used * (thread + 1) / threads, x.data(), kCols, tokens,
               y.data(), used * k.tile_rows, false);
    });
    char what[64];
    std::snprintf(what, sizeof(what), "matmul %s, %lld tokens", name,
                  static_cast<long long>(tokens));
    print(what, static_cast<double>(used * k.tile_rows * kCols * tokens),
          static_cast<double>(used * tile_bytes), time, limits);
  }
}

// The same with int8 activations; the share is that of the int8 multiply-add peak.
void bench_matmul_int8(const Kernels& k, const char* name, WeightFormat format,
                       const Limits& limits) {
  constexpr int64_t kCols = 4096, kGroups = cpu::activation_groups(kCols);
  const size_t tile_bytes = k.packed_tile_bytes(format, kCols);
  const int64_t tiles = (size_t{192} << 20) / tile_bytes;
  const Bytes weights(tiles * tile_bytes);
  const PackedMatrix w{format, tiles * k.tile_rows, kCols, weights.data, tile_bytes};
  for (int64_t tokens : {1, 2, 4, 8, 32, 256}) {
    const int64_t used = std::min<int64_t>(tiles, tokens > 1 ? 8192 / tokens * 16 + 128 : tiles);
    std::vector<float> x(kCols);
    std::vector<cpu::ActivationGroup> codes(tokens * kGroups);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < kCols; ++i) x[i] = static_cast<float>((i * 7 + t) % 13) - 6.f;
      k.quantize_activations(x.data(), kCols, &codes[t * kGroups]);
    }
    std::vector<float> y(tokens * used * k.tile_rows);
    const double time = seconds([&](int thread) {
      k.matmul_int8(w, used * thread / threads, used * (thread + 1) / threads, codes.data(),
                    kGroups, tokens, y.data(), used * k.tile_rows);
    });
    char what[64];
    std::snprintf(what, sizeof(what), "int8 matmul %s, %lld tokens", name,
                  static_cast<long long>(tokens));
    print(what, static_cast<double>(used * k.tile_rows * kCols * tokens),
          static_cast<double>(used * tile_bytes), time, limits);
  }
}

void bench_attend(const Kernels& k, const char* name, cpu::KvType type, int group, int64_t tokens,
                  const Limits& limits) {
  constexpr int kHeadDim = 128, kHeads = 16;
  constexpr int32_t kContext = 4096, kPages = kContext / cpu::kKvPageTokens;
  const size_t page_bytes = k.kv_page_bytes(type, kHeadDim);
  const Bytes cache(page_bytes * kPages * kHeads);
  const int64_t stride = int64_t{group} * kHeadDim;
  const std::vector<float> q(tokens * stride, 0.01f);
  std::vector<std::vector<float>> out(threads, std::vector<float>(tokens * stride));
  const std::vector<int32_t> visible(tokens, kContext);
  const double time = seconds([&](int thread) {
    std::vector<int32_t> table(kPages);
    for (int head = thread; head < kHeads; head += threads) {
      for (int p = 0; p < kPages; ++p) table[p] = head * kPages + p;
      cpu::AttendArgs args;
      args.type = type;
      args.head_dim = kHeadDim;
      args.scale = 0.1f;
      args.pages = cache.data;
      args.page_stride = page_bytes;
      args.block_table = table.data();
      args.tokens = tokens;
      args.group = group;
      args.q = q.data();
      args.q_stride = stride;
      args.visible = visible.data();
      args.out = out[thread].data();
      args.out_stride = stride;
      k.attend(args);
    }
  });
  char what[64];
  std::snprintf(what, sizeof(what), "attend %s, %lld x %d queries", name,
                static_cast<long long>(tokens), group);
  print(what, 2.0 * kHeads * kContext * kHeadDim * static_cast<double>(tokens * group),
        static_cast<double>(cache.size), time, limits);
}

void bench_vectors(const Kernels& k) {
  constexpr int64_t kN = 1 << 16;
  std::mt19937 engine(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(kN), weight(kN, 1.f), out(kN);
  for (float& v : x) v = normal(engine);
  std::vector<uint16_t> half(kN), scales(kN);
  std::vector<uint8_t> codes(kN), zeros(kN);
  const auto line = [&](const char* what, const std::function<void()>& work) {
    const double time = seconds([&](int thread) {
      for (int i = 0; thread == 0 && i < 20; ++i) work();
    });
    std::printf("%-28s %8.2f Gelements/s\n", what, 20 * kN / time * 1e-9);
  };
  line("rmsnorm", [&] { k.rmsnorm(x.data(), weight.data(), 1e-5f, kN, out.data()); });
  line("silu_mul", [&] { k.silu_mul(x.data(), weight.data(), kN, out.data()); });
  line("log_sum_exp, two sums", [&] { sink = k.log_sum_exp(x.data(), kN, 1.5f).finite; });
  line("f32 to f16", [&] { k.f32_to_f16(x.data(), kN, half.data()); });
  line("f16 to f32", [&] { k.f16_to_f32(half.data(), kN, out.data()); });
  for (bool zero_points : {false, true}) {
    const WeightFormat int8{WeightType::kInt8, 32, zero_points};
    const WeightFormat int4{WeightType::kInt4, 32, zero_points};
    line(zero_points ? "quantize int8, zero points" : "quantize int8", [&] {
      k.quantize(int8, x.data(), 16, kN / 16, codes.data(), scales.data(), zeros.data());
    });
    line(zero_points ? "quantize int4, zero points" : "quantize int4", [&] {
      k.quantize(int4, x.data(), 16, kN / 16, codes.data(), scales.data(), zeros.data());
    });
  }
  const WeightFormat int4{WeightType::kInt4, 32, false};
  std::vector<uint8_t> tile(k.packed_tile_bytes(int4, kN / 8));
  line("pack int4", [&] {
    k.pack_tile({int4, 8, kN / 8, codes.data(), scales.data(), nullptr}, tile.data());
  });
  const WeightFormat f16{WeightType::kF16, 0, false};
  tile.resize(k.packed_tile_bytes(f16, kN / 8));
  line("pack f16", [&] {
    k.pack_tile({f16, 8, kN / 8, half.data(), nullptr, nullptr}, tile.data());
  });
}

int run(int argc, char** argv) {
  const Kernels* table = &cpu::select_kernels();
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      threads = std::max(1, std::atoi(argv[++i]));
    } else {
      for (const Kernels* k : cpu::available_kernels()) {
        if (std::strcmp(k->name, argv[i]) == 0) table = k;
      }
    }
  }
  const Limits limits = {read_bandwidth(), multiply_add_peak()};
  std::printf("table %s, %d threads; memory %.1f GB/s, 256-bit multiply-adds %.1f GMAC/s\n",
              table->name, threads, limits.bytes * 1e-9, limits.macs * 1e-9);
  bench_matmul(*table, "f32", {WeightType::kF32, 0, false}, limits);
  bench_matmul(*table, "f16", {WeightType::kF16, 0, false}, limits);
  bench_matmul(*table, "bf16", {WeightType::kBF16, 0, false}, limits);
  bench_matmul(*table, "int8", {WeightType::kInt8, 32, false}, limits);
  bench_matmul(*table, "int8 zeros", {WeightType::kInt8, 64, true}, limits);
  bench_matmul(*table, "int4", {WeightType::kInt4, 32, false}, limits);
  bench_matmul(*table, "int4 zeros", {WeightType::kInt4, 128, true}, limits);
  const Limits int8_limits = {limits.bytes, cpu::measure_int8_peak(threads)};
  std::printf("int8 multiply-adds %.1f GMAC/s\n", int8_limits.macs * 1e-9);
  bench_matmul_int8(*table, "int8", {WeightType::kInt8, 32, false}, int8_limits);
  bench_matmul_int8(*table, "int8 zeros", {WeightType::kInt8, 64, true}, int8_limits);
  bench_matmul_int8(*table, "int4", {WeightType::kInt4, 32, false}, int8_limits);
  bench_matmul_int8(*table, "int4 zeros", {WeightType::kInt4, 128, true}, int8_limits);
  bench_attend(*table, "f32", cpu::KvType::kF32, 1, 1, limits);
  bench_attend(*table, "f16", cpu::KvType::kF16, 1, 1, limits);
  bench_attend(*table, "f16", cpu::KvType::kF16, 8, 1, limits);
  bench_attend(*table, "f16", cpu::KvType::kF16, 1, 64, limits);
  bench_vectors(*table);
  return 0;
}

}  // namespace
}  // namespace altiplano::bench

int main(int argc, char** argv) { return altiplano::bench::run(argc, argv); }
