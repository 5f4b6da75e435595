#include "util/thread_pool.h"

#include <algorithm>
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

uint64_t pack_share(uint64_t begin, uint64_t end) { return begin | end << 32; }
uint64_t begin_of(uint64_t share) { return share & 0xffffffffu; }
uint64_t end_of(uint64_t share) { return share >> 32; }

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(std::make_unique<Share[]>(threads)) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
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

void ThreadPool::run(int64_t items, Call call, const void* fn, uint64_t divisor) {
  call_ = call;
  fn_ = fn;
  divisor_ = divisor;
  const auto all = static_cast<uint64_t>(items), threads = static_cast<uint64_t>(this->threads());
  for (uint64_t t = 0; t < threads; ++t) {
    shares_[t].left.store(pack_share(all * t / threads, all * (t + 1) / threads),
                          std::memory_order_relaxed);
  }
  state_.store(kOpen, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  drain(0);
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (uint32_t inside; (inside = state_.load(std::memory_order_acquire)) != 0;) {
    wait_while(state_, inside);
  }
}

void ThreadPool::drain(int thread) {
  uint64_t left_over = 0;
  do {
    for (int64_t begin, end; take(thread, begin, end);) call_(fn_, begin, end);
  } while (steal(thread, left_over));
}

// The first items of the thread's own share; false if there are none.
bool ThreadPool::take(int thread, int64_t& begin, int64_t& end) {
  std::atomic<uint64_t>& left = shares_[thread].left;
  uint64_t old = left.load(std::memory_order_relaxed), items = 0;
  do {
    const uint64_t all = end_of(old) - begin_of(old);
    if (all == 0) return false;
    items = std::max<uint64_t>(1, all / divisor_);
  } while (!left.compare_exchange_weak(old, old + items, std::memory_order_relaxed));
  begin = static_cast<int64_t>(begin_of(old));
  end = begin + static_cast<int64_t>(items);
  return true;
}

// Fills the thread's empty share with the second half of another's; false if all are empty. A share
// that is still as this thread's last theft left it over belongs to a thread that is held up: all
// of it is taken. A word that comes back in between does no harm: it is all there is to a share.
bool ThreadPool::steal(int thread, uint64_t& left_over) {
  for (int i = 1; i < threads(); ++i) {
    std::atomic<uint64_t>& left = shares_[(thread + i) % threads()].left;
    uint64_t old = left.load(std::memory_order_relaxed);
    while (begin_of(old) != end_of(old)) {
      const uint64_t middle = old == left_over ? begin_of(old) : (begin_of(old) + end_of(old)) / 2;
      if (left.compare_exchange_weak(old, pack_share(begin_of(old), middle),
                                     std::memory_order_relaxed)) {
        left_over = pack_share(begin_of(old), middle);
        // Nobody else writes to an empty share.
        shares_[thread].left.store(pack_share(middle, end_of(old)), std::memory_order_relaxed);
        return true;
      }
    }
  }
  return false;
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    wait_while(generation_, seen);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    uint32_t state = state_.load(std::memory_order_relaxed);
    while ((state & kOpen) != 0) {
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
      drain(thread);
      // Only the last one out of a closed job has somebody waiting.
      if (state_.fetch_sub(1, std::memory_order_acq_rel) == 1) state_.notify_all();
      break;
    }
  }
}

}  // namespace altiplano
