// The thread pool on a busy machine, without one: threads are held up on purpose, where a scheduler
// would take their core away.
#include "util/thread_pool.h"

#include <pthread.h>

#include <chrono>
#include <csignal>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "engine_support.h"

namespace altiplano::test {
namespace {

// Waits for what other threads must bring about. A broken pool would wait for ever: then false.
template <class Fn>
bool wait_until(const Fn& holds) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    std::this_thread::yield();
  }
  return true;
}

// Each item once, and what items wrote is seen by the caller; over many jobs, of few items too, so
// that workers come late, or find the next job.
void check_each_item_once(int threads) {
  ThreadPool pool(threads);
  CHECK(pool.threads() == threads, "%d threads", pool.threads());
  std::vector<int> calls(300);
  const int jobs = 3000;
  for (int job = 0; job < jobs; ++job) {
    const int items = job % 3 == 0 ? job % 300 : job % 5;
    if (job % 2 == 0) {
      pool.parallel_for(items, [&](int64_t item) { ++calls[item]; });
    } else {
      pool.parallel_for_ranges(items, [&](int64_t begin, int64_t end) {
        CHECK(0 <= begin && begin < end && end <= items, "job %d of %d items: %lld to %lld", job,
              items, static_cast<long long>(begin), static_cast<long long>(end));
        for (int64_t item = begin; item < end; ++item) ++calls[item];
      });
    }
    for (int i = 0; i < 300; ++i) {
      CHECK(calls[i] == (i < items), "job %d of %d items: item %d was called %d times", job, items,
            i, calls[i]);
      calls[i] = 0;
    }
  }
}

// Each thread begins with the first item of its own share.
void check_shares() {
  constexpr int kThreads = 3, kItems = 300;
  ThreadPool pool(kThreads);
  std::mutex mutex;
  std::map<std::thread::id, int64_t> first;
  std::atomic<bool> given_up{false};
  const auto arrived = [&] {
    const std::lock_guard lock(mutex);
    return given_up || first.size() == kThreads;
  };
  pool.parallel_for(kItems, [&](int64_t item) {
    {
      const std::lock_guard lock(mutex);
      first.emplace(std::this_thread::get_id(), item);
    }
    if (!wait_until(arrived)) given_up = true;
  });
  CHECK(!given_up, "%d of %d threads took an item", static_cast<int>(first.size()), kThreads);
  CHECK(first.contains(std::this_thread::get_id()) && first[std::this_thread::get_id()] == 0,
        "the caller began elsewhere");
  std::set<int64_t> items;
  for (const auto& [thread, item] : first) items.insert(item);
  CHECK((items == std::set<int64_t>{0, 100, 200}), "threads began elsewhere");
}

// A worker is held up in its first range, half of its share: the caller does all the rest, and
// takes it in few pieces, the first half of what the worker has left and then all of it.
void check_held_up_in_a_range() {
  constexpr int kItems = 160, kHeld = 40, kRest = kItems - kHeld;
  ThreadPool pool(2);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<bool> entered{false};
  std::atomic<int> done{0};
  int thefts = 0;
  int64_t last_end = -1;
  pool.parallel_for_ranges(kItems, [&](int64_t begin, int64_t end) {
    if (std::this_thread::get_id() != caller) {
      const bool first = !entered.exchange(true);
      CHECK(!first || (begin == kItems / 2 && end == begin + kHeld),
            "the worker began with %d to %d", static_cast<int>(begin), static_cast<int>(end));
      CHECK(wait_until([&] { return done >= kRest; }), "the caller did %d of %d items", done.load(),
            kRest);
      return;
    }
    if (!wait_until([&] { return entered.load(); })) done = kItems;  // lets the others go on
    if (last_end >= 0 && begin != last_end) ++thefts;
    last_end = end;
    done += static_cast<int>(end - begin);
  });
  CHECK(entered && done == kRest, "the caller did %d of %d items", done.load(), kRest);
  CHECK(thefts == 2, "the caller took from the worker %d times", thefts);
}

// One thread is held up in its item until all other items are done: the others must do them.
void check_held_up_in_an_item(bool hold_caller) {
  constexpr int kItems = 1000;
  ThreadPool pool(2);
  const std::thread::id caller = std::this_thread::get_id();
  std::atomic<int> done{0};
  std::atomic<bool> held{false};
  pool.parallel_for(kItems, [&](int64_t) {
    const bool is_caller = std::this_thread::get_id() == caller;
    if (is_caller == hold_caller && !held.exchange(true)) {
      CHECK(wait_until([&] { return done == kItems - 1; }), "the other thread did %d of %d items",
            done.load(), kItems - 1);
    } else {
      CHECK(wait_until([&] { return held.load(); }), "the other thread took no item");
    }
    ++done;
  });
  CHECK(done == kItems, "%d of %d items", done.load(), kItems);
}

#if defined(__SANITIZE_THREAD__)
constexpr bool kDelaysSignals = true;  // ThreadSanitizer delivers them when it likes
#else
constexpr bool kDelaysSignals = false;
#endif

std::atomic<bool> hold{false};
std::atomic<bool> holding{false};

// A worker that loses its core between two jobs (here: to a signal handler) delays nobody.
void check_held_up_between_jobs() {
  ThreadPool pool(2);
  pthread_t worker{};
  std::atomic<bool> entered{false};
  const pthread_t caller = pthread_self();
  pool.parallel_for(2, [&](int64_t) {
    if (pthread_equal(pthread_self(), caller)) {
      CHECK(wait_until([&] { return entered.load(); }), "the worker took no item");
    } else {
      worker = pthread_self();
      entered = true;
    }
  });
  if (!entered) return;

  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) {
    holding = true;
    while (hold) continue;
    holding = false;
  };
  sigaction(SIGUSR1, &action, &before);
  hold = true;
  pthread_kill(worker, SIGUSR1);
  CHECK(wait_until([] { return holding.load(); }), "the worker was not held up");
  int done = 0;
  pool.parallel_for(100, [&](int64_t) { ++done; });  // returns, all done by the caller
  CHECK(done == 100 && holding, "%d of 100 items", done);
  hold = false;
  CHECK(wait_until([] { return !holding; }), "the signal handler never ended");
  sigaction(SIGUSR1, &before, nullptr);
  // The worker is a member again.
  check_each_item_once(2);
}

}  // namespace

void test_thread_pool() {
  for (int threads : {1, 2, 3, 16}) check_each_item_once(threads);
  check_shares();
  check_held_up_in_a_range();
  check_held_up_in_an_item(/*hold_caller=*/false);
  check_held_up_in_an_item(/*hold_caller=*/true);
  if (!kDelaysSignals) check_held_up_between_jobs();
}

}  // namespace altiplano::test
