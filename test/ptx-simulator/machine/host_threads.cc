#include "machine/host_threads.h"

#include <algorithm>
#include <system_error>
#include <thread>

namespace ptx_simulator {

HostThreads& HostThreads::instance() {
  static HostThreads* const threads = new HostThreads;
  return *threads;
}

void HostThreads::run(int helpers, const std::function<void()>& work) {
  if (helpers <= 0) return work();
  Job job{&work, helpers, 0};
  {
    std::lock_guard lock(mutex_);
    try {
      for (; threads_ < helpers; ++threads_) {
        std::thread(&HostThreads::sleep_and_work, this).detach();
      }
    } catch (const std::system_error&) {
      // The operating system has no more: those that there are do the work.
    }
    jobs_.push_back(&job);
  }
  for (int i = 0; i < helpers; ++i) posted_.notify_one();
  work();
  std::unique_lock lock(mutex_);
  if (job.wanted > 0) jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  left_.wait(lock, [&] { return job.running == 0; });
}

void HostThreads::sleep_and_work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    posted_.wait(lock, [&] { return !jobs_.empty(); });
    Job* const job = jobs_.front();
    ++job->running;
    if (--job->wanted == 0) jobs_.pop_front();
    lock.unlock();
    (*job->work)();
    lock.lock();
    --job->running;
    left_.notify_all();
  }
}

}  // namespace ptx_simulator
