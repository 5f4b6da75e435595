#include "cpu/bandwidth.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "util/aligned_memory.h"
#include "util/thread_pool.h"

namespace altiplano::cpu {
namespace {

constexpr size_t kPiece = size_t{1} << 20;

// Eight independent sums, so that the loads and not the additions are the limit. Without a copy of
// the line: compilers put it on the stack, and one core read a third less.
uint64_t sum(const uint8_t* from) {
  const auto* words = reinterpret_cast<const uint64_t*>(from);
  uint64_t sums[8] = {};
  for (size_t i = 0; i < kPiece / 8; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t total = 0;
  for (uint64_t s : sums) total += s;
  return total;
}

}  // namespace

double measure_read_bandwidth(size_t bytes, int threads) {
  const size_t pieces = std::max<size_t>(1, bytes / kPiece);
  AlignedMemory memory(pieces * kPiece, "the bandwidth measurement");
  ThreadPool pool(threads);
  pool.parallel_for(static_cast<int64_t>(pieces), [&](int64_t i) {
    std::memset(memory.data() + static_cast<size_t>(i) * kPiece, static_cast<int>(i), kPiece);
  });
  std::atomic<uint64_t> sink{0};  // keeps the compiler from dropping the loads
  std::array<double, 5> rates;
  for (double& rate : rates) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(static_cast<int64_t>(pieces), [&](int64_t i) {
      sink.fetch_add(sum(memory.data() + static_cast<size_t>(i) * kPiece),
                     std::memory_order_relaxed);
    });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    rate = static_cast<double>(pieces * kPiece) / elapsed.count();
  }
  std::sort(rates.begin(), rates.end());
  return rates[rates.size() / 2];
}

}  // namespace altiplano::cpu
