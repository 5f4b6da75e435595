// The workers of the CPU backend. A parallel_for hands out items one by one to whichever thread is
// free, and waits only for workers that took one: a worker whose core is busy with something else
// delays nobody, or its own item at most. Between jobs the workers spin briefly, then sleep: an
// idle model keeps no core busy.
#pragma once

#include <atomic>
#include <cstdint>
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

  // Calls fn(item) once for each item in 0 .. items-1, on the workers and the caller; returns when
  // all are done. One caller at a time. fn must not throw.
  template <class Fn>
  void parallel_for(int64_t items, const Fn& fn) {
    if (items <= 1 || workers_.empty()) {
      for (int64_t i = 0; i < items; ++i) fn(i);
      return;
    }
    run(
        items, [](const void* f, int64_t item) noexcept { (*static_cast<const Fn*>(f))(item); },
        &fn);
  }

 private:
  using Call = void (*)(const void* fn, int64_t item) noexcept;

  void run(int64_t items, Call call, const void* fn);
  void work();
  void drain();
  void stop();

  std::vector<std::thread> workers_;
  // The job. Written by the caller while it is closed and no worker is in it.
  Call call_ = nullptr;
  const void* fn_ = nullptr;
  int64_t items_ = 0;
  alignas(64) std::atomic<int64_t> next_{0};
  // Rises with each job: what workers wait for.
  alignas(64) std::atomic<uint32_t> generation_{0};
  // Whether workers may enter the job (kOpen), and how many are in it.
  static constexpr uint32_t kOpen = uint32_t{1} << 31;
  alignas(64) std::atomic<uint32_t> state_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace altiplano
