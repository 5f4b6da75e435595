// Speed of the CPU kernels, beside the limits of this machine measured in the same run: how fast
// memory is read, and how many fused multiply-adds the vector units do.
//   kernels_bench [--threads N] [--only matmul|stream|attention|vectors] [table]
// Matmul reads weights from memory (the matrices are larger than caches); tokens 1 is decode.
// Figures are medians; a share is that of the limit measured with the same number of threads.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/int8_peak.h"
#include "util/aligned_memory.h"
#include "util/thread_pool.h"

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

// In memory as a model's is, with huge pages.
struct Bytes {
  explicit Bytes(size_t size) : size(size), memory(size, "the benchmark"), data(memory.data()) {
    // 0x3c3c is about 1 in f16, 0.01 in bf16 and f32: no NaN and no denormal to slow things down.
    std::memset(data, 0x3c, size);
  }
  size_t size;
  AlignedMemory memory;
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
// Loops over the sums are unrolled, or they would be kept in memory.
__attribute__((target("avx2,fma"))) void multiply_add_256(int64_t rounds) {
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

__attribute__((target("avx512f"))) void multiply_add_512(int64_t rounds) {
  __m512 sums[12];
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) {
      sums[i] = _mm512_fmadd_ps(sums[i], a, b);
      __asm__ volatile("" : "+v"(sums[i]));
    }
  }
  float sum = 0;
#pragma GCC unroll 12
  for (int i = 0; i < 12; ++i) sum += _mm512_cvtss_f32(sums[i]);
  sink = sink + static_cast<uint64_t>(sum);
}

// Multiply-adds a second with vectors as wide as the table's.
double multiply_add_peak(const Kernels& k) {
  constexpr int64_t kRounds = 4'000'000;
  if (std::strcmp(k.name, "avx512") == 0) {
    return kRounds * 12.0 * 16 * threads / seconds([](int) { multiply_add_512(kRounds); });
  }
  return kRounds * 12.0 * 8 * threads / seconds([](int) { multiply_add_256(kRounds); });
}
#else
double multiply_add_peak(const Kernels&) { return 0; }
#endif

struct Limits {
  double bytes;  // a second
  double macs;
};

void print(const char* what, double macs, double bytes, double time, const Limits& limits) {
  std::printf("%-40s %8.1f GMAC/s", what, macs / time * 1e-9);
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

// How fast weights come from memory for one token, beside a plain sum over the same bytes. Both
// take turns, stretch by stretch of some milliseconds: on a shared machine the bandwidth is another
// one a second later. Prints medians, and the median of the turns' ratios.
void bench_stream(const Kernels& k, const char* name, WeightFormat format) {
  constexpr int64_t kCols = 4096, kStretches = 8, kTurns = 40;
  constexpr size_t kStretchBytes = size_t{64} << 20, kPieceBytes = 256 << 10;
  const size_t tile_bytes = k.packed_tile_bytes(format, kCols);
  const int64_t stretch = kStretchBytes / tile_bytes, piece = kPieceBytes / tile_bytes / 2 * 2 + 2;
  const int64_t rows = kStretches * stretch * k.tile_rows;
  const Bytes weights(kStretches * stretch * tile_bytes);
  const PackedMatrix w{format, rows, kCols, weights.data, tile_bytes};
  const std::vector<float> x(kCols, 0.5f);
  std::vector<cpu::ActivationGroup> codes(cpu::activation_groups(kCols));
  k.quantize_activations(x.data(), kCols, codes.data());
  std::vector<float> y(rows);
  ThreadPool pool(threads);
  // GB/s of read(first tile, last) over the pieces of a stretch.
  const auto speed = [&](int64_t turn, const auto& read) {
    const int64_t begin = turn % kStretches * stretch, end = begin + stretch;
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for((stretch + piece - 1) / piece, [&](int64_t i) {
      read(begin + i * piece, std::min(begin + (i + 1) * piece, end));
    });
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return static_cast<double>(stretch * tile_bytes) / taken.count() * 1e-9;
  };
  const auto sum = [&](int64_t first, int64_t last) {
    const auto* p = reinterpret_cast<const uint64_t*>(weights.data + first * tile_bytes);
    uint64_t sums[8] = {};
    for (size_t i = 0; i < (last - first) * tile_bytes / 8; i += 8) {
      for (int j = 0; j < 8; ++j) sums[j] += p[i + j];
    }
    y[first] = static_cast<float>(std::accumulate(sums, sums + 8, uint64_t{0}) >> 40);
  };
  const auto multiply = [&](int64_t first, int64_t last) {
    if (format.quantized()) {
      k.matmul_int8(w, first, last, codes.data(), cpu::activation_groups(kCols), 1, y.data(), rows);
    } else {
      k.matmul(w, first, last, x.data(), kCols, 1, y.data(), rows, false);
    }
  };
  std::vector<double> sums, multiplies, ratios;
  for (int64_t turn = 0; turn < kTurns; ++turn) {
    // Each reads what the other left alone the longest.
    sums.push_back(speed(turn, sum));
    multiplies.push_back(speed(turn + kStretches / 2, multiply));
    ratios.push_back(multiplies.back() / sums.back());
  }
  const auto median = [](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  std::printf("stream %-5s one token %6.1f GB/s, a plain sum %6.1f GB/s, ratio %.2f\n", name,
              median(multiplies), median(sums), median(ratios));
}

// `tokens` tokens at the end of contexts of `context` keys; `heads` KV heads at once, each with
// `group` query heads. Contexts are visited one after the other, more of them than caches hold if
// one token is computed (decode); their pages lie mixed.
struct Attention {
  const char* name;
  cpu::KvType type;
  int heads;
  int group;
  int64_t tokens;
  int32_t context;
};

void bench_attend(const Kernels& k, const Attention& shape, const Limits& limits) {
  constexpr int kHeadDim = 128;
  const int32_t pages = shape.context / cpu::kKvPageTokens;
  const size_t head_bytes = k.kv_page_bytes(shape.type, kHeadDim);
  const size_t context_bytes = head_bytes * shape.heads * pages;
  const size_t wanted = size_t{shape.tokens > 1 ? 32u : 256u} << 20;
  const int contexts = static_cast<int>(std::max<size_t>(threads, wanted / context_bytes));
  const Bytes cache(context_bytes * contexts);
  std::vector<int32_t> table(size_t{1} * pages * contexts);
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), std::mt19937(1));
  const int64_t stride = int64_t{shape.heads} * shape.group * kHeadDim;
  const std::vector<float> q(shape.tokens * stride, 0.01f);
  std::vector<std::vector<float>> out(threads, std::vector<float>(shape.tokens * stride));
  std::vector<int32_t> visible(shape.tokens);
  double keys = 0;  // that the tokens see together
  for (int64_t t = 0; t < shape.tokens; ++t) {
    visible[t] = static_cast<int32_t>(shape.context - shape.tokens + t + 1);
    keys += visible[t];
  }
  const double time = seconds([&](int thread) {
    for (int context = thread; context < contexts; context += threads) {
      cpu::AttendArgs args;
      args.type = shape.type;
      args.head_dim = kHeadDim;
      args.scale = 0.1f;
      args.pages = cache.data;
      args.page_stride = head_bytes * shape.heads;
      args.block_table = table.data() + int64_t{context} * pages;
      args.tokens = shape.tokens;
      args.group = shape.group;
      args.q = q.data();
      args.q_stride = stride;
      args.visible = visible.data();
      args.out = out[thread].data();
      args.out_stride = stride;
      args.heads = shape.heads;
      args.head_stride = head_bytes;
      k.attend(args);
    }
  });
  char what[64];
  std::snprintf(what, sizeof(what), "%lld tokens, %d x %d heads, %d keys, %s",
                static_cast<long long>(shape.tokens), shape.heads, shape.group, shape.context,
                shape.name);
  print(what, 2.0 * contexts * kHeadDim * keys * shape.group * shape.heads,
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
  std::vector<cpu::ActivationGroup> groups(cpu::activation_groups(kN));
  line("quantize activations", [&] { k.quantize_activations(x.data(), kN, groups.data()); });
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
  const int64_t rows = k.tile_rows, cols = kN / rows;
  std::vector<uint8_t> tile(k.packed_tile_bytes(int4, cols));
  line("pack int4", [&] {
    k.pack_tile({int4, rows, cols, codes.data(), scales.data(), nullptr}, tile.data());
  });
  const WeightFormat f16{WeightType::kF16, 0, false};
  tile.resize(k.packed_tile_bytes(f16, cols));
  line("pack f16", [&] {
    k.pack_tile({f16, rows, cols, half.data(), nullptr, nullptr}, tile.data());
  });
}

void bench_matrices(const Kernels& k, const Limits& limits) {
  bench_matmul(k, "f32", {WeightType::kF32, 0, false}, limits);
  bench_matmul(k, "f16", {WeightType::kF16, 0, false}, limits);
  bench_matmul(k, "bf16", {WeightType::kBF16, 0, false}, limits);
  bench_matmul(k, "int8", {WeightType::kInt8, 32, false}, limits);
  bench_matmul(k, "int8 zeros", {WeightType::kInt8, 64, true}, limits);
  bench_matmul(k, "int4", {WeightType::kInt4, 32, false}, limits);
  bench_matmul(k, "int4 zeros", {WeightType::kInt4, 128, true}, limits);
  const Limits int8_limits = {limits.bytes, cpu::measure_int8_peak(threads)};
  std::printf("int8 multiply-adds %.1f GMAC/s\n", int8_limits.macs * 1e-9);
  bench_matmul_int8(k, "int8", {WeightType::kInt8, 32, false}, int8_limits);
  bench_matmul_int8(k, "int8 zeros", {WeightType::kInt8, 64, true}, int8_limits);
  bench_matmul_int8(k, "int4", {WeightType::kInt4, 32, false}, int8_limits);
  bench_matmul_int8(k, "int4 zeros", {WeightType::kInt4, 128, true}, int8_limits);
}

void bench_streams(const Kernels& k) {
  bench_stream(k, "f32", {WeightType::kF32, 0, false});
  bench_stream(k, "f16", {WeightType::kF16, 0, false});
  bench_stream(k, "bf16", {WeightType::kBF16, 0, false});
  bench_stream(k, "int8", {WeightType::kInt8, 32, false});
  bench_stream(k, "int4", {WeightType::kInt4, 32, false});
}

void bench_attention(const Kernels& k, const Limits& limits) {
  using cpu::KvType;
  std::printf("attention, head dimension 128\n");
  for (const Attention& shape : {
           Attention{"f32", KvType::kF32, 8, 1, 1, 3520},
           {"f16", KvType::kF16, 8, 1, 1, 3520},
           {"int8", KvType::kInt8, 8, 1, 1, 3520},
           {"f16", KvType::kF16, 1, 8, 1, 3520},
           {"int8", KvType::kInt8, 1, 8, 1, 3520},
           {"f16", KvType::kF16, 1, 1, 16, 512},
           {"f16", KvType::kF16, 1, 1, 48, 512},
           {"f16", KvType::kF16, 1, 8, 6, 512},
           {"f16", KvType::kF16, 1, 1, 48, 3520},
           {"int8", KvType::kInt8, 1, 1, 48, 3520},
       }) {
    bench_attend(k, shape, limits);
  }
}

int run(int argc, char** argv) {
  const Kernels* table = &cpu::select_kernels();
  const char* only = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      threads = std::max(1, std::atoi(argv[++i]));
    } else if (std::strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      for (const Kernels* k : cpu::available_kernels()) {
        if (std::strcmp(k->name, argv[i]) == 0) table = k;
      }
    }
  }
  const Limits limits = {read_bandwidth(), multiply_add_peak(*table)};
  std::printf("table %s, %d threads; memory %.1f GB/s, multiply-adds %.1f GMAC/s\n", table->name,
              threads, limits.bytes * 1e-9, limits.macs * 1e-9);
  const auto wanted = [&](const char* part) { return !only || std::strcmp(only, part) == 0; };
  if (wanted("matmul")) bench_matrices(*table, limits);
  if (wanted("stream")) bench_streams(*table);
  if (wanted("attention")) bench_attention(*table, limits);
  if (wanted("vectors")) bench_vectors(*table);
  return 0;
}

}  // namespace
}  // namespace altiplano::bench

int main(int argc, char** argv) { return altiplano::bench::run(argc, argv); }
