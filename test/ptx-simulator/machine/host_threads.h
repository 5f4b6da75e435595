// The threads that launches share. They are kept between launches, asleep, because starting threads
// would cost a small launch more than running it.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace ptx_simulator {

class HostThreads {
 public:
  // Never destroyed: its threads sleep until the process ends.
  static HostThreads& instance();

  // Runs `work` on this thread, and on up to `helpers` others that find the time before it is done
  // here. Returns when all that began have ended. May be called from several threads at once.
  void run(int helpers, const std::function<void()>& work);

 private:
  struct Job {
    const std::function<void()>* work;
    int wanted;   // helpers that may still join
    int running;  // helpers
  };
  void sleep_and_work();

  std::mutex mutex_;
  std::condition_variable posted_;
  std::condition_variable left_;  // a helper has left its job
  std::deque<Job*> jobs_;         // that want helpers
  int threads_ = 0;
};

}  // namespace ptx_simulator
