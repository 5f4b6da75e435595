#include "util/thread_pool.h"

#include <string>
#include <system_error>

#include "util/error.h"

namespace altiplano {
namespace {

// Long enough to bridge the gaps between the operations of a step, short enough not to matter on a
// machine with other work: 20 to 100 microseconds, as long as a pause takes on the processor.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

template <class T>
void wait_while(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
  } catch (const std::system_error&) {
    const size_t started = workers_.size();
    stop();
    throw Error("ALTIPLANO_OUT_OF_MEMORY", "the system refuses more than " +
                                               std::to_string(started) + " of " +
                                               std::to_string(threads - 1) + " worker threads");
  } catch (...) {
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ThreadPool::run(int64_t items, Call call, const void* fn) {
  call_ = call;
  fn_ = fn;
  items_ = items;
  next_.store(0, std::memory_order_relaxed);
  state_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  drain();
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (uint32_t inside; (inside = state_.load(std::memory_order_acquire)) != 0;) {
    wait_while(state_, inside);
  }
}

void ThreadPool::drain() {
  for (int64_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) {
    call_(fn_, item);
  }
}

void ThreadPool::work() {
  uint32_t seen = 0;
  for (;;) {
    wait_while(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    uint32_t state = state_.load(std::memory_order_relaxed);
    while ((state & kOpen) != 0) {
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
      drain();
      // Only the last one out of a closed job has somebody waiting.
      if (state_.fetch_sub(1, std::memory_order_acq_rel) == 1) state_.notify_all();
      break;
    }
  }
}

}  // namespace altiplano
