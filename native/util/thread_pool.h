// The workers of the CPU backend. A parallel_for gives each thread an equal share of neighbouring
// items: a thread then reads one stretch of memory, and in the next job finds in its caches what it
// wrote in the last one. A thread that is through with its share takes half of what is left of
// another's, or all of it if that thread is held up (work stealing). A worker whose core is busy
// with something else delays nobody, or by what it took last. Between jobs the workers spin
// briefly, then sleep: an idle model keeps no core busy.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace altiplano {

class ThreadPool {
 public:
  // `threads` includes the caller: threads - 1 workers are started. Throws Error
  // ALTIPLANO_OUT_OF_MEMORY if the system refuses a thread (those already started are joined).
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(item) once for each item in 0 .. items-1 (fewer than 2^32), on the workers and the
  // caller; returns when all are done. One caller at a time. fn must not throw.
  template <class Fn>
  void parallel_for(int64_t items, const Fn& fn) {
    const auto each = [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) fn(item);
    };
    run_ranges(items, each, kOneItemDivisor);
  }

  // The same for items that take less together: calls fn(begin, end) for neighbouring items, many
  // at first and one at the end, so that all threads end at nearly the same time.
  template <class Fn>
  void parallel_for_ranges(int64_t items, const Fn& fn) {
    run_ranges(items, fn, kShareDivisor);
  }

 private:
  using Call = void (*)(const void* fn, int64_t begin, int64_t end) noexcept;

  // A thread takes 1 / divisor of what is left of its share at once, at least one item.
  static constexpr uint64_t kOneItemDivisor = uint64_t{1} << 32;
  // Taking is atomic, and for that a processor lets what it reads and writes come to an end: the
  // fewer takings, the steadier a stream of weights.
  static constexpr uint64_t kShareDivisor = 2;

  template <class Fn>
  void run_ranges(int64_t items, const Fn& fn, uint64_t divisor) {
    if (items <= 1 || workers_.empty()) {
      if (items > 0) fn(int64_t{0}, items);
      return;
    }
    const Call call = [](const void* f, int64_t begin, int64_t end) noexcept {
      (*static_cast<const Fn*>(f))(begin, end);
    };
    run(items, call, &fn, divisor);
  }
  void run(int64_t items, Call call, const void* fn, uint64_t divisor);
  void work(int thread);
  void drain(int thread);
  bool take(int thread, int64_t& begin, int64_t& end);
  bool steal(int thread, uint64_t& left_over);
  void stop();

  // What is left of a thread's share: the items begin .. end-1, `begin` in the lower 32 bits.
  struct alignas(64) Share {
    std::atomic<uint64_t> left{0};
  };

  std::vector<std::thread> workers_;
  std::unique_ptr<Share[]> shares_;  // the caller's first
  // The job. Written by the caller while it is closed and no worker is in it.
  Call call_ = nullptr;
  const void* fn_ = nullptr;
  uint64_t divisor_ = 1;
  // Rises with each job: what workers wait for.
  alignas(64) std::atomic<uint32_t> generation_{0};
  // Whether workers may enter the job (kOpen), and how many are in it.
  static constexpr uint32_t kOpen = uint32_t{1} << 31;
  alignas(64) std::atomic<uint32_t> state_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace altiplano
