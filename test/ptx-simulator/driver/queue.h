// Streams at work. Every stream has a worker, a host thread that does its tasks in order; a task
// waits for those that it comes after, whatever their streams. So work is asynchronous to the host,
// and work of different streams runs at the same time.
//
// A GPU that has much to do starts late, and a fast test machine hardly ever does: so a task that
// nobody waits for yet is sometimes, by seed, delayed. It starts at once when somebody synchronises
// with it, or with what depends on it: correct programs lose little time, and programs that forgot
// to synchronise see what was there before.
#pragma once

#include "driver/driver.h"

namespace ptx_simulator::driver {

std::shared_ptr<Stream> make_stream(Driver& state, std::shared_ptr<Context> context, unsigned flags,
                                    int priority);

struct TaskOptions {
  std::vector<std::shared_ptr<Task>> after;
  bool always = false;
  bool wanted = false;
};
// Appends a task to a stream, behind what the rules of the legacy default stream demand.
std::shared_ptr<Task> submit(Driver& state, Stream& stream, std::function<void()> body,
                             TaskOptions options = {});
// Waits for a task and all before it; null is done. Gives the lock back meanwhile.
void wait_for(Driver& state, Lock& lock, const std::shared_ptr<Task>& task);
// No delay any more for the task and all before it.
void want(Driver& state, const std::shared_ptr<Task>& task);
// Waits for everything that was submitted to streams of the context.
void wait_for_all(Driver& state, Lock& lock, const std::shared_ptr<Context>& context);
// Streams of the context, default streams included.
std::vector<std::shared_ptr<Stream>> streams_of(Driver& state,
                                                const std::shared_ptr<Context>& context);
// No task may be submitted any more; the worker ends after the last one.
void close(Driver& state, Stream& stream);

// A repeatable random number for the n-th thing of a kind.
uint64_t random_by_seed(uint64_t seed, uint64_t kind, uint64_t n);

}  // namespace ptx_simulator::driver
