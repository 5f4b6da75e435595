#include "util/thread_pool.h"

namespace altiplano {
namespace {

// Long enough to bridge the gaps between the operations of a step, short enough not to matter on a
// machine with other work: about 20 microseconds.
constexpr int kSpins = 2000;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
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
  inside_.store(static_cast<int32_t>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  drain();
  for (int32_t left; (left = inside_.load(std::memory_order_acquire)) != 0;)
    wait_while(inside_, left);
}

void ThreadPool::drain() {
  for (int64_t item; (item = next_.fetch_add(1, std::memory_order_relaxed)) < items_;)
    call_(fn_, item);
}

void ThreadPool::work() {
  uint32_t seen = 0;
  for (;;) {
    wait_while(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    drain();
    if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) inside_.notify_all();
  }
}

}  // namespace altiplano
